"""The dense Hessian of an objective, in memory or on disk."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from widevalley.landscape.cost import HessianPlan, cost, free_memory, refuse_beyond, stored_type, together
from widevalley.landscape.gram import DenseLayer, gram_rows
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_rows
from widevalley.landscape.rounding import in_float64
from widevalley.landscape.store import MatrixStore

# Of the tiles that are symmetrised: both lie in a processor's cache.
SIDE = 512
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class ExactHessian:
    """H = ∇²f at the objective's parameters."""

    matrix: Tensor  # (n, n), exactly symmetric
    asymmetry: float  # ‖H − Hᵀ‖/‖H‖ in the Frobenius norm, before it was symmetrised


def exact_hessian(
    objective: Objective,
    *,
    folder: str | os.PathLike[str] | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
) -> ExactHessian:
    """H = ∇²f, shape (n, n), of the mean loss over the samples without weight decay.

    It is formed in float64, in which products in float32 were seen to be off by 2e-6 of ‖H‖, and kept in the
    parameters' float type.

    The columns of the largest dense layer are weighted Gram matrices (``gram``), all others products H e_i, many at a
    time; where no layer has that form, all are products. A block between two parameters is computed once, from the
    earlier one's side: for it, no layer before that one is differentiated. ``plan(objective)`` says the bytes and
    seconds beforehand. H is replaced by (H + Hᵀ)/2; Gram blocks and what is copied are symmetric from the start, so
    that the asymmetry speaks of the blocks of one parameter by products alone.

    Args:
        folder: keep the matrix there, as hessian.npy, while it is formed, and map it into memory; called again after
            a kill with the same objective, the work goes on where it stopped. None: in memory, on the objective's
            device.
        memory: bytes that may be used, where the system does not say how many are free.
        progress: called with what is going on and the fraction done.

    Raises:
        ValueError: it does not fit; ``folder`` holds the Hessian of something else; an operation of the model has no
            second derivative; half precision, or a loss that cannot be evaluated in float64; an entry that is not
            finite.
    """
    dtype, exact = stored_type(objective), in_float64(objective)
    planned = cost(exact, dtype)
    if folder is None:
        refuse_beyond(planned.bytes, free_memory(objective.device) if memory is None else memory, "the memory")
    store = open_store(exact, dtype, folder, identity(objective, "hessian"))
    say(progress, str(planned), 0.0)
    assemble(exact, planned, store, progress)
    asymmetry = symmetrize(store, progress)
    return ExactHessian(store.whole(), asymmetry)


def open_store(
    objective: Objective,
    dtype: torch.dtype,
    folder: str | os.PathLike[str] | None,
    whose: dict[str, Any],
    copies: int = 1,
) -> MatrixStore:
    """The matrix' store; in a folder with room for so many copies of it."""
    if folder is not None and not (Path(folder) / "hessian.npy").exists():
        Path(folder).mkdir(parents=True, exist_ok=True)
        refuse_beyond(copies * objective.n**2 * dtype.itemsize, shutil.disk_usage(folder).free, f"the disk of {folder}")
    return MatrixStore(objective.n, dtype, objective.device, folder, whose)


def identity(objective: Objective, what: str) -> dict[str, Any]:
    """What tells one matrix from another."""
    weights = objective.vector().cpu().numpy().tobytes()
    return {
        "what": what,
        "n": objective.n,
        "dtype": str(objective.dtype),
        "samples": objective.samples,
        "loss": objective.check(),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }


def assemble(objective: Objective, planned: HessianPlan, store: MatrixStore, progress: Progress | None) -> None:
    """All rows, in blocks; those that ``store`` has already are left."""
    layer = planned.layer
    if "blocks" not in store.state:
        store.commit(
            blocks=_blocks(objective, planned, store.block), done=0, layer=None if layer is None else layer.name
        )
    elif store.state["layer"] != (None if layer is None else layer.name):
        raise ValueError(
            f"{store.folder} was begun with the Gram blocks of {store.state['layer']!r}, and now those of "
            f"{None if layer is None else layer.name!r} hold: delete it, and begin again"
        )
    blocks = store.state["blocks"]
    for index in range(store.state["done"], len(blocks)):
        kind, start, stop = blocks[index]
        if kind == "gram":
            assert layer is not None
            rows, values = _layer_rows(objective, layer, store, start, stop)
        else:
            rows, values = _product_rows(objective, layer, store, start, stop)
        if not bool(values.isfinite().all()):
            raise ValueError("the Hessian has entries that are not finite: the loss has no second derivative there")
        store.write(rows, values)
        store.commit(done=index + 1)
        say(progress, "Hessian", (index + 1) / len(blocks))


def _blocks(objective: Objective, planned: HessianPlan, most: int) -> list[tuple[str, int, int]]:
    """First the rows that are products, each of one parameter, then those of the layer's outputs."""
    layer = planned.layer
    blocks = []
    for span, chunk in zip(objective.spans, planned.chunks, strict=True):
        if layer is None or span != layer.span:
            step = min(chunk, most)
            blocks += [("products", row, min(row + step, span.stop)) for row in range(span.start, span.stop, step)]
    if layer is not None:
        step = max(1, most // layer.inputs)
        blocks += [("gram", a, min(a + step, layer.outputs)) for a in range(0, layer.outputs, step)]
    return blocks


def _product_rows(
    objective: Objective, layer: DenseLayer | None, store: MatrixStore, start: int, stop: int
) -> tuple[slice, Tensor]:
    """The rows ``start`` … ``stop`` - 1, of one parameter, whole."""
    whole = objective.spans
    parameter = next(place for place, span in enumerate(whole) if start < span.stop)
    others = together(objective, parameter, layer)
    span, rows = whole[parameter], slice(start, stop)
    unit = torch.zeros(stop - start, span.stop - span.start, dtype=objective.dtype, device=objective.device)
    unit[:, start - span.start : stop - span.start].fill_diagonal_(1)
    found = hessian_rows(objective, unit, parameter, others)
    values = torch.empty(stop - start, objective.n, dtype=store.dtype, device=objective.device)
    parts = found.split([whole[place].stop - whole[place].start for place in others], dim=1)
    for place, part in zip(others, parts, strict=True):
        values[:, whole[place]] = part
    for place in set(range(len(whole))).difference(others):
        values[:, whole[place]] = store.read(whole[place], rows).T
    return rows, values


def _layer_rows(
    objective: Objective, layer: DenseLayer, store: MatrixStore, first: int, last: int
) -> tuple[slice, Tensor]:
    """The rows of the layer's outputs ``first`` … ``last`` - 1, whole."""
    width, span = layer.inputs, layer.span
    rows = slice(span.start + first * width, span.start + last * width)
    values = torch.empty(rows.stop - rows.start, objective.n, dtype=store.dtype, device=objective.device)
    for others in (slice(0, span.start), slice(span.stop, objective.n)):
        values[:, others] = store.read(others, rows).T
    values[:, rows.start : span.stop] = gram_rows(objective, layer, first, last)
    # The block of outputs a and b is that of b and a: their Gram matrix is symmetric.
    before = store.read(slice(span.start, rows.start), rows).reshape(first, width, last - first, width)
    values[:, span.start : rows.start] = before.permute(2, 1, 0, 3).reshape(len(values), first * width)
    return rows, values


def symmetrize(store: MatrixStore, progress: Progress | None) -> float:
    """H ← (H + Hᵀ)/2 in place by tiles; returns ‖H − Hᵀ‖/‖H‖."""
    difference, total = store.state.get("squares", (0.0, 0.0))
    for start in range(store.state.get("symmetrized", 0), store.n, SIDE):
        rows = slice(start, min(start + SIDE, store.n))
        for other in range(start, store.n, SIDE):
            columns = slice(other, min(other + SIDE, store.n))
            above, below = store.read(rows, columns), store.read(columns, rows).T
            mean = (above + below) / 2
            count = 1 if other == start else 2
            difference += count * _square(above - below)
            total += count * _square(mean)
            store.write(rows, mean, columns)
            store.write(columns, mean.T, rows)
        store.commit(symmetrized=rows.stop, squares=(difference, total))
        say(progress, "symmetrising", rows.stop / store.n)
    # ‖H‖² is that of the mean and a quarter of the difference's.
    return math.sqrt(difference / (total + difference / 4)) if difference else 0.0


def _square(tile: Tensor) -> float:
    return float(torch.linalg.vector_norm(tile, dtype=torch.float64)) ** 2


def say(progress: Progress | None, what: str, fraction: float) -> None:
    if progress is not None:
        progress(what, fraction)
