"""What a nested optimizer refuses to step with: optimizers and gradients that it cannot serve."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def refuse(name: str, optimizer: Any) -> None:
    """Refuses what is no optimizer, or one that calls its closure several times.

    Raises:
        TypeError, ValueError: saying so.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{name}={optimizer!r} is not a torch.optim.Optimizer: give one over the model's parameters")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"{name}={type(optimizer).__name__} needs a closure that it calls several times, but a step here is one "
            "gradient: give an optimizer that steps on p.grad, such as torch.optim.SGD"
        )


def refuse_other_parameters(outer: Optimizer, centers: list[list[Tensor]]) -> None:
    """Refuses an outer optimizer that is not over the centres, group by group.

    Raises:
        ValueError: saying so.
    """
    held = [[id(p) for p in group["params"]] for group in outer.param_groups]
    if held != [[id(x) for x in group] for group in centers]:
        raise ValueError(
            f"outer={type(outer).__name__} is not over the centres in the order of the groups it was given: build it "
            "from the groups alone, as in lambda groups: torch.optim.SGD(groups, lr=0.7)"
        )


def has_gradients(groups: list[dict[str, Any]], check_finite: bool) -> bool:
    """Whether there is a gradient at all.

    Raises:
        ValueError: one is sparse or, if asked, has NaN or infinite elements.
    """
    found = False
    for index, group in enumerate(groups):
        for number, p in enumerate(group["params"]):
            if p.grad is None or not p.requires_grad:
                continue
            found = True
            names = group.get("param_names")
            name = f"parameter {names[number]!r}" if names else f"parameter {number} of group {index}"
            if p.grad.layout != torch.strided:
                raise ValueError(
                    f"the gradient of {name} is sparse ({p.grad.layout}): the pull towards the centre is dense, "
                    f"so build the "
                    "layer with sparse=False"
                )
            if check_finite and not bool(torch.isfinite(p.grad).all()):
                raise ValueError(
                    f"the gradient of {name} has NaN or infinite elements, and nothing was changed: lower lr, clip the "
                    "gradients, or pass check_finite=False to go on regardless"
                )
    return found
