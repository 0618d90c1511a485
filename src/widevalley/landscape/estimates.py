"""Trace and log-determinant of H from products alone, with their standard errors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from widevalley.landscape.density import gauss, probe_spaces
from widevalley.landscape.directions import direction_generator
from widevalley.landscape.lanczos import (
    Krylov,
    Progress,
    many_products,
    orthogonalise,
    outermost,
    random_vectors,
    working_type,
)
from widevalley.landscape.objective import Objective
from widevalley.landscape.records import Estimate
from widevalley.validation import integer, real

# Eigenpairs at each end that the log-determinant takes exactly. On a 64-20-10 network trained on the digits ten made
# the standard deviation of a probe 1.4 times smaller at γ = 0.003, 3 times at 0.1, 7 times at 1.
PAIRS = 10
# Residuals of those, as a share of λ + γ: what a pair leaves out of its term is of second order in it.
SURE = 1e-2
# Products that the search for them may take, however short the quadrature is.
LEAST = 500


def trace(objective: Objective, *, products: int = 120, seed: int = 0, progress: Progress | None = None) -> Estimate:
    """tr H, H = ∇²f, by Hutch++ (Meyer, Musco, Musco and Woodruff, arXiv:2010.09649).

    A quarter of the products finds Q, an orthonormal basis of the range of H on random vectors; a second quarter gives
    tr(Qᵀ H Q) without error; the others estimate the rest, the mean of zᵀ(1 − QQᵀ) H (1 − QQᵀ)z over independent random
    signs z, whose standard deviation over √count is the standard error. The paper has thirds; but the few large
    eigenvalues of a network need few products, and the standard error of few signs is itself uncertain.

    Args:
        objective: whose Hessian, at its parameters.
        products: at least 8. Where they reach n, the trace is exact (standard error None).
        seed: of the random vectors.
        progress: is told what is going on and the fraction done.

    Returns:
        The sum of all eigenvalues. ``diagnostics``: ``products``; ``captured``, tr(Qᵀ H Q).

    Cost: ``products`` products, or n where it is exact; half as many vectors.

    Raises ValueError as the objective does.
    """
    integer("products", products, minimum=8)
    n, sketched = objective.n, products // 4

    def tell(done: float) -> None:
        if progress is not None:
            progress("Hutch++", done)

    if n <= products:
        value = float(many_products(objective, _identity(objective)).diagonal().sum(dtype=torch.float64))
        tell(1.0)
        return Estimate(value, None, {"products": n, "captured": value})
    generator = direction_generator(seed)
    sketch = many_products(objective, random_vectors(objective, sketched, generator))
    tell(1 / 4)
    basis = torch.linalg.qr(sketch.T).Q.T.contiguous()
    captured = float(quadratic_forms(objective, basis).sum())
    tell(1 / 2)
    signs = random_vectors(objective, products - 2 * sketched, generator).sign()
    rest = quadratic_forms(objective, orthogonalise(signs, basis)[0])
    tell(1.0)
    return Estimate(
        captured + float(rest.mean()),
        float(rest.std()) / math.sqrt(len(rest)),
        {"products": products, "captured": captured},
    )


def log_determinant(
    objective: Objective,
    gamma: float,
    *,
    probes: int = 16,
    steps: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> Estimate:
    """log det(H + γ1) = Σ_i log1p(λ_i/γ) + n log γ, in nats, H = ∇²f.

    Defined for γ > −λ_min only, so λ_min is found first, with the ten eigenpairs at each end, as in
    ``top_eigenpairs``; where it has not converged within the budget, it is taken as low as its residual allows. The
    terms of pairs whose residual is within 1 % of λ + γ are not estimated. Stochastic Lanczos quadrature in their
    complement gives the rest. Each probe brackets its part: Gauss quadrature is above it, Gauss-Radau with a node below
    λ_min under it (Golub and Meurant, 1994), since every even derivative of the logarithm is negative and every odd one
    positive. The value is their middle.

    Args:
        objective: whose Hessian, at its parameters.
        gamma: γ > 0, in units of the eigenvalues.
        probes: at least 2; the error falls as 1/√probes.
        steps: products a probe; too few for a small γ show in ``diagnostics["quadrature"]``.
        seed: of the random vectors.
        progress: is told what is going on and the fraction done.

    Returns:
        The standard error is that over the probes, and half the bracket's width added in quadrature; None, and the
        value exact, from all n products where probes × steps or 20 reach n. ``diagnostics``: ``products``;
        ``lambda_min``; ``quadrature``, half that width.

    Cost: probes × steps products, and as many at most, or 500, for the eigenpairs (300 in float32 and 430 in float64
    on a trained 64-64-10 network).

    Raises:
        ValueError: H + γ1 is not positive definite; says which γ would do.
    """
    real("gamma", gamma, above=0.0)
    integer("probes", probes, minimum=2)
    integer("steps", steps, minimum=1)
    n = objective.n
    eps = torch.finfo(working_type(objective)).eps
    if n <= max(2 * PAIRS, probes * steps):
        matrix = many_products(objective, _identity(objective)).to("cpu", torch.float64)
        values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
        _refuse_indefinite(values[0], float(values[0]) - eps * float(values.abs().max()), gamma)
        value = float(torch.log1p(values / gamma).sum()) + n * math.log(gamma)
        return Estimate(value, None, {"products": n, "lambda_min": float(values[0]), "quadrature": 0.0})
    ends, _ = outermost(objective, min(PAIRS, n // 4), None, max(LEAST, probes * steps), seed, progress)
    values, rounding = ends.values.cpu(), eps * float(ends.values.abs().max())
    smallest, below = values[0], float(values[0]) - float(ends.residuals[0]) - rounding
    _refuse_indefinite(smallest, below, gamma)
    sure = ends.residuals.cpu() <= SURE * (values + gamma)
    known = values[sure]
    upper, lower, taken = [], [], ends.diagnostics["products"]
    without = ends.vectors[sure.to(ends.vectors.device)].to(working_type(objective))
    for krylov in probe_spaces(objective, probes, steps, seed, progress, without):
        taken += len(krylov.tridiagonal)
        nodes, weights = gauss(krylov.tridiagonal)
        upper.append(float(weights @ torch.log1p(nodes / gamma)))
        node = min(below, float(nodes[0]) - rounding)
        _refuse_indefinite(nodes[0], node, gamma)
        nodes, weights = gauss(_radau(krylov, node))
        lower.append(float(weights @ torch.log1p(nodes.clamp(min=node) / gamma)))
    left = n - len(known)
    high, low = torch.tensor(upper, dtype=torch.float64), torch.tensor(lower, dtype=torch.float64)
    each = left * (high + low) / 2
    half = left * float((high - low).abs().mean()) / 2
    return Estimate(
        float(torch.log1p(known / gamma).sum()) + float(each.mean()) + n * math.log(gamma),
        math.hypot(float(each.std()) / math.sqrt(probes), half),
        {"products": taken, "lambda_min": float(smallest), "quadrature": half},
    )


def _identity(objective: Objective) -> Tensor:
    return torch.eye(objective.n, dtype=working_type(objective), device=objective.device)


def quadratic_forms(objective: Objective, rows: Tensor) -> Tensor:
    """rᵀ H r of each row, float64 on the CPU."""
    return (rows * many_products(objective, rows)).sum(1, dtype=torch.float64).cpu()


def _refuse_indefinite(smallest: Tensor, below: float, gamma: float) -> None:
    if below + gamma <= 0:
        raise ValueError(
            f"H + γ1 is not positive definite: λ_min = {float(smallest):.6g}, at least {below:.6g} with its error, and "
            f"γ = {gamma:g}. Give a gamma above {-below:.6g}, or go to a minimum first; float64 has the smaller error"
        )


def _radau(krylov: Krylov, node: float) -> Tensor:
    """T and one row more, such that ``node``, below all its eigenvalues, is one."""
    m = len(krylov.tridiagonal)
    last = torch.zeros(m, dtype=torch.float64)
    last[-1] = float(torch.linalg.vector_norm(krylov.residual))
    solved = torch.linalg.solve(krylov.tridiagonal - node * torch.eye(m, dtype=torch.float64), last)
    corner = (node + last @ solved).reshape(1, 1)
    return torch.cat([torch.cat([krylov.tridiagonal, last[:, None]], 1), torch.cat([last[None], corner], 1)])
