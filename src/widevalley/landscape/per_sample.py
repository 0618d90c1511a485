"""Gradients of single samples: vectorised where the model allows it, else one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from widevalley.landscape.batches import map_tensors
from widevalley.landscape.objective import Objective, zero_where_unused
from widevalley.landscape.products import twice_differentiable

# Numbers in the gradients that are held at a time.
MEMORY = 2**24


def pulled(objective: Objective, function: Callable[[Any], Tensor], batch: Any, back: Tensor) -> Iterator[Tensor]:
    """Jᵀ b for each sample and each of its b, J the Jacobian in the parameters of ``function`` of that sample alone.

    Args:
        function: of a batch, such as ``objective.outputs``; called with batches of one.
        back: the b, (samples, r, *shape of the function of a batch of one).

    Yields:
        Rows, (c, n), of some of them at a time; together each once.

    Raises ValueError where no tensor of the batch has the length of its size.
    """
    size, r = back.shape[:2]
    leaves: list[Tensor] = []
    map_tensors(batch, lambda t: _kept(leaves, t))
    own = [t.ndim > 0 and len(t) == size for t in leaves]
    if not any(own) and size > 1:
        raise ValueError(
            f"a batch of {size} samples has no tensor of that length, and cannot be cut into samples: give batches of "
            "one sample"
        )

    def of(parts: Sequence[Tensor]) -> Tensor:
        each = iter(parts)
        return function(map_tensors(batch, lambda _: next(each)))

    width = max(1, min(r, MEMORY // objective.n))
    step = max(1, MEMORY // (objective.n * width))
    vectorised = True
    for begin in range(0, size, step):
        parts = [t[begin : begin + step] if cut else t for t, cut in zip(leaves, own, strict=True)]
        for some in back[begin : begin + step].split(width, 1):
            with objective.measuring(), twice_differentiable(objective.model):
                rows = None
                if vectorised:
                    try:
                        rows = _by_vmap(objective, of, parts, own, some)
                    except (RuntimeError, ValueError):
                        # Some operations know no vmap, and a true mistake comes again below.
                        vectorised = False
                if rows is None:
                    rows = _one_by_one(objective, of, parts, own, some)
            yield rows


class _Function(nn.Module):
    """What is taken of the model, as a module, so that its parameters can be handed in."""

    def __init__(self, model: nn.Module, function: Callable[[Sequence[Tensor]], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        return self.function(parts)


def _by_vmap(
    objective: Objective,
    function: Callable[[Sequence[Tensor]], Tensor],
    parts: list[Tensor],
    own: list[bool],
    back: Tensor,
) -> Tensor:
    whole = _Function(objective.model, function)
    names = {id(p): name for name, p in whole.named_parameters()}
    values = {names[id(p)]: p.detach() for p in objective.parameters}

    def one(b: Tensor, *given: Tensor) -> Tensor:
        alone = [t[None] if cut else t for t, cut in zip(given, own, strict=True)]
        pull: Callable[[Tensor], Any] = vjp(lambda chosen: functional_call(whole, chosen, (alone,)), values)[1]
        slopes = vmap(lambda row: pull(row)[0])(b)
        return torch.cat([slopes[name].reshape(len(b), -1).to(objective.dtype) for name in values], 1)

    rows: Tensor = vmap(one, in_dims=(0, *(0 if cut else None for cut in own)))(back, *parts)
    return rows.reshape(-1, objective.n)


def _one_by_one(
    objective: Objective,
    function: Callable[[Sequence[Tensor]], Tensor],
    parts: list[Tensor],
    own: list[bool],
    back: Tensor,
) -> Tensor:
    rows = []
    for i, wanted in enumerate(back):
        with torch.enable_grad():
            value = function([t[i : i + 1] if cut else t for t, cut in zip(parts, own, strict=True)])
        for b in wanted:
            slopes = torch.autograd.grad(value, objective.parameters, b, retain_graph=True, allow_unused=True)
            rows.append(objective.flat(zero_where_unused(slopes, objective.parameters)))
    return torch.stack(rows)


def _kept(leaves: list[Tensor], t: Tensor) -> Tensor:
    leaves.append(t)
    return t
