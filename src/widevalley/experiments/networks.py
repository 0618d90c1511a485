"""The networks of the comparisons, with the paper's parameter counts."""

from __future__ import annotations

import torch
from torch import nn

from widevalley.experiments.char_lstm import CharLSTM


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
    network = nn.Sequential(
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
    return _channels_last(network)


def all_cnn(*, dropout: float = 0.5) -> nn.Sequential:
    """All-CNN with batch-norm after every convolution, the last included, 1,667,166 parameters.

    Dropout is 0.2 on the images and ``dropout`` after each of the two convolutions of stride 2, as in the paper.
    """

    def block(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]

    network = nn.Sequential(
        nn.Dropout(0.2),
        *block(3, 96),
        *block(96, 96),
        *block(96, 96, stride=2),
        nn.Dropout(dropout),
        *block(96, 192),
        *block(192, 192),
        *block(192, 192, stride=2),
        nn.Dropout(dropout),
        *block(192, 192),
        *block(192, 192),
        *block(192, 10, size=1),
        nn.AvgPool2d(8),
        nn.Flatten(),
    )
    return _channels_last(network)


def char_lstm() -> CharLSTM:
    """The paper's network on text, 32,640 parameters: 96 characters, an LSTM of width 48, trainable initial states."""
    return CharLSTM()


def _channels_last(network: nn.Sequential) -> nn.Sequential:
    # Convolutions on a CPU are faster so: a gradient of LeNet took 17 ms in place of 25 on one thread.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


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
