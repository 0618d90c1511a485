"""Train networks into wide valleys of the loss, and measure how wide a valley is."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widevalley import presets, scoping
    from widevalley.batchnorm import update_batchnorm
    from widevalley.optim.center import center_state_dict
    from widevalley.optim.entropy import EntropyAdam, EntropySGD
    from widevalley.optim.nested import NestedOptimizer
    from widevalley.optim.perturbed import PerturbedSGD
    from widevalley.optim.sghmc import SGHMC

__version__ = version("widevalley")

__all__ = [
    "SGHMC",
    "EntropyAdam",
    "EntropySGD",
    "NestedOptimizer",
    "PerturbedSGD",
    "center_state_dict",
    "presets",
    "scoping",
    "update_batchnorm",
]

# Loaded when first asked for: torch takes over a second, and the command's help and completion do without it.
_HOMES = {
    "EntropyAdam": "widevalley.optim.entropy",
    "EntropySGD": "widevalley.optim.entropy",
    "NestedOptimizer": "widevalley.optim.nested",
    "PerturbedSGD": "widevalley.optim.perturbed",
    "SGHMC": "widevalley.optim.sghmc",
    "center_state_dict": "widevalley.optim.center",
    "update_batchnorm": "widevalley.batchnorm",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in ("presets", "scoping"):
        value = import_module(f"widevalley.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
