"""Exact zeros of the Hessian that the data alone explain, left out before any work is done.

A dense layer of the data, W x + c, sees nothing outside the span of the vectors [x, 1]. With the columns of Q an
orthonormal basis of that span, the loss depends on [W, c] through V = [W, c] Q alone: the Hessian in V has the
Hessian's eigenvalues, but for one zero for each output of the layer and each missing dimension.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from widevalley.landscape.objective import Objective, parameter_names
from widevalley.landscape.products import hessian_vector_product

PROBES = 2


@dataclass(frozen=True)
class Deflation:
    """``objective``, the same loss in fewer parameters, and the way between its vectors and those of the whole."""

    objective: Objective
    basis: Tensor  # (inputs, or inputs + 1 with the bias, rank) float64, orthonormal columns
    zeros: int
    sizes: tuple[int, ...]  # of the whole objective's parameters
    weight: int  # the layer's place among them
    bias: int | None

    def lifted(self, v: Tensor) -> Tensor:
        """Vectors (k, n - zeros) as vectors of the whole objective, (k, n)."""
        sizes = [size for i, size in enumerate(self.sizes) if i != self.bias]
        place = self.weight - (self.bias is not None and self.bias < self.weight)
        sizes[place] = self._outputs * self.basis.shape[1]
        parts = list(v.split(sizes, dim=1))
        joint = parts[place].unflatten(1, (self._outputs, -1)) @ self.basis.T.to(v)
        if self.bias is None:
            parts[place] = joint.flatten(1)
        else:
            parts[place] = joint[..., :-1].flatten(1)
            parts.insert(self.bias, joint[..., -1])
        return torch.cat(parts, dim=1)

    def restricted(self, v: Tensor) -> Tensor:
        """The transpose of ``lifted``."""
        parts = list(v.split(list(self.sizes), dim=1))
        joint = parts[self.weight].unflatten(1, (self._outputs, -1))
        if self.bias is not None:
            joint = torch.cat([joint, parts[self.bias].unsqueeze(2)], dim=2)
        parts[self.weight] = (joint @ self.basis.to(v)).flatten(1)
        return torch.cat([part for i, part in enumerate(parts) if i != self.bias], dim=1)

    @property
    def _outputs(self) -> int:
        return self.sizes[self.weight] // (len(self.basis) - (self.bias is not None))


class _Coordinates(nn.Module):
    """[x, 1] or x in the basis."""

    basis: Tensor

    def __init__(self, basis: Tensor, joint: bool) -> None:
        super().__init__()
        self.joint = joint
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> Tensor:
        return (_extended(x, self.joint) @ self.basis.double()).to(x.dtype)


def deflate(objective: Objective, basis: Tensor | None = None, seed: int = 0) -> Deflation | None:
    """The objective without the zeros of its largest dense layer that sees data alone; None if it has none.

    The rank is the number of singular values of the data's vectors [x, 1] above max(samples, inputs) · 2.2e-16 of the
    largest, in float64. What it rests on is checked by random products with the Hessian, to the root of the rounding
    unit; where they disagree nothing is left out.

    Args:
        basis: one found before, for which the search is not repeated.
    """
    found = _layer_of_the_data(objective)
    if found is None:
        return None
    name, layer = found
    identities = [id(p) for p in objective.parameters]
    bias = identities.index(id(layer.bias)) if layer.bias is not None and id(layer.bias) in identities else None
    basis = _span(objective, layer, joint=bias is not None) if basis is None else basis.to(objective.device)
    missing = len(basis) - basis.shape[1]
    if missing == 0 or missing == len(basis):
        return None
    rotated = _rotated(layer, basis, joint=bias is not None)
    model = _with(objective.model, name, nn.Sequential(_Coordinates(basis, bias is not None), rotated))
    weight = identities.index(id(layer.weight))
    # The copy has new parameters under the old names.
    own = [
        rotated.get_parameter("weight") if i == weight else model.get_parameter(each)
        for i, each in enumerate(parameter_names(objective))
        if i != bias
    ]
    reduced = objective.replaced(model, own, objective.data)
    sizes = tuple(p.numel() for p in objective.parameters)
    deflation = Deflation(reduced, basis, layer.out_features * missing, sizes, weight, bias)
    return deflation if _agrees(objective, deflation, seed) else None


def _layer_of_the_data(objective: Objective) -> tuple[str, nn.Linear] | None:
    chosen = {id(p) for p in objective.parameters}
    layers = {
        module: name
        for name, module in objective.model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) in chosen
    }
    called: dict[nn.Linear, bool] = {}

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        called[module] = called.get(module, True) and not inputs[0].requires_grad

    handles = [module.register_forward_pre_hook(look) for module in layers]
    try:
        with objective.measuring(), torch.enable_grad():
            objective.batch_loss(next(objective.batches())[0])
    finally:
        for handle in handles:
            handle.remove()
    of_data = [module for module, free in called.items() if free]
    largest = max(of_data, key=lambda module: module.weight.numel(), default=None)
    return None if largest is None else (layers[largest], largest)


def _span(objective: Objective, layer: nn.Linear, *, joint: bool) -> Tensor:
    """An orthonormal basis (inputs (+ 1), rank) in float64."""
    width = layer.in_features + joint
    triangle = torch.zeros(0, width, dtype=torch.float64, device=objective.device)
    count = 0

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal triangle, count
        rows = _extended(inputs[0].detach(), joint).reshape(-1, width)
        count += len(rows)
        # Not by way of the Gram matrix, in which small singular values drown.
        triangle = torch.linalg.qr(torch.cat([triangle, rows]), mode="r")[1]

    handle = layer.register_forward_pre_hook(look)
    try:
        with objective.measuring(), torch.no_grad():
            for batch, _ in objective.batches():
                objective.batch_loss(batch)
    finally:
        handle.remove()
    _, values, vectors = torch.linalg.svd(triangle, full_matrices=False)
    rank = int((values > max(count, width) * torch.finfo(torch.float64).eps * values[0]).sum())
    basis: Tensor = vectors[:rank].T.contiguous()
    return basis


def _rotated(layer: nn.Linear, basis: Tensor, *, joint: bool) -> nn.Linear:
    """The layer as a function of the coordinates, V in place of its weight; a bias that is not measured stays."""
    matrix = layer.weight.detach()
    if joint:
        matrix = torch.cat([matrix, layer.bias.detach().unsqueeze(1)], dim=1)
    keep = layer.bias is not None and not joint
    # Not initialised: that would draw from the global random state.
    result: nn.Linear = nn.utils.skip_init(
        nn.Linear, basis.shape[1], layer.out_features, bias=keep, device=matrix.device, dtype=matrix.dtype
    )
    with torch.no_grad():
        result.weight.copy_(matrix.double() @ basis)
        if keep:
            result.bias.requires_grad_(False).copy_(layer.bias)
    return result


def _extended(x: Tensor, joint: bool) -> Tensor:
    """[x, 1] in float64, or x."""
    x = x.double()
    return torch.cat([x, torch.ones_like(x[..., :1])], dim=-1) if joint else x


def _with(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """A copy of the model with another module in the place of that name."""
    if not name:
        return module
    result = copy.deepcopy(model)
    parent, _, last = name.rpartition(".")
    setattr(result.get_submodule(parent), last, module)
    return result


def _agrees(objective: Objective, deflation: Deflation, seed: int) -> bool:
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(PROBES, objective.n, generator=generator, dtype=torch.float64)
    v = v.to(objective.device, objective.dtype)
    expected = hessian_vector_product(objective, v)
    try:
        found = deflation.lifted(hessian_vector_product(deflation.objective, deflation.restricted(v)))
    except (AttributeError, RuntimeError):
        # The model reaches into its layer, which is another one now.
        return False
    return bool((found - expected).norm() <= torch.finfo(v.dtype).eps ** 0.5 * expected.norm())
