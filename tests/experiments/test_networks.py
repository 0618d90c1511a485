"""The networks have the paper's parameter counts and take the paper's images."""

import pytest
import torch

from widevalley.experiments import networks
from widevalley.experiments.tasks import TASKS


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (networks.digits_fc(), 26_634),
        (networks.mnist_fc(), 1_867_786),
        (networks.mnist_fc(batchnorm=False), 1_863_690),
        (networks.lenet(), 131_220),
        (networks.small_lenet(), 47_658),
        (networks.small_mnist_fc(), 50_890),
    ],
)
def test_parameter_counts(network: torch.nn.Module, count: int) -> None:
    assert sum(p.numel() for p in network.parameters()) == count
    shape = (3, 64) if count == 26_634 else (3, 1, 28, 28)
    assert network(torch.zeros(shape)).shape == (3, 10)


def test_an_epoch_counts_full_batches() -> None:
    assert TASKS["digits"].gradients(1150, 2) == 2 * 17
    assert TASKS["mnist-fc"].gradients(54_000, 10) == 4210
