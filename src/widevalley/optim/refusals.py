"""What a nested optimizer refuses to step with: optimizers and gradients that it cannot serve."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


def refuse_inner(inner: Any) -> None:
    """Refuses what is no optimizer, or one that calls its closure several times.

    Raises:
        TypeError, ValueError: saying so.
    """
    if not isinstance(inner, Optimizer):
        raise TypeError(f"inner={inner!r} is not a torch.optim.Optimizer: give one over the model's parameters")
    closure = inspect.signature(inner.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"inner={type(inner).__name__} needs a closure that it calls several times, but a step here is one "
            f"gradient: "
            "give an optimizer that steps on p.grad, such as torch.optim.SGD"
        )


def has_gradients(groups: list[dict[str, Any]], check_finite: bool) -> bool:
    """Whether there is a gradient at all.

    Raises:
        ValueError: one is sparse or, if asked, has NaN or infinite elements.
    """
    found = False
    for group in groups:
        for number, p in enumerate(group["params"]):
            if p.grad is None:
                continue
            found = True
            name = f"parameter {group['param_names'][number]!r}" if "param_names" in group else f"parameter {number}"
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
