"""Every eigenvalue of the Hessian, with a bound on the error of each."""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from widevalley.landscape.band import BandForm, reduce_to_band
from widevalley.landscape.cost import cost, free_memory, refuse_beyond, stored_type
from widevalley.landscape.deflation import Deflation, deflate
from widevalley.landscape.hessian import Progress, assemble, identity, open_store, say, symmetrize
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_vector_product
from widevalley.landscape.rounding import in_float64, norm_bound
from widevalley.landscape.store import BLOCK_BYTES, Checkpoints
from widevalley.writing import write

# Each writes half the matrix: seconds.
SECONDS_BETWEEN_CHECKPOINTS = 300.0


@dataclass(frozen=True)
class Spectrum:
    """All n eigenvalues of H = ∇²f."""

    eigenvalues: Tensor  # (n,) float64 on the CPU, ascending
    noise_floor: float  # bounds the error of every eigenvalue
    structural_zeros: int  # of the eigenvalues, those that the rank of a dense layer's inputs makes exactly 0
    asymmetry: float  # ‖H − Hᵀ‖/‖H‖ in the Frobenius norm, before it was symmetrised
    seconds: Mapping[str, float]  # of each part, in this call


def hessian_eigenvalues(
    objective: Objective,
    *,
    folder: str | os.PathLike[str] | None = None,
    memory: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Spectrum:
    """All eigenvalues of H = ∇²f, of the mean loss over the samples without weight decay, in units of the loss.

    Exact zeros that the rank of the data explains are left out first (``deflation``). The rest of H is formed as in
    ``exact_hessian``, reduced to a band in place by orthogonal transformations on the objective's device, 4n³/3
    operations in the parameters' float type, and the band's eigenvalues found by LAPACK in float64. Memory: n² numbers
    of that type, and one to two GiB beside them.

    The noise floor is ‖B − Qᵀ H Q‖₂ with the band B, the transformations Q and products with H in float64, by 31 steps
    of the Lanczos method (``norm_bound``): it holds the rounding of H, of its reduction and of the deflation. Added is
    10 √n · 2.2e-16 · max|λ| for the rounding of LAPACK and of the products in float64, some ten times what was measured
    at n = 700 to 3,000. By Weyl's inequality no eigenvalue is further from its true value.

    Args:
        folder: keep there what a killed call needs to go on: H, every 5 minutes its reduction. Up to 3 n² numbers of
            disk. To be deleted afterwards.
        memory: bytes that may be used, where the system does not say how many are free.
        seed: of the random vectors of checks and of the noise floor.
        progress: called with what is going on and the fraction of it done.

    Raises:
        ValueError: as ``exact_hessian``.
    """
    watch = _Stopwatch()
    dtype, exact = stored_type(objective), in_float64(objective)
    deflation = deflate(exact, _saved_basis(folder), seed)
    reduced = exact if deflation is None else deflation.objective
    planned = cost(reduced, dtype)
    refuse_beyond(
        planned.bytes + min(planned.bytes, 2 * BLOCK_BYTES),
        free_memory(objective.device) if memory is None else memory,
        "the memory",
    )
    store = open_store(reduced, dtype, folder, identity(objective, "eigenvalues"), copies=3)
    if deflation is not None and store.folder is not None:
        _save_basis(store.folder, deflation.basis)
    say(progress, str(planned), 0.0)
    watch.split("plan")
    assemble(reduced, planned, store, progress)
    watch.split("hessian")
    asymmetry = symmetrize(store, progress)
    watch.split("symmetrize")
    checkpoints = None if store.folder is None else Checkpoints(store.folder, SECONDS_BETWEEN_CHECKPOINTS)
    form = reduce_to_band(
        store.loaded(), checkpoints=checkpoints, progress=lambda done: say(progress, "reduction to a band", done)
    )
    watch.split("reduction")
    say(progress, "eigenvalues of the band", 0.0)
    values = form.eigenvalues()
    watch.split("band")
    say(progress, "noise floor", 0.0)
    floor = _difference(exact, deflation, form, seed)
    floor += 10 * math.sqrt(reduced.n) * torch.finfo(torch.float64).eps * float(values.abs().max())
    watch.split("noise_floor")
    zeros = 0 if deflation is None else deflation.zeros
    values = torch.cat([values, torch.zeros(zeros, dtype=values.dtype)]).sort().values
    return Spectrum(values, floor, zeros, asymmetry, watch.seconds)


def _difference(exact: Objective, deflation: Deflation | None, form: BandForm, seed: int) -> float:
    """A bound on ‖B − Qᵀ H Q‖₂."""

    def apply(v: Tensor) -> Tensor:
        rotated = form.rotated(v).unsqueeze(0)
        whole = rotated if deflation is None else deflation.lifted(rotated)
        product = hessian_vector_product(exact, whole)
        product = product if deflation is None else deflation.restricted(product)
        return form.times(v) - form.rotated_back(product[0])

    return norm_bound(apply, len(form.reflectors), exact.device, seed)


def _saved_basis(folder: str | os.PathLike[str] | None) -> Tensor | None:
    place = None if folder is None else Path(folder) / "basis.npy"
    return torch.from_numpy(np.load(place)) if place is not None and place.exists() else None


def _save_basis(folder: Path, basis: Tensor) -> None:
    """Another basis of the same span would make another matrix."""
    if not (folder / "basis.npy").exists():
        stream = io.BytesIO()
        np.save(stream, basis.cpu().numpy())
        write(folder / "basis.npy", stream.getvalue())


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def split(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now
