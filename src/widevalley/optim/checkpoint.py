"""A nested optimizer's state as one dictionary of torch's usual form, and back.

Saved, ``state[p]`` holds ``center``, ``average``, at the centre ``sample``, and the dictionaries ``inner`` and
``outer`` of the two optimizers. Theirs are made by most optimizers at their first step only, yet
``torch.distributed.checkpoint`` reads just what the dictionary of a *fresh* optimizer names. So where an optimizer has
no state for a parameter yet, the saved dictionary has what it will hold, in zeros, under the mark ``"new": 1``; loading
drops what is so marked.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, Any]


def completed(
    state: dict[Tensor, State], optimizers: dict[str, Optimizer], blanks: dict[str, dict[Tensor, State]]
) -> defaultdict[Tensor, State]:
    """``state`` with the dictionaries of ``optimizers`` (by ``"inner"``, ``"outer"``), marked, and filled where empty.

    ``blanks`` keeps what was found out about an optimizer, on the meta device, for the next call.
    """
    result: defaultdict[Tensor, State] = defaultdict(dict)
    for p, own in state.items():
        result[p] = dict(own)
        for loop, optimizer in optimizers.items():
            key = own["center"] if loop == "outer" else p
            held = optimizer.state.get(key)
            if not held and loop not in blanks:
                blanks[loop] = _blank_state(optimizer)
            result[p][loop] = {**held, "new": 0} if held else {**_zeros(blanks[loop].get(key, {}), p), "new": 1}
    return result


def _zeros(blank: State, p: Tensor) -> State:
    return {
        name: torch.zeros_like(value, device="cpu" if value.dim() == 0 else p.device)
        if isinstance(value, Tensor)
        else value
        for name, value in blank.items()
    }


def load(
    saved: dict[str, Any], groups: list[dict[str, Any]], state: dict[Tensor, State], optimizers: dict[str, Optimizer]
) -> dict[Tensor, Tensor]:
    """Copies ``saved`` into the groups, the state and the two optimizers, in the floating type it was saved in.

    Returns x′ of the parameters if the checkpoint was taken at the centre, else nothing.

    Raises:
        ValueError: the groups do not match, or it is not such an optimizer's dictionary; nothing was changed.
    """
    saved_groups = saved["param_groups"]
    _refuse_groups(saved_groups, groups)
    entries = [
        (p, number, saved["state"].get(key))
        for number, (group, saved_group) in enumerate(zip(groups, saved_groups, strict=True))
        for p, key in zip(group["params"], saved_group["params"], strict=True)
    ]
    at_center = any(saved_group.get("at_center") for saved_group in saved_groups)
    for p, _, entry in entries:
        # torch.distributed.checkpoint leaves frozen parameters out.
        if entry is not None or p.requires_grad:
            _refuse_entry(entry, p, at_center)
    _refuse_another_kind(saved_groups[0], optimizers["inner"])
    for number, saved_group in enumerate(saved_groups):
        _load_group(groups[number], {name: value for name, value in saved_group.items() if name != "outer"})
        if "outer" in optimizers:
            outer_group = optimizers["outer"].param_groups[number]
            _load_group(outer_group, saved_group.get("outer", outer_group))
    for p, number, entry in entries:
        if entry is None:
            continue
        for name in ("center", "average"):
            # Through .data, so that the outer optimizer goes on holding the same tensors.
            state[p][name].data = _placed(entry[name], p)
        for loop, optimizer in optimizers.items():
            held = dict(entry.get(loop, {}))
            target = optimizer.state[state[p]["center"] if loop == "outer" else p]
            target.clear()
            if not held.pop("new", 0):
                group = optimizer.param_groups[number]
                target.update({name: _placed(value, p, name, group) for name, value in held.items()})
    return {p: _placed(entry["sample"], p) for p, _, entry in entries if entry and at_center and "sample" in entry}


def _refuse_groups(saved_groups: list[dict[str, Any]], groups: list[dict[str, Any]]) -> None:
    sizes, saved_sizes = ([len(group["params"]) for group in each] for each in (groups, saved_groups))
    if sizes != saved_sizes:
        raise ValueError(
            f"the saved parameter groups have {saved_sizes} parameters, the optimizer's {sizes}: build the optimizer "
            "over the same parameters in the same groups before loading"
        )


def _refuse_another_kind(saved_group: dict[str, Any], inner: Optimizer) -> None:
    # How an optimizer computes differs between torch's versions; what it computes must be there.
    how = ("foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay")
    missing = [name for name in inner.defaults if name not in saved_group and name not in how]
    if missing:
        raise ValueError(
            f"the saved groups have no {', '.join(missing)}, which {type(inner).__name__} needs: the checkpoint is of "
            "another optimizer; build that one before loading"
        )


def _refuse_entry(entry: State | None, p: Tensor, at_center: bool) -> None:
    if entry is None or "center" not in entry:
        raise ValueError(
            "this is not the state of a nested optimizer (a parameter has no 'center' in it): load a plain "
            "optimizer's state into it before wrapping it in NestedOptimizer"
        )
    if entry["center"].shape != p.shape:
        raise ValueError(
            f"a saved centre has shape {tuple(entry['center'].shape)}, its parameter {tuple(p.shape)}: build the "
            "optimizer over the same parameters in the same order before loading"
        )
    if at_center and p.requires_grad and "sample" not in entry:
        raise ValueError(
            "the checkpoint was taken at the centre, but x' is not in what was loaded: call optimizer.eval() on the "
            "fresh optimizer before torch.distributed.checkpoint asks it what to read"
        )


def _load_group(group: dict[str, Any], saved: dict[str, Any]) -> None:
    # In place: schedulers and the inner optimizer hold this very dictionary.
    kept: dict[str, Any] = {name: group[name] for name in ("params", "param_names") if name in group}
    saved = copy.deepcopy({name: value for name, value in saved.items() if name != "params"})
    group.clear()
    group.update({**saved, **kept})


def _placed(value: Any, p: Tensor, name: str = "", group: dict[str, Any] | None = None) -> Any:
    """A copy on the parameter's device; the step counts of optimizers that keep them on the CPU stay there."""
    if not isinstance(value, Tensor):
        return copy.deepcopy(value)
    on_cpu = name == "step" and group is not None and not (group.get("capturable") or group.get("fused"))
    return value.detach().clone() if on_cpu else value.detach().to(p.device, copy=True)


def _blank_state(optimizer: Optimizer) -> dict[Tensor, State]:
    """What the optimizer will hold for each parameter, in zeros: seen on a copy that takes a step on zero gradients.

    On the meta device, which takes no memory; for an optimizer that cannot run there on the parameters' own.
    """
    for device in ("meta", None):
        try:
            return _probed(optimizer, device)
        except Exception:
            # Whatever somebody's optimizer raises: its checkpoints are complete once it has stepped.
            continue
    return {}


def _probed(optimizer: Optimizer, device: str | None) -> dict[Tensor, State]:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    stand_ins = {
        p: torch.zeros_like(p, device=device or p.device, requires_grad=p.is_floating_point() or p.is_complex())
        for p in params
    }
    empty: defaultdict[Tensor, State] = defaultdict(dict)
    probe = copy.deepcopy(optimizer, {id(optimizer.state): empty, **{id(p): each for p, each in stand_ins.items()}})
    for group in probe.param_groups:
        group["lr"] = 0.0
        if device == "meta" and "fused" in group:
            group["fused"] = False
    for each in stand_ins.values():
        each.grad = torch.zeros_like(each) if each.requires_grad else None
    probe.step()
    return {
        p: {
            name: torch.zeros_like(value, device="meta") if isinstance(value, Tensor) else type(value)()
            for name, value in probe.state[each].items()
            if isinstance(value, Tensor | int | float)
        }
        for p, each in stand_ins.items()
    }
