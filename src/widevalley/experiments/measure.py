"""Measuring networks side by side: ``widevalley measure``, kept in a folder of its own.

measurement.json    all of it, one object, written whole after every part
spectrum-NAME/      what eigenvalues that are not there yet have on disk
lock                held by the process at work
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from widevalley.experiments import environment, parts
from widevalley.experiments.folder import FolderError, differences, make, read_json
from widevalley.experiments.measured import PARTS
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.subjects import Subject
from widevalley.experiments.train import Stopped
from widevalley.writing import PARTIAL, write

FILE = "measurement.json"
# Eigenvalues have them, and local entropies of a thousand times their error.
DIGITS = 9
_BEFORE = {"lock", f"{FILE}{PARTIAL}"}


class Progress(Protocol):
    """What a measurement tells, and asks."""

    def start(self, total: int) -> None:
        """So many parts, of all networks."""

    def part(self, title: str) -> None: ...
    def stage(self, what: str, done: float) -> None:
        """The part has come so far; a new ``what`` begins at 0."""

    def ended(self, title: str, said: str) -> None:
        """``said`` is empty where it was measured now."""

    def stop(self) -> bool:
        """Whether to keep what there is and to leave."""


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    subjects: tuple[Subject, ...]
    samples: str  # what the losses are means over, in words
    command: str
    what: tuple[str, ...]
    asked: bool  # for these parts by name: they may cost what they cost
    gammas: tuple[float, ...] = ()  # empty: by the size of the first network
    task: str | None = None
    objective: str | None = None
    device: str = "cpu"


def measure(plan: Plan, folder: Path, progress: Progress, resume: bool = False) -> Record:
    """Measures what is not there yet, and returns all of it. A later call may ask for other parts or add networks.

    Raises:
        FolderError: the folder has a measurement already and ``resume`` is False, or another one, or another process
            is at work in it.
        Stopped: ``progress`` asked for it.
        ValueError: nothing can be measured at a network's weights.
        OSError: something cannot be written; what was written before is whole.
    """
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    if FILE not in names and not names <= _BEFORE:
        raise FolderError(f"{folder} is not empty and holds no measurement: give another --out")
    if FILE in names and not resume:
        raise FolderError(f"{folder} holds a measurement already: add --resume to go on with it, or give another --out")
    make(folder)
    try:
        with FileLock(folder / "lock").acquire(timeout=0):
            return _Measuring(plan, folder, progress).run()
    except Timeout:
        raise FolderError(f"Another process is at work in {folder}: wait for it, or give another --out") from None


class _Measuring:
    def __init__(self, plan: Plan, folder: Path, progress: Progress) -> None:
        self.plan, self.folder, self.progress = plan, folder, progress
        self.path = folder / FILE
        self.record = self._begun()
        self.first = plan.subjects[0]

    def run(self) -> Record:
        plan, progress = self.plan, self.progress
        several = len(plan.subjects) > 1
        progress.start(len(plan.subjects) * len(plan.what) + several)
        for subject in plan.subjects:
            self._point(subject)
        if several:
            self._widths()
        # Part by part, so that a measurement that is stopped has measured all networks alike; the dearest last.
        for part in sorted(plan.what, key=("density", "sharpness", "surface", "entropy", "spectrum").index):
            for subject in plan.subjects:
                self._part(subject, part)
        return self.record

    def _begun(self) -> Record:
        plan = self.plan
        header: Record = {
            "command": plan.command,
            "what": list(plan.what),
            "samples": plan.samples,
            "task": plan.task,
            "objective": plan.objective,
            "gammas": list(plan.gammas),
            "versions": environment.versions(),
            "machine": environment.machine(plan.device),
        }
        there: Record = read_json(self.path) if self.path.exists() else {"networks": {}, "widths": None}
        own = {subject.name: {"sha256": subject.sha256} for subject in plan.subjects}
        known = {name: {"sha256": each["sha256"]} for name, each in there["networks"].items() if name in own}
        if self.path.exists():
            same = ("samples", "task", "objective", *(("gammas",) if plan.gammas else ()))
            wanted: Record = {key: header[key] for key in same} | {name: own[name] for name in known}
            if different := differences({**there, **known}, wanted):
                raise FolderError(
                    f"{self.folder} holds another measurement ({different}): repeat its arguments, or give another "
                    f"--out. It was begun by: {there['command']}"
                )
            asked = {*there["what"], *plan.what}
            header["what"] = [part for part in PARTS if part in asked]
            header["gammas"] = header["gammas"] or there["gammas"]
        if set(known) != set(own):
            # Of fewer networks than there are now.
            there["widths"] = None
        return {**header, "networks": there["networks"], "widths": there["widths"]}

    def _point(self, subject: Subject) -> None:
        networks = self.record["networks"]
        if subject.name in networks:
            return
        try:
            found = rounded(parts.point(subject), DIGITS)
        except ValueError as error:
            raise ValueError(f"{subject.name} cannot be measured: {error}") from error
        networks[subject.name] = {
            "checkpoint": subject.checkpoint,
            "sha256": subject.sha256,
            "configuration": subject.configuration,
            "point": found,
        }
        self._write()

    def _widths(self) -> None:
        title = "widths side by side"
        if self.record["widths"] is not None:
            self.progress.ended(title, "there already")
            return
        self._begin(title)
        found = self.record["widths"] = self._tried(lambda: parts.widths(self.plan.subjects, self._told))
        self._end(title, found)

    def _part(self, subject: Subject, part: str) -> None:
        title = f"{part} of {subject.name}"
        network = self.record["networks"][subject.name]
        there = network.get(part)
        # What was skipped unasked may be asked for now.
        if there is not None and "unfinished" not in there and not ("skipped" in there and self.plan.asked):
            self.progress.ended(title, "there already")
            return
        self._begin(title)
        found = self._tried(lambda: self._measured(subject, part, there))
        # What was kept before a failure stays, unfinished.
        if not ("skipped" in found and "unfinished" in network.get(part, {})):
            network[part] = found
        self._end(title, found)

    def _begin(self, title: str) -> None:
        if self.progress.stop():
            raise Stopped
        self.progress.part(title)

    def _end(self, title: str, found: Record) -> None:
        self._write()
        self.progress.ended(title, f"left out. {found['skipped']}" if "skipped" in found else "")

    def _measured(self, subject: Subject, part: str, before: Record | None) -> Record:
        network = self.record["networks"][subject.name]

        def keep(found: Record) -> None:
            network[part] = rounded(found, DIGITS)
            self._write()

        before = before if before and "unfinished" in before else None
        if part == "spectrum":
            folder = self.folder / f"spectrum-{subject.name}"
            return parts.spectrum(subject, folder, self.plan.asked, before, keep, self._told)
        if part == "entropy":
            if not self.record["gammas"]:
                self.record["gammas"] = parts.default_gammas(self.first.objective)
            return parts.entropy(subject, self.record["gammas"], before, keep, self._told)
        if part == "surface":
            others = self.plan.subjects[1:] if subject is self.first else ()
            return parts.surfaces(subject, others, self._told)
        return {"density": parts.density, "sharpness": parts.sharpnesses}[part](subject, self._told)

    def _tried(self, measured: Callable[[], Record]) -> Record:
        """What cannot be had says why; the other parts go on."""
        try:
            found: Record = rounded(measured(), DIGITS)
            return found
        except (parts.Skipped, ValueError, RuntimeError) as error:
            return {"skipped": str(error)}

    def _told(self, what: str, done: float) -> None:
        self.progress.stage(what, done)
        if self.progress.stop():
            raise Stopped

    def _write(self) -> None:
        write(self.path, json.dumps(self.record) + "\n")
