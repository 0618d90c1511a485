"""A comparison's results folder, which several processes may work on at once, each of which may be killed.

comparison.json            the plan, and the chosen learning rates once tuning is done
units/NAME.jsonl           a run's configuration, evaluations and, when it has ended, its result
units/NAME.state/          its checkpoints while it runs
networks/NAME.safetensors  the network of a final run, at the centre
widths/seedS.json          how wide the valleys of the networks of one seed are, side by side
tensorboard/NAME/          its event files, if they are asked for
locks/                     held by the processes at work; the system lets go of them when a process dies
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.train import Unit
from widevalley.writing import PARTIAL, write

# What may stand in a folder that holds no comparison yet; and in one whose plan was lost, which --resume writes anew.
_BEFORE = {"locks", f"comparison.json{PARTIAL}"}
_OURS = {"units", "networks", "widths", "tensorboard", "report.html"}
_GROWING = ("methods", "seeds")
# What may differ between the configuration with which a run was begun and the one with which it goes on.
MAY_DIFFER = {"versions", "machine"}


class FolderError(Exception):
    """The results folder holds something else, or is not to be gone on with, or is damaged."""


class Named(Protocol):
    """A unit of work that one process at a time is at."""

    @property
    def name(self) -> str: ...


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / "comparison.json"

    def claim(self, header: Record, resume: bool) -> bool:
        """Makes the folder that of the comparison which ``header`` describes; whether there was one to go on with.

        A comparison may grow by methods and seeds.

        Raises:
            FolderError: it has results already and ``resume`` is False, or they are of another plan; it cannot be made.
            OSError: it cannot be written.
        """
        make(self.path)
        with self.lock("comparison"):
            if self.plan.exists():
                self._refuse_other(header, resume)
                if _grows(read_json(self.plan), header):
                    self.write_plan(header)
                return True
            names = {item.name for item in self.path.iterdir()}
            if not names <= (_BEFORE | _OURS if resume else _BEFORE):
                raise FolderError(f"{self.path} is not empty and holds no comparison: give another --out")
            self.write_plan(header)
            return False

    def choose(self, header: Record, chosen: dict[str, float]) -> None:
        """Adds the chosen rates to the plan, unless another process has made it grow since."""
        with self.lock("comparison"):
            if not _grows(header, read_json(self.plan)):
                self.write_plan({**header, "chosen": chosen})

    def _refuse_other(self, header: Record, resume: bool) -> None:
        if not resume:
            raise FolderError(
                f"{self.path} holds a comparison already: add --resume to go on with it, or to help a process that is "
                "at work on it; or give another --out"
            )
        there = read_json(self.plan)
        # Of methods and seeds there may be more now; what else is kept of each method follows from its name.
        lost = [
            f"{key}: {item} there, not now"
            for key in _GROWING
            for item in there.get(key, ())
            if item not in header[key]
        ]
        derived = {*_GROWING, "descriptions", "gradients_per_step", "learning_rates"}
        rest = differences(there, {key: value for key, value in header.items() if key not in derived})
        if different := "; ".join([*lost, *filter(None, [rest])]):
            raise FolderError(
                f"{self.path} holds another comparison ({different}): repeat its arguments, or give another --out. It "
                f"was begun by: {there.get('command')}"
            )

    def write_plan(self, header: Record) -> None:
        write(self.plan, json.dumps(header, indent=1) + "\n")

    def result(self, unit: Unit, configuration: Record) -> Record | None:
        """The result of a unit that has ended, None for any other.

        Raises FolderError if its file is damaged, or of a run with another configuration.
        """
        path = self.records(unit)
        if not path.exists():
            return None
        if different := differences(read_json(path, 0), configuration):
            raise FolderError(f"{path} is of another run ({different}): move it away, and go on with --resume")
        record = read_json(path, -1)
        return record if record.get("kind") == "result" else None

    def records(self, unit: Unit) -> Path:
        return self.path / "units" / f"{unit.name}.jsonl"

    def weights(self, unit: Unit) -> Path:
        return self.path / "networks" / f"{unit.name}.safetensors"

    def widths(self, seed: int) -> Path:
        return self.path / "widths" / f"seed{seed}.json"

    def board(self, unit: Unit) -> Path:
        return self.path / "tensorboard" / unit.name

    def checkpoints(self, unit: Unit, warn: Callable[[str], None]) -> Checkpoints:
        return Checkpoints(self.path / "units" / f"{unit.name}.state", warn=warn)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Waits until no other process holds it."""
        with self._lock(name):
            yield

    @contextmanager
    def try_lock(self, unit: Named) -> Iterator[bool]:
        """Whether the unit is this process's for now, and no other's."""
        lock = self._lock(unit.name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _lock(self, name: str) -> FileLock:
        locks = self.path / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{name}.lock")


def differences(there: Record, now: Record) -> str:
    """In words, in which of the keys of ``now`` the two differ as files hold them; empty where they agree."""
    said = []
    for key, wanted in rounded(now).items():
        found = there.get(key)
        if key in MAY_DIFFER | {"command"} or wanted == found:
            continue
        if isinstance(wanted, dict) and isinstance(found, dict):
            both = {**found, **wanted}
            said += [
                f"{name}: {found.get(name)!r} there, {wanted.get(name)!r} now"
                for name in both
                if found.get(name) != wanted.get(name)
            ]
        else:
            said.append(f"{key}: {found!r} there, {wanted!r} now")
    return "; ".join(said)


def _grows(before: Record, after: Record) -> bool:
    """Whether the plan ``after`` has methods or seeds that ``before`` has not."""
    return any(item not in before.get(key, ()) for key in _GROWING for item in after.get(key, ()))


def make(path: Path) -> None:
    """Makes the folder. Raises FolderError if it cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{path} cannot be made a folder ({error.strerror}): give another --out") from None


def read_json(path: Path, line: int | None = None) -> Record:
    """The record of one line (0 the first, -1 the last), or of the whole file.

    Raises:
        FolderError: the file is damaged.
    """
    try:
        text = path.read_text()
        record: Record = json.loads(text if line is None else text.splitlines()[line])
    except (ValueError, IndexError) as error:
        raise FolderError(
            f"{path} is damaged ({error}): move it away, and go on with --resume; or begin again in another --out"
        ) from None
    return record
