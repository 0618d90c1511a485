"""What is measured: networks from their files, each with the samples that its loss is the mean over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from widevalley.experiments.alterations import Alterations
from widevalley.experiments.data import Data, Split
from widevalley.experiments.evaluation import score
from widevalley.experiments.records import Record
from widevalley.experiments.subsets import balanced
from widevalley.experiments.tasks import TASKS, Task, find_function, find_task
from widevalley.landscape import Objective

# Of a folder that ``widevalley train`` wrote.
WEIGHTS = "center.safetensors"
# A product with a matrix of vectors keeps one backward pass over a batch for each of them.
BATCH = 512


class SubjectError(ValueError):
    """A network cannot be measured; the message says why, and what to give."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of weights."""

    name: str  # among the others
    path: str  # as it was given
    sha256: str
    configuration: Record | None  # what ``widevalley`` trained it with
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Subject:
    """A network at its weights, and the samples that it is measured on."""

    name: str
    checkpoint: str
    sha256: str
    configuration: Record | None
    objective: Objective
    error: float | None = None  # percent wrong, on these samples
    rank_bound: int | None = None  # of the Gauss-Newton part
    elsewhere: Mapping[str, Objective] = field(default_factory=dict)  # the same network on other samples


def read_checkpoints(paths: Sequence[Path]) -> list[Checkpoint]:
    """Weights from safetensors files, files of a ``state_dict``, or folders that ``widevalley train`` wrote.

    Nothing that could hold code is unpickled. Raises SubjectError.
    """
    files = [path / WEIGHTS if path.is_dir() else path for path in paths]
    return [
        Checkpoint(name, str(path), _sha256(file), *_weights(file))
        for name, path, file in zip(names(files), paths, files, strict=True)
    ]


def names(files: Sequence[Path]) -> list[str]:
    """A name for each: its stem, with as much of its folders before it as tells them apart.

    Raises SubjectError if a file is named twice.
    """
    if len({file.resolve() for file in files}) < len(files):
        raise SubjectError("A checkpoint is named twice: name each once.")
    # The weights of a run are called alike in every folder: the folder's name says more.
    words = [[*f.resolve().parts[1:-1], *([] if f.name == WEIGHTS else [f.stem])] for f in files]
    for count in range(1, max(map(len, words)) + 1):
        found = ["-".join(parts[-count:]) for parts in words]
        if len(set(found)) == len(found):
            return found
    raise SubjectError(f"{' and '.join(map(str, files))} would have one name: rename one.")


def of_task(
    checkpoints: Sequence[Checkpoint], named: str | None, load: Callable[[Task], Data], images: int, device: str
) -> tuple[list[Subject], str]:
    """The networks of a task, each on the same training examples; and these in words.

    Args:
        named: the task; None: the one that the checkpoints say they were trained on.
        load: gives a task's data.
        images: how many training examples, equally many of each class; all where there are fewer.

    Raises:
        SubjectError: no task, or several; weights that do not fit.
        TaskError: as ``find_task``.
    """
    task, changes = _common_task(checkpoints, named)
    train = load(task).train
    chosen = balanced(train, images, seed=0)
    others = {}
    if len(chosen) < len(train):
        others = {f"subset {seed}": balanced(train, images, seed) for seed in (1, 2)} | {"training set": train}
    which = "all of them" if not others else "drawn with seed 0"
    if others and train.targets.ndim == 1:
        which = f"equally many of each class, {which}"
    said = f"{len(chosen):,} training examples of {task.name}, {which}"
    if changes:
        said += f" ({', '.join(f'{key} {value}' for key, value in changes.items())})".replace("_", " ")
    return [_subject(checkpoint, task, chosen, others, device) for checkpoint in checkpoints], said


def of_function(paths: Sequence[Path], name: str) -> list[Subject]:
    """What the function ``module:function`` makes of each path.

    Raises:
        SubjectError: it does not give an Objective.
        TaskError: there is no such function.
    """
    wanted = "of a checkpoint's path that returns a widevalley.landscape.Objective"
    function = find_function(name, wanted)
    subjects = []
    for path, title in zip(paths, names(paths), strict=True):
        if not path.exists():
            raise SubjectError(f"There is no {path}.")
        try:
            objective = function(path)
        except Exception as error:
            raise SubjectError(f"{name}({str(path)!r}) failed with {type(error).__name__}: {error}") from error
        if not isinstance(objective, Objective):
            raise SubjectError(f"{name} returned {type(objective).__name__}: give a function {wanted}.")
        subjects.append(Subject(title, str(path), "" if path.is_dir() else _sha256(path), None, objective))
    return subjects


def _weights(file: Path) -> tuple[Record | None, dict[str, Tensor]]:
    """What the file says of itself, and its tensors."""
    try:
        with safe_open(file, "pt") as stored:
            about = (stored.metadata() or {}).get("widevalley")
        return None if about is None else dict(json.loads(about)), load_file(file)
    except (SafetensorError, ValueError) as error:
        if file.suffix == ".safetensors":
            raise SubjectError(f"{file} is damaged, or no safetensors file: {error}.") from error
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SubjectError(
            f"{file} is neither a safetensors file nor one of a state_dict that loads without code "
            f"({type(error).__name__}). For anything else give --objective module:function."
        ) from error
    if not (isinstance(found, dict) and found and all(isinstance(value, Tensor) for value in found.values())):
        raise SubjectError(f"{file} holds no state_dict, names and tensors: give --objective module:function.")
    return None, found


def _common_task(checkpoints: Sequence[Checkpoint], named: str | None) -> tuple[Task, Record]:
    """The task, altered as it was in training."""
    altered: list[Record] = []
    told: list[str] = []
    for each in checkpoints:
        about = each.configuration or {}
        if named is None and about.get("task") not in TASKS:
            was = (
                f"says that its task was {about['task']!r}, which is not built in" if "task" in about else "names none"
            )
            raise SubjectError(f"Which task is {each.path} of? It {was}: give --task, or --objective module:function.")
        told.append(named or str(about["task"]))
        # Other minibatches are the same data.
        changes = {key: value for key, value in (about.get("changes") or {}).items() if key != "batch_size"}
        if changes not in altered:
            altered.append(changes)
    if len(set(told)) > 1:
        raise SubjectError(
            f"The networks are of different tasks ({', '.join(dict.fromkeys(told))}): measure them one by one."
        )
    if len(altered) > 1:
        raise SubjectError(
            f"The networks were trained on different data ({', '.join(map(str, altered))}): measure side by side what "
            "was trained on the same."
        )
    changes = altered[0]
    return Alterations(**changes).apply(find_task(told[0])), changes


def _subject(checkpoint: Checkpoint, task: Task, chosen: Split, others: Mapping[str, Split], device: str) -> Subject:
    # Its initial weights, which are overwritten, draw from the global random state.
    with torch.random.fork_rng(devices=[]):
        network = task.network()
    try:
        network.load_state_dict(dict(checkpoint.tensors))
    except RuntimeError as error:
        raise SubjectError(f"{checkpoint.path} does not fit the network of {task.name}: {error}") from error
    network = network.to(device).eval()
    on = Split(chosen.inputs.to(device), chosen.targets.to(device))
    with torch.no_grad():
        logits = network(on.inputs[:1])
        wrong = score(network, on, BATCH).error
    return Subject(
        checkpoint.name,
        checkpoint.path,
        checkpoint.sha256,
        checkpoint.configuration,
        _objective(network, on),
        wrong,
        on.targets.numel() * (logits.shape[1] - 1),
        {name: _objective(network, split) for name, split in others.items()},
    )


def _objective(network: nn.Module, split: Split) -> Objective:
    batches: Iterable[tuple[Tensor, ...]] = zip(split.inputs.split(BATCH), split.targets.split(BATCH), strict=True)
    return Objective(network, data=list(batches))


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SubjectError(
            f"Cannot read {file} ({error.strerror}): give a file of weights, or a folder of widevalley train."
        ) from None
