"""The comparison: every method tuned on the same validation split with the same budget, then run over several seeds.

Each unit (one run) is one small file, written when the run ends, so a comparison that was killed goes on with the units
that are missing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from widevalley.experiments import environment, train
from widevalley.experiments.data import Data
from widevalley.experiments.methods import Method
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Record, Unit

# Seeds of tuning are none of the final ones.
FIRST_TUNING_SEED = 1000


class FolderError(Exception):
    """The results folder holds another comparison, or one that was not asked to go on."""


class Progress(Protocol):
    """What a comparison tells while it runs."""

    def start(self, units: int, gradients: int) -> None: ...
    def unit(self, unit: Unit, skipped: bool) -> None: ...
    def gradient(self, done: int) -> None: ...
    def result(self, unit: Unit, result: Record) -> None: ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which runs a comparison consists of."""

    task: Task
    methods: tuple[Method, ...]
    seeds: int
    epochs: float

    @property
    def command(self) -> str:
        """What repeats the comparison, wherever its results and data are."""
        names = ",".join(method.name for method in self.methods)
        return f"widevalley compare {self.task.name} --methods {names} --seeds {self.seeds} --epochs {self.epochs:g}"

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
        gradients = self.task.gradients(train_size, self.epochs)
        # Seed by seed, so that a comparison that is stopped has run all methods alike.
        return [
            Unit("final", method, chosen[method.name], seed, gradients)
            for seed in range(self.seeds)
            for method in self.methods
        ]


def compare(plan: Plan, data: Data, folder: Path, resume: bool, progress: Progress) -> None:
    """Runs what is missing of the plan and writes it under ``folder``.

    Raises:
        FolderError: the folder has results already and ``resume`` is False, or they are of another plan.
    """
    header = _header(plan, data)
    _claim(folder, header, resume)
    size = len(data.train)
    tuning = plan.tuning(size)
    finals = plan.seeds * len(plan.methods)
    progress.start(
        len(tuning) + finals,
        sum(unit.gradients for unit in tuning) + finals * plan.task.gradients(size, plan.epochs),
    )
    results = [(unit, _run(unit, plan.task, data, folder, progress)) for unit in tuning]
    chosen = {method.name: choose(method, results) for method in plan.methods}
    _write(folder / "comparison.json", json.dumps({**header, "chosen": chosen}, indent=1) + "\n")
    for unit in plan.final(size, chosen):
        _run(unit, plan.task, data, folder, progress)


def choose(method: Method, results: Sequence[tuple[Unit, Record]]) -> float:
    """The learning rate with the lowest validation error, the lower validation loss deciding between equals.

    Both are means over the tuning seeds; a rate with a run that diverged comes last.
    """

    def score(lr: float) -> tuple[bool, float, float]:
        runs = [result for unit, result in results if unit.method.name == method.name and unit.lr == lr]
        if any(result["diverged"] for result in runs):
            return True, 0.0, 0.0
        return (
            False,
            statistics.fmean(result["validation_error"] for result in runs),
            statistics.fmean(result["validation_loss"] for result in runs),
        )

    return min(method.learning_rates, key=score)


def _run(unit: Unit, task: Task, data: Data, folder: Path, progress: Progress) -> Record:
    path = folder / "units" / f"{unit.name}.jsonl"
    skipped = path.exists()
    progress.unit(unit, skipped)
    if skipped:
        result = _last_record(path)
    else:
        records: list[Record] = [_configuration(unit, task), *train.run(unit, task, data, progress.gradient)]
        _write(path, "".join(json.dumps(_rounded(record)) + "\n" for record in records))
        result = records[-1]
    progress.result(unit, result)
    return result


def _last_record(path: Path, whole: bool = False) -> Record:
    """The last line's record, or the ``whole`` file's.

    Raises:
        FolderError: the file is damaged.
    """
    try:
        text = path.read_text()
        record: Record = json.loads(text if whole else text.splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise FolderError(f"{path} is damaged ({error}): delete it, and go on with --resume") from None
    return record


def _claim(folder: Path, header: Record, resume: bool) -> None:
    path = folder / "comparison.json"
    if path.exists():
        if not resume:
            raise FolderError(
                f"{folder} holds a comparison already: add --resume to go on with it, or give another --out"
            )
        found = _last_record(path, whole=True)
        different = [key for key in header if key != "command" and header[key] != found.get(key)]
        if different:
            says = "; ".join(f"{key}: {found.get(key)!r} there, {header[key]!r} now" for key in different)
            raise FolderError(
                f"{folder} holds another comparison ({says}): repeat its arguments, or give another --out"
            )
    else:
        if folder.exists() and any(folder.iterdir()):
            raise FolderError(f"{folder} is not empty and holds no comparison: give another --out")
        (folder / "units").mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(header, indent=1) + "\n")


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
        "batch_size": task.batch_size,
        "train_size": len(data.train),
        "validation_size": len(data.validation),
        "test_size": len(data.test),
        "parameters": sum(p.numel() for p in task.network().parameters()),
        "learning_rates": {method.name: list(method.learning_rates) for method in plan.methods},
    }


def _configuration(unit: Unit, task: Task) -> Record:
    return {
        "kind": "configuration",
        "phase": unit.phase,
        "task": task.name,
        "method": unit.method.name,
        "lr": unit.lr,
        "seed": unit.seed,
        "gradients": unit.gradients,
        "batch_size": task.batch_size,
        "optimizer": unit.method.settings(unit.lr),
        "versions": environment.versions(),
        "machine": environment.machine(),
    }


def _rounded(item: Any) -> Any:
    """Six significant digits: what a reader can use, in files that stay small."""
    if isinstance(item, float):
        return float(f"{item:.6g}")
    if isinstance(item, dict):
        return {key: _rounded(value) for key, value in item.items()}
    return [_rounded(value) for value in item] if isinstance(item, list) else item


def _write(path: Path, text: str) -> None:
    """All or nothing: a process that is killed leaves no half file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
