"""Lanczos with full reorthogonalisation: a tridiagonal matrix in place of H, and the eigenpairs at both its ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_vector_product
from widevalley.validation import integer, real

Progress = Callable[[str, float], None]

# Vectors that share a forward pass; each needs as much memory as one backward pass over a batch.
CHUNK = 8
# Numbers that the basis of top_eigenpairs may hold without being asked; a larger basis needs fewer products.
MEMORY = 2**26


@dataclass(frozen=True)
class Krylov:
    """A Q − Q T = r eᵀ, with e the last unit vector and QᵀQ = 1."""

    basis: Tensor  # Q, (n, m)
    tridiagonal: Tensor  # T, (m, m), float64 on the CPU
    residual: Tensor  # r, (n,); 0 where the m vectors span an invariant subspace


@dataclass(frozen=True)
class Eigenpairs:
    """The k most negative and the k largest eigenvalues of H, with their eigenvectors.

    An eigenvalue of H lies within ``residuals[i]`` of ``values[i]``, up to the rounding of one product.
    ``diagnostics``: ``products``; ``tolerance``, absolute: what the recurrence's residuals had to come below.
    """

    values: Tensor  # (2k,), float64, ascending: values[-1] is λ_max, values[0] is λ_min
    vectors: Tensor  # (2k, n), rows of length 1 in the order of the values
    residuals: Tensor  # (2k,), ‖H v − λ v‖, from a product of its own
    diagnostics: Mapping[str, float] = field(default_factory=dict)


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Krylov:
    """The Krylov space of a symmetric A from ``start``, orthonormal to rounding.

    Each new vector goes twice through classical Gram-Schmidt against all before it ("twice is enough": Giraud, Langou,
    Rozložník, van den Eshof, 2005). Without it T has copies of the eigenvalues that converged first.

    Args:
        product: v ↦ A v, both (n,).
        start: (n,), of any length but 0.
        steps: m, at least 1; fewer are taken where n are enough, or where an invariant subspace is met.

    Cost: m products, m vectors, 4nm² operations.

    Raises:
        ValueError: ``start`` is 0 or not finite, or a product is not finite.
    """
    integer("steps", steps, minimum=1)
    length = float(torch.linalg.vector_norm(start))
    if not 0 < length < float("inf"):
        raise ValueError(f"start has length {length}: give a vector with a finite length other than 0")
    steps = min(steps, len(start))
    rows = start.new_empty(steps, len(start))
    t = torch.zeros(steps, steps, dtype=torch.float64)
    q = start / length
    for j in range(steps):
        rows[j] = q
        r, coefficients = orthogonalise(_finite(product(q))[None], rows[: j + 1])
        t[j, j] = coefficients[0, j]
        beta = float(torch.linalg.vector_norm(r))
        if beta <= _nothing(rows, t):
            return Krylov(rows[: j + 1].T, t[: j + 1, : j + 1], torch.zeros_like(start))
        if j + 1 < steps:
            t[j, j + 1] = t[j + 1, j] = beta
            # Near an invariant subspace little is left, and its direction has lost digits: it is cleaned once more.
            q = orthogonalise(r / beta, rows[: j + 1])[0][0]
            q /= torch.linalg.vector_norm(q)
    return Krylov(rows.T, t, r[0])


def top_eigenpairs(
    objective: Objective,
    k: int = 1,
    *,
    tolerance: float | None = None,
    products: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Eigenpairs:
    """The k largest and the k most negative eigenvalues of H = ∇²f, with eigenvectors.

    Block Lanczos from k random vectors, fully reorthogonalised, with thick restarts (Wu and Simon, 2000): a repeated
    eigenvalue is found as often as it is there, up to k times, and no more often.

    Args:
        objective: whose Hessian, at its parameters.
        k: at each end, 2k ≤ n.
        tolerance: every residual, as the recurrence carries it, is below this times max |λ|. None: 1e-10 in float64,
            1e-5 in float32. The residuals returned are measured anew, and have the products' rounding too: 6e-5 of
            λ_max in float32 on a convolutional network of 1.4 million parameters.
        products: the most that may be taken.
        seed: of the first vectors.
        progress: is told what is going on and the fraction of the budget that is spent.

    Cost: products with H as ``diagnostics["products"]`` counts them, and 60 to 500 vectors, 8k where that is more.

    Raises:
        ValueError: k too large for n, or the objective's errors.
        RuntimeError: not converged within the budget.
    """
    pairs, left = outermost(objective, k, tolerance, products, seed, progress)
    bound = pairs.diagnostics["tolerance"]
    if left > bound:
        raise RuntimeError(
            f"after {pairs.diagnostics['products']} products the largest residual is {left:.2g}, above {bound:.2g} = "
            "tolerance·max|λ|: give more products=, or a larger tolerance="
        )
    return pairs


def outermost(
    objective: Objective, k: int, tolerance: float | None, products: int, seed: int, progress: Progress | None
) -> tuple[Eigenpairs, float]:
    """``top_eigenpairs``, as far as the budget goes; and the largest residual, as the recurrence carries it."""
    n = objective.n
    integer("k", k, minimum=1)
    if 2 * k > n:
        raise ValueError(
            f"k={k} at each end of {n} eigenvalues is too large: give at most {n // 2}, or take all of them from "
            "hessian_eigenvalues"
        )
    if tolerance is None:
        tolerance = 1e-10 if objective.dtype == torch.float64 else 1e-5
    real("tolerance", tolerance, above=0.0)
    integer("products", products, minimum=4 * k)
    largest = min(n, max(60, 8 * k, min(500, MEMORY // n)))
    rows = torch.empty(largest, n, dtype=working_type(objective), device=objective.device)
    t = torch.zeros(largest, largest, dtype=torch.float64)
    wanted = torch.cat([torch.arange(k), torch.arange(-k, 0)])
    generator = torch.Generator().manual_seed(seed)
    block = _completed(rows[:0], rows[:0], k, generator)
    size, taken = 0, 2 * k
    while True:
        held, size = size, size + len(block)
        rows[held:size] = block
        rest, coefficients = orthogonalise(many_products(objective, block), rows[:size])
        taken += len(block)
        t[held:size, :size] = coefficients
        t[:held, held:size] = coefficients[:, :held].T
        t[held:size, held:size] = (coefficients[:, held:] + coefficients[:, held:].T) / 2
        values, y = torch.linalg.eigh(t[:size, :size])
        triangle = torch.linalg.qr(rest.T, mode="r").R.to("cpu", torch.float64)
        left = torch.linalg.vector_norm(triangle @ y[held:size], dim=0)
        bound = tolerance * float(values.abs().max())
        found = 0.0 if size == n else float(left[wanted].max()) if size >= 2 * k else math.inf
        if found <= bound or taken + k > products:
            break
        if progress is not None:
            progress(f"top eigenpairs: largest residual {found:.1e}", taken / products)
        width = min(k, n - size)
        if size + width > largest:
            size = _restart(rows, t, values, y, keep=min(largest - k, max(2 * k, largest // 3)))
        block = _completed(rest, rows[:size], width, generator, _nothing(rows[:size], t[:size, :size]))
    vectors = y[:, wanted].T.to(rows) @ rows[:size]
    residuals = many_products(objective, vectors) - values[wanted].to(rows)[:, None] * vectors
    pairs = Eigenpairs(
        values[wanted].to(objective.device),
        vectors.to(objective.dtype),
        torch.linalg.vector_norm(residuals, dim=1),
        {"products": taken, "tolerance": bound},
    )
    return pairs, found


def orthogonalise(vectors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Rows less their part in the span of orthonormal rows, by Gram-Schmidt twice; and that part's coefficients."""
    first = vectors @ basis.T
    vectors = vectors - first @ basis
    second = vectors @ basis.T
    return vectors - second @ basis, first.to("cpu", torch.float64) + second.to("cpu", torch.float64)


def many_products(objective: Objective, rows: Tensor) -> Tensor:
    """H times each row, (k, n), in chunks. Raises ValueError where they are not finite."""
    parts = [hessian_vector_product(objective, chunk).to(rows.dtype) for chunk in rows.split(CHUNK)]
    return _finite(torch.cat(parts))


def working_type(objective: Objective) -> torch.dtype:
    """Vectors are float32 at least."""
    return torch.promote_types(objective.dtype, torch.float32)


def random_vectors(objective: Objective, count: int, generator: torch.Generator) -> Tensor:
    """Standard normal rows, (count, n); drawn on the CPU, so that every device has the same."""
    drawn = torch.randn(count, objective.n, generator=generator, dtype=working_type(objective))
    return drawn.to(objective.device)


def _restart(rows: Tensor, t: Tensor, values: Tensor, y: Tensor, keep: int) -> int:
    """The outermost Ritz vectors take the place of the basis; what couples them to the next block comes with it."""
    chosen = torch.cat([torch.arange(keep // 2), torch.arange(len(values) - (keep - keep // 2), len(values))])
    rows[:keep] = y[:, chosen].T.to(rows) @ rows[: len(values)]
    t.zero_()
    t[:keep, :keep] = torch.diag(values[chosen])
    return keep


def _completed(rest: Tensor, basis: Tensor, width: int, generator: torch.Generator, nothing: float = 0.0) -> Tensor:
    """``width`` orthonormal rows, orthogonal to the basis, that span ``rest``; where it has too little, random ones."""
    n = basis.shape[1]
    q, r = torch.linalg.qr(rest.T)
    useful = q.T[r.diagonal().abs() > nothing][:width]
    fresh = torch.randn(width - len(useful), n, generator=generator, dtype=basis.dtype).to(basis.device)
    block = torch.cat([useful, fresh])
    for _ in range(2):
        block = torch.linalg.qr(orthogonalise(block, basis)[0].T).Q.T
    return block.contiguous()


def _nothing(rows: Tensor, t: Tensor) -> float:
    """Below this length a remainder is the rounding of a product, not a direction."""
    return 10 * torch.finfo(rows.dtype).eps * float(t.abs().max() if len(t) else 0.0)


def _finite(product: Tensor) -> Tensor:
    if not bool(torch.isfinite(product).all()):
        raise ValueError("a product with the matrix is not finite: look for NaN or overflow in the model's derivatives")
    return product
