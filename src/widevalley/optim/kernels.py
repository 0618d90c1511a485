"""The element-wise arithmetic of a cycle: one pass over memory for each operation, on lists of tensors.

On a CPU a loop over tensors with ``out=`` is the fastest that torch has without a compiler; on an accelerator the
``_foreach`` functions save launches. Both do the same arithmetic in the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pulled(
    x_primes: list[Tensor], centers: list[Tensor], grads: list[Tensor], gamma: float, scratch: dict[Tensor, Tensor]
) -> list[Tensor]:
    """∇f(x′) + γ(x′ − x), in the layout and type of ``x_primes`` (line 4).

    Never the tensors ``grads`` themselves: torch's own optimizers add weight decay and momentum into the gradients they
    get. On a CPU the results are kept in ``scratch`` for the next call, since asking the system for as much memory
    again at each step took three times as long as the arithmetic (mnistfc, two cores). Accelerators have an allocator
    that caches.
    """
    if _on_accelerator(x_primes):
        difference = list(torch._foreach_sub(x_primes, centers))
        torch._foreach_mul_(difference, gamma)
        torch._foreach_add_(difference, grads)
        return [d.to(x_prime.dtype) for d, x_prime in zip(difference, x_primes, strict=True)]
    results = []
    for x_prime, x, g in zip(x_primes, centers, grads, strict=True):
        kept = scratch.get(x_prime)
        if kept is None or kept.shape != x_prime.shape or kept.dtype != x_prime.dtype:
            kept = scratch[x_prime] = torch.empty_like(x_prime)
        if gamma == 0:
            kept.copy_(g)
        elif x.dtype == x_prime.dtype:
            torch.sub(x_prime, x, out=kept)
            torch.add(g, kept, alpha=gamma, out=kept)
        else:
            kept.copy_(torch.sub(x_prime, x).mul_(gamma).add_(g))
        results.append(kept)
    return results


def offsets(x_primes: list[Tensor], centers: list[Tensor], factor: float) -> list[Tensor]:
    """New tensors factor · (x′ − x)."""
    difference = list(torch._foreach_sub(x_primes, centers))
    torch._foreach_mul_(difference, factor)
    return difference


def subtract_(x_primes: list[Tensor], amounts: list[Tensor]) -> None:
    """x′ ← x′ − amount, rounded once where the amounts have the finer type."""
    for x_prime, amount in zip(x_primes, amounts, strict=True):
        x_prime.copy_(x_prime - amount) if amount.dtype != x_prime.dtype else x_prime.sub_(amount)


def average_(averages: list[Tensor], x_primes: list[Tensor], alpha: float) -> None:
    """μ ← (1 − α)μ + αx′ (line 6); μ is exactly x′ for α = 1."""
    if all(mu.dtype == x_prime.dtype for mu, x_prime in zip(averages, x_primes, strict=True)):
        torch._foreach_lerp_(averages, x_primes, alpha)
    else:
        for mu, x_prime in zip(averages, x_primes, strict=True):
            mu.lerp_(x_prime.to(mu.dtype), alpha)


def read_center_(centers: list[Tensor], params: list[Tensor]) -> None:
    """x ← parameters, except where the parameter already is the centre rounded: there x keeps its digits."""
    for x, p in zip(centers, params, strict=True):
        x.copy_(p) if x.dtype == p.dtype else x.copy_(torch.where(x.to(p.dtype) == p, x, p.to(x.dtype)))


def _on_accelerator(tensors: list[Tensor]) -> bool:
    return bool(tensors) and tensors[0].device.type != "cpu"
