"""Keeping state, inner and outer optimizer over the same tensors, whatever was done to the model or to the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from widevalley.optim.cycle import center_dtype

State = dict[str, Any]


def follow_model(states: Mapping[Tensor, State], inner: Optimizer, outer: Optimizer | None) -> None:
    """Where a parameter was moved or converted after construction, its state goes along, in place."""
    for p, state in states.items():
        x = state["center"]
        if x.device == p.device and x.dtype == center_dtype(p):
            continue
        _convert(inner.state[p], p, p)
        master = p.detach().to(center_dtype(p))
        if outer is not None:
            _convert(outer.state[x], p, master)
        for name in ("center", "average"):
            # Through .data, so that the outer optimizer goes on holding the same tensors.
            state[name].data = state[name].to(master)


def point_outer_at_centers(outer: Optimizer, groups: list[State], states: Mapping[Tensor, State]) -> None:
    """The outer optimizer holds the very centres of the state, also after a trainer has put other tensors there."""
    for group, outer_group in zip(groups, outer.param_groups, strict=True):
        for number, p in enumerate(group["params"]):
            x, held = states[p]["center"], outer_group["params"][number]
            # Only the name, as for "inner": the outer optimizer holds its state itself.
            states[p].setdefault("outer", {})
            if held is not x:
                outer_group["params"][number] = x
                outer.state[x] = outer.state.pop(held, {})


def _convert(held: State, p: Tensor, like: Tensor) -> None:
    for name, value in held.items():
        if isinstance(value, Tensor) and value.shape == p.shape and value.dim() > 0:
            held[name] = value.to(like)
