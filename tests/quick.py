"""Tasks, plans and networks small enough for tests: the digits with a network that trains in milliseconds, and less."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from widevalley.experiments import parts, widths
from widevalley.experiments.compare import Plan
from widevalley.experiments.data import Data
from widevalley.experiments.methods import METHODS
from widevalley.experiments.records import Record
from widevalley.experiments.tasks import TASKS, Task
from widevalley.experiments.train import Unit
from widevalley.landscape import Objective, local_learning_coefficient

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


def tiny() -> nn.Module:
    """30 parameters, float64."""
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def trained_tiny(seed: int = 0, steps: int = 200) -> nn.Module:
    """On two clouds of points that overlap."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = tiny()
    inputs, targets = clouds()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    model.zero_grad()
    return model


def save_tiny(path: Path, seed: int = 0, steps: int = 200) -> Path:
    """The weights of one, as a file of a ``state_dict``."""
    torch.save(trained_tiny(seed, steps).state_dict(), path)
    return path


def clouds(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(60) % 2
    return torch.randn(60, 4, generator=generator, dtype=torch.float64) + targets[:, None], targets


def few_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning coefficient from a sixteenth of the chains."""
    monkeypatch.setattr(parts, "local_learning_coefficient", partial(local_learning_coefficient, chains=16, draws=256))


def objective(checkpoint: Path) -> Objective:
    """For the command: ``--objective quick:objective``."""
    model = tiny()
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    return Objective(model, data=[clouds()])
