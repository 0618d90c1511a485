"""State bytes per trainable parameter of every optimizer here and of its rivals, as a Markdown table.

    python benchmarks/memory.py

Counted on a network of 1,867,786 float32 parameters over more than one cycle of steps: every tensor that the
optimizer (or its averaged model) keeps, each storage once. The gradient, 4 bytes a parameter, is not in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from widevalley import SGHMC, EntropyAdam, EntropySGD, NestedOptimizer, PerturbedSGD
from widevalley.experiments.memory import storage_bytes

Make = Callable[[nn.Module], tuple[Any, ...]]


def sgd(params: Any, momentum: float = 0.9) -> torch.optim.SGD:
    return torch.optim.SGD(params, 0.01, momentum=momentum)


ROWS: dict[str, Make] = {
    "`torch.optim.SGD`": lambda m: (sgd(m.parameters(), 0.0),),
    "`torch.optim.SGD`, momentum": lambda m: (sgd(m.parameters()),),
    "`torch.optim.Adam`": lambda m: (torch.optim.Adam(m.parameters()),),
    "SWA or EMA (`AveragedModel`) with SGD, momentum": lambda m: (sgd(m.parameters()), AveragedModel(m)),
    "Lookahead with SGD, momentum": lambda m: (pytorch_optimizer.Lookahead(sgd(m.parameters())),),
    "SAM with SGD, momentum": lambda m: (
        pytorch_optimizer.SAM(m.parameters(), torch.optim.SGD, lr=0.01, momentum=0.9),
    ),
    "schedule-free SGD": lambda m: (pytorch_optimizer.ScheduleFreeSGD(m.parameters(), lr=0.01),),
    "schedule-free AdamW": lambda m: (pytorch_optimizer.ScheduleFreeAdamW(m.parameters(), lr=0.01),),
    "**`EntropySGD`**": lambda m: (EntropySGD(m.parameters(), 0.01),),
    "**`EntropySGD`, momentum**": lambda m: (EntropySGD(m.parameters(), 0.01, momentum=0.9),),
    "**`EntropySGD`, momentum in both loops**": lambda m: (
        EntropySGD(m.parameters(), 0.01, momentum=0.9, outer_momentum=0.9),
    ),
    "**`EntropyAdam`**": lambda m: (EntropyAdam(m.parameters(), 1e-3),),
    "**`NestedOptimizer`** of Adam": lambda m: (NestedOptimizer(torch.optim.Adam(m.parameters())),),
    "**`NestedOptimizer`** of **`SGHMC`**": lambda m: (NestedOptimizer(SGHMC(m.parameters(), 0.01)),),
    "**`PerturbedSGD`**, momentum": lambda m: (PerturbedSGD(m.parameters(), 0.01, momentum=0.9),),
}


def network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.BatchNorm1d(1024),
        nn.Linear(1024, 1024), nn.ReLU(), nn.BatchNorm1d(1024),
        nn.Linear(1024, 10),
    )  # fmt: skip


def state_bytes(model: nn.Module, kept: tuple[Any, ...]) -> int:
    own = storage_bytes(list(model.parameters()) + list(model.buffers()))
    return sum(size for address, size in storage_bytes(list(kept)).items() if address not in own)


def give_gradients(model: nn.Module) -> None:
    for p in model.parameters():
        p.grad = torch.randn_like(p)


def step(model: nn.Module, kept: tuple[Any, ...]) -> int:
    """One step; returns the largest state seen, for SAM that between its two gradients, where it holds the old "
    "weights."""
    optimizer, held = kept[0], 0
    if isinstance(optimizer, pytorch_optimizer.SAM):
        optimizer.first_step(zero_grad=False)
        held = state_bytes(model, kept)
        optimizer.second_step(zero_grad=False)
    elif isinstance(optimizer, PerturbedSGD):
        optimizer.step(lambda: give_gradients(model))
    else:
        optimizer.step()
    for averaged in kept[1:]:
        averaged.update_parameters(model)
    return max(held, state_bytes(model, kept))


def main() -> None:
    print("| optimizer | state, bytes a parameter |\n|---|---|")
    for name, make in ROWS.items():
        torch.manual_seed(0)
        model = network()
        kept = make(model)
        count = sum(p.numel() for p in model.parameters())
        give_gradients(model)
        held = max(step(model, kept) for _ in range(25))
        print(f"| {name} | {held / count:.1f} |")


if __name__ == "__main__":
    main()
