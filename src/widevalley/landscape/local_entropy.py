"""Local entropy: the log-volume of low loss around the parameters, and its gradient."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from widevalley.landscape.annealed import annealed
from widevalley.landscape.convergence import chain_mean, warn_if_unmixed
from widevalley.landscape.gibbs import FEW_CHAINS, Draws, GibbsSampler, Progress
from widevalley.landscape.laplace import laplace
from widevalley.landscape.objective import Objective
from widevalley.landscape.records import Estimate
from widevalley.landscape.thermodynamic import climb, thermodynamic
from widevalley.validation import integer, real

Method = Literal["thermodynamic", "annealed", "laplace"]

# Independent runs of annealing whose weights are averaged, where they are not vectorised.
FEW_RUNS = 16


def local_entropy(
    objective: Objective,
    gamma: float,
    inverse_temperature: float = 1.0,
    method: Method = "thermodynamic",
    *,
    tolerance: float = 0.004,
    chains: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    """F = log ∫ exp(−β f(x′) − βγ/2 ‖x − x′‖²) dx′ over all n parameters, x the present ones.

    f is the mean loss, logarithms are natural; larger is wider or deeper. For β = 1 this is Definition 1 of Chaudhari
    et al. (arXiv:1611.01838). The Gaussian's share, (n/2) log(2π/(βγ)), says nothing of f; what is left,

        Φ = F − (n/2) log(2π/(βγ)) = log E exp(−β f(x + u)),    u ~ N(0, I/(βγ)),

    is what accuracy refers to. How local it is, the radius says: with f a mean loss and β = 1 it is about √(n/γ), often
    more than ‖x‖. Compare trained networks at β = N, and at equal radius.

    Args:
        gamma: γ > 0, in units of curvature of f.
        inverse_temperature: β > 0. 1 is the paper's; N makes −βf a log-likelihood.
        method: "thermodynamic": Φ = −β ∫₀¹ ⟨f⟩_b db, ⟨·⟩_b under exp(−βb f − βγ/2 ‖x − x′‖²), sampled at 10 points of
            Gauss-Radau in s, b = c (e^{κs} − 1): even in log b above the scale c at which ⟨f⟩_b begins to fall.
            "annealed": annealed importance sampling along the same path (Neal, Stat. Comput. 2001), an unbiased e^Φ.
            Both by ``GibbsSampler``, exact up to their standard errors. "laplace": f replaced by its Taylor polynomial
            of second order at x; no sampling, and exact only for quadratic f; the Hessian of a ReLU network knows
            nothing of its kinks (``results/entropy/mnistfc-kinks.jsonl``). Above 2,000 parameters with
            ``log_determinant`` and its error.
        tolerance: standard error aimed at, as a share of max(1, |Φ|).
        chains: of ``GibbsSampler``; with "annealed" independent runs.
        progress: called with what is going on and the fraction done.

    Returns:
        F with its standard error, which has the Monte Carlo and the quadrature error in it (None: no estimate in it).
        Diagnostics: ``phi``; ``classical_entropy`` −∫ p log p (Sec. 3); ``rms_radius`` √⟨‖x′ − x‖²⟩ and
        ``relative_radius``, its ratio to ‖x‖ (not of "laplace" beyond 2,000 parameters). Where it is sampled also
        ``mean_loss`` ⟨f⟩, ``gradients`` over the whole data, ``acceptance`` and ``effective_sample_size``, the least
        along the path; ``r_hat``, the largest, and ``quadrature_error`` of "thermodynamic"; ``stages`` of "annealed".

    Cost, measured on quadratic f of 50 parameters, curvatures from 0.01 γ to 10 γ: 410 gradients of each of 256 chains
    side by side ("thermodynamic"), 300 ("annealed"), for an error of 0.2 %; ±1.96 standard errors held 189 of 200.

    Raises:
        ValueError: γ, β or tolerance not above 0; a loss that is not finite; "laplace" where H + γI is not positive
            definite.

    Warns:
        ConvergenceWarning: chains that do not mix.
    """
    real("gamma", gamma, above=0.0)
    real("inverse_temperature", inverse_temperature, above=0.0)
    real("tolerance", tolerance, above=0.0)
    if method == "laplace":
        return laplace(objective, gamma, inverse_temperature, seed)
    if method not in ("thermodynamic", "annealed"):
        raise ValueError(f'method={method!r} is unknown: give "thermodynamic", "annealed" or "laplace"')
    run, few = (annealed, FEW_RUNS) if method == "annealed" else (thermodynamic, FEW_CHAINS)
    sampler = GibbsSampler(objective, gamma, inverse_temperature, chains=chains, few=few, seed=seed)
    found = run(sampler, tolerance, progress or (lambda what, done: None))
    normaliser = sampler.n / 2 * math.log(2 * math.pi / (sampler.beta * sampler.gamma))
    value = found.phi + normaliser
    radius = math.sqrt(found.squared_radius)
    length = float(sampler.x.norm())
    energy = sampler.beta * (found.mean_loss + sampler.gamma / 2 * found.squared_radius)
    return Estimate(
        value,
        found.standard_error,
        {
            "phi": found.phi,
            "mean_loss": found.mean_loss,
            "classical_entropy": value + energy,
            "rms_radius": radius,
            "relative_radius": radius / length if length else math.inf,
            "gradients": float(sampler.loss.gradients),
            **found.diagnostics,
        },
    )


@dataclass(frozen=True)
class LocalEntropyGradient:
    """−γ(x − ⟨x′⟩), its standard error coordinate by coordinate, and how it came about."""

    vector: Tensor  # (n,)
    standard_error: Tensor  # (n,)
    diagnostics: Mapping[str, float]


def local_entropy_gradient(
    objective: Objective,
    gamma: float,
    inverse_temperature: float = 1.0,
    *,
    draws: int = 1024,
    chains: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LocalEntropyGradient:
    """−γ(x − ⟨x′⟩), ⟨·⟩ under p(x′) ∝ exp(−βf(x′) − βγ/2 ‖x − x′‖²): Eq. 7 of Chaudhari et al. (arXiv:1611.01838).

    It is ∇F/β: the gradient of ``local_entropy``'s F in x is −βγ(x − ⟨x′⟩) = −β⟨∇f(x′)⟩. At β = 1, the paper's, the two
    are one.

    Args:
        gamma, inverse_temperature, chains, progress: as for ``local_entropy``.
        draws: in all, over the chains, each with at least 16.

    Returns:
        vectors of shape (n,), of the objective's type. The standard error is that of means over the chains, each cut
        into batches of at least 8 draws where there are fewer than 32 chains. Diagnostics: ``acceptance``, ``r_hat``
        and ``effective_sample_size`` of the loss, ``rms_radius``, ``gradients``.

    Raises:
        ValueError: γ or β not above 0; a loss that is not finite.

    Warns:
        ConvergenceWarning: chains that do not mix.
    """
    integer("draws", draws, minimum=1)
    tell = progress or (lambda what, done: None)
    sampler = GibbsSampler(objective, gamma, inverse_temperature, chains=chains, seed=seed)
    climb(sampler, tell)
    length = max(16, math.ceil(draws / sampler.chains))
    batches = 1 if sampler.chains >= 32 else max(1, min(8, length // 8))
    each = math.ceil(length / batches)
    total, squares = torch.zeros_like(sampler.x), torch.zeros_like(sampler.x)
    parts: list[Draws] = []
    for k in range(batches):
        tell("drawing", 0.5 + k / batches / 2)
        sums = torch.zeros_like(sampler.positions)
        parts.append(sampler.draw(each, sums.add_))
        means = sums / each
        total += means.sum(dim=0)
        squares += means.square().sum(dim=0)
    tell("done", 1.0)
    count = batches * sampler.chains
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0) / (count - 1)
    drawn = functools.reduce(operator.add, parts)
    loss = chain_mean(drawn.loss)
    warn_if_unmixed(loss, drawn.acceptance, len(drawn.loss), "in the measure")
    return LocalEntropyGradient(
        (gamma * mean).to(objective.dtype),
        (gamma * variance.sqrt()).to(objective.dtype),
        {
            "acceptance": drawn.acceptance,
            "r_hat": loss.r_hat,
            "effective_sample_size": loss.effective_sample_size,
            "rms_radius": math.sqrt(float(drawn.squared_radius.mean())),
            "gradients": float(sampler.loss.gradients),
        },
    )
