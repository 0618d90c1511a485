"""What a comparison would cost: its gradients, and minutes from a short look at each method and at the widths."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass

import torch

from widevalley.experiments import learner, train
from widevalley.experiments.compare import Plan
from widevalley.experiments.data import Data
from widevalley.experiments.methods import Method
from widevalley.experiments.perturbation import DIRECTIONS, SIZES
from widevalley.experiments.train import EVALUATIONS, RISE_IMAGES, Training, Unit
from widevalley.experiments.widths import seconds_per_network

LOOK_SECONDS = 1.0
LOOK_STEPS = 50


@dataclass(frozen=True)
class Cost:
    method: str
    runs: int
    gradients: int  # of all its runs
    seconds_per_gradient: float  # median of a short look
    seconds_per_evaluation: float

    seconds_per_ending: float  # of a final run: its test split, and the rises of its loss
    finals: int
    seconds_per_widths: float  # of a final network

    @property
    def minutes(self) -> float:
        evaluations = self.runs * (EVALUATIONS + 1)
        seconds = self.gradients * self.seconds_per_gradient + evaluations * self.seconds_per_evaluation
        return (seconds + self.finals * (self.seconds_per_ending + self.seconds_per_widths)) / 60


def estimate(plan: Plan, data: Data) -> list[Cost]:
    """Takes at least three steps of every method, for about a second, and an evaluation; writes nothing."""
    data = train.on(data, plan.device)
    # One network alone is compared with none.
    widths = seconds_per_network(plan.task, data, plan.device) if len(plan.methods) > 1 else 0.0
    return [_cost(plan, method, data, widths) for method in plan.methods]


def _cost(plan: Plan, method: Method, data: Data, widths: float) -> Cost:
    size = len(data.train)
    units = [unit for unit in plan.tuning(size) if unit.method is method]
    units += plan.final(size, {method.name: method.learning_rates[0]})
    devices = [plan.device] if plan.device.startswith("cuda") else []
    with torch.random.fork_rng(devices=devices):
        # The lowest rate, which does not diverge.
        training = Training(Unit("tune", method, method.learning_rates[0], 0, 10**6), plan.task, data, plan.device)
        took: list[float] = []
        while len(took) < 3 or (training.seconds < LOOK_SECONDS and len(took) < LOOK_STEPS):
            before = training.seconds
            training.step()
            took.append((training.seconds - before) / method.gradients_per_step)
        began = time.perf_counter()
        with contextlib.suppress(learner.Diverged):
            training.measure()
        evaluation = time.perf_counter() - began
    looked_at = len(training.evaluate.training) + len(data.validation)
    at_the_end = len(data.test) + (1 + len(SIZES) * DIRECTIONS) * min(RISE_IMAGES, size)
    return Cost(
        method.name,
        len(units),
        sum(unit.gradients for unit in units),
        statistics.median(took),
        evaluation,
        evaluation * at_the_end / looked_at,
        plan.seeds,
        widths,
    )
