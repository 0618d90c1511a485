"""Sharpness: how much the mean loss rises within a given distance, at worst or on average."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from widevalley.landscape.directions import direction_generator
from widevalley.landscape.objective import Objective
from widevalley.landscape.records import Estimate
from widevalley.validation import integer, real

Kind = Literal["worst", "box", "average", "adaptive"]
Progress = Callable[[str, float], None]

# A run ends at a point from which no step of this share of the set leads up: the rise left is of its square.
NEAR = 1e-4


def sharpness(
    objective: Objective,
    kind: Kind = "worst",
    radius: float = 0.05,
    *,
    starts: int = 3,
    steps: int = 50,
    directions: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    """Rise of the mean loss f from the parameters x, n of them, to x + δ::

        "worst"     max f(x + δ) − f(x),  ‖δ‖₂ ≤ r                   the ball of SAM (Foret et al., arXiv:2010.01412)
        "box"       max f(x + δ) − f(x),  |δ_i| ≤ r (|x_i| + 1)      Keskar et al. (arXiv:1609.04836), whole space
        "adaptive"  max f(x + δ) − f(x),  ‖δ / |x|‖₂ ≤ r             ASAM (Kwon et al., arXiv:2102.11600), elementwise
        "average"   E   f(x + δ) − f(x),  δ uniform on ‖δ‖₂ = r

    Only "adaptive" is the same for two networks that are one function up to the scales of their ReLU units, which make
    the others as large as one likes (Dinh et al., arXiv:1703.04933); weights that are 0 stay 0 in it.

    The maxima are **lower bounds**: the best of several runs of projected gradient ascent, from the gradient's
    direction and from random points of the boundary. ``spread`` in the diagnostics, between the best run and the worst,
    says how far they agree; it is no error, and ``standard_error`` is None. "average" is unbiased, with its standard
    error; δ and −δ are taken in pairs, so that the slope at x cancels.

    Near a minimum with Hessian H: "worst" is r² λ_max / 2, "average" r² tr(H) / (2n). Gaussian perturbations of
    standard deviation σ have a length of about σ √n.

    Args:
        radius: r > 0, in the units of the weights; a share of them for "adaptive". The default is SAM's; ASAM's own
            experiments have 0.5 to 2, Keskar's 5e-4 and 1e-3.
        starts, steps: runs of the ascent, and gradients in each at most.
        directions: pairs ±δ, 2 at least, of "average".
        seed: of the random starts and directions.
        progress: called with what is going on and the fraction done.

    Cost: ``starts`` · (``steps`` + 1) + 1 gradients over the data at most; for "average" 2 ``directions`` + 1 passes.

    Diagnostics: ``loss`` f(x); ``gradients`` or ``passes`` taken; for the maxima ``spread``, ``length`` ‖δ‖₂ of the
    best point, and for "box" ``percent``, Keskar's figure 100 · rise / (1 + f(x)).

    Raises:
        ValueError: an argument is wrong; the loss is not finite at x or on the way; all weights are 0 ("adaptive").
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind={kind!r} is unknown: give one of {', '.join(map(repr, get_args(Kind)))}")
    real("radius", radius, above=0.0)
    integer("starts", starts, minimum=1)
    integer("steps", steps, minimum=1)
    integer("directions", directions, minimum=2)
    objective.check()
    generator = direction_generator(seed)
    if kind == "average":
        return _average(objective, radius, directions, generator, progress)
    return _worst(objective, kind, radius, starts, steps, generator, progress)


def _average(
    objective: Objective, radius: float, directions: int, generator: torch.Generator, progress: Progress | None
) -> Estimate:
    x, start = objective.vector(), objective.value()
    rises = []
    for done in range(directions):
        delta = _on_sphere(objective, radius, generator)
        total = 0.0
        for sign in (1.0, -1.0):
            with objective.at(x + sign * delta):
                total += objective.value()
        rises.append(total / 2 - start)
        if progress:
            progress("average sharpness", (done + 1) / directions)
    error = statistics.stdev(rises) / directions**0.5
    return Estimate(statistics.fmean(rises), error, {"loss": start, "passes": 2 * directions + 1})


def _worst(
    objective: Objective,
    kind: Kind,
    radius: float,
    starts: int,
    steps: int,
    generator: torch.Generator,
    progress: Progress | None,
) -> Estimate:
    x = objective.vector()
    # δ = scale ∘ u, with u in a ball or a cube of the radius.
    scale = {"worst": torch.ones_like, "box": lambda w: w.abs() + 1, "adaptive": torch.abs}[kind](x)
    if not bool(scale.any()):
        raise ValueError('every weight is 0, so that "adaptive" sharpness has nowhere to go: use "worst"')
    gradients = 0

    def loss(u: Tensor) -> tuple[float, Tensor]:
        nonlocal gradients
        gradients += 1
        with objective.at(x + scale * u):
            value, gradient = objective.value_and_gradient()
        return value, scale * gradient

    def project(u: Tensor) -> Tensor:
        return u.clamp(-radius, radius) if kind == "box" else u * (radius / u.norm().clamp(min=radius))

    start, slope = loss(torch.zeros_like(x))
    # The cube's corners are √n times further off than its faces.
    reach = 2 * radius * (objective.n**0.5 if kind == "box" else 1.0)
    rises, best, best_u = [], start, torch.zeros_like(x)
    for run in range(starts):
        along = run == 0 and bool(slope.any())
        first = reach / 2 * slope / slope.norm() if along else _on_sphere(objective, reach / 2, generator)
        value, u = _ascent(loss, project, project(first), reach, steps)
        if progress:
            progress(f"{kind} sharpness", (run + 1) / starts)
        rises.append(value - start)
        if value > best:
            best, best_u = value, u
    found = {
        "loss": start,
        "gradients": float(gradients),
        "spread": max(rises) - min(rises),
        "length": float((scale * best_u).norm()),
    }
    if kind == "box":
        found["percent"] = 100 * (best - start) / (1 + start)
    # δ = 0 is allowed too: no rise is below 0.
    return Estimate(best - start, None, found)


def _ascent(
    loss: Callable[[Tensor], tuple[float, Tensor]],
    project: Callable[[Tensor], Tensor],
    u: Tensor,
    reach: float,
    steps: int,
) -> tuple[float, Tensor]:
    """The highest loss that it gets to, and where.

    Projected gradient ascent whose step doubles after a rise and shrinks after a fall. It begins with steps across the
    whole set: there the projection alone decides, and the next point is where the set ends in the gradient's direction.
    For a convex loss such a step cannot fall, on a quadratic it is power iteration.
    """
    value, slope = loss(u)
    length = reach
    for _ in range(steps):
        if not bool(slope.any()):
            break
        trial = project(u + length * slope / slope.norm())
        higher, its_slope = loss(trial)
        if higher > value:
            value, slope, u = higher, its_slope, trial
            length = min(2 * length, 1e4 * reach)
        elif float((trial - u).norm()) < NEAR * reach:
            break
        else:
            length /= 4
    return value, u


def _on_sphere(objective: Objective, radius: float, generator: torch.Generator) -> Tensor:
    direction = torch.randn(objective.n, generator=generator, dtype=torch.float64).to(objective.device)
    return torch.mul(direction, radius / direction.norm()).to(objective.dtype)
