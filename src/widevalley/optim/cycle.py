"""The arithmetic of Algorithm 1 over groups of parameters: the start of a cycle, an inner step, the outer gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from widevalley.optim import kernels, noise
from widevalley.optim.settings import own

Group = dict[str, Any]


def center_dtype(p: Tensor) -> torch.dtype:
    """x and μ are float32 where the parameter has less."""
    return torch.float32 if p.dtype in (torch.bfloat16, torch.float16) else p.dtype


def open_cycle(groups: list[Group], state: Mapping[Tensor, Group]) -> None:
    """Line 1: x is what the parameters hold, μ ← x."""
    params = [p for group in groups for p in group["params"]]
    centers = [state[p]["center"] for p in params]
    kernels.read_center_(centers, params)
    torch._foreach_copy_([state[p]["average"] for p in params], centers)


def inner_step(
    inner: Optimizer, groups: list[Group], state: Mapping[Tensor, Group], scratch: dict[Tensor, Tensor]
) -> None:
    """Lines 4 to 6 for every parameter that has a gradient and is not frozen; ``p.grad`` is as before afterwards."""
    count = groups[0]["inner_updates"]
    originals = {p: p.grad for group in groups for p in group["params"] if p.grad is not None}
    with_grad = [[p for p in group["params"] if p in originals and p.requires_grad] for group in groups]
    beside: list[list[Tensor]] = []
    scales = []
    try:
        for group, params in zip(groups, with_grad, strict=True):
            centers = [state[p]["center"] for p in params]
            gamma, decoupled, temperature = (own(group, n) for n in ("gamma", "decoupled_pull", "temperature"))
            lr = float(group["lr"]) if decoupled or temperature else 0.0
            scales.append(noise.displacement(lr, temperature))
            beside.append(kernels.offsets(params, centers, lr * gamma) if decoupled and gamma else [])
            grads = kernels.pulled(params, centers, [p.grad for p in params], 0.0 if decoupled else gamma, scratch)
            for p, g in zip(params, grads, strict=True):
                p.grad = g
        for p in originals:
            if not p.requires_grad:
                p.grad = None
        inner.step()
    finally:
        for p, g in originals.items():
            p.grad = g
    index = 0
    for group, params, pulls, scale in zip(groups, with_grad, beside, scales, strict=True):
        if pulls:
            kernels.subtract_(params, pulls)
        for p in group["params"]:
            if scale and p in originals and p.requires_grad:
                noise.add_gaussian_(p, scale, seed=own(group, "seed"), step=count, index=index)
            index += 1
        if params:
            kernels.average_([state[p]["average"] for p in params], params, own(group, "alpha"))


def pull_centers(
    cells: Iterable[tuple[Group, Tensor, Group]], plain: bool, decay_at_center: bool, with_rho: bool
) -> None:
    """Line 9: the step x ← x − η(ρ∇f(x) + c(x − μ)) itself if ``plain``, else its gradient into ``x.grad``.

    Args:
        cells: group, parameter and state.
        plain: there is no outer optimizer.
        decay_at_center: weight decay is part of f.
        with_rho: ``p.grad`` is ∇f(x).
    """
    for group, p, state in cells:
        x, mu = state["center"], state["average"]
        c = own(group, "gamma") if own(group, "pull") is None else own(group, "pull")
        rho_grad = None
        if with_rho and p.grad is not None:
            decay = group["weight_decay"] if decay_at_center else 0.0
            rho_grad = torch.add(p.grad.to(x.dtype), x, alpha=decay).mul_(own(group, "rho"))
        if plain:
            eta = 1.0 if own(group, "outer_lr") is None else float(own(group, "outer_lr"))
            # lerp_ is exact at weight 1: with η c = 1 the centre is μ to the last bit.
            x.lerp_(mu, eta * c)
            if rho_grad is not None:
                x.sub_(rho_grad, alpha=eta)
        else:
            pull = torch.sub(x, mu).mul_(c)
            x.grad = pull if rho_grad is None else pull.add_(rho_grad)
