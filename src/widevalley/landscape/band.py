"""Every eigenvalue of a large symmetric matrix, by a reduction to band form that is nearly all matrix products.

LAPACK and the vendors of GPUs reduce to tridiagonal form, half of whose work is bound by memory, and refuse sizes of
this kind. Here orthogonal transformations bring the matrix A to a band B = Qᵀ A Q of half-width b, in place, in the
matrix's own type and on its own device (Bischof, Lang and Sun, ACM Trans. Math. Softw. 26, 2000); LAPACK finishes the
band in float64. The reflectors stay in the place of what they annihilated, so that Q can be applied afterwards and the
error ‖B − Qᵀ A Q‖ measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from widevalley.landscape.store import Checkpoints

# Processor seconds on one core at n = 4,000 with 32, 64 and 128: 1.7, 1.4 and 1.5 to reduce in float32, 4.4, 3.1 and
# 3.0 in float64, where LAPACK's evd takes 3.0 and 5.3. The band grows dear: at n = 12,000 15 s with 32, 33 s with 64.
WIDTH = 64
# Rows of a tile: enough for matrix products at full speed.
TILE = 1024


@dataclass(frozen=True)
class BandForm:
    """B = Qᵀ A Q, a band, with Q = Q₁ Q₂ … and Q_p = I − V_p T_p V_pᵀ."""

    diagonals: Tensor  # (b + 1, n) float64 on the CPU: diagonals[d, i] = B[i + d, i]
    reflectors: Tensor  # (n, n): V_pᵀ in rows pb … (p + 1)b, columns from (p + 1)b
    triangles: Tensor  # (panels, b, b) float64: T_p

    def eigenvalues(self) -> Tensor:
        """Those of B, ascending, shape (n,), float64; their error is that of LAPACK in float64."""
        bands = self.diagonals.numpy()
        # One more diagonal than rows is refused.
        bands = bands[: min(len(bands), bands.shape[1])]
        values = scipy.linalg.eig_banded(bands, lower=True, eigvals_only=True, check_finite=False)
        return torch.from_numpy(values)

    def times(self, v: Tensor) -> Tensor:
        """B v, for v of shape (n,) in float64."""
        diagonals = self.diagonals.to(v.device)
        result = diagonals[0] * v
        for d in range(1, min(len(diagonals), len(v))):
            result[d:] += diagonals[d, :-d] * v[:-d]
            result[:-d] += diagonals[d, :-d] * v[d:]
        return result

    def rotated(self, v: Tensor) -> Tensor:
        """Q v, for v of shape (n,) in float64."""
        v = v.clone()
        for start in reversed(range(0, len(self.triangles) * self._width, self._width)):
            self._reflect(v, start, transposed=False)
        return v

    def rotated_back(self, v: Tensor) -> Tensor:
        """Qᵀ v, for v of shape (n,) in float64."""
        v = v.clone()
        for start in range(0, len(self.triangles) * self._width, self._width):
            self._reflect(v, start, transposed=True)
        return v

    @property
    def _width(self) -> int:
        return self.triangles.shape[-1]

    def _reflect(self, v: Tensor, start: int, *, transposed: bool) -> None:
        stop = start + self._width
        vectors = self.reflectors[start:stop, stop:].to(v.dtype)
        triangle = self.triangles[start // self._width].to(v.device)
        v[stop:] -= vectors.T @ ((triangle.T if transposed else triangle) @ (vectors @ v[stop:]))


def reduce_to_band(
    matrix: Tensor,
    width: int = WIDTH,
    *,
    checkpoints: Checkpoints | None = None,
    progress: Callable[[float], None] | None = None,
) -> BandForm:
    """B = Qᵀ A Q of half-width ``width``, in place: ``matrix`` (n, n), symmetric, becomes the reflectors.

    (4/3)n³ operations. Only the upper triangle of tiles is read and kept up to date. What ``checkpoints`` hold is
    taken up where it ended, and ``matrix`` overwritten by it.
    """
    n = len(matrix)
    begin, diagonals = 0, torch.zeros(width + 1, n, dtype=torch.float64)
    triangles: list[Tensor] = []
    if checkpoints is not None and (saved := checkpoints.read()) is not None:
        file, begin, diagonals, stacked = saved
        checkpoints.load(file, matrix)
        width, triangles = len(diagonals) - 1, list(stacked)
    for start in range(begin, n, width):
        size, stop = min(width, n - start), min(start + width, n)
        corner = torch.zeros(2 * width, size, dtype=torch.float64)
        corner[:size] = matrix[start:stop, start:stop].triu().T
        if stop < n:
            vectors, triangle, upper = _reflectors(matrix[start:stop, stop:].T)
            corner[width : width + len(upper)] = upper
            _transform(matrix, stop, vectors, triangle)
            matrix[start:stop, stop:] = vectors.T
            triangles.append(triangle)
        columns = torch.arange(size)
        diagonals[:, start:stop] = corner[torch.arange(width + 1)[:, None] + columns, columns]
        done = 1 - (1 - stop / n) ** 3
        if checkpoints is not None and stop < n:
            checkpoints.write_if_due(matrix, stop, diagonals, triangles, TILE)
        if progress is not None:
            progress(done)
    stacked = torch.stack(triangles) if triangles else torch.zeros(0, width, width, dtype=torch.float64)
    return BandForm(diagonals, matrix, stacked)


def _reflectors(panel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """V (m, b), T (b, b) in float64 and the triangle R of the panel (m, b) = (I − V T Vᵀ) R."""
    packed, scales = torch.geqrf(panel)
    count = min(panel.shape)
    vectors = torch.zeros_like(packed)
    vectors[:, :count] = packed[:, :count].tril(-1)
    vectors.diagonal()[:count] = 1
    # From the rounded vectors, in float64: I − V T Vᵀ is then orthogonal to float64 whatever the type of V.
    gram = (vectors.double().T @ vectors.double()).cpu().numpy()
    triangle = np.zeros_like(gram)
    for k, used in enumerate((scales != 0).tolist()):
        if used:
            triangle[k, k] = scale = 2 / gram[k, k]
            triangle[:k, k] = -scale * (triangle[:k, :k] @ gram[:k, k])
    return vectors, torch.from_numpy(triangle), packed[:count].triu().double().cpu()


def _transform(matrix: Tensor, start: int, vectors: Tensor, triangle: Tensor) -> None:
    """A ← Qᵀ A Q on the rows and columns from ``start``: A − V Wᵀ − W Vᵀ, W = X − V Tᵀ(VᵀX)/2, X = A V T.

    By rows, Vᵀ, Xᵀ and Wᵀ: with rows of 381 KB (n = 47,658 in float64) a tile's transpose times few columns is three
    times as slow on one core.
    """
    rows, triangle = vectors.T.contiguous(), triangle.to(vectors)
    product = torch.zeros_like(rows)
    for first, last in _tiles(start, len(matrix)):
        tile = matrix[first:last, first:]
        a, b = first - start, last - start
        product[:, a:b] += rows[:, a:] @ tile.T
        product[:, b:] += rows[:, a:b] @ tile[:, last - first :]
    x = triangle.T @ product
    w = x - (x @ rows.T) @ triangle @ rows / 2
    left, right = torch.cat([rows, w]), torch.cat([w, rows])
    for first, last in _tiles(start, len(matrix)):
        matrix[first:last, first:].addmm_(left[:, first - start : last - start].T, right[:, first - start :], alpha=-1)


def _tiles(start: int, n: int) -> Iterator[tuple[int, int]]:
    """Always at the same places: inside a tile on the diagonal both triangles are kept up to date."""
    for k in range(start - start % TILE, n, TILE):
        yield max(k, start), min(k + TILE, n)
