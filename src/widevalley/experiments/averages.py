"""Averages of the weights along a run, by torch's own ``AveragedModel``: SWA and EMA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

# Izmailov et al. (2018, arXiv:1803.05407) average over the last quarter of the budget, at a constant rate of 0.2 to 0.5
# times the first one (Sec. 4.1 and their appendix); they take a sample an epoch, we take SWA_SAMPLES in all, so that
# short runs have an average too.
SWA_BEGIN = 0.75
SWA_RATE = 0.5
SWA_SAMPLES = 25
# The average looks back over this share of the run. A fixed decay, such as the customary 0.999, would still hold the
# initial weights at the end of a run of 510 gradients.
EMA_HORIZON = 0.02


@dataclass
class Average:
    """An ``AveragedModel`` and the steps after which it takes the weights in: ``begin``, ``begin + every``, …"""

    model: AveragedModel
    begin: int
    every: int
    decay: float | None = None

    def after_step(self, step: int, model: nn.Module) -> None:
        """``step`` counts from 1."""
        if step >= self.begin and (step - self.begin) % self.every == 0:
            self.model.update_parameters(model)

    @property
    def started(self) -> bool:
        return int(self.model.n_averaged) > 0

    def settings(self) -> dict[str, Any]:
        shown = {"average_begin": self.begin, "average_every": self.every, "average_decay": self.decay}
        return {name: value for name, value in shown.items() if value is not None}


def swa(model: nn.Module, steps: int) -> Average:
    begin = max(1, math.ceil(SWA_BEGIN * steps))
    return Average(AveragedModel(model), begin, max(1, (steps - begin) // (SWA_SAMPLES - 1)))


def swa_schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
    """From lr to SWA_RATE · lr along a cosine until SWA_BEGIN of the steps, constant after."""
    begin = max(1, math.ceil(SWA_BEGIN * steps))

    def factor(step: int) -> float:
        return SWA_RATE + (1 - SWA_RATE) * (1 + math.cos(math.pi * min(step / begin, 1.0))) / 2

    return LambdaLR(optimizer, factor)


def ema(model: nn.Module, steps: int) -> Average:
    decay = 1 - 1 / max(1.0, EMA_HORIZON * steps)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))
    return Average(average, 1, 1, decay)
