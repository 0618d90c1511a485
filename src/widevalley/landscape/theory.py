"""The paper's theory (Sec. 4.4) as functions that check its assumptions, and what it says beyond them.

F(x) = log ∫ exp(−f(x′) − γ/2 ‖x − x′‖²) dx′ is the local entropy at inverse temperature 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar

from widevalley.validation import real


def smoothed_eigenvalues(eigenvalues: Iterable[float], gamma: float) -> NDArray[np.float64]:
    """Eigenvalues of the Hessian of −F for a quadratic f with these: γλ/(γ + λ), exactly.

    Raises ValueError where λ ≤ −γ: there the integral of F is infinite.
    """
    real("gamma", gamma, above=0.0)
    found = np.fromiter(eigenvalues, dtype=np.float64)
    if not (found > -gamma).all():
        raise ValueError(
            f"the eigenvalue {found.min():g} is not above -gamma = {-gamma:g}: local entropy is infinite, take a "
            "larger gamma"
        )
    return gamma * found / (gamma + found)


def smoothing_factor(eigenvalues: Iterable[float], gamma: float, c: float) -> float:
    """Lemma 2: k = 1/(1 + c/γ), where f is quadratic and all its eigenvalues λ > c > 0.

    Where f is α-Lipschitz and β-smooth, −F is kα-Lipschitz and kβ-smooth, and ρf − F has ρ + k in place of k: on a
    quadratic −∇F(x) = γ(γ + H)⁻¹∇f(x), and γ/(γ + λ) < k.

    Elsewhere it is not proved: the proof drops how A(x) = (I + ∇²f(x)/γ)⁻¹ varies with x. It excludes eigenvalues in
    [−2γ − c, c], where most of a network's lie (Fig. 1), and allows λ < −2γ − c, where F of a quadratic is infinite.

    Raises ValueError where an assumption fails.
    """
    real("gamma", gamma, above=0.0)
    real("c", c, above=0.0)
    found = np.fromiter(eigenvalues, dtype=np.float64)
    outside = found[~(found > c)]
    if len(outside):
        why = "local entropy is infinite" if outside.min() <= -gamma else "the lemma excludes [-2 gamma - c, c]"
        raise ValueError(
            f"{len(outside)} of {len(found)} eigenvalues are not above c = {c:g}, such as {outside.min():g}: {why}; "
            "the factor does not hold in their directions"
        )
    return 1.0 / (1.0 + c / gamma)


def stability(lipschitz: float, smoothness: float, iterations: float, samples: float) -> float:
    """Theorem 3 (Hardt et al., arXiv:1509.01240), up to a constant: ε ≲ α^(1/(1+β)) T^(1−1/(1+β)) / N.

    For SGD with rates η_t ≤ 1/t on a loss in [0, 1] that is α-Lipschitz and β-smooth, T iterations on N samples.
    """
    real("lipschitz", lipschitz, above=0.0)
    real("smoothness", smoothness, above=0.0)
    real("iterations", iterations, minimum=1.0)
    real("samples", samples, minimum=1.0)
    power = 1.0 / (1.0 + smoothness)
    return float(lipschitz**power * iterations ** (1.0 - power) / samples)


def stability_ratio(lipschitz: float, smoothness: float, iterations: float, k: float, rho: float = 0.0) -> float:
    """ε of Entropy-SGD / ε of SGD, derived from Theorem 3 with κ = ρ + k in front of α and β::

        κ^(1/(1+κβ)) · (α/T)^((1−κ)β/((1+κβ)(1+β)))

    At α = 2, β = 3, T = 1000, k = ½ it is 0.298, where Eq. 10 as printed gives 9e-5.

    Args:
        lipschitz, smoothness: α and β of f.
        iterations: T of the outer loop.
        k: ``smoothing_factor``.
        rho: ρ.

    Raises ValueError unless T > α and ρ + k < 1: the paper claims an improvement only there.
    """
    kappa = _smoother(lipschitz, smoothness, iterations, k, rho)
    power = (1 - kappa) * smoothness / ((1 + kappa * smoothness) * (1 + smoothness))
    return float(kappa ** (1 / (1 + kappa * smoothness)) * (lipschitz / iterations) ** power)


def printed_stability_ratio(
    lipschitz: float, smoothness: float, iterations: float, k: float, rho: float = 0.0
) -> float:
    """Eq. 10 as printed, (α/T)^((1−ρ−k)β), which does not follow from Theorem 3: see ``stability_ratio``."""
    kappa = _smoother(lipschitz, smoothness, iterations, k, rho)
    return float((lipschitz / iterations) ** ((1 - kappa) * smoothness))


def convex_minimizer_shift(f: Callable[[float], float], minimizer: float, gamma: float) -> float:
    """argmin(−F) − argmin f for a convex f of one variable, by quadrature, to about 1e-8.

    The paper's aside has 0 for every convex f (end of Sec. 4.4). That holds if f is symmetric about its minimizer, but
    not for a skewed one: f = eˣ − x has its minimum at 0, and −F at γ = 1 its own at −0.245.

    −F is convex too (Prékopa), so its minimum is where x = ⟨x′⟩, the mean under exp(−f(x′) − γ/2 (x − x′)²).

    f is evaluated up to 10/√γ beyond the two minima.

    Raises ValueError if f is seen not to be convex, or ``minimizer`` not to be its minimum, on 201 points around it.
    """
    real("gamma", gamma, above=0.0)
    real("minimizer", minimizer)
    width = 10.0 / math.sqrt(gamma)  # exp(−50) of the Gaussian's peak is left out.
    _refuse_not_convex(f, minimizer, np.linspace(minimizer - width, minimizer + width, 201))

    def force(x: float) -> float:
        """x − ⟨x′⟩."""

        def energy(y: float) -> float:
            return f(y) + gamma / 2 * (x - y) ** 2

        # Between the two minima; the energy rises by at least γ/2 (y − mode)² beside it.
        ends = sorted((x, minimizer))
        mode = x if ends[0] == ends[1] else minimize_scalar(energy, bounds=ends, method="bounded").x
        lowest = energy(mode)

        def integral(power: int) -> float:
            def integrand(y: float) -> float:
                return float((y - mode) ** power * math.exp(lowest - energy(y)))

            return float(quad(integrand, mode - width, mode + width, points=[mode], epsabs=1e-12, limit=200)[0])

        return float(x - mode - integral(1) / integral(0))

    reach = 1.0 / math.sqrt(gamma)
    while force(minimizer - reach) > 0 or force(minimizer + reach) < 0:
        reach *= 2.0
    return float(brentq(force, minimizer - reach, minimizer + reach, xtol=1e-10) - minimizer)


def _smoother(lipschitz: float, smoothness: float, iterations: float, k: float, rho: float) -> float:
    """κ = ρ + k."""
    real("lipschitz", lipschitz, above=0.0)
    real("smoothness", smoothness, above=0.0)
    real("k", k, above=0.0, below=1.0)
    real("rho", rho, minimum=0.0)
    if not iterations > lipschitz:
        raise ValueError(
            f"iterations={iterations!r} is not above lipschitz={lipschitz!r}: the bound claims nothing then"
        )
    if rho + k >= 1:
        raise ValueError(f"rho + k = {rho + k:g} is not below 1: the objective is not smoother than f then")
    return rho + k


def _refuse_not_convex(f: Callable[[float], float], minimizer: float, points: NDArray[Any]) -> None:
    values = np.array([f(float(y)) for y in points])
    rounding = 1e-12 * (1.0 + np.abs(values))
    bends = values[:-2] - 2 * values[1:-1] + values[2:]
    below = np.flatnonzero(bends < -4 * np.maximum(rounding[:-2], rounding[2:]))
    if len(below):
        raise ValueError(f"f is not convex near {points[below[0] + 1]:g}: the aside is about convex losses only")
    if (values < f(minimizer) - rounding).any():
        raise ValueError(
            f"f is lower at {points[values.argmin()]:g} than at minimizer={minimizer:g}: give where f is lowest"
        )
