"""The weights to ship: the model's state at the centre."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor
from torch.nn import Module

from widevalley.optim.nested import NestedOptimizer


def center_state_dict(model: Module, optimizer: NestedOptimizer) -> dict[str, Any]:
    """The model's ``state_dict`` with its parameters at x, as clones; the model is as before.

    Buffers are the model's present ones: batch-norm statistics belong to the x′ that training has seen, so re-estimate
    them with ``update_batchnorm`` at the centre before saving.
    """
    # Wrappers such as Accelerate's keep the optimizer they wrap under this name.
    optimizer = optimizer if isinstance(optimizer, NestedOptimizer) else optimizer.optimizer
    with optimizer.at_center():
        live = model.state_dict()
        saved: OrderedDict[str, Any] = OrderedDict(
            (name, value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value))
            for name, value in live.items()
        )
    # Version numbers that modules check on loading.
    saved._metadata = copy.deepcopy(getattr(live, "_metadata", None))  # type: ignore[attr-defined]
    return saved
