"""Langevin dynamics with momentum, as a torch optimizer: SGHMC, for the inner loop or alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from widevalley.optim import noise
from widevalley.validation import integer, plain, real


class SGHMC(Optimizer):
    """Stochastic gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin, 2014, Eq. 15), which the paper's Appendix A
    names in place of SGLD. Each ``step()`` takes one minibatch gradient::

        v  ← (1 − a) v − η(∇f(x; ξ) + λx) + √(2aηT) N(0, I)
        x  ← x + v

    For small η the chain's law tends to exp(−f(x)/T), and v to variance ηT, if the gradients are exact (their noise
    estimate β̂ of Eq. 15 is taken as 0); at a finite step a discrete Lyapunov equation has the law on a quadratic.
    a = 1 is SGLD with a displacement of variance 2ηT, T = 0 is ``torch.optim.SGD`` with momentum 1 − a.

    In the inner loop of Entropy-SGD the chain is drawn to x, and samples exp(−(f(x′) + γ/2 ‖x′ − x‖²)/T)::

        optimizer = NestedOptimizer(SGHMC(model.parameters(), lr=0.1, friction=0.1, temperature=1e-4))

    The nested optimizer's own ``temperature``, noise beside the momentum, stays 0 then; with ``restart=True`` each
    cycle starts with v = 0.

    Args:
        params: parameters, named parameters or groups; each setting below may be given in a group.
        lr: η, of the size tuned for SGD with momentum 1 − a.
        friction: a in (0, 1].
        temperature: T; 1/N for the Bayes posterior of a mean loss over N samples.
        weight_decay: λ, a Gaussian prior that is part of f.
        seed: of the private noise stream; the global random state is never consumed.

    State: v and a step count for each group, in ``state_dict()``; the noise is a function of seed, count and element.

    Raises:
        TypeError, ValueError: wrong arguments; sparse gradients.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        *,
        friction: float = 0.1,
        temperature: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        settings = {
            "lr": lr, "friction": friction, "temperature": temperature, "weight_decay": weight_decay, "seed": seed,
        }  # fmt: skip
        _check(settings)
        super().__init__(params, {**settings, "steps": 0})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group; its missing settings are the constructor's."""
        _check(param_group)
        super().add_param_group(param_group)
        for name in ("friction", "temperature", "weight_decay", "seed"):
            # Python's own numbers: numpy's do not pass torch.load(weights_only=True).
            param_group[name] = plain(param_group[name])
        param_group["steps"] = self.param_groups[0]["steps"]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Consumes the gradient that ``backward()`` left; ``closure`` is called once, and its loss returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if any(p.grad is not None and p.grad.layout != torch.strided for g in self.param_groups for p in g["params"]):
            raise ValueError(
                "a gradient is sparse, but every weight moves at each step: build the layer with sparse=False"
            )
        index = 0
        for group in self.param_groups:
            lr, a = float(group["lr"]), group["friction"]
            scale = math.sqrt(a) * noise.displacement(lr, group["temperature"])
            for p in group["params"]:
                if p.grad is not None:
                    if "velocity" not in self.state[p]:
                        self.state[p]["velocity"] = torch.zeros_like(p)
                    v = self.state[p]["velocity"]
                    v.mul_(1.0 - a).sub_(p.grad, alpha=lr)
                    if group["weight_decay"]:
                        v.sub_(p, alpha=lr * group["weight_decay"])
                    if scale:
                        noise.add_gaussian_(v, scale, seed=group["seed"], step=group["steps"], index=index)
                    p.add_(v)
                index += 1
            group["steps"] += 1
        return loss


def _check(group: dict[str, Any]) -> None:
    for name in ("lr", "temperature", "weight_decay"):
        if name in group:
            real(name, group[name], minimum=0.0)
    if "friction" in group:
        real("friction", group["friction"], above=0.0, maximum=1.0)
    if "seed" in group:
        integer("seed", group["seed"], minimum=0, maximum=2**64 - 1)
