"""Rise of the loss under random perturbations: how wide the valley is around a trained network.

    rise(r) = E_d [ f(x + r d) ] - f(x)

d is Gaussian, each of its filters (rows of a weight along its first axis) scaled to the norm of that filter of x, so
that rescaling a filter, which batch-norm undoes, does not change the measure (Li et al., 2018, arXiv:1712.09913).
Biases and batch-norm's scale and shift are one vector each.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from widevalley.landscape.directions import direction_generator, filter_normalised_direction

SIZES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
DIRECTIONS = 10


@dataclass(frozen=True)
class Rise:
    size: float  # ‖perturbation‖ / ‖weights‖ of every filter
    mean: float  # over directions, of the loss less that at the weights
    standard_error: float


@torch.no_grad()
def rise_of_loss(
    model: nn.Module, loss: Callable[[nn.Module], float], *, seed: int, directions: int = DIRECTIONS
) -> tuple[Rise, ...]:
    """The rise at each of ``SIZES``, along the same ``directions`` (2 at least) at every size.

    ``model`` is in eval mode; its weights are given back as they were.
    """
    generator = direction_generator(seed)
    parameters = list(model.parameters())
    x = [p.clone() for p in parameters]
    start = loss(model)
    rises: dict[float, list[float]] = {size: [] for size in SIZES}
    try:
        for _ in range(directions):
            d = [filter_normalised_direction(p, generator) for p in x]
            for size in SIZES:
                for p, p_x, p_d in zip(parameters, x, d, strict=True):
                    p.copy_(p_x + size * p_d)
                rises[size].append(loss(model) - start)
    finally:
        for p, p_x in zip(parameters, x, strict=True):
            p.copy_(p_x)
    return tuple(
        Rise(size, statistics.fmean(values), statistics.stdev(values) / directions**0.5)
        for size, values in rises.items()
    )
