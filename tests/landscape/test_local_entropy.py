"""Local entropy: closed forms, quadrature, coverage of its errors, and its gradient."""

import math

import numpy as np
import pytest
import torch
from gaussian import Gaussian, spread_out
from models import objective
from scipy.integrate import quad
from torch import nn

from widevalley.landscape import Estimate, Objective, local_entropy, local_entropy_gradient
from widevalley.landscape.convergence import Mean
from widevalley.landscape.thermodynamic import path_rule, quadrature_error

SAMPLED = ["thermodynamic", "annealed"]


def agrees(found, landscape, errors=4.0):
    share = max(1.0, abs(landscape.phi))
    assert abs(found.value - landscape.local_entropy) <= errors * found.standard_error
    assert found.standard_error < 0.01 * share
    assert found.diagnostics["phi"] - found.value == pytest.approx(landscape.phi - landscape.local_entropy)


@pytest.mark.parametrize("method", SAMPLED)
@pytest.mark.parametrize(
    ("curvatures", "beta"),
    [
        ([1.0], 1.0),
        ([0.5, -0.02], 2.0),
        (spread_out(10, 5.0), 1.0),
        (spread_out(50, 1.0), 1.0),
        (spread_out(100, 1.0), 2.0),
    ],
    ids=["1", "2, one negative", "10", "50", "100"],
)
def test_gaussian_landscapes_have_their_closed_form(curvatures, beta: float, method: str) -> None:
    landscape = Gaussian(curvatures, gamma=0.1, beta=beta)
    found = local_entropy(landscape.objective, 0.1, beta, method, tolerance=0.008)
    agrees(found, landscape)
    share = 0.1 * abs(landscape.classical_entropy) + 0.3
    assert abs(found.diagnostics["classical_entropy"] - landscape.classical_entropy) < share
    radius = math.sqrt(landscape.squared_radius)
    assert found.diagnostics["rms_radius"] == pytest.approx(radius, rel=0.15)
    assert found.diagnostics["relative_radius"] == pytest.approx(radius / float(landscape.x.norm()), rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "seeds"), [("thermodynamic", 40), ("annealed", 10)])
def test_errors_cover_what_they_say(method: str, seeds: int) -> None:
    scores, shares = [], []
    for seed in range(seeds):
        landscape = Gaussian(spread_out(50, 1.0, seed=seed), gamma=0.1, seed=seed)
        found = local_entropy(landscape.objective, 0.1, method=method, seed=seed)
        difference = found.value - landscape.local_entropy
        scores.append(abs(difference) / found.standard_error)
        shares.append(abs(difference) / max(1.0, abs(landscape.phi)))
    inside = np.mean(np.array(scores) < 1.96)
    # Four standard deviations of a binomial below 0.95.
    assert inside > 0.95 - 4 * math.sqrt(0.95 * 0.05 / seeds)
    assert max(scores) < 6
    assert np.median(shares) < 0.01
    # Errors that are merely large would cover too.
    assert np.sqrt(np.mean(np.square(scores))) > 0.6


def test_the_rule_is_exact_where_the_mean_loss_is_a_sum_of_poles() -> None:
    """∫ Σ ½/(b + γ/h) db = ½ Σ log(1 + h/γ), curvatures over five decades."""
    ratios = 10 ** np.linspace(0, 5, 50)
    b, weights = path_rule(3e-5)
    means = np.array([(0.5 / (at + 1 / ratios)).sum() for at in b])
    exact = 0.5 * np.log1p(ratios).sum()
    assert weights @ means == pytest.approx(exact, rel=2e-5)
    assert (weights.sum(), b[-1]) == pytest.approx((1.0, 1.0))


def test_the_error_of_the_rule_is_seen_and_noise_is_not_taken_for_it() -> None:
    def error(b, weights, function, noise, scale):
        """With the variance that has to be: −d⟨f⟩/db at β = 1."""
        values = function(b) + noise * np.random.default_rng(0).normal(size=len(b))
        variances = (function(b - 1e-6) - function(b + 1e-6)) / 2e-6
        means = [Mean(v, noise, variance, 1.0, 1.0) for v, variance in zip(values, variances, strict=True)]
        return quadrature_error(b, weights, means, scale, 1.0)

    ratios = 10 ** np.linspace(0, 3, 50)

    def poles(b):
        return (0.5 / (np.asarray(b)[:, None] + 1 / ratios)).sum(axis=1)

    for nodes, least, most in ((3, 0.3, math.inf), (10, 0.0, 1e-2)):
        b, weights = path_rule(3e-3, nodes)
        actual = abs(weights @ poles(b) - 0.5 * np.log1p(ratios).sum())
        assert max(least * actual, least) <= error(b, weights, poles, 1e-2, 3e-3) <= most

    b, weights = path_rule(0.1)
    assert error(b, weights, lambda t: 1 / (t + 0.3), 1e-2, 0.1) < 1e-3

    def drop(t):
        """A mean loss that falls at one b, as where one valley takes over from another."""
        return 1 / (1 + np.exp(60 * (t - 0.4)))

    missed = abs(weights @ drop(b) - quad(drop, 0, 1, points=[0.4])[0])
    assert error(b, weights, drop, 1e-4, 0.1) > missed > 1e-3


# ---------------------------------------------------------------------- not Gaussian


class Landscape(nn.Module):
    def __init__(self, function, start):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))
        self.function = function

    def forward(self, _):
        return self.function(self.w)


def landscape(function, start):
    return Objective(Landscape(function, start), lambda m, b: m(b), [torch.zeros(1, 1)])


def two_valleys(w):
    """Fig. 2 of Chaudhari et al.: a wide valley at −1, a deeper, sharp one at 1."""
    return 1 - 0.8 * torch.exp(-2 * (w[0] + 1) ** 2) - torch.exp(-200 * (w[0] - 1) ** 2)


def skewed(w):
    return torch.exp(w[0]) - w[0]


def wells(w):
    return (w[0] ** 2 - 1) ** 2


def integral(function, x, gamma, beta, power=0):
    """∫ t^power exp(−βf − βγ/2 (t − x)²) dt."""

    def density(t):
        return t**power * math.exp(-beta * float(function(torch.tensor([t]))) - beta * gamma / 2 * (t - x) ** 2)

    reach = 12 / math.sqrt(beta * gamma)
    return quad(density, x - reach, x + reach, points=[-1.0, 0.0, 1.0], limit=500)[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", SAMPLED)
@pytest.mark.parametrize(
    ("function", "x", "gamma", "beta"),
    [
        (two_valleys, 1.0, 1.0, 1.0),
        (skewed, 0.0, 1.0, 1.0),
        (wells, 0.3, 0.5, 2.0),
    ],
    ids=["two valleys", "skewed", "wells"],
)
def test_other_landscapes_have_what_quadrature_gives(function, x, gamma, beta, method: str) -> None:
    measured = landscape(function, [x])
    exact = math.log(integral(function, x, gamma, beta))
    found = local_entropy(measured, gamma, beta, method, tolerance=0.008)
    assert abs(found.value - exact) < 4 * found.standard_error
    assert found.standard_error < 0.02
    mean = integral(function, x, gamma, beta, power=1) / math.exp(exact)
    slope = local_entropy_gradient(measured, gamma, beta)
    assert abs(slope.vector.item() + gamma * (x - mean)) < 4 * slope.standard_error.item()


def test_the_wide_valley_has_the_larger_local_entropy() -> None:
    """Though the sharp one is deeper: what Fig. 2 is about."""
    wide, sharp = (local_entropy(landscape(two_valleys, [x]), 1.0, 4.0, tolerance=0.02) for x in (-1.0, 1.0))
    assert wide.value - sharp.value > 4 * math.hypot(wide.standard_error, sharp.standard_error)


def test_two_methods_agree_on_a_network_and_laplace_where_it_is_nearly_quadratic() -> None:
    measured = objective()
    first, second = (local_entropy(measured, 0.5, 30.0, method, tolerance=0.01) for method in SAMPLED)
    assert abs(first.value - second.value) < 4 * math.hypot(first.standard_error, second.standard_error)
    assert first.diagnostics["rms_radius"] == pytest.approx(second.diagnostics["rms_radius"], rel=0.1)
    # Close by, the third order is no more.
    close = [local_entropy(measured, 200.0, 1000.0, method) for method in ("thermodynamic", "laplace")]
    assert abs(close[0].value - close[1].value) < 4 * close[0].standard_error + 1e-3 * abs(close[0].diagnostics["phi"])


# ---------------------------------------------------------------------- Laplace


def test_laplace_is_exact_on_gaussian_landscapes() -> None:
    gaussian = Gaussian([*spread_out(12, 5.0), -0.05], gamma=0.1, beta=3.0)
    found = local_entropy(gaussian.objective, 0.1, 3.0, "laplace")
    assert found.standard_error is None
    assert found.value == pytest.approx(gaussian.local_entropy, rel=1e-10)
    assert found.diagnostics["phi"] == pytest.approx(gaussian.phi, rel=1e-10)
    assert found.diagnostics["classical_entropy"] == pytest.approx(gaussian.classical_entropy, rel=1e-10)
    assert found.diagnostics["rms_radius"] == pytest.approx(math.sqrt(gaussian.squared_radius), rel=1e-10)


def test_laplace_of_many_parameters_has_the_error_of_its_log_determinant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("widevalley.landscape.laplace.MOST_PARAMETERS", 5)
    gaussian = Gaussian(spread_out(900, 5.0), gamma=0.1, beta=3.0)
    found = local_entropy(gaussian.objective, 0.1, 3.0, "laplace", seed=1)
    assert 0 < found.standard_error < 0.01 * abs(gaussian.phi)
    assert abs(found.value - gaussian.local_entropy) < 4 * found.standard_error
    assert found.value - found.diagnostics["phi"] == pytest.approx(gaussian.local_entropy - gaussian.phi)
    indefinite = Gaussian([-1.0] * 12, gamma=0.1)
    with pytest.raises(ValueError, match="not positive definite"):
        local_entropy(indefinite.objective, 0.1, 1.0, "laplace")
    # One that the search for λ_min overlooked.
    monkeypatch.setattr("widevalley.landscape.laplace.log_determinant", lambda *_, **__: Estimate(0.0))
    with pytest.raises(ValueError, match=r"not positive definite \(a direction of curvature -"):
        local_entropy(indefinite.objective, 0.1, 1.0, "laplace")


# ---------------------------------------------------------------------- gradient


@pytest.mark.parametrize(("n", "beta", "chains"), [(1, 1.0, None), (8, 3.0, None), (8, 3.0, 6)])
def test_the_gradient_is_the_closed_form(n: int, beta: float, chains: int | None) -> None:
    gaussian = Gaussian(spread_out(n, 2.0), gamma=0.5, beta=beta)
    found = local_entropy_gradient(gaussian.objective, 0.5, beta, chains=chains)
    expected = -0.5 * (gaussian.x - gaussian.mean)
    assert ((found.vector - expected).abs() < 5 * found.standard_error).all()
    # No larger than the draws, most of them independent, make it: 256 chains of 16, or 6 of 171.
    independent = 0.5 * gaussian.covariance.diagonal().sqrt() / math.sqrt(4096 if chains is None else 1026)
    assert (found.standard_error > 0.4 * independent).all()
    assert (found.standard_error < 3 * independent).all()


def test_the_gradient_is_the_slope_of_the_local_entropy_over_beta() -> None:
    """Differences of F in the closed form, which does not share the sampler."""
    beta, gamma, step = 3.0, 0.5, 1e-4
    gaussian = Gaussian(spread_out(5, 2.0), gamma=gamma, beta=beta)

    def entropy(x):
        precision = gaussian.hessian + gamma * torch.eye(5, dtype=torch.float64)
        return float(-beta * gamma / 2 * x @ gaussian.hessian @ torch.linalg.solve(precision, x))

    unit = torch.eye(5, dtype=torch.float64)
    slope = torch.tensor([(entropy(gaussian.x + step * e) - entropy(gaussian.x - step * e)) / (2 * step) for e in unit])
    found = local_entropy_gradient(gaussian.objective, gamma, beta)
    assert ((found.vector - slope / beta).abs() < 5 * found.standard_error).all()


def test_bad_arguments_are_refused() -> None:
    measured = objective()
    for changes, says in [
        ({"gamma": 0.0}, "gamma=0.0 is out of range"),
        ({"inverse_temperature": 0.0}, "inverse_temperature=0.0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"method": "harmonic"}, "method='harmonic' is unknown"),
    ]:
        with pytest.raises(ValueError, match=says):
            local_entropy(measured, **{"gamma": 1.0, **changes})
    indefinite = Gaussian([1.0, -0.2], gamma=0.1)
    with pytest.raises(ValueError, match=r"not positive definite .*λ_min = -0.2 .* above 0.2"):
        local_entropy(indefinite.objective, 0.1, method="laplace")
    with pytest.raises(ValueError, match="draws=0"):
        local_entropy_gradient(measured, 1.0, draws=0)


def test_progress_is_told_up_to_the_end() -> None:
    for method in SAMPLED:
        seen: list[float] = []
        gaussian = Gaussian([1.0], gamma=1.0)
        local_entropy(gaussian.objective, 1.0, 1.0, method, progress=lambda what, done, seen=seen: seen.append(done))
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
