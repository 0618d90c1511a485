"""Bytes of memory: what a method keeps between two steps, and what one gradient with its step takes on top."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from widevalley.experiments.learner import Diverged, Learner


def tensors(item: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors reachable through dictionaries, lists, modules and optimizers inside optimizers."""
    if id(item) in seen:
        return
    seen.add(id(item))
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, dict):
        for value in item.values():
            yield from tensors(value, seen)
    elif isinstance(item, list | tuple):
        for value in item:
            yield from tensors(value, seen)
    elif isinstance(item, Optimizer | nn.Module):
        yield from tensors(vars(item), seen)


def storage_bytes(items: Any) -> dict[int, int]:
    """Address → bytes of every storage that ``items`` hold, each once."""
    found = (t.untyped_storage() for t in tensors(items, set()))
    return {storage.data_ptr(): storage.nbytes() for storage in found}


def state_bytes(learner: Learner) -> int:
    """Parameters, buffers, the optimizer's state and the average; gradients are not kept."""
    average: AveragedModel | None = learner.average.model if learner.average else None
    return sum(storage_bytes([learner.model, learner.optimizer, average]).values())


def measure(learner: Learner, inputs: Tensor, targets: Tensor) -> dict[str, int | None]:
    """``state_bytes`` and ``gradient_bytes`` of a learner that is spare: it is trained by two steps.

    ``gradient_bytes`` are the most that are allocated at any moment of a step beyond the state, gradients among them;
    on an accelerator its allocator counts them, on a CPU the events of torch's profiler. None if a loss is not finite.
    """
    try:
        learner.step(inputs, targets)  # so that the state that a first step creates is there
        learner.optimizer.zero_grad()
        state = state_bytes(learner)
        on_cuda = inputs.device.type == "cuda"
        peak = _peak_on_cuda(learner, inputs, targets) if on_cuda else _peak_on_cpu(learner, inputs, targets)
        return {"state_bytes": state, "gradient_bytes": peak}
    except Diverged:
        return {"state_bytes": None, "gradient_bytes": None}


def _peak_on_cuda(learner: Learner, inputs: Tensor, targets: Tensor) -> int:
    with torch.cuda.device(inputs.device):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        learner.step(inputs, targets)
        return torch.cuda.max_memory_allocated() - before


def _peak_on_cpu(learner: Learner, inputs: Tensor, targets: Tensor) -> int:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        learner.step(inputs, targets)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e.get("name") == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak
