"""Batches of any form: tuples, lists and dictionaries of tensors, and what the default loss makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def model_outputs(model: nn.Module, batch: Any) -> Tensor:
    """Logits of ``(inputs, targets)``."""
    result = model(pair(batch)[0])
    if not isinstance(result, Tensor):
        raise ValueError(
            f"model(inputs) gave {type(result).__name__}, not logits: give loss=, or outputs= and criterion="
        )
    return result


def mean_cross_entropy(outputs: Tensor, batch: Any) -> Tensor:
    """Of logits with the targets of ``(inputs, targets)``."""
    return cross_entropy(outputs, pair(batch)[1])


def pair(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets. Raises ValueError for any other form."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        kind = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise ValueError(f"a batch is {kind}, not (inputs, targets): give loss=, or outputs= and criterion=")
    return batch[0], batch[1]


def tensors(item: Any) -> Iterator[Tensor]:
    """All tensors of a batch, in its order."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from tensors(value)
    elif isinstance(item, tuple | list):
        for value in item:
            yield from tensors(value)


def first_length(batch: Any) -> int:
    """Length of the first tensor."""
    first = next(tensors(batch), None)
    if first is None or first.ndim == 0:
        raise ValueError("a batch has no tensor with a length: give size=, its number of samples")
    return len(first)


def map_tensors(item: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A batch with ``function`` of each of its tensors."""
    if isinstance(item, Tensor):
        return function(item)
    if isinstance(item, Mapping):
        return {key: map_tensors(value, function) for key, value in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*(map_tensors(value, function) for value in item))
    if isinstance(item, tuple | list):
        return type(item)(map_tensors(value, function) for value in item)
    return item
