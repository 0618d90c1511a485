"""A task and plans small enough for tests: the digits with a network that trains in milliseconds."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from torch import nn

from widevalley.experiments import widths
from widevalley.experiments.compare import Plan
from widevalley.experiments.data import Data
from widevalley.experiments.methods import METHODS
from widevalley.experiments.records import Record
from widevalley.experiments.tasks import TASKS, Task
from widevalley.experiments.train import Unit

# At full size a network's widths take longer than all of a quick comparison.
widths.EXAMPLES, widths.PRODUCTS = 50, 8


def network() -> nn.Module:
    """With batch-norm, and with dropout, which draws from the global random state."""
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 10))


TASK = replace(TASKS["digits"], network=network, epochs=2, tuning_epochs=1, tuning_seeds=1)


def task() -> Task:
    """For the command: ``--task quick:task``."""
    return TASK


def unit(method: str, gradients: int = 50, phase: str = "final", lr: float = 0.01, seed: int = 0) -> Unit:
    return Unit(phase, METHODS[method], lr, seed, gradients)


def plan(*methods: str, seeds: int = 2, epochs: float = 2.0, rates: int = 5) -> Plan:
    """Of methods that are tuned over their first few rates."""
    chosen = (replace(METHODS[name], learning_rates=METHODS[name].learning_rates[:rates]) for name in methods)
    return Plan(TASK, tuple(chosen), seeds, epochs)


@cache
def digits() -> Data:
    return TASK.data(None)


TIMINGS = ("seconds", "seconds_per_gradient")


def without_timings(records: Sequence[Record]) -> list[Record]:
    """The only thing in which two runs of a unit may differ."""
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]
