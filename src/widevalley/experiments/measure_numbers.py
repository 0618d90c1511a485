"""The numbers behind the figures, tables and sentences of ``widevalley measure``."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from widevalley.experiments.measured import Eigenvalues, Network, Quadrature
from widevalley.landscape.density import Density

Array = NDArray[np.float64]

# The paper's threshold of "almost zero" (Sec. 1).
NEAR_ZERO = 1e-4
# The share of the eigenvalues that count as the bulk of a spectrum.
BULK = 0.95
# Standard deviation of the Gaussian that smooths the density, in decades of |λ|.
WIDTH = 0.15
# Our own choice: what a step against the gradient may gain at a minimum, as a share of the loss.
SMALL = 1e-3


@dataclass(frozen=True)
class NearZero:
    """Share of the eigenvalues with |λ| < threshold, and between which ends the noise leaves it."""

    threshold: float
    share: float
    low: float
    high: float


def near_zero(found: Eigenvalues) -> NearZero:
    """At the paper's 1e-4 if that is above the noise floor, else within the floor.

    Every eigenvalue may be off by the floor, so that the true share lies between those of |λ| < threshold ∓ floor.
    """
    size, floor = np.abs(found.eigenvalues), found.noise_floor
    if floor >= NEAR_ZERO:
        share = float((size <= floor).mean())
        return NearZero(floor, share, share, share)
    low, share, high = (float((size < NEAR_ZERO + shift).mean()) for shift in (-floor, 0.0, floor))
    return NearZero(NEAR_ZERO, share, low, high)


def negative(found: Eigenvalues) -> int:
    """How many eigenvalues are below 0 by more than the noise floor."""
    return int((found.eigenvalues < -found.noise_floor).sum())


def middle(found: Eigenvalues) -> float:
    """How far from 0 the bulk reaches: the quantile ``BULK`` of |λ|, or 5 noise floors, rounded up to one digit."""
    reach = max(float(np.quantile(np.abs(found.eigenvalues), BULK)), 5 * found.noise_floor)
    digit = 10.0 ** math.floor(math.log10(reach)) if reach > 0 else 1.0
    return max(math.ceil(reach / digit * (1 - 1e-9)), 1) * digit


def ends(network: Network) -> tuple[float, float, float] | None:
    """λ_min, λ_max and how far they may be off; of the whole spectrum, else beside the density; None without both."""
    if isinstance(network.spectrum, Eigenvalues):
        values = network.spectrum.eigenvalues
        return float(values[0]), float(values[-1]), network.spectrum.noise_floor
    if isinstance(network.density, Quadrature) and network.density.largest and network.density.most_negative:
        return network.density.most_negative[0], network.density.largest[0], network.density.largest_residual
    return None


def gain(network: Network) -> float | None:
    """‖∇f‖²/(2λ_max f): by what share of the loss a step against the gradient would lower it.

    The step of length ‖∇f‖/λ_max gains at least that on a quadratic. None where λ_max is not known.
    """
    found, position = ends(network), network.position
    if found is None or not (found[1] > 0 and position.loss > 0):
        return None
    return position.gradient_norm**2 / (2 * found[1] * position.loss)


def state(network: Network) -> Literal["minimum", "saddle", "slope"] | None:
    """What the network lies at: a "slope" if a gradient step would still gain, "saddle" if there is a way down.

    A way down is an eigenvalue that is negative beyond its error. None where no curvature was measured.
    """
    share, found = gain(network), ends(network)
    if share is None or found is None:
        return None
    if share > SMALL:
        return "slope"
    return "saddle" if found[0] < -found[2] else "minimum"


def resolved(density: Density, sign: int) -> float | None:
    """|λ| on one side of 0 beyond which the points of every probe lie closer than 2 ``WIDTH`` decades.

    Nearer to 0 the quadrature has the right weight, but at its own points instead of at the eigenvalues. Beyond it the
    smoothed density of 10 probes of 90 points was within 2.7 standard errors of the true one everywhere, for the
    eigenvalues in ``results/spectrum/small-mnistfc-float32.jsonl``; nearer to 0 it was 5.8 off, and soon thousands.
    None where the points are nowhere so close.
    """
    starts = []
    for nodes, weights in zip(density.nodes, density.weights, strict=True):
        x = (sign * nodes[(weights > 0) & (sign * nodes > 0)]).sort().values
        close = (x[1:].log10() - x[:-1].log10() < 2 * WIDTH).nonzero()
        if not len(close):
            return None
        starts.append(float(x[close[0] + 1]))
    return max(starts)


def per_decade(density: Density, sign: int) -> tuple[Array, Array, Array] | None:
    """Eigenvalues per decade of |λ| on one side of 0: |λ|, their number and its standard error, each (200,).

    Each eigenvalue is a Gaussian of standard deviation ``WIDTH`` in log₁₀|λ|. From ``resolved`` to two widths beyond
    the outermost point, None where nothing is resolved.
    """
    start = resolved(density, sign)
    if start is None:
        return None
    u = torch.linspace(math.log10(start), math.log10(float((sign * density.nodes).max())) + 2 * WIDTH, 200).double()
    scale = density.n / (WIDTH * math.sqrt(2 * math.pi))

    def kernel(x: Tensor, at: float) -> Tensor:
        y = (sign * x).clamp(min=torch.finfo(x.dtype).tiny).log10()
        return torch.where(sign * x > 0, torch.exp(-((y - at) ** 2) / (2 * WIDTH**2)), 0.0)

    found = [density.mean(functools.partial(kernel, at=at)) for at in u.tolist()]
    mean = np.array([each.value for each in found])
    error = np.array([each.standard_error for each in found])
    return 10 ** u.numpy(), scale * mean, scale * error
