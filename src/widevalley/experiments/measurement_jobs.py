"""What a reproduction measures once, beside its runs and spectra: one function and one file each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from widevalley.experiments import environment
from widevalley.experiments.fisher_claim import fisher_and_hessian
from widevalley.experiments.folder import Folder, read_json
from widevalley.experiments.local_gradient import local_gradient
from widevalley.experiments.recording import Progress
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.two_valleys import two_valleys
from widevalley.writing import write

Told = Callable[[str, float], None]


@dataclass(frozen=True)
class OneTime:
    """A function from the data folder, and what is to be told of how far it is, to numbers."""

    name: str
    figure: str
    hours: float  # about, on one core of the machine of our results
    function: Callable[[Path | None, Told], Record]


MEASUREMENTS = (
    OneTime("two-valleys", "fig2", 0.03, lambda folder, told: two_valleys()),
    OneTime("local-gradient", "table", 0.3, local_gradient),
    OneTime("fisher", "table", 0.3, fisher_and_hessian),
)


@dataclass(frozen=True)
class Measuring:
    """A job of the reproduction."""

    measurement: OneTime
    folder: Folder
    progress: Progress
    data: Path | None

    @property
    def name(self) -> str:
        return f"measurement-{self.measurement.name}"

    @property
    def gradients(self) -> int:
        """None that are counted."""
        return 0

    @property
    def hours(self) -> float:
        return self.measurement.hours

    @property
    def path(self) -> Path:
        return self.folder.path / "measurements" / f"{self.measurement.name}.json"

    def ready(self) -> bool:
        return True

    def ended(self) -> Record | None:
        return read_json(self.path) if self.path.exists() else None

    def work(self) -> Record:
        found = self.measurement.function(self.data, self._told)
        record: Record = rounded({**found, "versions": environment.versions(), "machine": environment.machine()})
        write(self.path, json.dumps(record) + "\n")
        return record

    def tell(self, result: Record, skipped: bool) -> None:
        self.progress.job(self.name, "measured", skipped)

    def _told(self, what: str, done: float) -> None:
        self.progress.measuring(f"{self.name}: {what}", done, 1)
