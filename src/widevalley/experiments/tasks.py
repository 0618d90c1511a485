"""What is learned: a data set, a network and the length of a run. ``TASKS`` is the command's list.

The loss is ``torch.nn.functional.cross_entropy`` of logits (n, classes, …) with targets (n, …), the error that of the
argmax over dimension 1.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from widevalley.experiments import data as datasets
from widevalley.experiments import networks
from widevalley.experiments.batches import Batches, Minibatches


class TaskError(ValueError):
    """There is no such task, or it cannot be made; the message says what to type."""


@dataclass(frozen=True)
class Task:
    """A task of your own is a function without arguments that returns one of these (``find_task``).

    Raises:
        ValueError: a value that nothing can be trained with.
    """

    name: str  # also of its results' folder: letters, digits, "-", "_" and "."
    description: str
    data: Callable[[Path | None], datasets.Data]  # from the data folder, None for the default one
    network: Callable[[], nn.Module]  # initialised from torch's global random state
    batch_size: int
    epochs: float  # of gradients, when the caller does not say
    tuning_epochs: float = math.inf  # of a tuning run, at most those of a final run
    tuning_seeds: int = 1  # runs for each learning rate
    # From the number of training examples, the batch size and a seed.
    batches: Callable[[int, int, int], Batches] = Minibatches

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ValueError(f"name={self.name!r} cannot name a folder: use letters, digits, '-', '_' and '.'")
        for name in ("batch_size", "epochs", "tuning_epochs", "tuning_seeds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r} must be positive")

    def load(self, folder: Path | None) -> datasets.Data:
        """Its data.

        Raises:
            DataError: a file is missing or damaged, or the examples do not make a minibatch.
            TaskError: it is no Data.
        """
        data = self.data(folder)
        if not isinstance(data, datasets.Data):
            raise TaskError(
                f"data(folder) of {self.name} returned {type(data).__name__}: it must return a "
                "widevalley.experiments.Data, such as split(…) makes"
            )
        if len(data.train) < self.batch_size:
            raise datasets.DataError(
                f"{len(data.train)} training examples are fewer than a minibatch of {self.batch_size}: keep more of "
                "them, or give a smaller batch size"
            )
        return data

    def gradients(self, train_size: int, epochs: float) -> int:
        """Gradients in that many epochs of whole minibatches, one at least."""
        return max(1, round(epochs * (train_size // self.batch_size)))


# Every method is tuned at the length of the final runs: a rate that is best for a short cosine need not be for a long
# one. 128 is the paper's minibatch.
TASKS = {
    task.name: task
    for task in (
        Task(
            "digits",
            "8×8 digits, a small network with batch-norm",
            datasets.digits,
            networks.digits_fc,
            batch_size=64,
            epochs=30,
            tuning_seeds=3,
        ),
        Task("mnist-fc", "MNIST, the fully connected network mnistfc", datasets.mnist, networks.mnist_fc, 128, 10),
        Task("mnist-lenet", "MNIST, the convolutional network LeNet", datasets.mnist, networks.lenet, 128, 10),
        Task(
            "fashion-fc",
            "Fashion-MNIST, the fully connected network mnistfc",
            datasets.fashion_mnist,
            networks.mnist_fc,
            128,
            10,
        ),
        Task(
            "fashion-lenet",
            "Fashion-MNIST, the convolutional network LeNet",
            datasets.fashion_mnist,
            networks.lenet,
            128,
            10,
        ),
        Task(
            "cifar10-allcnn",
            "CIFAR-10 whitened, the convolutional network All-CNN with batch-norm",
            datasets.cifar10,
            networks.all_cnn,
            128,
            10,
        ),
        Task(
            "char-lstm",
            "tinyshakespeare by characters, an LSTM of width 48",
            datasets.text,
            networks.char_lstm,
            32,
            10,
        ),
    )
}


def perhaps(word: str, names: Iterable[str]) -> str:
    """ " Did you mean …?" for a word that is close to one of the names, nothing for others."""
    close = difflib.get_close_matches(word, names, n=1)
    return f" Did you mean {close[0]}?" if close else ""


def find_task(name: str) -> Task:
    """The task of that name, or the one that ``module:function`` returns, the current folder being searched too.

    Raises:
        TaskError: there is none; says why, and what to type.
    """
    if name in TASKS:
        return TASKS[name]
    if ":" not in name:
        raise TaskError(
            f"There is no task {name!r}.{perhaps(name, TASKS)} Tasks: {', '.join(TASKS)}; or a function of yours that "
            "returns a widevalley.experiments.Task, as module:function."
        )
    function = find_function(name, "without arguments that returns a widevalley.experiments.Task")
    try:
        task = function()
    except Exception as error:
        raise TaskError(
            f"{name}() failed with {type(error).__name__}: {error}. It is called without arguments."
        ) from error
    if not isinstance(task, Task):
        raise TaskError(f"{name}() returned {type(task).__name__}: it must return a widevalley.experiments.Task.")
    return task


def find_function(name: str, wanted: str) -> Callable[..., object]:
    """What ``module:function`` names, the current folder being searched too; ``wanted`` says what it has to be.

    Raises:
        TaskError: there is none; says why, and what to type.
    """
    module_name, _, function_name = name.partition(":")
    if not (module_name and function_name):
        raise TaskError(f"{name!r} names no function: give module:function, such as mytasks:mytask for mytasks.py.")
    # As "python -m" does it; it stays, for what the function imports later.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    function = getattr(_module(module_name, name), function_name, None)
    if function is None:
        raise TaskError(f"The module {module_name} has no {function_name!r}: give the name of its function.")
    if not callable(function):
        raise TaskError(f"{name} is of type {type(function).__name__} and cannot be called: give a function {wanted}.")
    found: Callable[..., object] = function
    return found


def _module(module_name: str, name: str) -> object:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Not what the module itself imports in vain.
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise TaskError(f"The module {module_name} needs the module {error.name}, which is not there.") from error
        dotted = re.sub(r"\.py$", "", module_name).replace("/", ".").replace("\\", ".")
        hint = f" Try {dotted}:{name.partition(':')[2]}." if dotted != module_name else ""
        raise TaskError(
            f"There is no module {module_name!r} in {os.getcwd()} or among the installed ones: give module:function, "
            f"such as mytasks:mytask for mytasks.py.{hint}"
        ) from None
    except (Exception, SystemExit) as error:
        raise TaskError(f"The module {module_name} failed with {type(error).__name__}: {error}") from error
