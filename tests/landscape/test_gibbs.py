"""The exact sampler: its law on Gaussian landscapes, and what its chains say of themselves."""

import math

import numpy as np
import pytest
import torch
from gaussian import Gaussian, spread_out
from models import data, network, objective
from torch import nn

from widevalley.landscape import ConvergenceWarning, Objective, local_entropy_gradient
from widevalley.landscape.convergence import chain_mean, warn_if_unmixed
from widevalley.landscape.gibbs import GibbsSampler
from widevalley.landscape.parallel import ParallelLoss

CHAINS = 64


def prepared(landscape, chains=CHAINS, path=(0.01, 0.1, 1.0)):
    sampler = GibbsSampler(landscape.objective, landscape.gamma, landscape.beta, chains=chains, seed=0)
    for b in path:
        sampler.warm_up(b)
    return sampler


@pytest.mark.parametrize(
    ("n", "largest", "beta", "chains"),
    [(1, 1.0, 1.0, CHAINS), (6, 10.0, 4.0, CHAINS), (20, 10.0, 1.0, CHAINS), (20, 0.5, 1.0, 4)],
    ids=["one dimension", "beta", "covariance", "without covariance"],
)
def test_draws_have_the_law_of_the_tilted_measure(n: int, largest: float, beta: float, chains: int) -> None:
    landscape = Gaussian(spread_out(n, largest), gamma=0.1, beta=beta)
    sampler = prepared(landscape, chains)
    total = torch.zeros(n, dtype=torch.float64)
    squares = torch.zeros(n, n, dtype=torch.float64)

    def observe(u):
        total.add_(u.sum(0))
        squares.add_(u.T @ u)

    draws = sampler.draw(2400 // chains, observe)
    loss = chain_mean(draws.loss)
    assert abs(loss.value - landscape.mean_loss) < 4 * loss.standard_error
    radius = chain_mean(draws.squared_radius)
    assert abs(radius.value - landscape.squared_radius) < 4 * radius.standard_error
    effective = min(loss.effective_sample_size, 2400)
    assert effective > 300
    deviation = landscape.covariance.diagonal().sqrt()
    mean = total / draws.loss.size
    assert ((landscape.x + mean - landscape.mean).abs() < 5 * deviation / math.sqrt(effective)).all()
    variance = (squares / draws.loss.size - torch.outer(mean, mean)).diagonal()
    assert ((variance / deviation**2 - 1).abs() < 5 * math.sqrt(2 / effective)).all()
    assert loss.variance == pytest.approx(landscape.loss_variance, rel=0.5)


def test_at_b_0_every_proposal_is_accepted() -> None:
    sampler = GibbsSampler(objective(), 0.5, chains=8, seed=0)
    assert sampler.draw(5).acceptance == pytest.approx(1.0, abs=1e-9)


def test_a_draw_changes_nothing_that_was_adapted_and_the_seed_decides_all() -> None:
    landscape = Gaussian(spread_out(5, 3.0), gamma=0.2)
    first, second = prepared(landscape), prepared(landscape)
    kernel = first.kernel
    one, two = first.draw(4), second.draw(4)
    assert first.kernel is kernel
    assert np.array_equal(one.loss, two.loss)
    state = first.state()
    again = first.draw(2)
    first.resume(state)
    assert first.positions is state.positions
    assert not np.array_equal(first.draw(2).loss, again.loss)


def test_the_model_and_the_random_state_are_left_alone() -> None:
    measured = objective()
    before, random = measured.vector(), torch.get_rng_state()
    GibbsSampler(measured, 1.0, chains=4, seed=0).warm_up(0.5)
    assert torch.equal(measured.vector(), before)
    assert torch.equal(torch.get_rng_state(), random)


def test_many_vectors_at_once_give_what_one_at_a_time_gives() -> None:
    measured = objective()
    loss = ParallelLoss(measured)
    assert loss.width > 1
    points = torch.randn(5, measured.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, slopes = loss(points)
    assert loss.gradients == 5
    for point, value, slope in zip(points, values, slopes, strict=True):
        with measured.at(point):
            expected = measured.value_and_gradient()
        assert float(value) == pytest.approx(expected[0], rel=1e-12)
        torch.testing.assert_close(slope, expected[1])


def test_models_that_cannot_be_vectorised_are_called_one_at_a_time() -> None:
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) if self.inner[0].weight.sum().item() > -1e9 else x

    loss = ParallelLoss(Objective(Branching(), data=data()))
    assert loss.width == 1
    points = torch.randn(3, objective().n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(loss(points), ParallelLoss(objective())(points))


def test_a_loss_that_reads_another_model_is_not_vectorised() -> None:
    """functional_call would leave it at its own parameters."""
    model = network()
    hidden = [model[0].weight]
    measured = Objective(
        model, lambda m, b: nn.functional.cross_entropy(m(b[0]), b[1]) + hidden[0].square().sum(), data()
    )
    assert ParallelLoss(measured).width == 1


# ---------------------------------------------------------------------- convergence


def chains_of(correlation, length=400, chains=8, seed=0, shift=0.0):
    """Autoregressive chains of variance 1; every other one shifted."""
    noise = np.random.default_rng(seed).normal(size=(length, chains))
    draws = np.empty_like(noise)
    draws[0] = noise[0]
    for t in range(1, length):
        draws[t] = correlation * draws[t - 1] + math.sqrt(1 - correlation**2) * noise[t]
    return draws + shift * (np.arange(chains) % 2)


@pytest.mark.parametrize("correlation", [-0.4, 0.0, 0.5, 0.9])
def test_effective_sample_size_is_that_of_an_autoregressive_chain(correlation: float) -> None:
    """N (1 − ρ)/(1 + ρ)."""
    found = [chain_mean(chains_of(correlation, seed=seed)) for seed in range(20)]
    ratio = np.mean([m.effective_sample_size for m in found]) / 3200 * (1 + correlation) / (1 - correlation)
    assert 0.85 < ratio < 1.15
    scores = np.array([m.value / m.standard_error for m in found])
    assert 0.6 < np.sqrt(np.mean(scores**2)) < 1.5
    assert max(m.r_hat for m in found) < 1.1


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_the_error_of_many_short_chains_is_that_of_their_means(correlation: float) -> None:
    """Too short for their correlation to be seen."""
    found = [chain_mean(chains_of(correlation, length=5, chains=256, seed=seed)) for seed in range(60)]
    scores = np.array([m.value / m.standard_error for m in found])
    # Four standard deviations of a root mean square of 60 normal scores.
    assert abs(np.sqrt(np.mean(scores**2)) - 1) < 4 / math.sqrt(2 * 60)


def test_chains_apart_are_warned_of() -> None:
    apart = chain_mean(chains_of(0.0, shift=3.0))
    assert apart.r_hat > 1.5
    assert apart.effective_sample_size < 50
    with pytest.warns(ConvergenceWarning, match="disagree in the valley: R-hat"):
        warn_if_unmixed(apart, 0.8, 400, "in the valley")
    together = chain_mean(chains_of(0.0))
    warn_if_unmixed(together, 0.8, 400, "in the valley")
    with pytest.warns(ConvergenceWarning, match="hardly move .*10%"):
        warn_if_unmixed(together, 0.1, 400, "in the valley")


def test_valleys_behind_a_barrier_give_a_warning() -> None:
    class Wells(nn.Module):
        """Two, at w₀ = ±2 of losses ∓1, and a barrier of 40 between them."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(6, dtype=torch.float64))

        def forward(self, _):
            return 40 * (self.w[0].square() / 4 - 1).square() - self.w[0] / 2 + self.w[1:].square().sum()

    measured = Objective(Wells(), lambda m, b: m(b), [torch.ones(1, 1)])
    with pytest.warns(ConvergenceWarning, match="chains disagree"):
        local_entropy_gradient(measured, 0.1, draws=64 * 64, chains=64)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"gamma": 0.0}, "gamma=0.0 is out of range"),
        ({"gamma": float("nan")}, "gamma=nan is out of range"),
        ({"inverse_temperature": -1.0}, "inverse_temperature=-1.0 is out of range"),
        ({"chains": 1}, "chains=1 is out of range"),
        ({"seed": -1}, "seed=-1 is out of range"),
    ],
)
def test_bad_arguments_are_refused(changes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        GibbsSampler(objective(), **{"gamma": 1.0, "chains": 4, "seed": 0, **changes})


def test_a_loss_that_is_not_finite_is_refused_and_too_few_draws() -> None:
    measured = Objective(network(), lambda m, b: m(b[0]).sum() * float("nan"), data())
    with pytest.raises(ValueError, match="loss is nan"):
        GibbsSampler(measured, 1.0, chains=4, seed=0)
    steep = Objective(network(), lambda m, b: m[0].weight.abs().sum().mul(50).exp(), data())
    with pytest.raises(ValueError, match="not finite at a distance of"):
        GibbsSampler(steep, 1e-6, chains=4, seed=0)
    with pytest.raises(ValueError, match="too few for an error"):
        chain_mean(np.zeros((1, 4)))
