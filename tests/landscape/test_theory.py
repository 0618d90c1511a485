"""The theory's numbers against quadrature, dense algebra, and the page of facts."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from widevalley.landscape.theory import (
    convex_minimizer_shift,
    printed_stability_ratio,
    smoothed_eigenvalues,
    smoothing_factor,
    stability,
    stability_ratio,
)


def minus_local_entropy(f, x: float, gamma: float) -> float:
    return -math.log(
        quad(lambda y: math.exp(-f(y) - gamma / 2 * (x - y) ** 2), -40, 40, points=[x], epsabs=1e-13, limit=200)[0]
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("eigenvalue", [-0.4, 0.0, 0.3, 5.0])
def test_the_smoothed_curvature_is_that_of_the_integral(gamma, eigenvalue) -> None:
    """A second difference of −F, which is quadratic, has no error but rounding."""
    step = 0.5
    values = [minus_local_entropy(lambda y: eigenvalue * y**2 / 2, x, gamma) for x in (0.3 - step, 0.3, 0.3 + step)]
    curvature = (values[0] - 2 * values[1] + values[2]) / step**2
    (found,) = smoothed_eigenvalues([eigenvalue], gamma)
    assert found == pytest.approx(curvature, abs=1e-7)


def test_lemma_2_bounds_slope_and_curvature_on_a_quadratic() -> None:
    """−∇F = γ(γ + H)⁻¹∇f: no longer than k times ∇f, its Hessian at most kβ; k is reached as λ → c."""
    rng = np.random.default_rng(0)
    gamma, c = 0.7, 0.2
    eigenvalues = c + rng.exponential(size=20)
    k = smoothing_factor(eigenvalues, gamma, c)
    assert k == 1 / (1 + c / gamma)
    assert smoothed_eigenvalues(eigenvalues, gamma).max() <= k * eigenvalues.max()
    for slope in rng.normal(size=(10, 20)):
        smoothed = gamma / (gamma + eigenvalues) * slope
        assert np.linalg.norm(smoothed) <= k * np.linalg.norm(slope)
    (near,) = smoothed_eigenvalues([c + 1e-9], gamma)
    assert near / (c + 1e-9) == pytest.approx(k)


@pytest.mark.parametrize(
    ("eigenvalues", "said"),
    [([1.0, 0.1], "excludes"), ([1.0, 0.2], "excludes"), ([-0.5, 1.0], "excludes"), ([3.0, -9.0], "infinite")],
)
def test_lemma_2_refuses_what_it_excludes(eigenvalues, said) -> None:
    with pytest.raises(ValueError, match=said):
        smoothing_factor(eigenvalues, 1.0, 0.2)


def test_local_entropy_is_infinite_below_minus_gamma() -> None:
    with pytest.raises(ValueError, match="-1"):
        smoothed_eigenvalues([2.0, -1.0], 1.0)


def test_equation_10_as_derived_and_as_printed() -> None:
    """The numbers of the page of facts, and the derivation itself: a ratio of two bounds of Theorem 3."""
    alpha, beta, iterations, k = 2.0, 3.0, 1000.0, 0.5
    assert stability_ratio(alpha, beta, iterations, k) == pytest.approx(0.298, abs=5e-4)
    assert printed_stability_ratio(alpha, beta, iterations, k) == pytest.approx(9e-5, rel=0.01)
    for rho in (0.0, 0.2):
        kappa = rho + k
        bounds = stability(kappa * alpha, kappa * beta, iterations, 50), stability(alpha, beta, iterations, 50)
        assert stability_ratio(alpha, beta, iterations, k, rho) == pytest.approx(bounds[0] / bounds[1], rel=1e-12)
        assert printed_stability_ratio(alpha, beta, iterations, k, rho) == pytest.approx(
            (alpha / iterations) ** ((1 - rho - k) * beta), rel=1e-12
        )


@pytest.mark.parametrize("ratio", [stability_ratio, printed_stability_ratio])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iterations": 2.0}, "iterations"),
        ({"k": 1.0}, "k="),
        ({"rho": 0.5}, r"rho \+ k"),
        ({"rho": -0.1}, "rho"),
        ({"lipschitz": 0.0}, "lipschitz"),
        ({"smoothness": -1.0}, "smoothness"),
    ],
)
def test_equation_10_refuses_what_it_does_not_claim(ratio, changes, said) -> None:
    with pytest.raises(ValueError, match=said):
        ratio(**({"lipschitz": 2.0, "smoothness": 3.0, "iterations": 1000.0, "k": 0.5} | changes))


def skewed(x: float) -> float:
    return math.exp(x) - x


def test_the_counter_example_to_the_convex_aside() -> None:
    assert convex_minimizer_shift(skewed, 0.0, 1.0) == pytest.approx(-0.245, abs=5e-4)


def test_a_smooth_and_strongly_convex_counter_example() -> None:
    """f″ lies in [½, 3/2], as Sec. 4.4 assumes."""

    def bent(x: float) -> float:
        return x**2 / 4 + 4 * math.log1p(math.exp(x - 2))

    minimizer = brentq(lambda x: x / 2 + 4 / (1 + math.exp(2 - x)), -1.0, 0.0, xtol=1e-12)
    assert convex_minimizer_shift(bent, minimizer, 1.0) == pytest.approx(-0.0803, abs=5e-5)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 20.0])
def test_the_shift_is_where_the_integral_is_lowest(gamma) -> None:
    shift = convex_minimizer_shift(skewed, 0.0, gamma)
    lowest = minus_local_entropy(skewed, shift, gamma)
    assert shift < 0
    for step in (-1e-3, 1e-3):
        assert minus_local_entropy(skewed, shift + step, gamma) > lowest


@pytest.mark.parametrize("gamma", [0.1, 1.0, 100.0])
@pytest.mark.parametrize(
    "f",
    [lambda x: (x - 2) ** 2, lambda x: math.cosh(x - 2), lambda x: (x - 2) ** 4, lambda x: 50 * abs(x - 2)],
    ids=["parabola", "cosh", "quartic", "a kink"],
)
def test_a_symmetric_convex_loss_keeps_its_minimizer(f, gamma) -> None:
    assert convex_minimizer_shift(f, 2.0, gamma) == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize(
    ("f", "minimizer", "said"),
    [(lambda x: (x**2 - 1) ** 2, 1.0, "not convex"), (skewed, 0.5, "lower at"), (math.cos, math.pi, "not convex")],
)
def test_the_aside_needs_a_convex_loss_and_its_minimizer(f, minimizer, said) -> None:
    with pytest.raises(ValueError, match=said):
        convex_minimizer_shift(f, minimizer, 1.0)
