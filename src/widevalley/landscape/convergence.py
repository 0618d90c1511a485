"""How far the draws of several chains can be trusted: effective sample size, split R-hat, warnings."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Above it chains disagree: Gelman et al. (Bayesian Data Analysis, 3rd ed., 11.5) call 1.1 the usual bound.
R_HAT = 1.1
LEAST_ACCEPTANCE = 0.3
MANY = 32


class ConvergenceWarning(UserWarning):
    """Chains that have not mixed: the value may be off by more than its standard error says."""


@dataclass(frozen=True)
class Mean:
    """Mean of the draws of several chains, with its Monte Carlo standard error."""

    value: float
    standard_error: float
    variance: float
    effective_sample_size: float
    r_hat: float


def chain_mean(draws: NDArray[np.float64]) -> Mean:
    """Mean of draws of shape (T, K): T successive ones of each of K chains, T ≥ 2.

    With W the mean variance within a chain, B / T the variance between chain means, V = (T − 1)/T W + B/T, and the
    autocorrelation ρ_t = 1 − (W − mean autocovariance at lag t)/V, the effective sample size is T K / (1 + 2 Σ ρ_t),
    summed over Geyer's initial monotone sequence (Statist. Sci. 1992) and never above T K log₁₀ T K (Vehtari et al.,
    Bayesian Anal. 2021, Sec. 3). Of 32 chains or more, which are short as a rule, the scatter of their means says more
    than the correlation within them: it is then K V over the variance of those means. The standard error is
    √(V / effective sample size). R-hat is √(V/W) over chains split in halves.

    Raises ValueError for fewer than 2 chains or 2 draws.
    """
    length, chains = draws.shape
    if length < 2 or chains < 2:
        raise ValueError(f"{length} draws of {chains} chains are too few for an error: give at least 2 of 2")
    within, pooled = _variances(draws)
    if not pooled > 0:
        return Mean(float(draws.mean()), 0.0, 0.0, float(length * chains), 1.0)
    size = 2 ** math.ceil(math.log2(2 * length))
    spectrum = np.abs(np.fft.rfft(draws - draws.mean(axis=0), size, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, size, axis=0)[:length].mean(axis=1) / length
    correlation = 1 - (within - covariance * length / (length - 1)) / pooled
    correlation[0] = 1.0
    pairs = correlation[: length // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = int(np.argmax(pairs <= 0)) if (pairs <= 0).any() else len(pairs)
    time = max(2 * float(np.minimum.accumulate(pairs[:positive]).sum()) - 1, 1 / math.log10(max(10, length * chains)))
    effective = length * chains / time
    between = float(draws.mean(axis=0).var(ddof=1))
    if chains >= MANY and between > 0:
        effective = chains * pooled / between
    half = length // 2
    split_within, split_pooled = within, pooled
    if half >= 2:
        split_within, split_pooled = _variances(np.concatenate([draws[:half], draws[-half:]], axis=1))
    return Mean(
        float(draws.mean()),
        math.sqrt(pooled / effective),
        pooled,
        effective,
        math.sqrt(split_pooled / split_within) if split_within > 0 else math.inf,
    )


def warn_if_unmixed(mean: Mean, acceptance: float, length: int, where: str) -> None:
    """Warns with ``ConvergenceWarning`` of chains of ``length`` draws that disagree or hardly move."""
    said = None
    # R-hat of short chains is above 1 even where they have mixed: about √(1 + 2 × autocorrelation time / length).
    if length >= 50 and mean.r_hat > R_HAT:
        said = f"chains disagree {where}: R-hat of the loss is {mean.r_hat:.2f}, above {R_HAT}"
    elif acceptance < LEAST_ACCEPTANCE:
        said = f"chains hardly move {where}: {acceptance:.0%} of the proposals were accepted"
    if said is not None:
        warnings.warn(
            f"{said}; take a larger gamma, which keeps them closer, or more chains", ConvergenceWarning, stacklevel=4
        )


def _variances(draws: NDArray[np.float64]) -> tuple[float, float]:
    """W and V of ``chain_mean``."""
    length = len(draws)
    within = float(draws.var(axis=0, ddof=1).mean())
    between = float(draws.mean(axis=0).var(ddof=1))
    return within, (length - 1) / length * within + between
