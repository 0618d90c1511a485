"""Laplace's method: the local entropy of the second-order Taylor polynomial."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from widevalley.landscape.estimates import log_determinant
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_vector_product
from widevalley.landscape.records import Estimate

# Above it the dense H, n² numbers and n products, gives way to a log-determinant from elsewhere.
MOST_PARAMETERS = 2_000
ROWS = 256
MOST_ITERATIONS = 1_000


def laplace(objective: Objective, gamma: float, beta: float, seed: int = 0) -> Estimate:
    """F = (n/2) log(2π/β) − ½ log det(H + γI) − β f(x) + (β/2) ∇fᵀ (H + γI)⁻¹ ∇f, H and ∇f at x.

    Costs n products up to 2,000 parameters; beyond, conjugate gradients and ``log_determinant``, whose error it has.
    """
    objective.check()
    n = objective.n
    value, slope = objective.value_and_gradient()
    slope = slope.double()
    normaliser = n / 2 * math.log(2 * math.pi / (beta * gamma))
    diagnostics: dict[str, float] = {}
    error = None
    if n <= MOST_PARAMETERS:
        unit = torch.eye(n, dtype=objective.dtype, device=objective.device)
        hessian = torch.cat([hessian_vector_product(objective, rows) for rows in unit.split(ROWS)]).double()
        eigenvalues, basis = torch.linalg.eigh((hessian + hessian.T) / 2)
        lowest = float(eigenvalues[0])
        if lowest + gamma <= 0:
            raise ValueError(_indefinite(f"λ_min = {lowest:.6g} and gamma = {gamma:g}", f"above {-lowest:.6g}"))
        log_det = float((eigenvalues + gamma).log().sum())
        step = basis @ ((slope @ basis) / (eigenvalues + gamma))
        squared = float(step.square().sum() + (1 / (eigenvalues + gamma)).sum() / beta)
        length = float(objective.vector().norm())
        diagnostics = {
            "rms_radius": math.sqrt(squared),
            "relative_radius": math.sqrt(squared) / length if length else math.inf,
        }
    else:
        found = log_determinant(objective, gamma, seed=seed)
        log_det, error = found.value, None if found.standard_error is None else found.standard_error / 2
        step = _solve(objective, gamma, slope)
    result = n / 2 * math.log(2 * math.pi / beta) - log_det / 2 - beta * value + beta / 2 * float(slope @ step)
    return Estimate(
        result,
        error,
        {
            "phi": result - normaliser,
            "classical_entropy": n / 2 * math.log(2 * math.pi * math.e / beta) - log_det / 2,
            **diagnostics,
        },
    )


def _solve(objective: Objective, gamma: float, slope: Tensor) -> Tensor:
    """(H + γI)⁻¹ slope by conjugate gradients.

    Raises ValueError where a direction of negative curvature turns up, or they do not converge.
    """
    solution, rest = torch.zeros_like(slope), slope.clone()
    direction, size = rest.clone(), float(rest.square().sum())
    wanted = size * 1e-8
    for _ in range(MOST_ITERATIONS):
        if size <= wanted:
            return solution
        product = hessian_vector_product(objective, direction.to(objective.dtype)).double() + gamma * direction
        curvature = float(direction @ product)
        if curvature <= 0:
            raise ValueError(_indefinite(f"a direction of curvature {curvature:.3g}", "larger"))
        solution += size / curvature * direction
        rest -= size / curvature * product
        size, before = float(rest.square().sum()), size
        direction = rest + size / before * direction
    raise ValueError(
        f"conjugate gradients on H + γI did not converge in {MOST_ITERATIONS:,} products: give a larger gamma, or "
        'method="thermodynamic"'
    )


def _indefinite(found: str, remedy: str) -> str:
    return (
        f"H + γI is not positive definite ({found}), so that Laplace's integral diverges: give a gamma {remedy}, or "
        'method="thermodynamic"'
    )
