"""The paper's experiments again: jobs that resume, are left out where they are done, and are shared between processes.

units/                          the training runs (``folder``)
spectra/NAME/measurement.json   eigenvalues at one minimum each (``measure``)
networks/NAME.safetensors       the networks of these
measurements/NAME.json          what is measured once
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol

from widevalley.experiments import train
from widevalley.experiments.ablations import ABLATIONS
from widevalley.experiments.data import Data
from widevalley.experiments.folder import Folder, make
from widevalley.experiments.measurement_jobs import MEASUREMENTS, Measuring
from widevalley.experiments.minima import MINIMA, Minimum
from widevalley.experiments.paper import FIG4A, FIG4B, Candidate, Curve
from widevalley.experiments.recording import Progress
from widevalley.experiments.records import Record
from widevalley.experiments.sharing import share
from widevalley.experiments.spectra import Spectrum
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Unit
from widevalley.experiments.work import Worker

CURVES = {"fig4a": FIG4A, "fig4b": FIG4B, "table": ABLATIONS}
SPECTRA = ("fig1", "fig3a", "fig3b")
WHAT = ("fig1", "fig2", "fig3a", "fig3b", *CURVES)


# Seconds a gradient, looks at the test set included, on one core of the machine of our results, by the network: of
# mnistfc 0.025 for Adam and 0.038 with noise.
COSTS = {"mnistfc": 0.03, "lenet": 0.024}


def _hours(task: Task, gradients: int) -> float:
    return gradients * next((cost for name, cost in COSTS.items() if task.name.startswith(name)), 0.0) / 3600


class Job(Protocol):
    """What one process at a time is at."""

    @property
    def name(self) -> str: ...
    @property
    def gradients(self) -> int: ...
    @property
    def hours(self) -> float:
        """About, as ``COSTS`` and ``spectra.HOURS`` have it."""

    def ready(self) -> bool:
        """Whether all it depends on is there."""

    def ended(self) -> Record | None: ...
    def work(self) -> Record: ...
    def tell(self, result: Record, skipped: bool) -> None: ...


@dataclass(frozen=True)
class Run:
    """A training run."""

    worker: Worker
    unit: Unit

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def gradients(self) -> int:
        return self.unit.gradients

    @property
    def hours(self) -> float:
        return _hours(self.worker.task, self.gradients)

    def ready(self) -> bool:
        return True

    def ended(self) -> Record | None:
        return self.worker.ended(self.unit)

    def work(self) -> Record:
        return self.worker.work(self.unit)

    def tell(self, result: Record, skipped: bool) -> None:
        self.worker.progress.result(self.unit, result, skipped)


@dataclass(frozen=True)
class ChosenRun:
    """The run of one seed of a curve, with the candidate that was chosen; without results of the others not ready."""

    curve: Curve
    seed: int
    worker: Worker
    choosing: Worker

    @property
    def name(self) -> str:
        return f"{self.curve.name}-seed{self.seed}"

    @property
    def gradients(self) -> int:
        return self._unit(self.curve.candidates[0]).gradients

    @property
    def hours(self) -> float:
        return _hours(self.curve.task, self.gradients)

    def ready(self) -> bool:
        return choose(self.curve, self.choosing.ended) is not None

    def ended(self) -> Record | None:
        chosen = choose(self.curve, self.choosing.ended)
        return self.worker.ended(self._unit(chosen)) if chosen else None

    def work(self) -> Record:
        return self.worker.work(self._now())

    def tell(self, result: Record, skipped: bool) -> None:
        self.worker.progress.result(self._now(), result, skipped)

    def _now(self) -> Unit:
        chosen = choose(self.curve, self.choosing.ended)
        if chosen is None:
            raise RuntimeError(f"{self.name} was begun before its candidates had ended")
        return self._unit(chosen)

    def _unit(self, candidate: Candidate) -> Unit:
        return next(unit for unit in self.curve.units(candidate) if unit.seed == self.seed)


def choose(curve: Curve, result: Callable[[Unit], Record | None]) -> Candidate | None:
    """The candidate with the lowest validation error, the lower loss deciding between equals.

    None where a result is missing; one that diverged comes last.
    """
    if len(curve.candidates) == 1:
        return curve.candidates[0]
    results = [result(unit) for unit in curve.choosing()]

    def score(place: int) -> tuple[bool, float, float]:
        found = results[place]
        assert found is not None
        if found["diverged"]:
            return True, 0.0, 0.0
        return False, round(found["validation_error"], 3), found["validation_loss"]

    return None if None in results else curve.candidates[min(range(len(results)), key=score)]


def _turn(job: Job) -> tuple[int, float]:
    """What others wait for first; then a seed of all curves before the next, so that stopped, it has some of each.

    Among these the longest, so that processes which share them end together.
    """
    return (1 + job.seed if isinstance(job, ChosenRun) else 0), -job.hours


class Reproduction:
    """The jobs of some figures, in one folder."""

    def __init__(
        self, what: Sequence[str], path: Path, progress: Progress, data_dir: Path | None = None, device: str = "cpu"
    ) -> None:
        self.what, self.progress, self.data_dir, self.device = what, progress, data_dir, device
        make(path)
        self.folder = Folder(path)
        self._data = cache(self._loaded)

    def run(self) -> None:
        """Works off what is missing; returns when all is there.

        Raises:
            DataError: a data set is missing.
            FolderError: there are results of other runs of the same name.
            Stopped: ``progress`` asked for it; a later call goes on.
            OSError: something cannot be written; what was written before is whole.
        """
        jobs = sorted(self.jobs(), key=_turn)
        self.progress.start(len(jobs), sum(job.gradients for job in jobs))
        share(
            jobs, self.folder, self.progress,
            ended=lambda job: job.ended(), work=lambda job: job.work(), ready=lambda job: job.ready(),
            tell=lambda job, result, skipped: job.tell(result, skipped),
        )  # fmt: skip

    def jobs(self) -> list[Job]:
        return [job for name in self.what for job in self.jobs_of(name)]

    def jobs_of(self, name: str) -> list[Job]:
        spectra: list[Job] = [self._spectrum(minimum) for minimum in MINIMA if minimum.figure == name]
        measured: list[Job] = [
            Measuring(each, self.folder, self.progress, self.data_dir) for each in MEASUREMENTS if each.figure == name
        ]
        return spectra + measured + [job for curve in CURVES.get(name, ()) for job in self._of(curve)]

    def _spectrum(self, minimum: Minimum) -> Spectrum:
        command = f"widevalley reproduce {minimum.figure}"
        return Spectrum(minimum, self.folder, self.progress, self.data_dir, command)

    def _of(self, curve: Curve) -> list[Job]:
        choosing, worker = self._worker(curve.choosing_task), self._worker(curve.task)
        runs: list[Job] = [Run(choosing, unit) for unit in curve.choosing()]
        return runs + [ChosenRun(curve, seed, worker, choosing) for seed in curve.seeds]

    def _worker(self, task: Task) -> Worker:
        return Worker(task, lambda: self._data(task.data), self.folder, self.progress, device=self.device)

    def _loaded(self, data: Callable[[Path | None], Data]) -> Data:
        return train.on(data(self.data_dir), self.device)
