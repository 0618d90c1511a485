"""Train networks into wide valleys of the loss, and measure how wide a valley is."""

from importlib.metadata import version

from widevalley import presets, scoping
from widevalley.batchnorm import update_batchnorm
from widevalley.optim.center import center_state_dict
from widevalley.optim.entropy import EntropyAdam, EntropySGD
from widevalley.optim.nested import NestedOptimizer

__version__ = version("widevalley")

__all__ = [
    "EntropyAdam",
    "EntropySGD",
    "NestedOptimizer",
    "center_state_dict",
    "presets",
    "scoping",
    "update_batchnorm",
]
