"""Curvature in units of the weights, D H D with a diagonal D from the weights: what rescaling leaves as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.stats import t as student
from torch import Tensor

from widevalley.landscape.estimates import quadratic_forms
from widevalley.landscape.lanczos import CHUNK, lanczos, many_products, random_vectors
from widevalley.landscape.objective import Objective
from widevalley.landscape.records import Estimate

LEVEL = 0.05


@dataclass(frozen=True)
class Measured:
    """An estimate with all that its difference from another needs."""

    estimate: Estimate
    rounding: float  # share of the value
    bound: float = 0.0  # of the distance to what is measured
    samples: Tensor | None = None  # (count,), float64: independent, the estimate is their mean
    n: int = 0

    def interval(self) -> tuple[float, float]:
        half = self.bound + quantile(LEVEL, self.samples) * (self.estimate.standard_error or 0.0)
        return self.estimate.value - half, self.estimate.value + half


def row_lengths(p: Tensor) -> Tensor:
    """‖row‖ of every element's row along the first axis, of the shape of p."""
    if p.ndim < 2:
        return p.abs()
    lengths: Tensor = torch.linalg.vector_norm(p, dim=tuple(range(1, p.ndim)), keepdim=True)
    return lengths.expand_as(p)


def scaled_lambda_max(objective: Objective, d: Tensor, products: int, seed: int, rounding: float) -> Measured:
    """λ_max(D H D) by Lanczos, with its residual."""
    start = random_vectors(objective, 1, torch.Generator().manual_seed(seed))[0]
    krylov = lanczos(lambda v: d * many_products(objective, (d * v)[None])[0], start, products)
    values, vectors = torch.linalg.eigh(krylov.tridiagonal)
    residual = float(torch.linalg.vector_norm(krylov.residual)) * abs(float(vectors[-1, -1]))
    taken = {"products": float(len(values)), "residual": residual}
    return Measured(Estimate(float(values[-1]), None, taken), rounding, residual)


def scaled_trace(objective: Objective, d: Tensor, products: int, seed: int, rounding: float) -> Measured:
    """tr(D H D): the mean of zᵀ D H D z over random signs z (Hutchinson), exact where n ≤ ``products``."""
    n = objective.n
    if n <= products:
        return Measured(
            Estimate(float(quadratic_forms(objective, torch.diag(d)).sum()), None, {"products": float(n)}), rounding
        )
    # Equal n share their signs, which pairs their errors; others have independent ones.
    generator = torch.Generator().manual_seed(seed + n)
    # A chunk at a time: all the signs of a large network take more memory than its passes.
    counts = [min(CHUNK, products - start) for start in range(0, products, CHUNK)]
    signs = (random_vectors(objective, count, generator).sign() for count in counts)
    samples = torch.cat([quadratic_forms(objective, d * z) for z in signs])
    error = float(samples.std()) / math.sqrt(products)
    return Measured(Estimate(float(samples.mean()), error, {"products": float(products)}), rounding, 0.0, samples, n)


def quantile(level: float, samples: Tensor | None) -> float:
    """Of Student's t, two-sided; of the normal law where the samples were not kept."""
    freedom = math.inf if samples is None else len(samples) - 1
    return float(student.ppf(1 - level / 2, freedom))
