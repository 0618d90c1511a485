"""What a run leaves behind while it goes on: its records, its network, TensorBoard's files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from widevalley.experiments import environment
from widevalley.experiments.board import Board
from widevalley.experiments.folder import Named
from widevalley.experiments.records import Record, write_lines
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Unit
from widevalley.experiments.weights import save_weights


class Progress(Protocol):
    """What runs tell, and ask."""

    def start(self, units: int, gradients: int) -> None: ...
    def unit(self, unit: Unit) -> None:
        """It begins, or goes on."""

    def gradient(self, done: int) -> None: ...
    def evaluation(self, unit: Unit, records: list[Record]) -> None: ...
    def result(self, unit: Unit, result: Record, skipped: bool) -> None:
        """It has ended; ``skipped``: before, or in another process."""

    def job(self, name: str, said: str, skipped: bool) -> None:
        """One that is no training run has ended; ``skipped``: before, or in another process."""

    def waiting(self, units: Sequence[Named]) -> None:
        """These are in the hands of other processes, and there is nothing else to do."""

    def measuring(self, what: str, done: float, total: int) -> None:
        """``what`` is measured, ``done`` of ``total`` so far, parts included: of the widths, seeds."""

    def measured(self, seed: int, said: str, skipped: bool) -> None:
        """The widths of a seed are there; ``skipped``: before, or by another process."""

    def warn(self, message: str) -> None: ...
    def stop(self) -> bool:
        """Whether to save what there is and to leave."""


def configuration(unit: Unit, task: Task, changes: Record, device: str) -> Record:
    """The first line of a run's file."""
    return {
        "kind": "configuration",
        "phase": unit.phase,
        "task": task.name,
        "changes": changes,
        "method": unit.method.name,
        "lr": unit.lr,
        "seed": unit.seed,
        "gradients": unit.gradients,
        "batch_size": task.batch_size,
        "optimizer": unit.method.settings(unit.lr, unit.steps),
        "versions": environment.versions(),
        "machine": environment.machine(device),
    }


class Recorder:
    """A ``train.Watcher`` that writes a run's records whole at each evaluation.

    Args:
        weights: where the network goes: with each evaluation and each checkpoint if ``along``, else only by ``save``.
        board: folder of TensorBoard's files, if they are wanted.
    """

    def __init__(
        self,
        unit: Unit,
        header: Record,
        path: Path,
        progress: Progress,
        weights: Path,
        along: bool = False,
        board: Path | None = None,
    ) -> None:
        self.unit, self.header, self.path, self.progress = unit, header, path, progress
        self.weights, self.along = weights, along
        # First, so that the folder says what it is of whenever the process ends.
        if not path.exists():
            write_lines(path, [header])
        self.board = Board(board) if board else None
        self.gradient = progress.gradient
        self.stop = progress.stop

    def saved(self, network: Callable[[], nn.Module]) -> None:
        if self.along:
            self.save(network())

    def records(self, records: list[Record], network: nn.Module) -> None:
        self.saved(lambda: network)
        self.write(records)
        self.progress.evaluation(self.unit, records)

    def write(self, records: list[Record]) -> None:
        write_lines(self.path, [self.header, *records])
        if self.board:
            self.board.tell(records)

    def save(self, network: nn.Module) -> None:
        save_weights(network, self.weights, self.header)

    def close(self) -> None:
        if self.board:
            self.board.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()
