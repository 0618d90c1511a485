"""The comparison: every method tuned on the same validation split with the same budget, then run over several seeds.

Each unit (one run) has a file of its own, so that a comparison that was killed goes on with what is missing, and
several processes can work off one folder.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from widevalley.experiments import board, train
from widevalley.experiments.data import Data
from widevalley.experiments.folder import Folder
from widevalley.experiments.methods import Method
from widevalley.experiments.recording import Progress
from widevalley.experiments.records import Record
from widevalley.experiments.sharing import share
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Unit
from widevalley.experiments.widths import measure_widths
from widevalley.experiments.work import Worker

# Seeds of tuning are none of the final ones.
FIRST_TUNING_SEED = 1000


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which runs a comparison consists of."""

    task: Task
    methods: tuple[Method, ...]
    seeds: int
    epochs: float
    changes: Record = dataclasses.field(default_factory=dict)  # what the command altered of the task, for the record
    named: str = ""  # the task as it stands in the command, where that is not its name
    device: str = "cpu"
    tensorboard: bool = False

    @property
    def command(self) -> str:
        """What repeats the comparison, wherever its results and data are."""
        names = ",".join(method.name for method in self.methods)
        changes = "".join(f" --{name.replace('_', '-')} {value:g}" for name, value in self.changes.items())
        task = self.named or self.task.name
        return f"widevalley compare {task} --methods {names} --seeds {self.seeds} --epochs {self.epochs:g}{changes}"

    @property
    def tuning_seeds(self) -> range:
        return range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.task.tuning_seeds)

    def tuning(self, train_size: int) -> list[Unit]:
        gradients = self.task.gradients(train_size, min(self.task.tuning_epochs, self.epochs))
        return [
            Unit("tune", method, lr, seed, gradients)
            for method in self.methods
            for lr in method.learning_rates
            for seed in self.tuning_seeds
        ]

    def final(self, train_size: int, chosen: dict[str, float]) -> list[Unit]:
        """Of the methods that have a chosen rate."""
        gradients = self.task.gradients(train_size, self.epochs)
        # Seed by seed, so that a comparison that is stopped has run all methods alike.
        return [
            Unit("final", method, chosen[method.name], seed, gradients)
            for seed in range(self.seeds)
            for method in self.methods
            if method.name in chosen
        ]


def compare(plan: Plan, data: Data, path: Path, resume: bool, progress: Progress) -> None:
    """Runs what is missing of the plan, measures the widths of its networks, and writes it all under ``path``.

    Raises:
        FolderError: the folder has results already and ``resume`` is False, or they are of another plan.
        Stopped: ``progress`` asked for it; --resume goes on from there, bit for bit.
        OSError: something cannot be written; what was written before is whole.
    """
    size = len(data.train)
    # What is missing or does not fit is found before anything is written.
    for method in plan.methods:
        method.settings(method.learning_rates[0], plan.task.gradients(size, plan.epochs))
    if plan.tensorboard:
        board.writer()
    train.rehearse(plan.task, data)
    folder = Folder(path)
    header = _header(plan, data)
    if not folder.claim(header, resume) and resume:
        progress.warn(f"{path} holds nothing yet: beginning anew")
    data = train.on(data, plan.device)
    tuning = plan.tuning(size)
    finals = plan.seeds * len(plan.methods)
    progress.start(
        len(tuning) + finals,
        sum(unit.gradients for unit in tuning) + finals * plan.task.gradients(size, plan.epochs),
    )
    worker = Worker(plan.task, lambda: data, folder, progress, plan.changes, plan.device, plan.tensorboard)

    def run(units: Iterable[Unit]) -> list[tuple[Unit, Record]]:
        return share(units, folder, progress, ended=worker.ended, work=worker.work, tell=progress.result)

    results = run(tuning)
    chosen = {method.name: choose(method, results) for method in plan.methods}
    folder.choose(header, chosen)
    measure_widths(plan.task, data, folder, run(plan.final(size, chosen)), progress, plan.device)


def choose(method: Method, results: Sequence[tuple[Unit, Record]]) -> float:
    """The learning rate with the lowest validation error, the lower validation loss deciding between equals.

    Both are means over the tuning seeds, of errors to a thousandth of a point; a rate with a run that diverged comes
    last.
    """

    def score(lr: float) -> tuple[bool, float, float]:
        runs = [result for unit, result in results if unit.method.name == method.name and unit.lr == lr]
        if any(result["diverged"] for result in runs):
            return True, 0.0, 0.0
        return (
            False,
            round(statistics.fmean(result["validation_error"] for result in runs), 3),
            statistics.fmean(result["validation_loss"] for result in runs),
        )

    return min(method.learning_rates, key=score)


def _header(plan: Plan, data: Data) -> Record:
    task = plan.task
    return {
        "command": plan.command,
        "task": task.name,
        "description": task.description,
        "methods": [method.name for method in plan.methods],
        "descriptions": {method.name: method.description for method in plan.methods},
        "seeds": list(range(plan.seeds)),
        "tuning_seeds": list(plan.tuning_seeds),
        "epochs": plan.epochs,
        "gradients": task.gradients(len(data.train), plan.epochs),
        "tuning_gradients": task.gradients(len(data.train), min(task.tuning_epochs, plan.epochs)),
        "changes": plan.changes,
        "gradients_per_step": {method.name: method.gradients_per_step for method in plan.methods},
        "batch_size": task.batch_size,
        "train_size": len(data.train),
        "validation_size": len(data.validation),
        "test_size": len(data.test),
        "test_targets": data.test.targets.numel(),
        "parameters": sum(p.numel() for p in task.network().parameters()),
        "learning_rates": {method.name: list(method.learning_rates) for method in plan.methods},
    }
