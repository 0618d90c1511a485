"""What trains: an optimizer and the five learning rates it is tuned over. ``METHODS`` is the command's list.

Every method takes the same cosine schedule on ``lr``, a step a gradient, and no weight decay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from widevalley import EntropyAdam, EntropySGD

# Half decades around torch's customary 0.1 for SGD with momentum and its default 1e-3 for Adam. The nested
# optimizers get the grid of the optimizer in their inner loop: their ``lr`` means the same step.
SGD_GRID = (0.01, 0.03, 0.1, 0.3, 1.0)
ADAM_GRID = (0.0001, 0.0003, 0.001, 0.003, 0.01)

# In an optimizer's groups, but no setting of the method: its parameters, its counters, how it is computed.
NO_SETTINGS = {
    *("params", "seed", "cycle_position", "inner_updates", "outer_updates", "at_center"),
    *("fused", "foreach", "capturable", "differentiable", "maximize", "dampening", "decoupled_weight_decay"),
}


@dataclass(frozen=True)
class Method:
    name: str
    description: str
    build: Callable[[Iterable[nn.Parameter], float, int], Optimizer]  # parameters, lr, seed of its noise
    learning_rates: tuple[float, float, float, float, float]

    def settings(self, lr: float) -> dict[str, Any]:
        """The optimizer's settings as it is built, in a form that JSON can hold."""
        group = self.build([nn.Parameter(torch.zeros(1))], lr, 0).param_groups[0]
        plain = (int, float, str, bool, type(None))
        return {
            key: value if isinstance(value, plain) else repr(value)
            for key, value in group.items()
            if key not in NO_SETTINGS
        }


# Fused, as the inner optimizers of the nested methods are: seconds are compared too.
def _sgd(params: Iterable[nn.Parameter], lr: float, seed: int) -> Optimizer:
    return SGD(params, lr, momentum=0.9, nesterov=True, fused=True)


def _adam(params: Iterable[nn.Parameter], lr: float, seed: int) -> Optimizer:
    return Adam(params, lr, fused=True)


def _entropy_sgd(params: Iterable[nn.Parameter], lr: float, seed: int) -> Optimizer:
    return EntropySGD(params, lr, momentum=0.9, nesterov=True, seed=seed)


def _entropy_adam(params: Iterable[nn.Parameter], lr: float, seed: int) -> Optimizer:
    return EntropyAdam(params, lr, seed=seed)


METHODS = {
    method.name: method
    for method in (
        Method(
            "entropy-sgd",
            "EntropySGD with Nesterov momentum 0.9 inside, its other settings at their defaults",
            _entropy_sgd,
            SGD_GRID,
        ),
        Method("entropy-adam", "EntropyAdam, its other settings at their defaults", _entropy_adam, ADAM_GRID),
        Method("sgd", "torch.optim.SGD with Nesterov momentum 0.9", _sgd, SGD_GRID),
        Method("adam", "torch.optim.Adam", _adam, ADAM_GRID),
    )
}
