"""Telling how far a comparison is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from widevalley.experiments.train import Record, Unit


class Narrator:
    """A ``widevalley.experiments.compare.Progress`` on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("starting")
        self.units = self.number = self.before = 0
        self.current: Unit | None = None
        self.begun = time.monotonic()

    def __enter__(self) -> Narrator:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def start(self, units: int, gradients: int) -> None:
        self.units = units
        self.bar.update(self.task, total=gradients)
        self._say(f"{units} runs, {gradients:,} gradients in all")

    def unit(self, unit: Unit, skipped: bool) -> None:
        self.number += 1
        self.current = unit
        self.bar.update(self.task, description=f"run {self.number} of {self.units}: {_title(unit)}")
        self.begun = time.monotonic()

    def gradient(self, done: int) -> None:
        self.bar.update(self.task, completed=self.before + done)

    def result(self, unit: Unit, result: Record) -> None:
        self.before += unit.gradients
        self.bar.update(self.task, completed=self.before)
        said = "diverged" if result["diverged"] else f"validation error {result['validation_error']:.2f} %"
        if "test_error" in result:
            said += f", test error {result['test_error']:.2f} %"
        took = time.monotonic() - self.begun
        self._say(f"run {self.number} of {self.units}: {_title(unit)}: {said} ({took:.1f} s)")

    def _say(self, line: str) -> None:
        # Plain lines keep no markup and no escape codes; on a terminal the bar stays below what has been said.
        if self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)


def _title(unit: Unit) -> str:
    what = "tuning" if unit.phase == "tune" else "final"
    return f"{what} {unit.method.name}, lr {unit.lr:g}, seed {unit.seed}"
