"""Annealed importance sampling along the path of inverse temperatures."""

from __future__ import annotations

import math
import warnings

import torch
from scipy.stats import norm, t

from widevalley.landscape.convergence import ConvergenceWarning
from widevalley.landscape.gibbs import GibbsSampler, Kernel, Progress
from widevalley.landscape.thermodynamic import PathAverage

# Variance aimed at of a run's log-weight: beyond, few runs carry the mean and its error.
LOG_WEIGHT_VARIANCE = 1.0
MOST_STAGES = 20_000
# Of the runs, but at least 2 of them; at the variance aimed at it is 1/e, seen down to 0.1 in 200 good estimates.
LEAST_SHARE = 0.02


def annealed(sampler: GibbsSampler, tolerance: float, progress: Progress) -> PathAverage:
    """Φ = log E w, w = exp(−β Σ_t (b_t − b_{t−1}) f(x_{t−1})), x_t from x_{t−1} by a kernel that keeps the law at b_t.

    A first pass finds stages with β (b_t − b_{t−1}) sd(f) = 1 and a kernel for each. Then new chains start from the
    Gaussian and go through the same stages, each divided into as many as keep the variance of log w at 1, or at what
    ``tolerance`` asks: the kernels are frozen then, so that E w = e^Φ exactly. The standard error is that of log of the
    mean of the K independent weights.
    """
    beta, chains = sampler.beta, sampler.chains
    stages = [0.0]
    kernels: list[Kernel] = []
    guess = 0.0
    while stages[-1] < 1:
        spread = max(float(sampler.losses.std()), 1e-300)
        b = min(1.0, stages[-1] + 1 / (beta * spread))
        guess -= beta * (b - stages[-1]) * float(sampler.losses.mean())
        progress("finding the stages", b / 3)
        sampler.warm_up(b)
        kernels.append(sampler.kernel)
        stages.append(b)
    last = beta * (1 - stages[-2]) * spread
    length = len(stages) - 2 + last
    wanted = min(LOG_WEIGHT_VARIANCE, chains * (tolerance * max(1.0, abs(guess))) ** 2)
    parts = min(math.ceil(length / wanted), math.ceil(MOST_STAGES / len(kernels)))
    sampler.start()
    log_weights = torch.zeros(chains, dtype=torch.float64, device=sampler.x.device)
    acceptance = 1.0
    for k, kernel in enumerate(kernels):
        progress("annealing", 1 / 3 + 2 / 3 * stages[k])
        first, width = stages[k], stages[k + 1] - stages[k]
        for part in range(parts):
            log_weights -= beta * width / parts * sampler.losses
            sampler.b, sampler.kernel = first + width * (part + 1) / parts, kernel
            acceptance = min(acceptance, sampler.transition())
    progress("done", 1.0)
    phi = float(torch.logsumexp(log_weights, 0)) - math.log(chains)
    weights = torch.softmax(log_weights, 0)
    # Few runs: Student's t, so that ± 1.96 of these still holds 95 %.
    student = float(t.ppf(0.975, chains - 1) / norm.ppf(0.975))
    effective = 1 / float(weights.square().sum())
    if effective < max(2.0, LEAST_SHARE * chains):
        warnings.warn(
            f"{effective:.1f} of {chains} runs carry the mean of the weights: take a smaller tolerance, more "
            "chains, or a larger gamma",
            ConvergenceWarning,
            stacklevel=3,
        )
    error = student * math.sqrt(float((weights - 1 / chains).square().sum()) * chains / (chains - 1))
    return PathAverage(
        phi,
        error,
        float(weights @ sampler.losses),
        float(weights @ sampler.positions.square().sum(dim=1)),
        {
            "acceptance": acceptance,
            "effective_sample_size": effective,
            "stages": float(parts * len(kernels)),
        },
    )
