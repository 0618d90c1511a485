"""The networks that the benchmarks measure, trained."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from widevalley.experiments.data import Split

BATCH, LEARNING_RATE, MOMENTUM = 128, 0.01, 0.9
RECIPE = f"SGD, rate {LEARNING_RATE} falling by a cosine, Nesterov momentum {MOMENTUM}, batch {BATCH}"


def trained(network: Callable[[], nn.Module], train: Split, epochs: int) -> nn.Module:
    """A network by ``RECIPE``, seed 0."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * (len(train) // BATCH)))
    for _ in range(epochs):
        order = torch.randperm(len(train))
        for indices in order.split(BATCH)[: len(train) // BATCH]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train.inputs[indices]), train.targets[indices]).backward()
            optimizer.step()
            schedule.step()
    model.zero_grad()
    return model


def error(model: nn.Module, split: Split) -> float:
    """Share of wrong answers, in eval mode."""
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(inputs).argmax(1) for inputs in split.inputs.split(1024)])
    return float((answers != split.targets).float().mean())
