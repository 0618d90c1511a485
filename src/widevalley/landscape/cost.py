"""What a dense Hessian costs, said before it is begun."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from widevalley.landscape.gram import DenseLayer, dense_layer
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_rows, twice_differentiable
from widevalley.landscape.rounding import in_float64

# Also where they are taken one by one they share their forward pass.
CHUNKS = (1, 4, 16, 64, 256)
# Bytes of what products with many vectors may hold at once.
PRODUCT_BYTES = 2**30
# Share of the rate of matrix products that the reduction to band form reaches (measured at n = 3,000: 0.6).
REDUCTION_RATE = 0.6


@dataclass(frozen=True)
class HessianPlan:
    """Size and time of a Hessian, and the way to it."""

    n: int
    bytes: int  # of the matrix
    way: str  # "gram": a layer's block by Gram matrices, the rest by products; "batched" products; "looped" ones
    seconds: float  # to form it, from a trial of seconds
    chunks: tuple[int, ...]  # vectors in one product, for each parameter
    layer: DenseLayer | None
    reduction_seconds: float  # to reduce it to band form, for the eigenvalues

    def __str__(self) -> str:
        return (
            f"Hessian of {self.n:,} parameters: {_size(self.bytes)}, about {self.seconds:.0f} s ({self.way}), and "
            f"{self.reduction_seconds:.0f} s for eigenvalues"
        )


def plan(objective: Objective) -> HessianPlan:
    """Bytes and seconds of ``exact_hessian(objective)``, by a trial of a few products; of eigenvalues too.

    ``hessian_eigenvalues`` may need less: it leaves out exact zeros first.

    Raises:
        ValueError: a model in half precision; a loss that cannot be evaluated in float64.
    """
    return cost(in_float64(objective), stored_type(objective))


def stored_type(objective: Objective) -> torch.dtype:
    """That of the parameters. Raises ValueError for half precision."""
    if objective.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a Hessian in {objective.dtype} would be noise: measure model.float() or model.double()")
    return objective.dtype


def cost(objective: Objective, dtype: torch.dtype) -> HessianPlan:
    """What the Hessian costs, kept in ``dtype``, with the arithmetic of ``objective``."""
    n = objective.n
    layer = None if objective.training else dense_layer(objective)
    of_layer = 0 if layer is None else layer.module.weight.numel()
    own = None if layer is None else layer.module.weight
    # A product with several vectors keeps the graph once, and what it makes of it for each.
    most = max(1, PRODUCT_BYTES // max(1, _graph_bytes(objective)))
    trials = [
        (1, 0.0) if p is own else _fastest(objective, place, layer, most)
        for place, p in enumerate(objective.parameters)
    ]
    chunks = tuple(chunk for chunk, _ in trials)
    rate = _rate(objective.dtype, objective.device)
    seconds = 0.0 if layer is None else objective.samples * float(of_layer) * (of_layer + layer.inputs) / rate
    seconds += sum(p.numel() * each for p, (_, each) in zip(objective.parameters, trials, strict=True))
    way = "gram" if layer is not None else "batched" if max(chunks) > 1 else "looped"
    reduction = 4 / 3 * float(n) ** 3 / (REDUCTION_RATE * _rate(dtype, objective.device))
    return HessianPlan(n, n * n * dtype.itemsize, way, seconds, chunks, layer, reduction)


def together(objective: Objective, parameter: int, layer: DenseLayer | None) -> list[int]:
    """The places of the parameters with which this one's block is computed from its side: those from it on, and the
    layer whose own block is a Gram matrix.
    """
    own = None if layer is None else objective.spans.index(layer.span)
    return [place for place in range(len(objective.parameters)) if place >= parameter or place == own]


def refuse_beyond(wanted: int, free: int | None, where: str) -> None:
    """Raises ValueError with the remedies if that many bytes are more than the free ones; None is not known."""
    if free is not None and wanted > free:
        raise ValueError(
            f"the Hessian needs {_size(wanted)}, and {where} has {_size(free)} free: measure fewer parameters "
            "(Objective(…, parameters=…)), use float32, or take top_eigenpairs or spectral_density, which need no "
            "matrix"
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can be had on the device, None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    # What the system would give up of its caches counts; sysconf leaves it out.
    table = Path("/proc/meminfo")
    if table.exists():
        for line in table.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" in names:
        return int(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return None


def _fastest(objective: Objective, parameter: int, layer: DenseLayer | None, most: int) -> tuple[int, float]:
    """The best number of vectors in a product for rows of the parameter, and seconds a vector with it.

    From trials on the first batch, with ``most`` vectors at most.
    """
    batch, size = next(objective.batches())
    first = objective.replaced(objective.model, objective.parameters, [batch])
    p, others = objective.parameters[parameter], together(objective, parameter, layer)
    best, least = 1, float("inf")
    for chunk in CHUNKS:
        chunk = min(chunk, p.numel())
        if chunk > most:
            break
        rows = torch.eye(chunk, p.numel(), dtype=objective.dtype, device=objective.device)
        start = time.perf_counter()
        hessian_rows(first, rows, parameter, others)
        _synchronize(objective.device)
        taken = (time.perf_counter() - start) / chunk * (objective.samples / size)
        if taken > least:
            break
        best, least = chunk, taken
        if chunk == p.numel():
            break
    return best, least


def _graph_bytes(objective: Objective) -> int:
    """Bytes that a batch's graph of two derivatives keeps of what depends on the parameters."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        if tensor.requires_grad and not tensor.is_leaf:
            kept += tensor.numel() * tensor.element_size()
        return tensor

    most = 0
    with objective.measuring(), twice_differentiable(objective.model), torch.enable_grad():
        for batch, _ in objective.batches():
            kept = 0
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = objective.batch_loss(batch)
                torch.autograd.grad(loss, objective.parameters, create_graph=True, allow_unused=True)
            most = max(most, kept)
    return most


def _rate(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of matrix products."""
    size = 1024
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        matrix @ matrix
        _synchronize(device)
        taken.append(time.perf_counter() - start)
    return 2 * float(size) ** 3 / min(taken)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**28 else f"{count / 2**20:.1f} MiB"
