"""Exact sampling of the tilted Gibbs measure: Hamiltonian Monte Carlo that solves its Gaussian part exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from widevalley.landscape.objective import Objective
from widevalley.landscape.parallel import ParallelLoss
from widevalley.validation import integer, real

Progress = Callable[[str, float], None]

# A quarter turn of the reference's oscillator forgets where it began; 0.8 is the acceptance that Stan aims at.
TURN = math.pi / 2
ACCEPTANCE = 0.8
MOST_LEAPS = 512
STIFF = 8
# Side by side, a few hundred chains cost what a few do.
MANY_CHAINS = 256
FEW_CHAINS = 4
# A covariance from fewer draws per dimension than this preconditions worse than the Gaussian factor alone.
DRAWS_PER_DIMENSION = 5
# In more, a blind proposal from the Gaussian factor is hardly ever taken.
FEW_DIMENSIONS = 4


@dataclass(frozen=True)
class Kernel:
    """What a transition needs beside the target; frozen once chosen, so that the law of the chain is exact.

    The reference is N(mean, V diag(1/precision) Vᵀ), with V orthogonal, or the identity where ``basis`` is None.
    ``leaps`` steps make a quarter turn.
    """

    mean: Tensor  # (n,)
    precision: Tensor  # (n,), or () for all
    basis: Tensor | None  # V, (n, n)
    leaps: int

    def color(self, z: Tensor) -> Tensor:
        """u = mean + V precision^(−½) z, rows (K, n)."""
        return self.mean + self._turned(z / self.precision.sqrt(), back=True)

    def whiten(self, u: Tensor) -> Tensor:
        """The z of u."""
        return self._turned(u - self.mean) * self.precision.sqrt()

    def pull(self, slope: Tensor) -> Tensor:
        """∇_z of what has the gradient ``slope`` in u."""
        return self._turned(slope) / self.precision.sqrt()

    def _turned(self, rows: Tensor, back: bool = False) -> Tensor:
        if self.basis is None:
            return rows
        return rows @ (self.basis.T if back else self.basis)


@dataclass(frozen=True)
class Draws:
    """Of T transitions of K chains, arrays (T, K): the mean loss, and ‖x′ − x‖²; the mean acceptance."""

    loss: NDArray[np.float64]
    squared_radius: NDArray[np.float64]
    acceptance: float

    def __add__(self, other: Draws) -> Draws:
        mine, theirs = len(self.loss), len(other.loss)
        return Draws(
            np.concatenate([self.loss, other.loss]),
            np.concatenate([self.squared_radius, other.squared_radius]),
            (mine * self.acceptance + theirs * other.acceptance) / (mine + theirs),
        )


@dataclass(frozen=True)
class State:
    """Chains at rest; as ``GibbsSampler`` names its attributes."""

    kernel: Kernel
    b: float
    positions: Tensor
    losses: Tensor
    slopes: Tensor


class GibbsSampler:
    """Chains with the law p_b(x′) ∝ exp(−β b f(x′) − βγ/2 ‖x − x′‖²), b in [0, 1], x the present parameters.

    In coordinates z in which a Gaussian reference is N(0, I), each transition draws v ~ N(0, I) and integrates

        kick    v ← v − (h/2) (∇_z U − z),    U = β b f + βγ/2 ‖x′ − x‖²
        rotate  (z, v) ← (z cos h + v sin h, v cos h − z sin h)
        kick

    over about a quarter turn, then accepts with probability min(1, exp(−Δ(U + ‖v‖²/2))), computed in float64. The
    rotation solves the reference exactly (splitting HMC: Shahbaba et al., Stat. Comput. 2014; Beskos et al., SPA 2011):
    where it is the target, as at b = 0, every proposal is accepted and draws are independent. So the step is limited by
    what f adds to the reference, not by the number of parameters. The reference is the Gaussian factor, or, where the
    chains give at least 5 warm-up draws per dimension, the Gaussian with their mean and covariance. Up to 4 dimensions
    each transition first proposes a draw of the Gaussian factor, by which chains change valleys.

    Step length and reference are chosen in ``warm_up`` alone and are frozen in ``draw``.

    Args:
        chains: K. None: 256 where they can be vectorised, fewer as memory asks, ``few`` where one goes after the other.

    Attributes:
        positions: x′ − x, shape (K, n), float64. losses, slopes: f and ∇f there.
        kernel: that of the next transitions. b: where they are.

    Raises:
        ValueError: gamma or inverse temperature not above 0; fewer than 2 chains; a loss that is not finite.
    """

    def __init__(
        self,
        objective: Objective,
        gamma: float,
        inverse_temperature: float = 1.0,
        *,
        chains: int | None,
        seed: int,
        few: int = FEW_CHAINS,
    ) -> None:
        real("gamma", gamma, above=0.0)
        real("inverse_temperature", inverse_temperature, above=0.0)
        integer("seed", seed, minimum=0)
        if chains is not None:
            integer("chains", chains, minimum=2)
        self.loss = ParallelLoss(objective)
        self.gamma, self.beta = float(gamma), float(inverse_temperature)
        self.x, self.n = objective.vector().double(), objective.n
        width = self.loss.width
        self.chains = chains or max(few, min(MANY_CHAINS, width))
        self.generator = torch.Generator(self.x.device).manual_seed(seed)
        self.start()

    def start(self) -> None:
        """Independent draws at b = 0, where the law is N(x, I/(βγ)).

        Raises ValueError if the loss is not finite at one of them.
        """
        precision = torch.tensor(self.beta * self.gamma, dtype=torch.float64, device=self.x.device)
        self.kernel = Kernel(torch.zeros_like(self.x), precision, None, 1)
        self.b = 0.0
        self.positions = self.kernel.color(self._normal())
        self.losses, self.slopes = self.loss(self.x + self.positions)
        if not torch.isfinite(self.losses).all():
            raise ValueError(
                f"the loss is not finite at a distance of {float(self.positions.norm(dim=1).max()):.3g} from the "
                "parameters, where gamma and inverse_temperature let chains go: make them larger"
            )

    def state(self) -> State:
        """Where the chains are; ``resume`` goes on from there."""
        return State(self.kernel, self.b, self.positions, self.losses, self.slopes)

    def resume(self, state: State) -> None:
        self.kernel, self.b = state.kernel, state.b
        self.positions, self.losses, self.slopes = state.positions, state.losses, state.slopes

    def warm_up(self, b: float, transitions: int = 6) -> None:
        """Goes on to b: ``transitions`` with the reference there is, one anew from them, as many again."""
        kernel = self.kernel
        if self.b > 0 and kernel.basis is not None:
            # What it would be at the new b, were f quadratic: both the curvature and the slope of b f are scaled.
            scale, least = b / self.b, self.beta * self.gamma
            precision = (least + scale * (kernel.precision - least)).clamp(min=least / 10)
            mean = ((kernel.mean @ kernel.basis) * scale * kernel.precision / precision) @ kernel.basis.T
            self.kernel = replace(kernel, mean=mean, precision=precision)
        self.b = b
        seen = self._adapt(transitions)
        if self.chains * len(seen) >= DRAWS_PER_DIMENSION * len(self.x):
            pooled = torch.cat(seen)
            variances, basis = torch.linalg.eigh(torch.cov(pooled.T).reshape(len(self.x), len(self.x)))
            # Not of chains that stood still.
            variances = variances.clamp(min=1e-12 * float(variances[-1]) + 1e-300)
            self.kernel = replace(self.kernel, mean=pooled.mean(dim=0), precision=1 / variances, basis=basis)
        self._adapt(transitions)

    def _adapt(self, transitions: int) -> list[Tensor]:
        """Dual averaging of the step's logarithm (Hoffman and Gelman, JMLR 2014, Sec. 3.2).

        Acceptances are means over all chains, less noisy than theirs: t₀ = 2 instead of 10.
        """
        start = math.log(TURN / self.kernel.leaps)
        missing, smooth, seen = 0.0, start, []
        for t in range(1, transitions + 1):
            accepted = self.transition()
            self._creep()
            missing += (ACCEPTANCE - accepted - missing) / (t + 2)
            step = min(start - math.sqrt(t) / 0.2 * missing, math.log(TURN))
            smooth += t**-0.75 * (step - smooth)
            leaps = math.ceil(TURN / math.exp(step if t < transitions else smooth) - 1e-9)
            self.kernel = replace(self.kernel, leaps=min(MOST_LEAPS, leaps))
            if t > transitions // 3:
                seen.append(self.positions)
        return seen

    def draw(self, transitions: int, observe: Callable[[Tensor], object] | None = None) -> Draws:
        """Transitions with the kernel as it is; ``observe`` is given the positions after each."""
        losses, radii, accepted = [], [], 0.0
        for t in range(transitions):
            accepted += self.transition()
            if t % 4 == 3:
                self._creep()
            losses.append(self.losses)
            radii.append(_squared_lengths(self.positions))
            if observe is not None:
                observe(self.positions)
        return Draws(torch.stack(losses).cpu().numpy(), torch.stack(radii).cpu().numpy(), accepted / transitions)

    def _creep(self) -> None:
        """Where the target is stiff, a transition in steps a quarter as long, for places stiffer than most."""
        if self.kernel.leaps >= STIFF:
            self.transition(0.25)

    def transition(self, share: float = 1.0) -> float:
        """One proposal of every chain and its acceptance test; the mean probability of acceptance.

        ``share``: of the kernel's step, at as many steps.
        """
        if self.n <= FEW_DIMENSIONS:
            self._leap()
        kernel = self.kernel
        # Other lengths each time: an orbit of one length can close on itself.
        step = share * TURN / kernel.leaps * (0.8 + 0.4 * float(self._uniform(1)))
        z = kernel.whiten(self.positions)
        v = self._normal()
        before = self._energy(self.positions, self.losses) + _squared_lengths(v) / 2
        cos, sin = math.cos(step), math.sin(step)
        u, losses, slopes = self.positions, self.losses, self.slopes
        # In place, and the two kicks between rotations in one: with millions of parameters, passes over the chains'
        # vectors take longer than the gradient.
        v.sub_(self._kick(z, u, slopes), alpha=step / 2)
        for leap in range(1, kernel.leaps + 1):
            turned = (cos * v).sub_(z, alpha=sin)
            z.mul_(cos).add_(v, alpha=sin)
            v = turned
            u = kernel.color(z)
            losses, slopes = self.loss(self.x + u)
            v.sub_(self._kick(z, u, slopes), alpha=step if leap < kernel.leaps else step / 2)
        change = self._energy(u, losses) + _squared_lengths(v) / 2 - before
        probability = torch.nan_to_num(torch.exp(-change), nan=0.0).clamp(max=1.0)
        self._take(probability, u, losses, slopes)
        return float(probability.mean())

    def _leap(self) -> None:
        """A proposal from the law at b = 0, whatever the position."""
        u = self._normal() / math.sqrt(self.beta * self.gamma)
        losses, slopes = self.loss(self.x + u)
        probability = torch.exp(self.beta * self.b * (self.losses - losses)).clamp(max=1.0)
        self._take(probability, u, losses, slopes)

    def _take(self, probability: Tensor, u: Tensor, losses: Tensor, slopes: Tensor) -> None:
        taken = self._uniform(self.chains) < probability
        if taken.all():
            self.positions, self.losses, self.slopes = u, losses, slopes
            return
        self.positions = torch.where(taken[:, None], u, self.positions)
        self.losses = torch.where(taken, losses, self.losses)
        self.slopes = torch.where(taken[:, None], slopes, self.slopes)

    def _energy(self, u: Tensor, losses: Tensor) -> Tensor:
        return self.beta * (self.b * losses + self.gamma / 2 * _squared_lengths(u))

    def _kick(self, z: Tensor, u: Tensor, slopes: Tensor) -> Tensor:
        """∇_z U − z."""
        slope = (self.beta * self.b * slopes).add_(u, alpha=self.beta * self.gamma)
        return self.kernel.pull(slope).sub_(z)

    def _normal(self) -> Tensor:
        shape = self.chains, len(self.x)
        return torch.randn(shape, generator=self.generator, dtype=torch.float64, device=self.x.device)

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64, device=self.x.device)


def _squared_lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths.square()
