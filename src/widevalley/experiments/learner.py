"""One method at work on one network: a step at a time, with all that continues it in ``state_dict``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from widevalley.experiments.methods import Method


class Diverged(Exception):
    """A loss was not finite."""


class Learner:
    """A model, its optimizer, schedule and average.

    Args:
        steps: how many there will be, for the schedule.
        seed: of the optimizer's noise.
    """

    def __init__(self, method: Method, model: nn.Module, lr: float, seed: int, steps: int) -> None:
        self.method, self.model = method, model
        self.optimizer = method.build(model.parameters(), lr, seed, steps)
        self.scheduler = method.schedule(self.optimizer, steps) if method.schedule else None
        self.average = method.average(model, steps) if method.average else None
        self.steps_taken = 0

    def step(self, inputs: Tensor, targets: Tensor, before: Callable[[], None] = lambda: None) -> None:
        """Takes a step on a minibatch; ``before`` is called when its first gradient is there, unless the step takes it.

        Raises Diverged if its loss is not finite.
        """

        def loss_and_gradient() -> Tensor:
            self.optimizer.zero_grad()
            loss = cross_entropy(self.model(inputs), targets)
            if not math.isfinite(loss.item()):
                raise Diverged
            loss.backward()
            return loss

        if not self.method.takes_first:
            loss_and_gradient()
            before()
        if self.method.gradients_per_step == 1:
            self.optimizer.step()
        else:
            again: Any = loss_and_gradient
            self.optimizer.step(again)
        if self.scheduler:
            self.scheduler.step()
        self.steps_taken += 1
        if self.average:
            self.average.after_step(self.steps_taken, self.model)

    def finish(self) -> None:
        """After the last step: a nested optimizer closes the cycle that it is in."""
        close_cycle: Callable[[], None] = getattr(self.optimizer, "close_cycle", lambda: None)
        close_cycle()

    @property
    def outer_updates(self) -> int:
        """Without an outer loop every step counts as one."""
        return int(getattr(self.optimizer, "outer_updates", self.steps_taken))

    @contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """The module whose weights are to be evaluated: at the centre, or the average once there is one."""
        if self.average and self.average.started:
            yield self.average.model.module
        else:
            with self.method.at_center(self.optimizer):
                yield self.model

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps_taken": self.steps_taken,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "average": self.average.model.state_dict() if self.average else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps_taken = state["steps_taken"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.average:
            self.average.model.load_state_dict(state["average"])


def build(method: Method, network: Callable[[], nn.Module], lr: float, seed: int, steps: int, device: str) -> Learner:
    """A learner on a new network, initialised from torch's global random state, which is set to ``seed``."""
    torch.manual_seed(seed)
    return Learner(method, network().to(device), lr, seed, steps)
