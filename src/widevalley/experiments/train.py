"""One training run, from a seed to its records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from widevalley.experiments.data import Data, Split
from widevalley.experiments.evaluation import Evaluator, mean_loss_and_error, subset
from widevalley.experiments.methods import Method
from widevalley.experiments.perturbation import rise_of_loss
from widevalley.experiments.tasks import Task

EVALUATIONS = 20
# Training images whose mean loss is taken at every perturbed network.
RISE_IMAGES = 2_000

Record = dict[str, Any]


@dataclass(frozen=True)
class Unit:
    """One run of one method, and, with the task, all that decides its outcome."""

    phase: str  # "tune" or "final"
    method: Method
    lr: float
    seed: int
    gradients: int

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.method.name}-lr{self.lr:g}-seed{self.seed}"


class Diverged(Exception):
    """A loss was not finite."""


def minibatches(size: int, batch_size: int, order: torch.Generator) -> Iterator[Tensor]:
    """Indices of shuffled epochs without end; the smaller batch that an epoch leaves over is not used."""
    if not 1 <= batch_size <= size:
        raise ValueError(f"batch_size must lie between 1 and the {size} training samples, got {batch_size}")
    while True:
        shuffled = torch.randperm(size, generator=order)
        yield from shuffled[: size - size % batch_size].split(batch_size)


def evaluation_points(gradients: int) -> list[int]:
    """Gradient counts of the evaluations, the same for every method: the first at 0, the last at the end."""
    return sorted({round(gradients * k / EVALUATIONS) for k in range(EVALUATIONS + 1)})


class Training:
    """A model, its optimizer and the order of its data, all from one seed.

    Initialisation and dropout draw from torch's global random state, which is set to ``seed`` on construction: build
    and run it inside ``torch.random.fork_rng``. The order of the data has a generator of its own.
    """

    def __init__(self, unit: Unit, task: Task) -> None:
        torch.manual_seed(unit.seed)
        self.model: nn.Module = task.network()
        self.optimizer: Optimizer = unit.method.build(self.model.parameters(), unit.lr, unit.seed)
        self.scheduler = CosineAnnealingLR(self.optimizer, unit.gradients)
        self.order = torch.Generator().manual_seed(unit.seed)
        self.batch_size, self.gradients = task.batch_size, unit.gradients
        self.taken, self.seconds = 0, 0.0

    def run(self, train: Split, stops: Iterable[int]) -> Iterator[int]:
        """Trains, and yields the gradient count at each of ``stops``, ascending.

        The last gradient closes the cycle. Raises Diverged if the loss of a minibatch is not finite.
        """
        self.model.train()
        batches = minibatches(len(train), self.batch_size, self.order)
        for stop in stops:
            began = time.perf_counter()
            try:
                while self.taken < stop:
                    self._gradient(train, next(batches))
                if self.taken == self.gradients:
                    close_cycle: Callable[[], None] = getattr(self.optimizer, "close_cycle", lambda: None)
                    close_cycle()
            finally:
                self.seconds += time.perf_counter() - began
            yield self.taken

    def _gradient(self, train: Split, batch: Tensor) -> None:
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(train.inputs[batch]), train.targets[batch])
        if not math.isfinite(loss.item()):
            raise Diverged
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.taken += 1

    def cost(self, train_size: int) -> Record:
        """What has been spent so far. Without an outer loop each gradient counts as an outer update."""
        per_epoch = train_size // self.batch_size
        outer_updates: int = getattr(self.optimizer, "outer_updates", self.taken)
        return {
            "gradients": self.taken,
            "epochs": self.taken / per_epoch,
            "outer_updates": outer_updates,
            "paper_epochs": outer_updates / per_epoch,
            "seconds": self.seconds,
        }


def run(unit: Unit, task: Task, data: Data, progress: Callable[[int], None] = lambda done: None) -> list[Record]:
    """Trains the unit; returns its evaluations and, last, its result. ``progress`` is told the gradients done.

    Seconds are those of gradients and steps, evaluations excluded. The test split is read once, by a final run, after
    the last gradient. Torch's global random state is left as it was.
    """
    size = len(data.train)
    with torch.random.fork_rng(devices=[]):
        training = Training(unit, task)
        evaluate = Evaluator(training.model, training.optimizer, data, task.batch_size)
        records: list[Record] = []
        try:
            for done in training.run(data.train, evaluation_points(unit.gradients)):
                measured = evaluate()
                if not all(map(math.isfinite, measured.values())):
                    raise Diverged
                records.append({"kind": "evaluation", **training.cost(size), **measured})
                progress(done)
        except Diverged:
            return [*records, {"kind": "result", "diverged": True, **training.cost(size)}]
        result = {**records[-1], "kind": "result", "diverged": False}
        result["seconds_per_gradient"] = training.seconds / unit.gradients
        if unit.phase == "final":
            network = evaluate.network()
            result["test_loss"], result["test_error"] = mean_loss_and_error(network, data.test)
            images = subset(data.train, RISE_IMAGES)
            rises = rise_of_loss(network, lambda perturbed: mean_loss_and_error(perturbed, images)[0], seed=unit.seed)
            result["rise"] = [asdict(rise) for rise in rises]
    return [*records, result]
