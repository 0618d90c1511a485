"""What is learned: a data set, a network and the length of a run. ``TASKS`` is the command's list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from widevalley.experiments import data as datasets
from widevalley.experiments import networks


@dataclass(frozen=True)
class Task:
    name: str
    description: str
    data: Callable[[Path | None], datasets.Data]  # from the data folder, None for the default one
    network: Callable[[], nn.Module]  # initialised from torch's global random state
    batch_size: int
    epochs: float  # of gradients, when the caller does not say
    tuning_epochs: float  # of a tuning run, at most those of a final run
    tuning_seeds: int  # runs for each learning rate

    def gradients(self, train_size: int, epochs: float) -> int:
        """Gradients in that many epochs of whole minibatches, one at least."""
        return max(1, round(epochs * (train_size // self.batch_size)))


TASKS = {
    task.name: task
    for task in (
        Task(
            "digits",
            "8×8 digits, a small network with batch-norm",
            datasets.digits,
            networks.digits_fc,
            64,
            30,
            30,
            3,
        ),
        # 128 is the paper's minibatch.
        Task(
            "mnist-fc",
            "MNIST, the fully connected network mnistfc",
            datasets.mnist,
            networks.mnist_fc,
            128,
            10,
            1,
            1,
        ),
        Task("mnist-lenet", "MNIST, the convolutional network LeNet", datasets.mnist, networks.lenet, 128, 10, 1, 1),
    )
}
