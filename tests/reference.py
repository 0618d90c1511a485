"""Algorithm 1 of the paper, literal and slow: the oracle that the optimizers are tested against.

Nothing here comes from torch.optim or from widevalley. The numbers in the margin are the lines of Algorithm 1.
What the paper writes without a symbol of its own (the pull c, the temperature T, the settings of both loops)
carries the name that the public arguments have.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Number = float | Callable[[int], float]


@dataclass(frozen=True)
class Block:
    """One tensor of weights and the settings that hold for it."""

    x: Tensor
    lr: Number  # η′, a function of the gradients taken before
    gamma: Number  # γ, a function of t
    alpha: float
    outer_lr: Number = 1.0  # η, a function of t
    pull: float | None = 1.0  # c; None: γ
    temperature: float = 0.0
    weight_decay: float = 0.0
    decay_in_outer: bool = True  # False: f has no decay in the outer gradient, as with NestedOptimizer
    momentum: float = 0.0
    nesterov: bool = False
    outer_momentum: float = 0.0
    betas: tuple[float, float] | None = None  # given: Adam in the inner loop
    outer_betas: tuple[float, float] | None = None  # given: Adam in the outer loop
    eps: float = 1e-8
    restart: bool = False
    decoupled_pull: bool = False


@dataclass(frozen=True)
class Seen:
    """What there is to see after a gradient: the weights that the next one is taken at, x and μ."""

    parameters: list[Tensor]
    x: list[Tensor]
    mu: list[Tensor]


class SGD:
    """b ← m b + d; the direction is b, with Nesterov d + m b."""

    def __init__(self, momentum: float, nesterov: bool) -> None:
        self.momentum, self.nesterov, self.b = momentum, nesterov, 0.0

    def direction(self, d: Tensor) -> Tensor:
        self.b = self.momentum * self.b + d
        return d + self.momentum * self.b if self.nesterov else self.b


class Adam:
    """Kingma and Ba, Algorithm 1."""

    def __init__(self, betas: tuple[float, float], eps: float) -> None:
        self.beta1, self.beta2 = betas
        self.eps, self.m, self.v, self.t = eps, 0.0, 0.0, 0

    def direction(self, g: Tensor) -> Tensor:
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g * g
        m_hat = self.m / (1 - self.beta1**self.t)
        v_hat = self.v / (1 - self.beta2**self.t)
        return m_hat / (v_hat.sqrt() + self.eps)


def new_inner(block: Block) -> SGD | Adam:
    return Adam(block.betas, block.eps) if block.betas else SGD(block.momentum, block.nesterov)


def new_outer(block: Block) -> SGD | Adam:
    if block.outer_betas:
        return Adam(block.outer_betas, block.eps)
    return SGD(block.outer_momentum, block.nesterov)


def at(setting: Number, t: int) -> float:
    return setting(t) if callable(setting) else setting


def algorithm_1(
    blocks: Sequence[Block],
    gradient: Callable[[Sequence[Tensor], int], Sequence[Tensor]],
    *,
    L: Number,
    rho: Number = 0.0,
    noise: Callable[[int, int], Tensor] | None = None,
) -> Iterator[Seen]:
    """Algorithm 1 again and again; one record after every gradient.

    ``gradient(weights, k)`` is ∇f of minibatch k at the weights, k = 0, 1, … over both loops; ``noise(s, i)``
    is the standard normal tensor of block i at inner step s = 0, 1, … over all cycles. L and ρ may be functions
    of t.
    """
    x = [block.x.clone() for block in blocks]
    inner = [new_inner(block) for block in blocks]
    outer = [new_outer(block) for block in blocks]
    k = 0
    s = 0
    for t in itertools.count():
        x_prime = list(x)  # 1
        mu = list(x)  # 1
        for i, block in enumerate(blocks):
            if block.restart:
                inner[i] = new_inner(block)
        for ell in range(1, at(L, t) + 1):  # 2
            df = gradient(x_prime, k)  # 3
            for i, block in enumerate(blocks):
                eta_prime = at(block.lr, k)
                gamma = at(block.gamma, t)
                df_i = df[i] + block.weight_decay * x_prime[i]
                pulled = -gamma * (x[i] - x_prime[i])
                within, beside = (0.0, pulled) if block.decoupled_pull else (pulled, 0.0)
                step = inner[i].direction(df_i + within) + beside  # 4
                x_prime[i] = x_prime[i] - eta_prime * step  # 5
                if block.temperature > 0:
                    x_prime[i] = x_prime[i] + math.sqrt(2 * eta_prime * block.temperature) * noise(s, i)  # 5
                mu[i] = (1 - block.alpha) * mu[i] + block.alpha * x_prime[i]  # 6
            k += 1
            s += 1
            if ell < at(L, t):
                yield Seen(list(x_prime), list(x), list(mu))
        dx = [torch.zeros_like(x_i) for x_i in x]
        if at(rho, t) > 0:
            yield Seen(list(x), list(x), list(mu))
            dx = gradient(x, k)  # 7, 8
            k += 1
        for i, block in enumerate(blocks):
            eta = at(block.outer_lr, t)
            c = at(block.gamma, t) if block.pull is None else block.pull
            dx_i = dx[i] + block.weight_decay * x[i] if block.decay_in_outer else dx[i]
            x[i] = x[i] - eta * outer[i].direction(at(rho, t) * dx_i + c * (x[i] - mu[i]))  # 9
        yield Seen(list(x), list(x), list(x))


def network() -> list[Tensor]:
    """The weights of a network of 4 inputs, 5 tanh units and 3 classes."""
    generator = torch.Generator().manual_seed(11)
    shapes = [(5, 4), (5,), (3, 5), (3,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@functools.cache
def minibatch(k: int) -> tuple[Tensor, Tensor]:
    """6 samples that no other minibatch has."""
    generator = torch.Generator().manual_seed(1000 + k)
    inputs = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (6,), generator=generator)


def network_gradient(weights: Sequence[Tensor], k: int) -> list[Tensor]:
    """∇f of the network on minibatch k."""
    inputs, targets = minibatch(k)
    w1, b1, w2, b2 = leaves = [w.detach().clone().requires_grad_() for w in weights]
    logits = (inputs @ w1.T + b1).tanh() @ w2.T + b2
    return list(torch.autograd.grad(torch.nn.functional.cross_entropy(logits, targets), leaves))


def take_gradient(optimizer: torch.optim.Optimizer, gradient: Callable, k: int) -> None:
    """One call of the optimizer with the gradient of minibatch k where its parameters stand."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for p, g in zip(parameters, gradient([p.detach() for p in parameters], k), strict=True):
        p.grad = g
    optimizer.step()
