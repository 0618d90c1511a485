"""Stochastic Lanczos quadrature: exact at full rank, its errors, and closed forms."""

import math

import models
import pytest
import torch
from test_lanczos import symmetric

from widevalley.landscape import Density, Objective, hessian_vector_product, spectral_density, trace
from widevalley.landscape.directions import direction_generator

VALUES = torch.cat([torch.linspace(5, 40, 4), torch.linspace(0, 0.5, 144), torch.tensor([-0.4, -0.2])]).double()


@pytest.mark.parametrize("objective", [models.objective(), models.quadratic(symmetric(torch.linspace(-1, 3, 39)))])
def test_quadrature_is_exact_at_full_rank(objective) -> None:
    """Σ w g(θ) is zᵀ g(H) z for the probe's own z, any g; where no eigenvalue repeats, the nodes are all of them."""
    distinct = isinstance(objective.model, models.Quadratic)
    matrix = objective.model.matrix if distinct else models.dense(objective)
    found = spectral_density(objective, probes=3, steps=100, seed=4)
    assert found.nodes.shape == found.weights.shape == (3, 39)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(3, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(matrix)
    generator = direction_generator(4)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        z = torch.randn(39, generator=generator, dtype=torch.float64)
        mass = (vectors.T @ z).square() / z.square().sum()
        for g in (torch.exp, torch.abs, lambda x: torch.cos(30 * x)):
            torch.testing.assert_close(weights @ g(nodes), mass @ g(values), rtol=1e-9, atol=1e-12)
        if distinct:
            torch.testing.assert_close(nodes, values, rtol=0, atol=1e-12)
            torch.testing.assert_close(weights, mass, rtol=1e-6, atol=1e-12)
    # Of the network's eigenvalues at least four are 0: the logits may be shifted together.
    assert found.diagnostics["products"] == 3 * 39 if distinct else found.diagnostics["products"] < 3 * 39


def test_few_steps_are_exact_for_the_low_moments_of_each_probe() -> None:
    matrix = symmetric(VALUES)
    found = spectral_density(models.quadratic(matrix), probes=2, steps=5, seed=1)
    generator = direction_generator(1)
    for nodes, weights in zip(found.nodes, found.weights, strict=True):
        z = torch.randn(150, generator=generator, dtype=torch.float64)
        z /= z.norm()
        power = z
        for degree in range(10):
            assert weights @ nodes**degree == pytest.approx(float(z @ power), rel=1e-9)
            power = matrix @ power
    assert found.diagnostics["products"] == 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_directions_do_not_lean_on_weights_of_the_same_seed(seed) -> None:
    """Made from the same bits they have a cosine of −0.34, a square of 0.12; independent ones 1/1000."""
    torch.manual_seed(seed)
    weights = torch.nn.Linear(40, 25).weight.detach().flatten()
    unit = weights / weights.norm()
    found = spectral_density(models.quadratic(torch.outer(unit, unit)), probes=2, steps=1, seed=seed)
    squares = (found.nodes * found.weights).sum(1)
    assert squares.max() < 16 / 1000


@pytest.mark.slow
def test_shares_and_the_smoothed_density_within_their_errors() -> None:
    """In the bulk; the weight of a lone eigenvalue is the square of a Gaussian, and few probes have skewed errors."""
    objective = models.quadratic(symmetric(VALUES))
    grid = torch.tensor([-0.3, 0.0, 0.2, 0.5], dtype=torch.float64)
    width = 0.2
    exact = torch.exp(-((grid[:, None] - VALUES) ** 2) / (2 * width**2)).mean(1) / (width * math.sqrt(2 * math.pi))
    covered, apart = [], []
    for seed in range(25):
        found = spectral_density(objective, steps=20, seed=seed)
        for low, high in ((-math.inf, 0.2), (0.3, math.inf), (-0.1, 1)):
            share = found.share(low, high)
            truth = float(((low <= VALUES) & (high >= VALUES)).double().mean())
            assert abs(share.value - truth) < 4.5 * share.standard_error + share.diagnostics["quadrature"]
        blur = float(found.nodes.max() - found.nodes.min()) / 20
        t = torch.linspace(-1, 41, 85, dtype=torch.float64)[:, None]
        each = torch.special.ndtr((t - found.nodes.reshape(1, -1)) / blur) @ found.weights.flatten() / 10
        furthest = float((each - torch.special.ndtr((t - VALUES) / blur).mean(1)).abs().max())
        assert furthest < 5.7 * found.standard_error
        apart.append(furthest / found.standard_error)
        values, errors = found.smoothed(grid, width)
        # Student's t with 9 degrees of freedom: 4 standard errors of the mean of ten probes are 5.7 here.
        assert ((values - exact).abs() < 5.7 * errors).all()
        covered.append(((values - exact).abs() < 1.96 * errors).double())
    assert 0.82 < torch.stack(covered).mean() < 0.99
    assert 0.3 < sum(apart) / len(apart) < 2


def test_the_first_moment_is_unbiased_and_its_error_covers() -> None:
    """Over 200 seeds; ten probes have Student's t with 9 degrees of freedom: 92 % within 1.96."""
    values = torch.linspace(-1, 2, 60, dtype=torch.float64)
    objective = models.quadratic(symmetric(values))
    scores = []
    for seed in range(200):
        found = spectral_density(objective, steps=1, seed=seed).moment(1)
        scores.append((found.value - float(values.mean())) / found.standard_error)
    scores = torch.tensor(scores)
    # 184 expected, standard deviation 3.8.
    assert 169 <= (scores.abs() < 1.96).sum() <= 199
    assert abs(scores.mean()) < 4 * scores.std() / math.sqrt(200)


def test_the_standard_error_is_that_of_the_distribution_function() -> None:
    found = Density(
        torch.tensor([[0.0, 1.0], [0.0, 2.0]]).double(), torch.tensor([[0.5, 0.5], [0.9, 0.1]]).double(), n=10
    )

    # The width is 2/2; a pair a, b has standard error |a − b|/2, and the largest is at one of the nodes 0, 1, 2.
    def share(t, nodes, weights):
        return sum(w * (1 + math.erf((t - x) / math.sqrt(2))) / 2 for x, w in zip(nodes, weights, strict=True))

    apart = [abs(share(t, (0, 1), (0.5, 0.5)) - share(t, (0, 2), (0.9, 0.1))) / 2 for t in (0, 1, 2)]
    assert found.standard_error == pytest.approx(max(apart))
    assert Density(torch.zeros(2, 1), torch.ones(2, 1), n=1).standard_error == 0
    assert found.share(high=1.0).value == pytest.approx(0.95)
    assert found.share(high=1.0).standard_error == pytest.approx(0.05)
    assert found.share(0.5).value == pytest.approx(0.3)
    assert found.share(high=0.5).diagnostics["quadrature"] == pytest.approx((0.5 + 0.9) / 2)
    assert found.share(-0.5, 0.5).diagnostics["quadrature"] == pytest.approx((0.5 + 0.9) / 2)
    assert found.share().diagnostics["quadrature"] == 0
    values, _ = found.smoothed(torch.linspace(-5, 7, 2001, dtype=torch.float64), 0.5)
    assert float(values.sum()) * 12 / 2000 == pytest.approx(1.0, rel=1e-6)


def test_a_share_is_bracketed_by_the_points_beside_its_threshold() -> None:
    """Chebyshev, Markov and Stieltjes: for each probe, with the true distribution in its direction."""
    values, vectors = torch.linalg.eigh(symmetric(VALUES))
    objective = models.quadratic(symmetric(VALUES))
    for seed in range(10):
        found = spectral_density(objective, probes=2, steps=12, seed=seed)
        generator = direction_generator(seed)
        mass = (vectors.T @ torch.randn(150, generator=generator, dtype=torch.float64)).square()
        mass /= mass.sum()
        one = Density(found.nodes[:1], found.weights[:1], 150)
        for threshold in (-0.3, 0.0, 0.1, 0.3, 0.45, 10.0, 39.0):
            share = float((found.weights[0] * (found.nodes[0] <= threshold)).sum())
            truth = float(mass[values <= threshold].sum())
            assert abs(share - truth) <= one._next_to(threshold) + 1e-12


def convolutional():
    """A small network trained on random images."""
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 16, 26), nn.ReLU(), nn.Linear(26, 10),
    )  # fmt: skip
    inputs, targets = torch.randn(40, 1, 14, 14), torch.arange(40) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return Objective(model, data=[(inputs[:25], targets[:25]), (inputs[25:], targets[25:])])


@pytest.mark.slow
def test_four_probes_of_a_convolutional_network_agree_with_trace_estimates() -> None:
    """One χ² test of the first two moments: n · moment 1 against tr H, moment 1 of the square against tr H²."""
    objective = convolutional()
    found = spectral_density(objective, probes=4, steps=60, seed=1)
    assert found.diagnostics["products"] <= 4 * 100
    first, second = found.moment(1), found.moment(2)
    hutch = trace(objective, products=90, seed=2)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(24, objective.n, generator=generator)
    squares = hessian_vector_product(objective, drawn).double().square().sum(1) / objective.n
    pairs = [
        (first.value, first.standard_error, hutch.value / objective.n, hutch.standard_error / objective.n),
        (second.value, second.standard_error, float(squares.mean()), float(squares.std()) / math.sqrt(24)),
    ]
    chi = sum((a - b) ** 2 / (s**2 + t**2) for a, s, b, t in pairs)
    # Two degrees of freedom: exp(−χ²/2) > 6e-5, four standard errors of a Gaussian.
    assert math.exp(-chi / 2) > 6e-5
    # It would see a bias of a tenth.
    assert hutch.standard_error / hutch.value < 0.05


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(ValueError, match=r"probes=1 .*>= 2"):
        spectral_density(models.objective(), probes=1)
    with pytest.raises(ValueError, match="steps=0"):
        spectral_density(models.objective(), steps=0)
    found = spectral_density(models.objective(), probes=2, steps=3)
    with pytest.raises(ValueError, match="low <= high"):
        found.share(1.0, 0.0)
    with pytest.raises(ValueError, match="width=0"):
        found.smoothed(torch.zeros(1), 0)
    with pytest.raises(ValueError, match="power=-1"):
        found.moment(-1)
