"""The networks of the comparisons, with the paper's parameter counts."""

from __future__ import annotations

from torch import nn


def digits_fc() -> nn.Sequential:
    """64-128-128-10 with batch-norm after each ReLU, 26,634 parameters. Ours: small enough for a demonstration."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.BatchNorm1d(128),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.BatchNorm1d(128),
        nn.Linear(128, 10),
    )


def mnist_fc(*, dropout: float = 0.15, batchnorm: bool = True) -> nn.Sequential:
    """784-1024-1024-10: 1,867,786 parameters with batch-norm after each ReLU, 1,863,690 without.

    The paper's text has dropout 0.5; the authors' final numbers for Entropy-SGD used 0.15.
    """

    def hidden(width: int) -> list[nn.Module]:
        norm = [nn.BatchNorm1d(1024)] if batchnorm else []
        return [nn.Linear(width, 1024), nn.ReLU(), *norm, nn.Dropout(dropout)]

    return nn.Sequential(nn.Flatten(), *hidden(784), *hidden(1024), nn.Linear(1024, 10))


def lenet(*, dropout: float = 0.25) -> nn.Sequential:
    """LeNet with batch-norm, 131,220 parameters.

    The paper's text has dropout 0.5; the authors' final numbers for Entropy-SGD used 0.25.
    """
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.BatchNorm2d(20),
        nn.Dropout(dropout),
        nn.Conv2d(20, 50, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(50),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(200, 500),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(500, 10),
    )


def small_lenet() -> nn.Sequential:
    """The network of the paper's Hessian spectrum, 47,658 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(10, 20, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(320, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def small_mnist_fc() -> nn.Sequential:
    """784-64-10, 50,890 parameters. The text says 32 hidden units; only 64 gives the paper's count."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
