"""SGD on the loss averaged over random perturbations of the weights: the paper's cheap variant of Entropy-SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from widevalley.optim import noise
from widevalley.validation import flag, integer, plain, real

_NUMBERS = ("momentum", "weight_decay", "perturbation")


class PerturbedSGD(Optimizer):
    """SGD with the gradient averaged over random perturbations of the weights, on one minibatch (Sec. 6)::

        d  = (1/K) Σ_k ∇f(x + σ ε_k; ξ) + λx,   ε_k ~ N(0, I), new ones at each step
        v  ← m v + d,   x ← x − η v              (Nesterov: x − η(d + m v))

    In expectation d is the gradient of the loss smoothed by a Gaussian, E f(x + σ ε): on a quadratic that of the loss
    itself. Unlike local entropy the average does not lean towards where the loss is low.

    ``step(closure)`` calls the closure K times, so a step costs K gradients, and K times what SGD's does; ``gradients``
    counts them. The closure clears the gradients, computes the loss of *one* minibatch, calls ``backward()`` and
    returns the loss, as for torch's LBFGS; dropout draws anew in each call, and batch-norm in training mode sees K
    batches.

    Args:
        params: parameters, named parameters or groups; each setting below may be given in a group, except ``samples``
            and ``seed``, which are one for the whole optimizer.
        lr, momentum, nesterov, weight_decay: as in ``torch.optim.SGD``.
        perturbation: σ, the standard deviation for each weight. The default is not tuned.
        samples: K. The default is the paper's smallest L.
        seed: of the private noise stream; the global random state is never consumed.

    After a step ``p.grad`` is the mean gradient. State: the momentum, as torch's SGD; within a step a copy of the
    weights and the sum of the gradients.

    Raises:
        TypeError, ValueError: wrong arguments, no closure, sparse gradients.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        *,
        perturbation: float = 0.01,
        samples: int = 5,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        integer("samples", samples, minimum=1)
        integer("seed", seed, minimum=0, maximum=2**64 - 1)
        settings = {
            "lr": lr, "perturbation": perturbation, "momentum": momentum, "nesterov": nesterov,
            "weight_decay": weight_decay,
        }  # fmt: skip
        _check(settings)
        super().__init__(params, {**settings, "samples": int(samples), "seed": int(seed), "gradients": 0})

    @property
    def gradients(self) -> int:
        """Gradients taken so far: K a step."""
        return int(self.param_groups[0]["gradients"])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; its missing settings are the constructor's."""
        first = self.param_groups[0] if self.param_groups else self.defaults
        for name in ("samples", "seed"):
            if param_group.setdefault(name, first[name]) != first[name]:
                raise ValueError(
                    f"{name}={param_group[name]!r} in one group but {first[name]!r} in another: it is one for the "
                    "whole optimizer, so give it to the constructor alone"
                )
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        param_group.update({name: plain(param_group[name]) for name in _NUMBERS}, gradients=first["gradients"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """One step of SGD from K calls of ``closure``; returns the mean of its losses, those of the perturbed weights.

        The weights are given back unperturbed also when the closure fails.
        """
        if not callable(closure):
            raise TypeError(
                f"closure={closure!r} is not a function: give one that clears the gradients, computes the loss of one "
                "minibatch, calls backward() and returns the loss; it is called several times a step"
            )
        samples = self.param_groups[0]["samples"]
        x = [
            (index, group, p, p.clone())
            for index, (group, p) in enumerate((g, p) for g in self.param_groups for p in g["params"])
            if p.requires_grad
        ]
        total: dict[Tensor, Tensor] = {}
        losses = []
        try:
            for k in range(samples):
                for index, group, p, start in x:
                    p.copy_(start)
                    key = {"seed": group["seed"], "step": group["gradients"] + k, "index": index}
                    if group["perturbation"]:
                        noise.add_gaussian_(p, group["perturbation"], **key)
                    p.grad = None
                with torch.enable_grad():
                    losses.append(closure())
                for _, _, p, _ in x:
                    if p.grad is not None:
                        _add(total, p, p.grad)
        finally:
            for _, _, p, start in x:
                p.copy_(start)
        for _, _, p, _ in x:
            p.grad = total[p].div_(samples) if p in total else None
        for group in self.param_groups:
            self._descend(group, [p for p in group["params"] if p.grad is not None and p.requires_grad])
            group["gradients"] += samples
        return None if any(loss is None for loss in losses) else sum(losses) / samples

    def _descend(self, group: dict[str, Any], params: list[Tensor]) -> None:
        buffers = [self.state[p].get("momentum_buffer") for p in params]
        sgd(
            params,
            [p.grad for p in params if p.grad is not None],
            buffers,
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            nesterov=group["nesterov"],
            dampening=0.0,
            maximize=False,
        )
        if group["momentum"]:
            for p, buffer in zip(params, buffers, strict=True):
                self.state[p]["momentum_buffer"] = buffer


def _add(total: dict[Tensor, Tensor], p: Tensor, gradient: Tensor) -> None:
    if gradient.layout != torch.strided:
        raise ValueError("a gradient is sparse, but every weight is perturbed: build the layer with sparse=False")
    if p in total:
        total[p].add_(gradient)
    else:
        # A copy: some closures and wrappers write every gradient into one buffer of their own.
        total[p] = gradient.clone()


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "weight_decay", "perturbation"):
        real(name, group[name], minimum=0.0)
    real("momentum", group["momentum"], minimum=0.0, below=1.0)
    flag("nesterov", group["nesterov"])
    if group["nesterov"] and not group["momentum"]:
        raise ValueError(f"nesterov={group['nesterov']!r} needs momentum > 0: give one, or nesterov=False")
