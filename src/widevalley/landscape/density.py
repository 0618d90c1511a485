"""The density of all eigenvalues of H by stochastic Lanczos quadrature, with its error over the probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from widevalley.landscape.directions import direction_generator
from widevalley.landscape.lanczos import Krylov, Progress, lanczos, orthogonalise, random_vectors
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_vector_product
from widevalley.landscape.records import Estimate
from widevalley.validation import integer, real


@dataclass(frozen=True)
class Density:
    """The distribution of the eigenvalues of H, each of weight 1/n, as p independent probes see it.

    Each probe is a distribution of its own, of at most m points, whose expectation is that of H. Every method averages
    over the probes; its standard error is their standard deviation over √p. A distribution of m points blurs what lies
    between them: that is no part of the standard error, and ``share`` bounds it.
    ``diagnostics``: ``products``, and ``steps``, the most points of a probe.
    """

    nodes: Tensor  # (p, m), float64 on the CPU, ascending in each row
    weights: Tensor  # (p, m), float64, of sum 1 in each row; 0 where a probe has fewer points
    n: int  # eigenvalues
    diagnostics: Mapping[str, float] = field(default_factory=dict)

    @property
    def standard_error(self) -> float:
        """The largest, over all thresholds t, standard error of the share of eigenvalues ≤ t.

        The shares are blurred by a Gaussian of standard deviation (range of the nodes)/m, what m points can resolve:
        unblurred, those of two probes differ by all of a bulk wherever t lies between their nodes for it.
        """
        width = float(self.nodes.max() - self.nodes.min()) / self.nodes.shape[1]
        if width == 0:
            return 0.0
        t = self.nodes.flatten()[:, None]
        pairs = zip(self.nodes, self.weights, strict=True)
        return float(_error(torch.stack([torch.special.ndtr((t - x) / width) @ w for x, w in pairs])).max())

    def mean(self, function: Callable[[Tensor], Tensor]) -> Estimate:
        """(1/n) tr g(H) = (1/n) Σ_i g(λ_i) for an elementwise g."""
        each = (function(self.nodes) * self.weights).sum(1)
        return Estimate(float(each.mean()), float(_error(each)), dict(self.diagnostics))

    def moment(self, power: int) -> Estimate:
        """(1/n) Σ_i λ_i^power; without quadrature error for powers below 2m."""
        integer("power", power, minimum=0)
        return self.mean(lambda x: x**power)

    def share(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """Share of the eigenvalues with low ≤ λ ≤ high, between 0 and 1.

        ``diagnostics["quadrature"]`` bounds, beside the standard error, what the points of a probe leave open at the
        two thresholds (Chebyshev, Markov and Stieltjes): the weight of the points next to them.
        """
        if not low <= high:
            raise ValueError(f"low={low!r} and high={high!r} are no interval: give low <= high")
        inside = (self.nodes >= low) & (self.nodes <= high)
        each = (self.weights * inside).sum(1)
        value = float(each.mean())
        between = sum(self._next_to(t) for t in (low, high) if math.isfinite(t))
        bound = min(float(between), max(value, 1 - value))
        return Estimate(value, float(_error(each)), {**self.diagnostics, "quadrature": bound})

    def smoothed(self, grid: Tensor, width: float) -> tuple[Tensor, Tensor]:
        """The density with each eigenvalue a Gaussian of standard deviation ``width``, and its standard error.

        Args:
            grid: (g,), where; in units of the eigenvalues.
            width: wider than the gaps between nodes, or the nodes show one by one.

        Returns:
            Two tensors (g,), per unit of eigenvalue: the integral over all of the line is 1.
        """
        real("width", width, above=0.0)
        x = grid.to("cpu", torch.float64)
        scale = 1 / (width * math.sqrt(2 * math.pi))
        rows = []
        for nodes, weights in zip(self.nodes, self.weights, strict=True):
            rows.append(scale * torch.exp(-((x[:, None] - nodes) ** 2) / (2 * width**2)) @ weights)
        return torch.stack(rows).mean(0), _error(torch.stack(rows))

    def _next_to(self, threshold: float) -> float:
        """The larger weight of the two points beside the threshold, on average over the probes."""
        total = 0.0
        for x, w in zip(self.nodes, self.weights, strict=True):
            nodes, weights = x[w > 0], w[w > 0]
            place = int(torch.searchsorted(nodes, threshold, right=True))
            total += float(weights[max(place - 1, 0) : place + 1].max())
        return total / len(self.nodes)


def spectral_density(
    objective: Objective,
    *,
    probes: int = 10,
    steps: int = 90,
    seed: int = 0,
    progress: Progress | None = None,
) -> Density:
    """The density of the eigenvalues of H = ∇²f by stochastic Lanczos quadrature.

    A probe is a random direction z, uniform on the sphere, and the distribution Σ_i (z · v_i)² δ(λ − λ_i) of H in it,
    whose expectation is (1/n) Σ_i δ(λ − λ_i). The eigenvalues of Lanczos' T and the squares of the first components of
    its eigenvectors are the nodes and weights of its Gauss quadrature (Golub and Meurant, 1994; Ghorbani, Krishnan and
    Xiao, arXiv:1901.10159). Exact for polynomials of degree below twice the steps; at ``steps`` ≥ n for all.

    Args:
        objective: whose Hessian, at its parameters.
        probes: p, at least 2; errors fall as 1/√p.
        steps: products a probe; what lies between the nodes is not resolved.
        seed: of the directions; a run with fewer probes has the same first ones.
        progress: is told what is going on and the fraction done.

    Cost: probes × steps products; ``steps`` vectors of memory.

    Raises:
        ValueError: fewer than two probes, or the objective's errors.
    """
    nodes, weights = [], []
    taken = 0
    for krylov in probe_spaces(objective, probes, steps, seed, progress):
        x, w = gauss(krylov.tridiagonal)
        taken += len(x)
        short = min(steps, objective.n) - len(x)
        nodes.append(torch.cat([x, x[-1:].expand(short)]))
        weights.append(torch.cat([w, w.new_zeros(short)]))
    return Density(torch.stack(nodes), torch.stack(weights), objective.n, {"products": taken, "steps": len(nodes[0])})


def probe_spaces(
    objective: Objective, probes: int, steps: int, seed: int, progress: Progress | None, without: Tensor | None = None
) -> Iterator[Krylov]:
    """Lanczos from each of the independent random directions; of H in the complement of the rows ``without``."""
    integer("probes", probes, minimum=2)
    integer("steps", steps, minimum=1)
    generator = direction_generator(seed)
    steps = min(steps, objective.n - (0 if without is None else len(without)))
    done = 0

    def inside(v: Tensor) -> Tensor:
        return v if without is None else orthogonalise(v[None], without)[0][0]

    def product(v: Tensor) -> Tensor:
        nonlocal done
        done += 1
        if progress is not None:
            progress("Lanczos quadrature", done / (probes * steps))
        return inside(hessian_vector_product(objective, v).to(v.dtype))

    for _ in range(probes):
        yield lanczos(product, inside(random_vectors(objective, 1, generator)[0]), steps)


def gauss(tridiagonal: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes, ascending, and weights of the quadrature that belongs to T, each (m,)."""
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    weights = vectors[0].square()
    return nodes, weights / weights.sum()


def _error(each: Tensor) -> Tensor:
    """Standard error of the mean over the first axis."""
    return each.std(0) / math.sqrt(len(each))
