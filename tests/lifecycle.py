"""A small network, optimizers of every kind over it, and comparison bit for bit, for the life-cycle tests."""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from widevalley import SGHMC, EntropyAdam, EntropySGD, NestedOptimizer

INNER_STEPS = 3
# The call from which Network.late takes part in the loss: past the second cycle, where checkpoints are taken.
LATE = 8


class Network(nn.Module):
    """Three inputs, four hidden units, two outputs, and a scale that has no gradient before call LATE."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator).to(dtype))

        self.first, self.bias, self.last = weights(4, 3), weights(4), weights(2, 4)
        self.late = weights(2)

    def forward(self, inputs: Tensor, late: bool = True) -> Tensor:
        outputs = (inputs @ self.first.T + self.bias).tanh() @ self.last.T
        return outputs * self.late if late else outputs


def loss(model: nn.Module, call: int) -> Tensor:
    """The mean square error on the minibatch that only this call sees."""
    parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(100 + call)
    inputs = torch.randn(6, 3, generator=generator).to(parameter.dtype)
    targets = torch.randn(6, 2, generator=generator).to(parameter.dtype)
    return (model(inputs, call >= LATE) - targets).square().mean()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, calls: Iterable[int], scheduler: Any = None) -> None:
    for call in calls:
        optimizer.zero_grad()
        loss(model, call).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def growing(t: int) -> float:
    """γ after t outer updates."""
    return 0.3 * 1.1**t


def falling(t: int) -> float:
    """η after t outer updates."""
    return 1.0 / (1.0 + 0.1 * t)


def adam_outside(centers: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(centers, lr=0.05)


# What no default turns on: the noise, and functions of t.
LIVELY: dict[str, Any] = {
    "inner_steps": INNER_STEPS,
    "gamma": growing,
    "outer_lr": falling,
    "alpha": 0.4,
    "temperature": 1e-4,
    "seed": 5,
}


def entropy_sgd(parameters: Any, **changes: Any) -> EntropySGD:
    settings = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01} | LIVELY | changes
    return EntropySGD(parameters, 0.05, **settings)


def entropy_adam(parameters: Any, **changes: Any) -> EntropyAdam:
    settings = {"weight_decay": 0.01} | LIVELY | changes
    return EntropyAdam(parameters, 0.01, **settings)


def nested(make_inner: Callable[[Any], torch.optim.Optimizer], **fixed: Any) -> Callable[..., NestedOptimizer]:
    def build(parameters: Any, **changes: Any) -> NestedOptimizer:
        return NestedOptimizer(make_inner(parameters), **(LIVELY | fixed | changes))

    return build


def nested_sghmc(parameters: Any, temperature: float = 1e-3, **changes: Any) -> NestedOptimizer:
    """The noise is SGHMC's own, inside its momentum."""
    inner = SGHMC(parameters, 0.05, temperature=temperature, weight_decay=0.01, seed=3)
    return NestedOptimizer(inner, **(LIVELY | {"temperature": 0.0} | changes))


OPTIMIZERS: dict[str, Callable[..., NestedOptimizer]] = {
    "sgd": entropy_sgd,
    "sgd, restart": lambda p, **changes: entropy_sgd(p, **({"restart": True, "decoupled_pull": True} | changes)),
    "sgd, outer momentum": lambda p, **changes: entropy_sgd(p, **({"outer_momentum": 0.5} | changes)),
    "adam": entropy_adam,
    "adam, restart": lambda p, **changes: entropy_adam(p, **({"restart": True, "outer_lr": None} | changes)),
    "nested adamw": nested(lambda p: torch.optim.AdamW(p, lr=0.01)),
    "nested adamw, adam outside": nested(
        lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True), outer=adam_outside, outer_lr=None
    ),
    "nested nadam, restart": nested(lambda p: torch.optim.NAdam(p, lr=0.01), restart=True),
    "nested adagrad": nested(lambda p: torch.optim.Adagrad(p, lr=0.05), restart=False),
    "nested sghmc": nested_sghmc,
    "nested sghmc, restart": lambda p, **changes: nested_sghmc(p, **({"restart": True} | changes)),
}


def snapshot(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """All that a checkpoint holds, cut loose from the two."""
    return copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """The places where a and b are not the same to the bit, tensors' types included."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield f"{where}: {a} is not {b}"
    elif isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            yield f"{where}: keys {sorted(map(str, a.keys() ^ b.keys()))} are in one only"
        for key in a.keys() & b.keys():
            yield from differences(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{where}: lengths {len(a)} and {len(b)}"
        for i, (one, other) in enumerate(zip(a, b, strict=False)):
            yield from differences(one, other, f"{where}[{i}]")
    elif type(a) is not type(b) or a != b:
        yield f"{where}: {a!r} is not {b!r}"


def assert_same(a: Any, b: Any) -> None:
    found = list(differences(a, b))
    assert not found, "\n".join(found)
