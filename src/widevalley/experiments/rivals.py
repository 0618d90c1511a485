"""Optimizers of other packages: SAM and Lookahead of ``pytorch_optimizer``, SGD of ``schedulefree``.

They come with the extra ``rivals``; each is imported when it is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from widevalley.experiments.extras import needs_extra

# Fused, as the inner optimizers of the nested methods are: seconds are compared too.
NESTEROV: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "fused": True}


def sam(params: Iterable[nn.Parameter], lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    """Foret et al., arXiv:2010.01412, at the radius that they recommend."""
    with needs_extra("rivals"):
        from pytorch_optimizer import SAM
    optimizer: Optimizer = SAM(params, SGD, lr=lr, **{**NESTEROV, "rho": 0.05, **settings})
    return optimizer


def lookahead(params: Iterable[nn.Parameter], lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    """Zhang et al., arXiv:1907.08610, at the settings that they recommend."""
    with needs_extra("rivals"):
        from pytorch_optimizer import Lookahead
    own = {name: settings.pop(name) for name in ("k", "alpha", "pullback_momentum") if name in settings}
    optimizer: Optimizer = Lookahead(SGD(params, lr, **{**NESTEROV, **settings}), **{"k": 5, "alpha": 0.5, **own})
    return optimizer


@contextmanager
def lookahead_center(optimizer: Any) -> Iterator[None]:
    """The slow weights, which are what its authors evaluate."""
    optimizer.backup_and_load_cache()
    try:
        yield
    finally:
        optimizer.clear_and_load_backup()


def schedule_free(params: Iterable[nn.Parameter], lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    """Defazio et al., arXiv:2405.15682. In training mode from the start."""
    with needs_extra("rivals"):
        from schedulefree import SGDScheduleFree
    built: Any = SGDScheduleFree(params, lr, **{"momentum": 0.9, "warmup_steps": steps // 20, **settings})
    built.train()
    optimizer: Optimizer = built
    return optimizer


@contextmanager
def schedule_free_center(optimizer: Any) -> Iterator[None]:
    """Its average x. Its own way back to y is arithmetic, so y is kept aside to be the same afterwards, bit for bit."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    aside = [p.detach().clone() for p in params]
    optimizer.eval()
    try:
        yield
    finally:
        optimizer.train()
        with torch.no_grad():
            for p, y in zip(params, aside, strict=True):
                p.copy_(y)
