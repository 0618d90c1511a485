"""The local learning coefficient: how fast the volume of low loss around the parameters shrinks."""

from __future__ import annotations

import math

import numpy as np

from widevalley.landscape.convergence import chain_mean, warn_if_unmixed
from widevalley.landscape.gibbs import GibbsSampler, Progress
from widevalley.landscape.objective import Objective
from widevalley.landscape.records import Estimate
from widevalley.landscape.thermodynamic import climb
from widevalley.validation import integer, real

# Precision of the localising Gaussian. Lau et al. take 1 for small models and 100 for large ones; less hides fewer flat
# directions, and the exact sampler does not need it to stay in the valley.
PRECISION = 0.1


def local_learning_coefficient(
    objective: Objective,
    gamma: float | None = None,
    inverse_temperature: float | None = None,
    *,
    draws: int = 4096,
    chains: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    """λ̂ = Nβ (⟨f⟩ − f(x)), ⟨·⟩ under p(x′) ∝ exp(−Nβ (f(x′) + γ/2 ‖x − x′‖²)), N samples, f the mean loss.

    With β = 1/log N it estimates Watanabe's learning coefficient at x (Watanabe, "A widely applicable Bayesian
    information criterion", JMLR 2013; Lau et al., arXiv:2308.12108, whose localising precision is our Nβγ): half the
    number of parameters at a regular minimum, less at a singular one, ½ for f = (w₁w₂)². It presumes that f is a
    negative log-likelihood per sample and x a minimum of it: elsewhere it can be negative.

    Two things pull it down, and neither is in the standard error. The Gaussian hides flat directions: a direction of
    curvature h counts h/(2(h + γ)) instead of ½; ``localisation_bias`` is the first order of that, (λ̂ with γ) − (λ̂
    without) ≈ −(Nβ)² γ/2 cov(f, ‖x′ − x‖²). And at a singular minimum of multiplicity m, λ̂ falls short by about
    (m − 1)/log(Nβ): 0.43 instead of ½ for (w₁w₂)² at N = 10,000.

    Args:
        gamma: γ > 0, in units of curvature of f. None: Nβγ = 0.1. Large networks have many flat directions,
            along which that lets chains go far: give a γ for which ``relative_radius`` is well below 1, and compare
            networks at the same.
        inverse_temperature: β > 0, that of one sample. None: 1/log N.
        draws: in all, over the chains, each with at least 16, or 50 where they go one after the other.
        chains, seed, progress: as for ``local_entropy``.

    Returns:
        λ̂ with its standard error. Diagnostics: ``mean_loss`` ⟨f⟩, ``loss`` f(x), ``inverse_temperature`` Nβ, ``gamma``,
        ``localisation_bias``, ``rms_radius``, ``relative_radius`` (to ‖x‖), ``acceptance``, ``effective_sample_size``,
        ``r_hat``, ``gradients`` over the whole data.

    Raises:
        ValueError: γ or β not above 0; a loss that is not finite; β None with fewer than 3 samples, where 1/log N says
            nothing.

    Warns:
        ConvergenceWarning: chains that do not mix.
    """
    integer("draws", draws, minimum=1)
    samples = objective.samples
    if inverse_temperature is None:
        if samples < 3:
            raise ValueError(
                f"data has {samples} sample(s), too few for β = 1/log N: give inverse_temperature, or all the samples"
            )
        inverse_temperature = 1 / math.log(samples)
    real("inverse_temperature", inverse_temperature, above=0.0)
    scale = samples * inverse_temperature
    length = float(objective.vector().double().norm())
    if gamma is None:
        gamma = PRECISION / scale
    tell = progress or (lambda what, done: None)
    sampler = GibbsSampler(objective, gamma, scale, chains=chains, seed=seed)
    climb(sampler, tell)
    tell("drawing", 0.5)
    fewest = 16 if sampler.loss.width > 1 else 50
    drawn = sampler.draw(max(fewest, math.ceil(draws / sampler.chains)))
    tell("done", 1.0)
    loss = chain_mean(drawn.loss)
    warn_if_unmixed(loss, drawn.acceptance, len(drawn.loss), "around the parameters")
    covariance = float(np.cov(drawn.loss.ravel(), drawn.squared_radius.ravel())[0, 1])
    radius = math.sqrt(float(drawn.squared_radius.mean()))
    start = sampler.loss.start
    return Estimate(
        scale * (loss.value - start),
        scale * loss.standard_error,
        {
            "mean_loss": loss.value,
            "loss": start,
            "inverse_temperature": scale,
            "gamma": gamma,
            "localisation_bias": -(scale**2) * gamma / 2 * covariance,
            "rms_radius": radius,
            "relative_radius": radius / length if length else math.inf,
            "acceptance": drawn.acceptance,
            "effective_sample_size": loss.effective_sample_size,
            "r_hat": loss.r_hat,
            "gradients": float(sampler.loss.gradients),
        },
    )
