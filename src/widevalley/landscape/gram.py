"""The Hessian's block of a dense layer as weighted Gram matrices, without a product per column.

For a layer z = W x + c whose input does not depend on W, and which is used once for each sample,

    ∂²f/∂W_aj ∂W_bk = (1/N) Σ_i M_i[a, b] x_i[j] x_i[k],    M_i = ∂²ℓ_i/∂z_i ∂z_i,

so that the rows of M, one double backward of the layers above for each of the layer's outputs, give the whole block by
matrix products. Where all above is piecewise linear up to the loss, M_i is its Gauss-Newton part alone; the formula
does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_vector_product, twice_differentiable

# Bytes of the inputs scaled by M, held at once.
SCALED_BYTES = 2**26
PROBES = 3


@dataclass(frozen=True)
class DenseLayer:
    """Where the weight (outputs, inputs) of a dense layer stands in the vector of parameters."""

    name: str
    module: nn.Linear
    offset: int

    @property
    def outputs(self) -> int:
        return self.module.out_features

    @property
    def inputs(self) -> int:
        return self.module.in_features

    @property
    def span(self) -> slice:
        return slice(self.offset, self.offset + self.outputs * self.inputs)


def dense_layer(objective: Objective, seed: int = 0) -> DenseLayer | None:
    """The largest layer whose block the formula gives, or None.

    Its structure is not trusted: a few random products with the block must agree with those of the Hessian, to the root
    of the rounding unit.
    """
    for layer in sorted(_candidates(objective), key=lambda each: -each.module.weight.numel()):
        if layer.inputs > 1 and _agrees(objective, layer, seed):
            return layer
    return None


def gram_rows(objective: Objective, layer: DenseLayer, first: int, last: int) -> Tensor:
    """The block's rows of outputs ``first`` … ``last`` - 1, its columns from output ``first`` on."""
    width, count = layer.inputs, layer.outputs - first
    rows = torch.zeros((last - first) * width, count * width, dtype=objective.dtype, device=objective.device)
    for x, slope, z in _passes(objective, layer):
        step = max(1, SCALED_BYTES // (x.numel() * x.element_size()))
        for a in range(first, last):
            weights = _row(slope, z, a)[:, first:]
            # After a ReLU a sample counts only where the unit is on.
            on = weights.any(dim=1)
            x_on, weights = x[on], weights[on]
            part = rows[(a - first) * width : (a - first + 1) * width]
            for b in range(0, count, step):
                scaled = weights[:, b : b + step, None] * x_on[:, None, :]
                part[:, b * width : (b + step) * width].addmm_(x_on.T, scaled.flatten(1))
    return rows


def _passes(objective: Objective, layer: DenseLayer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each batch: inputs x (samples, inputs), outputs z, and the gradient in z of its part of f, with its graph."""
    samples = objective.samples
    with objective.measuring(), twice_differentiable(objective.model), torch.enable_grad():
        for batch, size in objective.batches():
            with _Watch([layer.module]) as watch:
                loss = objective.batch_loss(batch) * (size / samples)
            [(x, z)] = watch.seen[layer.module]
            (slope,) = torch.autograd.grad(loss, z, create_graph=True)
            yield x, slope, z


def _row(slope: Tensor, z: Tensor, a: int) -> Tensor:
    """M_i[a, :] of each sample, shape (samples, outputs)."""
    if not slope.requires_grad:
        return torch.zeros_like(z)
    (row,) = torch.autograd.grad(slope[:, a].sum(), z, retain_graph=True, allow_unused=True)
    return torch.zeros_like(z) if row is None else row.detach()


def _candidates(objective: Objective) -> list[DenseLayer]:
    """Dense layers that are measured and that see each sample once."""
    offsets, start = {}, 0
    for p in objective.parameters:
        offsets[id(p)] = start
        start += p.numel()
    found = [
        DenseLayer(name, module, offsets[id(module.weight)])
        for name, module in objective.model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) in offsets
    ]
    with objective.measuring(), torch.no_grad(), _Watch([layer.module for layer in found]) as watch:
        for batch, size in objective.batches():
            watch.clear()
            objective.batch_loss(batch)
            found = [layer for layer in found if _once(watch.seen[layer.module], size)]
    return found


def _once(calls: list[tuple[Tensor, Tensor]], size: int) -> bool:
    return len(calls) == 1 and calls[0][0].ndim == 2 and len(calls[0][0]) == size


def _agrees(objective: Objective, layer: DenseLayer, seed: int) -> bool:
    generator = torch.Generator().manual_seed(seed)
    shape = (PROBES, layer.outputs, layer.inputs)
    v = torch.randn(shape, generator=generator, dtype=torch.float64).to(objective.device, objective.dtype)
    found = torch.zeros_like(v)
    for x, slope, z in _passes(objective, layer):
        pushed = torch.einsum("ij,paj->pia", x, v)
        for a in range(layer.outputs):
            found[:, a] += (pushed * _row(slope, z, a)).sum(2) @ x
    rows = torch.zeros(PROBES, objective.n, dtype=v.dtype, device=v.device)
    rows[:, layer.span] = v.flatten(1)
    expected = hessian_vector_product(objective, rows)[:, layer.span]
    tolerance = torch.finfo(v.dtype).eps ** 0.5
    return bool((found.flatten(1) - expected).norm() <= tolerance * expected.norm())


class _Watch:
    """What given modules take and give while it is entered, in the order of calls."""

    def __init__(self, modules: list[nn.Linear]) -> None:
        self.seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {module: [] for module in modules}

    def clear(self) -> None:
        for calls in self.seen.values():
            calls.clear()

    def __enter__(self) -> _Watch:
        self._handles = [module.register_forward_hook(self._look) for module in self.seen]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _look(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        self.seen[module].append((inputs[0].detach(), output))
        # An activation in place would overwrite what was seen.
        return output.clone()
