"""The loss on a plane or a line through a network's parameters, on a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from widevalley.batchnorm import update_batchnorm
from widevalley.landscape.directions import direction_generator, filter_normalised_direction
from widevalley.landscape.objective import Objective
from widevalley.validation import integer, real

Target = Objective | nn.Module | Tensor


@dataclass(frozen=True)
class Surface:
    """f(x + Σ_i a_i d_i) with a_i from ``coordinates[i]``, in float64."""

    coordinates: tuple[NDArray[np.float64], ...]  # one axis (k,) or two (k,), (k,)
    loss: NDArray[np.float64]  # (k,) or (k, k), indexed as the coordinates
    lengths: tuple[float, ...]  # ‖d_i‖₂: what 1 on an axis is in the units of the weights


def surface(
    objective: Objective,
    to: Target | Sequence[Target] | None = None,
    *,
    limits: tuple[float, float] | None = None,
    points: int = 21,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Surface:
    """The mean loss around the parameters x, or from them to other networks'.

    - ``to=None``: f(x + a d₁ + b d₂) along two random directions, Gaussian and filter-normalised: every filter of d has
      the norm of that filter of x, so that 1 on an axis is a perturbation as large as the weights (Li et al., 2018,
      arXiv:1712.09913).
    - ``to=y``: f(x + t(y − x)), the straight line that has x at 0 and y at 1 (Goodfellow et al., arXiv:1412.6544).
    - ``to=(y, z)``: f(x + s(y − x) + t(z − x)), the plane through the three.

    Batch-norm. Around one network its running statistics are used as they are at x. Between networks the statistics of
    neither end belong to the weights, so at every point, ends included, they are re-estimated over the objective's data
    before the loss is taken, as ``update_batchnorm`` does: give training data, and expect the loss at an end to differ
    from that with the network's own statistics. (An objective with ``training=True`` needs neither.)

    Args:
        to: networks of the same shapes: an Objective, a model (its parameters of the measured names), or a flat vector
            (n,).
        limits: of every axis. None: (−1, 1) around one network, (−0.5, 1.5) between several.
        points: k on each axis; with the default limits and number, 0 and 1 are among them.
        seed: of the random directions.
        progress: called with what is going on and the fraction done.

    Cost: k² passes over the data, k on a line; twice that where statistics are re-estimated.

    Raises:
        ValueError: ``to`` does not fit; an argument is wrong; the loss is not finite at a point of the grid.
    """
    low, high = limits if limits is not None else ((-1.0, 1.0) if to is None else (-0.5, 1.5))
    real("limits[0]", low)
    real("limits[1]", high, above=float(low))
    integer("points", points, minimum=2)
    objective.check()
    x = objective.vector()
    directions = _random(objective, seed) if to is None else [_vector(objective, each) - x for each in _several(to)]
    layers = [] if to is None or objective.training else _batchnorms(objective.model)
    axis = np.linspace(low, high, points)
    loss = np.empty((points,) * len(directions))
    buffers = [(b, b.clone()) for layer in layers for b in layer.buffers()]
    try:
        for done, index in enumerate(product(range(points), repeat=len(directions))):
            offset = sum((float(axis[i]) * d for i, d in zip(index, directions, strict=True)), torch.zeros_like(x))
            with objective.at(x + offset):
                if layers:
                    update_batchnorm(objective.model, objective.data)
                loss[index] = objective.value()
            if progress:
                progress("surface", (done + 1) / loss.size)
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    lengths = tuple(float(d.norm()) for d in directions)
    return Surface((axis,) * len(directions), loss, lengths)


def _random(objective: Objective, seed: int) -> list[Tensor]:
    generator = direction_generator(seed)
    return [
        objective.flat([filter_normalised_direction(p.detach(), generator) for p in objective.parameters])
        for _ in range(2)
    ]


def _several(to: Target | Sequence[Target]) -> list[Target]:
    if isinstance(to, Objective | nn.Module | Tensor):
        return [to]
    networks = list(to)
    if len(networks) not in (1, 2):
        raise ValueError(f"to has {len(networks)} networks: give one for a line, two for a plane")
    return networks


def _vector(objective: Objective, target: Any) -> Tensor:
    """The target's parameters as a vector of the objective's."""
    if isinstance(target, Objective):
        vector = target.vector()
    elif isinstance(target, nn.Module):
        vector = objective.flat(_named(objective, target))
    elif isinstance(target, Tensor):
        vector = target.detach()
    else:
        raise ValueError(f"to is a {type(target).__name__}: give an Objective, a model, or a flat vector of parameters")
    if vector.shape != (objective.n,):
        raise ValueError(
            f"to has shape {tuple(vector.shape)}, the objective's parameters {(objective.n,)}: they differ"
        )
    return vector.to(objective.device, objective.dtype)


def _named(objective: Objective, model: nn.Module) -> list[Tensor]:
    theirs = dict(model.named_parameters())
    measured = {id(p) for p in objective.parameters}
    found = []
    for name, p in objective.model.named_parameters():
        if id(p) in measured:
            other = theirs.get(name)
            if other is None or other.shape != p.shape:
                shape = None if other is None else tuple(other.shape)
                raise ValueError(f"to has {shape} for {name!r}, the objective's model {tuple(p.shape)}: they differ")
            found.append(other.detach())
    return found


def _batchnorms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
