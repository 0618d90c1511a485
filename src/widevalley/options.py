"""What several commands share: options, what they refuse, and how they end. No heavy import before a command runs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from widevalley.experiments.alterations import Alterations
    from widevalley.experiments.data import Data
    from widevalley.experiments.tasks import Task
    from widevalley.stopping import Stopping

# Named here too, so that help and completion need not load torch; a test holds them equal to the real ones.
TASK_NAMES = ("digits", "mnist-fc", "mnist-lenet", "fashion-fc", "fashion-lenet", "cifar10-allcnn", "char-lstm")
METHOD_NAMES = (
    "entropy-sgd",
    "entropy-adam",
    "sgd",
    "adam",
    "adamw",
    "swa",
    "ema",
    "sam",
    "lookahead",
    "schedule-free",
)
DEFAULT_METHODS = "entropy-sgd,entropy-adam,sgd,adam"

PART_NAMES = ("spectrum", "density", "entropy", "sharpness", "surface")

# What there is to reproduce, in a line each.
REPRODUCED = {
    "fig1": "every eigenvalue of small-LeNet: trained by Adam twice, by Entropy-SGD to the same loss, and at first",
    "fig2": "two valleys in one dimension: local and classical entropy, and where SGD and Entropy-SGD end",
    "fig3a": "eigenvalues as in fig1, of small-mnistfc, trained by momentum SGD",
    "fig3b": "eigenvalues as in fig1, of the character LSTM",
    "fig4a": "mnistfc: Entropy-SGD, as the authors ran it and as the text has it, against Adam",
    "fig4b": "LeNet, likewise",
    "table": "what of Entropy-SGD it is that works: variants at equal gradients, and where its steps point",
}

# What the paper has besides.
NOT_REPRODUCED = {
    "fig3c": "the Fisher information of All-CNN-BN on CIFAR-10 (for one of small networks: table)",
    "fig5": "All-CNN-BN on CIFAR-10",
}

# Exit codes, beside 0 and Python's own 1; a signal's is 128 + its number.
WRONG, DIVERGED, CANNOT_WRITE = 2, 3, 4


def _tasks(incomplete: str) -> list[str]:
    return [name for name in TASK_NAMES if name.startswith(incomplete)]


def _methods(incomplete: str) -> list[str]:
    """Completes the last of the names with commas between."""
    given, comma, last = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in ("all", *METHOD_NAMES) if name.startswith(last)]


def _method(incomplete: str) -> list[str]:
    return [name for name in METHOD_NAMES if name.startswith(incomplete)]


def _parts(incomplete: str) -> list[str]:
    given, comma, last = incomplete.rpartition(",")
    return [f"{given}{comma}{name}" for name in PART_NAMES if name.startswith(last)]


TaskArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[TASK]",
        help=f"{', '.join(TASK_NAMES[:-1])} or {TASK_NAMES[-1]}.",
        autocompletion=_tasks,
        show_default=False,
    ),
]
OwnTask = Annotated[
    str | None,
    typer.Option("--task", metavar="MODULE:FUNCTION", help="A task of your own instead: what the function returns."),
]
Methods = Annotated[
    str,
    typer.Option(help=f"Names with commas between, or all: {', '.join(METHOD_NAMES)}.", autocompletion=_methods),
]
MethodOption = Annotated[str, typer.Option(help=f"{', '.join(METHOD_NAMES)}.", autocompletion=_method)]
What = Annotated[
    str | None,
    typer.Option(
        help=f"Parts with commas between: {', '.join(PART_NAMES)}.",
        autocompletion=_parts,
        show_default="all, a spectrum only where it takes minutes",
    ),
]
Epochs = Annotated[
    float | None,
    typer.Option(min=0.01, max=1e9, help="Epochs of gradients, the same for all.", show_default="the task's own"),
]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the data sets.", envvar="WIDEVALLEY_DATA", show_default="user's cache"),
]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1, …", show_default="cuda where there is one", metavar="DEVICE")
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Examples in a minibatch.", show_default="the task's own")]
LabelNoise = Annotated[float, typer.Option(help="Give this fraction of the training targets a wrong class.")]
TrainSize = Annotated[
    int | None, typer.Option(min=1, help="Train on this many examples, drawn once.", show_default="all of them")
]
Subset = Annotated[
    float | None, typer.Option(help="Keep this fraction of every split, for a quick look.", show_default="all")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's event files too.")]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what is in that folder, from the last checkpoint, bit for bit.")
]


def refuse(message: str, code: int = WRONG) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def the_task(named: str | None, own: str | None, **changes: Any) -> tuple[Task, Alterations]:
    """The task that the command line asks for, and what it changes of it."""
    from widevalley.experiments.alterations import Alterations
    from widevalley.experiments.tasks import find_task

    if named is not None and own is not None:
        refuse(f"{named} and --task {own} are two tasks: give one.")
    if named is None and own is None:
        refuse(f"Name one task: {', '.join(TASK_NAMES)}, or --task MODULE:FUNCTION for one of your own.")
    try:
        alterations = Alterations(**changes)
        return alterations.apply(find_task(named or own or "")), alterations
    except ValueError as error:
        refuse(str(error))


def the_data(task: Task, folder: Path | None) -> Data:
    from widevalley.experiments.data import DataError
    from widevalley.experiments.tasks import TaskError
    from widevalley.progress import reading

    try:
        with reading(task.name):
            return task.load(folder)
    except (DataError, TaskError) as error:
        refuse(str(error))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError) as error:
        refuse(f"The data of {task.name} cannot be made: {type(error).__name__}: {error}")


def the_device(given: str | None) -> str:
    import torch

    if given is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if given.partition(":")[0] not in ("cpu", "cuda"):
        refuse(f"--device {given} is not supported: cpu, cuda, cuda:1, …")
    try:
        torch.zeros(1, device=given)
    except (RuntimeError, AssertionError) as error:
        refuse(f"There is no device {given!r} here ({str(error).splitlines()[0]}). Leave --device out, or give cpu.")
    return given


def again(resume: bool = True) -> str:
    """The present command, with --resume where it has that."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    return shlex.join(["widevalley", *words, *(["--resume"] if resume else [])])


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """The rows as lines of a table."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


@contextmanager
def ending_in_words(stopping: Stopping, how: str | None = None) -> Iterator[None]:
    """Turns what may end a run early into a message and an exit code; ``how`` to go on is ``again()`` by default."""
    how = how or again()
    from widevalley.experiments.extras import MissingExtra
    from widevalley.experiments.folder import FolderError
    from widevalley.experiments.reading import ResultsError
    from widevalley.experiments.tasks import TaskError
    from widevalley.experiments.train import Stopped

    try:
        yield
    except (FolderError, MissingExtra, ResultsError, TaskError) as error:
        refuse(str(error))
    except Stopped:
        refuse(f"Stopped, and saved. To go on:\n  {how}", stopping.exit_code)
    except KeyboardInterrupt:
        refuse(f"Left at once. To go on from the last checkpoint:\n  {how}", stopping.exit_code)
    except OSError as error:
        refuse(
            f"Cannot write the results: {error}. What was written before is whole. When that is mended:\n  {how}",
            CANNOT_WRITE,
        )
