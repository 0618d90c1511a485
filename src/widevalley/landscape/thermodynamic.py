"""Thermodynamic integration: a free energy from mean losses along the path of inverse temperatures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import nnls
from scipy.special import roots_jacobi

from widevalley.landscape.convergence import Mean, chain_mean, warn_if_unmixed
from widevalley.landscape.gibbs import Draws, GibbsSampler, Progress, State

Array = NDArray[np.float64]

# Points along the path; the test of the rule shows an error below 1e-5 of |Φ| for curvatures up to 10⁵ γ.
NODES = 10
# Draws at a point before the error is looked at: of all chains together, and of each; and how many times as many there
# may be in the end.
FIRST_DRAWS = 512
FEWEST_DRAWS, LOOPED_DRAWS = 4, 50
MOST_TIMES = 50.0


@dataclass(frozen=True)
class PathAverage:
    """Φ = log E exp(−βf) under the Gaussian, and means under the tilted measure itself."""

    phi: float
    standard_error: float
    mean_loss: float
    squared_radius: float
    diagnostics: Mapping[str, float]


def thermodynamic(sampler: GibbsSampler, tolerance: float, progress: Progress) -> PathAverage:
    """Φ = −β ∫₀¹ ⟨f⟩_b db; the chains go up the path, and then again from where they were at each point."""
    beta = sampler.beta
    scale = path_scale(sampler)
    b, weights = path_rule(scale)
    # Where each costs a call of its own, a first error from as few as show their correlation.
    count = max(FEWEST_DRAWS, math.ceil(FIRST_DRAWS / sampler.chains)) if sampler.loss.width > 1 else LOOPED_DRAWS
    draws: list[Draws] = []
    states: list[State] = []
    for k, at in enumerate(b):
        progress("first pass along the path", k / len(b) / 2)
        sampler.warm_up(float(at))
        draws.append(sampler.draw(count))
        states.append(sampler.state())
    means = [chain_mean(d.loss) for d in draws]
    phi, error = _integral(means, -beta * weights)
    times = min(MOST_TIMES, (1.1 * error / (tolerance * max(1.0, abs(phi)))) ** 2)
    if times > 1:
        for k, state in enumerate(states):
            progress("second pass along the path", (1 + k / len(b)) / 2)
            sampler.resume(state)
            draws[k] = draws[k] + sampler.draw(math.ceil((times - 1) * count))
        means = [chain_mean(d.loss) for d in draws]
        phi, error = _integral(means, -beta * weights)
    progress("done", 1.0)
    for at, mean, drawn in zip(b, means, draws, strict=True):
        warn_if_unmixed(mean, drawn.acceptance, len(drawn.loss), f"at b = {at:.3g} of the path")
    quadrature = beta * quadrature_error(b, weights, means, scale, beta)
    return PathAverage(
        phi,
        math.hypot(error, quadrature),
        # The last point is b = 1, the measure itself.
        means[-1].value,
        float(draws[-1].squared_radius.mean()),
        {
            "acceptance": min(d.acceptance for d in draws),
            "effective_sample_size": min(m.effective_sample_size for m in means),
            "r_hat": max(m.r_hat for m in means),
            "quadrature_error": quadrature,
        },
    )


def climb(sampler: GibbsSampler, progress: Progress) -> None:
    """Leads the chains from the Gaussian to b = 1 by warming up at the points of ``path_rule``."""
    b, _ = path_rule(path_scale(sampler))
    for k, at in enumerate(b):
        progress("warming up along the path", k / len(b) / 2)
        sampler.warm_up(float(at))


def path_scale(sampler: GibbsSampler) -> float:
    """c, at which ⟨f⟩_b begins to fall: from d⟨f⟩/db = −β var f at b = 0, by quantiles, as tails can be long."""
    losses = sampler.losses.cpu().numpy()
    low, middle, high = np.quantile(losses, [0.16, 0.5, 0.84])
    spread = (high - low) / 2
    drop = middle - min(sampler.loss.start, float(losses.min()))
    return float(np.clip(drop / (sampler.beta * spread**2), 1e-8, 10.0)) if spread > 0 else 10.0


def path_rule(scale: float, nodes: int = NODES) -> tuple[Array, Array]:
    """Points b and weights of ∫₀¹ g(b) db: Gauss-Radau in s with b = c (e^{κs} − 1), the last point b = 1.

    For quadratic f, ⟨f⟩_b is a sum of 1/(b + γ/h) over the curvatures h, and as a function of s analytic in a strip of
    width π/κ, κ = log(1 + 1/c): the error falls geometrically in the number of points.
    """
    roots, factors = roots_jacobi(nodes - 1, 1, 0)
    s = np.append((roots + 1) / 2, 1.0)
    weights = np.append(factors / (1 - roots) / 2, 1 / nodes**2)
    kappa = math.log1p(1 / scale)
    return scale * np.expm1(kappa * s), weights * scale * kappa * np.exp(kappa * s)


def quadrature_error(b: Array, weights: Array, means: Sequence[Mean], scale: float, beta: float) -> float:
    """What the rule makes of a sum of poles fitted to the means, against the integral of that sum.

    Quadratic landscapes have sums of 1/(b + t) and 1/(b + t)², and of −1/(t − b) and −1/(t − b)² for negative
    curvatures, with amounts ≥ 0. Where the means depart from them by more than their standard errors allow, what the
    rule makes of the rest is compared with the integral of a cubic spline through it. And where ⟨f⟩_b falls between two
    points by more than its slopes there, −β var f, let it, as where one valley takes over from another, it may fall
    anywhere between them.
    """
    values, errors, variances = (
        np.array([getattr(m, name) for m in means]) for name in ("value", "standard_error", "variance")
    )
    if not errors.max() > 0:
        return 0.0
    width = np.diff(b)
    slopes = beta * np.maximum(variances[1:], variances[:-1])
    # Noise alone is hardly ever four standard errors, nor the variances off by half.
    surplus = -np.diff(values) - 1.5 * width * slopes - 4 * np.hypot(errors[1:], errors[:-1])
    hidden = float(np.linalg.norm(np.maximum(surplus, 0.0) * width)) / math.sqrt(12)
    errors = np.maximum(errors, 1e-3 * errors.max())
    t = np.geomspace(scale / 5, 30 * max(1.0, scale), 24)
    u = np.geomspace(1.1, 30, 8)
    pole, negative = 1 / (b + t[:, None]), -1 / (u[:, None] - b)
    one = np.ones((1, len(b)))
    columns = np.concatenate([one, -one, pole, pole**2, negative, -(negative**2)])
    exact = np.concatenate([[1, -1], np.log1p(1 / t), 1 / (t * (1 + t)), np.log1p(-1 / u), -1 / (u * (u - 1))])
    size = np.abs(columns).max(axis=1)
    amounts = nnls((columns / size[:, None] / errors).T, values / errors)[0] / size
    rule = abs(float(amounts @ (columns @ weights - exact)))
    rest = values - amounts @ columns
    noise = (weights * errors) ** 2
    # Noise alone stays below two standard deviations of its square.
    if ((weights * rest) ** 2).sum() < noise.sum() + 2 * math.sqrt(2 * float(noise @ noise)):
        return math.hypot(rule, hidden)
    kappa = math.log1p(1 / scale)
    spline = CubicSpline(np.log1p(b / scale) / kappa, rest * kappa * (b + scale))
    return math.hypot(rule + abs(float(weights @ rest - spline.integrate(0.0, 1.0))), hidden)


def _integral(means: Sequence[Mean], weights: Array) -> tuple[float, float]:
    value = sum(w * m.value for w, m in zip(weights, means, strict=True))
    return float(value), math.hypot(*(w * m.standard_error for w, m in zip(weights, means, strict=True)))
