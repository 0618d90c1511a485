"""What trains: an optimizer, its schedule, an average of its weights, and the five learning rates it is tuned over.

``METHODS`` is the command's list. No method has weight decay but AdamW, at torch's default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from widevalley import EntropyAdam, EntropySGD
from widevalley.experiments import averages, rivals
from widevalley.experiments.averages import Average

# Half decades around torch's customary 0.1 for SGD with momentum and its default 1e-3 for Adam. The others get the
# grid of the optimizer whose step their ``lr`` means.
SGD_GRID = (0.01, 0.03, 0.1, 0.3, 1.0)
ADAM_GRID = (0.0001, 0.0003, 0.001, 0.003, 0.01)
# Its momentum interpolates and does not amplify: its README advises 10 to 50 times the rate of SGD with momentum.
SCHEDULE_FREE_GRID = (0.1, 0.3, 1.0, 3.0, 10.0)

# In an optimizer's groups, but no setting of the method: its parameters, its counters, how it is computed.
NO_SETTINGS = {
    *("params", "seed", "cycle_position", "inner_updates", "outer_updates", "at_center", "initial_lr"),
    *("fused", "foreach", "capturable", "differentiable"),
    *("k", "train_mode", "weight_sum", "lr_max", "scheduled_lr", "counter", "gradients"),
}

# Told only where they are not at torch's default.
TOLD_IF_SET = {"maximize", "dampening", "decoupled_weight_decay"}

Parameters = Iterable[nn.Parameter]


def cosine(optimizer: Optimizer, steps: int) -> LRScheduler:
    """lr · (1 + cos(πk/K))/2 at step k of K, of every group."""
    return CosineAnnealingLR(optimizer, steps)


@dataclass(frozen=True)
class Method:
    """How a network is trained.

    Attributes:
        build: from the parameters, the learning rate, a seed for noise and the number of steps to the optimizer;
            further keywords change its settings.
        learning_rates: what tuning chooses from.
        gradients_per_step: minibatch gradients that a step costs, all of the same minibatch. With more than one,
            ``step`` is given a closure that takes one.
        takes_first: whether the step takes its first gradient by the closure too; else it finds it in ``p.grad``.
        schedule: of the learning rate, moved after each step; from the optimizer and the number of steps.
        average: of the weights along the way, which is then what is evaluated; from the model and the number of steps.
        at_center: inside it, the parameters are the weights to evaluate.
    """

    name: str
    description: str
    build: Callable[..., Optimizer]
    learning_rates: tuple[float, ...]
    gradients_per_step: int = 1
    takes_first: bool = False
    schedule: Callable[[Optimizer, int], LRScheduler] | None = cosine
    average: Callable[[nn.Module, int], Average] | None = None
    at_center: Callable[[Any], AbstractContextManager[None]] = nullcontext

    def settings(self, lr: float, steps: int) -> dict[str, Any]:
        """The optimizer's settings as it is built, in a form that JSON can hold."""
        optimizer = self.build([nn.Parameter(torch.zeros(1))], lr, 0, steps)
        average = self.average(nn.Linear(1, 1), steps).settings() if self.average else {}
        # What is a function of time, rather than its value at the start.
        functions = {key: value for key, value in optimizer.defaults.items() if callable(value)}
        plain = (int, float, str, bool, type(None))
        return {
            key: value if isinstance(value, plain) else repr(value)
            for key, value in {**optimizer.defaults, **optimizer.param_groups[0], **functions, **average}.items()
            if key not in NO_SETTINGS and (value or key not in TOLD_IF_SET)
        }


def _sgd(params: Parameters, lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    return SGD(params, lr, **{**rivals.NESTEROV, **settings})


def _adam(params: Parameters, lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    return Adam(params, lr, **{"fused": True, **settings})


def _adamw(params: Parameters, lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    return AdamW(params, lr, **{"fused": True, **settings})


def _entropy_sgd(params: Parameters, lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    return EntropySGD(params, lr, seed=seed, **{"momentum": 0.9, "nesterov": True, **settings})


def _entropy_adam(params: Parameters, lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    return EntropyAdam(params, lr, seed=seed, **settings)


def _nested_center(optimizer: Any) -> AbstractContextManager[None]:
    center: AbstractContextManager[None] = optimizer.at_center()
    return center


METHODS = {
    method.name: method
    for method in (
        Method(
            "entropy-sgd",
            "EntropySGD with Nesterov momentum 0.9 inside, its other settings at their defaults; cosine schedule",
            _entropy_sgd,
            SGD_GRID,
            at_center=_nested_center,
        ),
        Method(
            "entropy-adam",
            "EntropyAdam, its other settings at their defaults; cosine schedule",
            _entropy_adam,
            ADAM_GRID,
            at_center=_nested_center,
        ),
        Method("sgd", "torch.optim.SGD with Nesterov momentum 0.9; cosine schedule", _sgd, SGD_GRID),
        Method("adam", "torch.optim.Adam; cosine schedule", _adam, ADAM_GRID),
        Method("adamw", "torch.optim.AdamW with its weight decay of 0.01; cosine schedule", _adamw, ADAM_GRID),
        Method(
            "swa",
            "torch's AveragedModel over SGD with Nesterov momentum 0.9: equal weights, from 3/4 of the run on; until "
            "then the rate falls to its half along a cosine, and stays there",
            _sgd,
            SGD_GRID,
            schedule=averages.swa_schedule,
            average=averages.swa,
        ),
        Method(
            "ema",
            "torch's AveragedModel over SGD with Nesterov momentum 0.9: exponential weights; cosine schedule",
            _sgd,
            SGD_GRID,
            average=averages.ema,
        ),
        Method(
            "sam",
            "pytorch_optimizer's SAM (radius 0.05) over SGD with Nesterov momentum 0.9, two gradients a step; cosine "
            "schedule",
            rivals.sam,
            SGD_GRID,
            gradients_per_step=2,
        ),
        Method(
            "lookahead",
            "pytorch_optimizer's Lookahead (5 steps, α = 0.5) over SGD with Nesterov momentum 0.9; cosine schedule",
            rivals.lookahead,
            SGD_GRID,
            at_center=rivals.lookahead_center,
        ),
        Method(
            "schedule-free",
            "schedulefree's SGDScheduleFree (momentum 0.9, warm-up over a twentieth of the run)",
            rivals.schedule_free,
            SCHEDULE_FREE_GRID,
            schedule=None,
            at_center=rivals.schedule_free_center,
        ),
    )
}
