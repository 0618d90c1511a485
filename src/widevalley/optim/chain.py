"""What the inner chain of a nested optimizer does: how far it goes, and how its forces compare."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from widevalley.optim.nested import NestedOptimizer
from widevalley.optim.settings import own

NAMES = ("displacement", "pull_to_gradient", "noise_to_gradient")


class Chain:
    """Looks at the chain before the last inner step of each cycle, where it is furthest from x.

    - ``displacement``: ‖x′ − x‖
    - ``pull_to_gradient``: ‖γ(x′ − x)‖ / ‖∇f(x′; ξ)‖
    - ``noise_to_gradient``: √(Σ 2η′T) / ‖η′∇f(x′; ξ)‖, the expected length of a step's noise over that of plain SGD's
      step

    over all parameters with a gradient; ξ is one minibatch. All None before the first look, and for other optimizers.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer if isinstance(optimizer, NestedOptimizer) else None
        self.latest: dict[str, float | None] = dict.fromkeys(NAMES)

    @torch.no_grad()
    def look(self) -> None:
        """Between ``backward()`` and ``step()``."""
        optimizer = self.optimizer
        if optimizer is None or optimizer.cycle_position != own(optimizer.param_groups[0], "inner_steps") - 1:
            return
        offset, pull, gradient, step, noise = ([] for _ in range(5))
        for group in optimizer.param_groups:
            gamma, lr = float(own(group, "gamma")), float(group["lr"])
            for p in group["params"]:
                if p.grad is None:
                    continue
                length = torch.linalg.vector_norm(p - optimizer.state[p]["center"])
                slope = torch.linalg.vector_norm(p.grad)
                offset.append(length)
                pull.append(gamma * length)
                gradient.append(slope)
                step.append(lr * slope)
                noise.append(2 * lr * own(group, "temperature") * p.numel())
        self.latest = {
            "displacement": _norm(offset),
            "pull_to_gradient": _ratio(_norm(pull), _norm(gradient)),
            "noise_to_gradient": _ratio(math.sqrt(sum(noise)), _norm(step)),
        }


def _norm(parts: list[Tensor]) -> float:
    return float(torch.linalg.vector_norm(torch.stack(parts))) if parts else 0.0


def _ratio(upper: float, lower: float) -> float | None:
    return upper / lower if lower > 0 else None
