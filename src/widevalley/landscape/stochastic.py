"""Samplers that see one minibatch a step, as the paper's appendix names them: cheap, and with a bias of their own.

All four aim at p(x′) ∝ exp(−βf(x′) − βγ/2 ‖x − x′‖²), x the present parameters, f the mean loss over N samples; γ = 0
is the uniform prior of the appendix. A step uses the gradient of one batch of the objective's data,

    ∇U = β (s ∇f_batch(x′) + γ (x′ − x)),    s = size of the batch × batches / N,

so that the mean over a pass is the whole gradient, whatever the sizes. None of them has an accept test: their law
differs from p by the step's length and the noise of the batches, and no standard error knows. To measure, take
``local_entropy_gradient`` or ``GibbsSampler``; these show what such training samples from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from widevalley.landscape.objective import Objective, zero_where_unused
from widevalley.validation import integer, real

StepSize = float | Callable[[int], float]

# Batches that a standard error's batch means come from.
BLOCKS = 20


@dataclass(frozen=True)
class StochasticAverage:
    """Averages over a chain after burn-in, each step weighted as its sampler says; float64.

    ``standard_error`` is the Monte Carlo error of ``mean`` from the means of 20 blocks; the bias is not in it.
    """

    mean: Tensor  # (n,)
    variance: Tensor  # (n,)
    standard_error: Tensor  # (n,)
    loss: float  # mean of the minibatch losses
    last: Tensor  # (n,), where the chain ended
    gradients: int  # of one batch each, burn-in included


def polynomial_decay(first: float, offset: float, power: float = 0.55) -> Callable[[int], float]:
    """ε_t = first (1 + t/offset)^(−power), t from 0: falling steps (Welling and Teh, ICML 2011, their a (b + t)^(−γ)).

    With power in (½, 1], Σ ε_t = ∞ and Σ ε_t² < ∞, as convergence needs.
    """
    real("first", first, above=0.0)
    real("offset", offset, above=0.0)
    real("power", power, above=0.5, maximum=1.0)
    return lambda t: float(first * (1 + t / offset) ** -power)


def sgld(
    objective: Objective,
    gamma: float,
    inverse_temperature: float = 1.0,
    *,
    steps: int,
    step_size: StepSize,
    burn_in: int = 0,
    seed: int = 0,
) -> StochasticAverage:
    """Stochastic gradient Langevin dynamics (Welling and Teh, ICML 2011; Eq. 13 of the appendix).

        x′ ← x′ − (ε_t/2) ∇U + √ε_t N(0, I),    ⟨g⟩ ≈ Σ_t ε_t g(x′_t) / Σ_t ε_t

    For curvature h of U and gradient noise of variance V its variance is (1 + εV/4)/(h (1 − εh/4)) at a constant step:
    of first order in ε. A falling ``step_size``, a function of the step such as ``polynomial_decay``, takes that to 0.

    Args:
        steps: in all, of which the first ``burn_in`` are not averaged.
        step_size: ε, or a function of the step, from 0.

    Raises:
        ValueError: γ < 0, β ≤ 0, a step that is not above 0, fewer than 40 steps after burn-in, a loss or position that
            is not finite.
    """
    walk = _Walk(objective, gamma, inverse_temperature, steps, step_size, burn_in, seed)
    x = walk.start.clone()
    for t in range(steps):
        step = walk.step(t)
        x = x - step / 2 * walk.slope(x) + math.sqrt(step) * walk.normal()
        walk.record(t, x, step)
    return walk.average(x)


def sghmc(
    objective: Objective,
    gamma: float,
    inverse_temperature: float = 1.0,
    *,
    steps: int,
    step_size: StepSize,
    burn_in: int = 0,
    friction: float = 0.1,
    seed: int = 0,
) -> StochasticAverage:
    """Stochastic gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin, ICML 2014, Eq. 15 without noise estimate).

        v ← (1 − a) v − ε ∇U + √(2aε) N(0, I),    x′ ← x′ + v

    ε is the square of the step in time, a = ``friction`` in (0, 1] the share of momentum lost a step. For curvature h
    of U and gradient noise of variance V the variance is (1 + εV/(2a))/(h (1 − εh/(4 − 2a))): of first order in ε.
    Arguments, errors as for ``sgld``; all steps weigh the same.
    """
    real("friction", friction, above=0.0, maximum=1.0)
    walk = _Walk(objective, gamma, inverse_temperature, steps, step_size, burn_in, seed)
    x = walk.start.clone()
    v = math.sqrt(walk.step(0)) * walk.normal()
    for t in range(steps):
        step = walk.step(t)
        v = (1 - friction) * v - step * walk.slope(x) + math.sqrt(2 * friction * step) * walk.normal()
        x = x + v
        walk.record(t, x, 1.0)
    return walk.average(x)


def preconditioned_sgld(
    objective: Objective,
    gamma: float,
    inverse_temperature: float = 1.0,
    *,
    steps: int,
    step_size: StepSize,
    burn_in: int,
    decay: float = 0.99,
    damping: float = 1e-5,
    seed: int = 0,
) -> StochasticAverage:
    """SGLD preconditioned as RMSprop is (Li et al., AAAI 2016), the preconditioner frozen after burn-in.

        x′ ← x′ − (ε_t/2) G ∇U + √(ε_t G) N(0, I),    G = 1/(λ + √V),    V ← decay V + (1 − decay) ḡ²

    ḡ = s ∇f_batch + γ (x′ − x) is the mean gradient, λ = ``damping``. Li et al. let G go on moving and drop the term
    Γ = Σ ∂G/∂x′ that this needs, a bias that does not vanish with the step. Frozen, G is a constant and Γ = 0: what is
    left is SGLD's bias with εG for ε. Arguments, errors as for ``sgld``; ``burn_in`` at least 1.
    """
    _check_preconditioner(burn_in, decay, damping)
    walk = _Walk(objective, gamma, inverse_temperature, steps, step_size, burn_in, seed)
    x = walk.start.clone()
    second = torch.zeros_like(x)
    for t in range(steps):
        step, slope = walk.step(t), walk.slope(x)
        if t < burn_in:
            second = decay * second + (1 - decay) * (slope / walk.beta).square()
        # From zeros, V starts too small: divided by what it lacks.
        g = 1 / (damping + (second / (1 - decay ** min(t + 1, burn_in))).sqrt())
        x = x - step / 2 * g * slope + (step * g).sqrt() * walk.normal()
        walk.record(t, x, step)
    return walk.average(x)


def santa(
    objective: Objective,
    gamma: float,
    inverse_temperature: float = 1.0,
    *,
    steps: int,
    step_size: StepSize,
    burn_in: int,
    friction: float = 0.1,
    decay: float = 0.99,
    damping: float = 1e-5,
    seed: int = 0,
) -> StochasticAverage:
    """Exploration stage of Santa (Chen et al., AISTATS 2016), symmetric splitting, at a constant temperature.

    A preconditioned Hamiltonian sampler whose friction α, one for each parameter, is a thermostat: it grows where the
    momentum u is hotter than it should be, and so takes up the noise of the batches.

        x′ ← x′ + G u/2,  α ← α + (u² − ε)/2,  u ← e^(−α/2) u
        u ← u − ε G ∇U(x′) + √(2aε) N(0, I)
        u ← e^(−α/2) u,  α ← α + (u² − ε)/2,  x′ ← x′ + G u/2

    G = 1/√(λ + √V) of the mean gradient's V as in ``preconditioned_sgld``, frozen after ``burn_in`` so that the
    terms with its derivatives vanish; α starts at a = ``friction``, ε is the square of the step in time. The bias is
    of first order in ε; batches that take turns cancel in x′ and not in u, so that the thermostat overdoes it by up to
    the share εG²V/(2a) of the variance, V that of their noise in ∇U. The paper's second stage, which cools down to an
    optimum, is no sampler and not here. Arguments, errors as for ``sgld``; all steps weigh the same.
    """
    _check_preconditioner(burn_in, decay, damping)
    real("friction", friction, above=0.0, maximum=1.0)
    walk = _Walk(objective, gamma, inverse_temperature, steps, step_size, burn_in, seed)
    x = walk.start.clone()
    u = math.sqrt(walk.step(0)) * walk.normal()
    alpha, second, g = torch.full_like(x, friction), torch.zeros_like(x), torch.ones_like(x)
    for t in range(steps):
        step = walk.step(t)
        x = x + g * u / 2
        alpha = alpha + (u.square() - step) / 2
        u = torch.exp(-alpha / 2) * u
        slope = walk.slope(x)
        u = u - step * g * slope + math.sqrt(2 * friction * step) * walk.normal()
        u = torch.exp(-alpha / 2) * u
        alpha = alpha + (u.square() - step) / 2
        x = x + g * u / 2
        walk.record(t, x, 1.0)
        if t < burn_in:
            second = decay * second + (1 - decay) * (slope / walk.beta).square()
            g = (damping + (second / (1 - decay ** (t + 1))).sqrt()).rsqrt()
    return walk.average(x)


class _Walk:
    """What the samplers share: gradients of one batch after the other, noise, and the weighted averages."""

    def __init__(
        self,
        objective: Objective,
        gamma: float,
        inverse_temperature: float,
        steps: int,
        step_size: StepSize,
        burn_in: int,
        seed: int,
    ) -> None:
        real("gamma", gamma, minimum=0.0)
        real("inverse_temperature", inverse_temperature, above=0.0)
        integer("steps", steps, minimum=1)
        integer("burn_in", burn_in, minimum=0)
        integer("seed", seed, minimum=0)
        if steps - burn_in < 2 * BLOCKS:
            raise ValueError(
                f"steps={steps} leaves {steps - burn_in} after burn_in={burn_in}, too few for an error: give at least "
                f"{2 * BLOCKS} more than burn_in"
            )
        objective.check()
        self.objective, self.gamma, self.beta = objective, gamma, inverse_temperature
        self.steps, self.burn_in = steps, burn_in
        self._step_size = step_size
        self.start = objective.vector().double()
        self.batches = sum(1 for _ in objective.batches())
        self._stream = self._endless()
        self._generator = torch.Generator(self.start.device).manual_seed(seed)
        self._loss = self._losses = 0.0
        shape = (BLOCKS, len(self.start))
        self._sums = torch.zeros(shape, dtype=torch.float64, device=self.start.device)
        self._squares = torch.zeros_like(self.start)
        self._weights = torch.zeros(BLOCKS, dtype=torch.float64, device=self.start.device)

    def _endless(self) -> Iterator[tuple[Any, float]]:
        while True:
            for batch, size in self.objective.batches():
                yield batch, size * self.batches / self.objective.samples

    def step(self, t: int) -> float:
        step = self._step_size(t) if callable(self._step_size) else self._step_size
        real(f"step_size at step {t}", step, above=0.0)
        return float(step)

    def normal(self) -> Tensor:
        return torch.randn(self.start.shape, generator=self._generator, dtype=torch.float64, device=self.start.device)

    def slope(self, x: Tensor) -> Tensor:
        """∇U of the next batch at x.

        Raises ValueError if the loss there is not finite.
        """
        objective = self.objective
        batch, share = next(self._stream)
        with objective.at(x), objective.measuring(), torch.enable_grad():
            loss = objective.batch_loss(batch)
            parts = torch.autograd.grad(loss, objective.parameters, allow_unused=True)
        self._loss = share * float(loss.detach())
        if not math.isfinite(self._loss):
            raise ValueError(f"the loss is {self._loss} where the chain has gone: take a smaller step_size")
        slope = objective.flat(zero_where_unused(parts, objective.parameters)).double()
        return self.beta * (share * slope + self.gamma * (x - self.start))

    def record(self, t: int, x: Tensor, weight: float) -> None:
        if t < self.burn_in:
            return
        block = (t - self.burn_in) * BLOCKS // (self.steps - self.burn_in)
        offset = x - self.start
        self._sums[block] += weight * offset
        self._squares += weight * offset.square()
        self._weights[block] += weight
        self._losses += weight * self._loss

    def average(self, last: Tensor) -> StochasticAverage:
        if not torch.isfinite(last).all():
            raise ValueError("the chain has gone to infinity: take a smaller step_size")
        total = self._weights.sum()
        offset = self._sums.sum(dim=0) / total
        shares = (self._weights / total)[:, None]
        deviations = shares * (self._sums / self._weights[:, None] - offset)
        return StochasticAverage(
            self.start + offset,
            self._squares / total - offset.square(),
            (deviations.square().sum(dim=0) * BLOCKS / (BLOCKS - 1)).sqrt(),
            self._losses / float(total),
            last,
            self.steps,
        )


def _check_preconditioner(burn_in: int, decay: float, damping: float) -> None:
    integer("burn_in", burn_in, minimum=1)
    real("decay", decay, minimum=0.0, below=1.0)
    real("damping", damping, above=0.0)
