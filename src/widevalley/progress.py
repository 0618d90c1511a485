"""Telling how far the work is: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from widevalley.experiments.folder import Named
from widevalley.experiments.records import Record
from widevalley.experiments.train import Unit

# Seconds without a line, where there is no bar, after which an evaluation is told.
SILENCE = 30.0


class Teller:
    """A live bar on a terminal, plain lines elsewhere; ``stop`` is asked between two steps."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop
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
        self.number = self.total = 0
        self.begun = self.said = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def warn(self, message: str) -> None:
        self._say(message)

    def _say(self, line: str) -> None:
        # Plain lines keep no markup and no escape codes; on a terminal the bar stays below what has been said.
        self.said = time.monotonic()
        if self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    @property
    def _silent(self) -> bool:
        """Whether, where there is no bar, it is time for a line."""
        return not self.console.is_terminal and time.monotonic() - self.said > SILENCE


class MeasureNarrator(Teller):
    """A ``widevalley.experiments.measure.Progress`` on standard error. The bar is that of the present stage."""

    title = stages = ""
    stage_begun = 0.0

    def start(self, total: int) -> None:
        self.total = total

    def part(self, title: str) -> None:
        self.title, self.stages = title, ""
        self.begun = time.monotonic()

    def stage(self, what: str, done: float) -> None:
        described = f"{self.number + 1} of {self.total}: {self.title}: {what}"
        # Its start and its time left are those of the stage.
        name = what.partition(":")[0]
        if name != self.stages:
            self.stages, self.stage_begun = name, time.monotonic()
            self.bar.reset(self.task, total=1.0)
        self.bar.update(self.task, description=described, completed=done)
        if self._silent:
            spent = time.monotonic() - self.stage_begun
            left = f", about {spent / done - spent:.0f} s left" if done > 0 else ""
            self._say(f"{described}: {done:.0%}{left}")

    def ended(self, title: str, said: str) -> None:
        self.number += 1
        self._say(f"{self.number} of {self.total}: {title}: {said or f'{time.monotonic() - self.begun:.1f} s'}")


class Narrator(Teller):
    """A ``widevalley.experiments.compare.Progress`` on standard error."""

    before = 0
    waits = False
    widths: TaskID | None = None

    def start(self, units: int, gradients: int) -> None:
        self.total = units
        self.bar.update(self.task, total=gradients)
        self._say(f"{_counted(units)}, {gradients:,} gradients in all")

    def unit(self, unit: Unit) -> None:
        self.waits = False
        self.bar.update(self.task, description=f"run {self.number + 1} of {self.total}: {_title(unit)}")
        self.begun = time.monotonic()

    def gradient(self, done: int) -> None:
        self.bar.update(self.task, completed=self.before + done)

    def evaluation(self, unit: Unit, records: list[Record]) -> None:
        last = records[-1]
        told = f"{last['gradients']:,} of {unit.gradients:,} gradients, {_errors(last)}"
        if self._silent:
            self._say(f"{_title(unit)}: {told}")

    def result(self, unit: Unit, result: Record, skipped: bool) -> None:
        self.number += 1
        self.before += unit.gradients
        self.bar.update(self.task, completed=self.before)
        said = "diverged" if result["diverged"] else _errors(result)
        took = "there already" if skipped else f"{time.monotonic() - self.begun:.1f} s"
        self._say(f"run {self.number} of {self.total}: {_title(unit)}: {said} ({took})")

    def job(self, name: str, said: str, skipped: bool) -> None:
        self.number += 1
        self._say(f"run {self.number} of {self.total}: {name}: {said}{_before(skipped)}")

    def waiting(self, units: Sequence[Named]) -> None:
        if not self.waits:
            self._say(f"waiting for other processes, which are at {', '.join(unit.name for unit in units)}")
        self.waits = True

    def measuring(self, what: str, done: float, total: int) -> None:
        self.waits = False
        if self.widths is None:
            self.widths = self.bar.add_task("widths", total=total)
        self.bar.update(self.widths, description=what, completed=done, total=total)
        if self._silent:
            self._say(f"{what}: {done / total:.0%}")

    def measured(self, seed: int, said: str, skipped: bool) -> None:
        self._say(f"widths of seed {seed}: {said}{_before(skipped)}")


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Tells that data are being read, and what of it takes long."""
    console = Console(stderr=True)
    handler = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    logger = logging.getLogger("widevalley")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with console.status(f"reading the data of {name}"):
            yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def _counted(runs: int) -> str:
    return "1 run" if runs == 1 else f"{runs} runs"


def _before(skipped: bool) -> str:
    return " (there already)" if skipped else ""


def _errors(record: Record) -> str:
    names = (name for name in ("validation", "test") if f"{name}_error" in record)
    return ", ".join(f"{name} error {record[f'{name}_error']:.2f} %" for name in names)


def _title(unit: Unit) -> str:
    what = {"tune": "tuning", "final": "final", "train": "training", "curve": "curve"}[unit.phase]
    return f"{what} {unit.method.name}, lr {unit.lr:g}, seed {unit.seed}"
