"""One run in a folder of its own: ``widevalley train``.

metrics.jsonl           its configuration, evaluations and, when it has ended, its result
center.safetensors      the network at the latest evaluation, at the centre
state/                  its two newest checkpoints, with which it goes on
tensorboard/            event files, if they are asked for
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from widevalley.experiments import board, train
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.data import Data
from widevalley.experiments.folder import FolderError, differences, make, read_json
from widevalley.experiments.recording import Progress, Recorder, configuration
from widevalley.experiments.records import Record
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Unit
from widevalley.writing import PARTIAL

# What may stand in a folder that holds no run yet.
_BEFORE = {"lock", f"metrics.jsonl{PARTIAL}"}
# And in one whose metrics were lost, which begins anew.
_OURS = {"center.safetensors", "state", "tensorboard"}


def train_one(
    unit: Unit,
    task: Task,
    data: Data,
    folder: Path,
    progress: Progress,
    *,
    changes: Record,
    resume: bool = False,
    device: str = "cpu",
    tensorboard: bool = False,
) -> Record:
    """Trains the unit in ``folder``, or goes on with it; returns its result.

    Raises:
        FolderError: the folder holds a run already and ``resume`` is False, or another run, or another process is at
            work in it.
        Stopped, OSError: as ``train.run``.
    """
    header = configuration(unit, task, changes, device)
    path = folder / "metrics.jsonl"
    if tensorboard:
        board.writer()
    train.rehearse(task, data)
    names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
    if not path.exists() and not names <= (_BEFORE | _OURS if resume else _BEFORE):
        raise FolderError(f"{folder} is not empty and holds no run: give another --out")
    make(folder)
    if resume and not path.exists():
        progress.warn(f"{folder} holds nothing yet: beginning anew")
    try:
        with FileLock(folder / "lock").acquire(timeout=0):
            if path.exists():
                ended = _refuse_other(path, header, resume)
                if ended:
                    progress.start(1, unit.gradients)
                    progress.result(unit, ended, skipped=True)
                    return ended
            return _run(unit, task, data, folder, progress, header, device, tensorboard)
    except Timeout:
        raise FolderError(f"Another process is at work in {folder}: wait for it, or give another --out") from None


def _run(
    unit: Unit, task: Task, data: Data, folder: Path, progress: Progress, header: Record, device: str, tensorboard: bool
) -> Record:
    checkpoints = Checkpoints(folder / "state", warn=progress.warn)
    if not (folder / "metrics.jsonl").exists():
        # They may be of another run.
        checkpoints.clear()
    events = folder / "tensorboard" if tensorboard else None
    progress.start(1, unit.gradients)
    progress.unit(unit)
    with Recorder(
        unit, header, folder / "metrics.jsonl", progress, folder / "center.safetensors", along=True, board=events
    ) as recorder:
        records, _ = train.run(unit, task, train.on(data, device), recorder, checkpoints, device)
        recorder.write(records)
    progress.result(unit, records[-1], skipped=False)
    return records[-1]


def _refuse_other(path: Path, header: Record, resume: bool) -> Record | None:
    """The result, if the run that is there has ended."""
    if not resume:
        raise FolderError(f"{path.parent} holds a run already: add --resume to go on with it, or give another --out")
    if different := differences(read_json(path, 0), header):
        raise FolderError(f"{path.parent} holds another run ({different}): repeat its arguments, or give another --out")
    last = read_json(path, -1)
    return last if last.get("kind") == "result" else None
