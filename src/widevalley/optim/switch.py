"""Moving the parameters between x′, where gradients are taken, and x, which is evaluated and shipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

State = dict[str, Any]


@dataclass
class CenterSwitch:
    """Where the parameters belong: at x inside ``at_center()`` (which nests) or after ``eval()``, else at x′.

    x′ is copied aside into ``state["sample"]`` and x copied in. No pointers are swapped, which would break CUDA graphs,
    flattened RNN weights and sharding, and no arithmetic is done, so both are bit-equal afterwards.
    """

    depth: int = 0
    evaluating: bool = False
    # x′ of a checkpoint taken at the centre: put into the parameters, not yet seen there by a step.
    unconfirmed: dict[Tensor, Tensor] = field(default_factory=dict)

    @property
    def at_center(self) -> bool:
        return self.evaluating or self.depth > 0

    @torch.no_grad()
    def move(self, writable: Callable[[], list[tuple[Tensor, State]]]) -> None:
        """Brings the parameters to where they belong from where they are not."""
        if self.at_center:
            for p, state in writable():
                state["sample"] = p.detach().clone()
                p.copy_(state["center"])
        else:
            for p, state in writable():
                if "sample" in state:
                    p.copy_(state.pop("sample"))

    def place(self, samples: dict[Tensor, Tensor], state: dict[Tensor, State]) -> None:
        """After loading: in train mode, with x′ of a checkpoint taken at the centre, if it was, in the parameters."""
        for each in state.values():
            each.pop("sample", None)
        self.evaluating = False
        self.unconfirmed = samples
        self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the unconfirmed x′ into the parameters (again, if the model was loaded after the optimizer)."""
        for p, sample in self.unconfirmed.items():
            p.copy_(sample)

    def confirm(self) -> None:
        """The first step after such a checkpoint must see a gradient taken at x′.

        Raises:
            RuntimeError: the parameters no longer hold the x′ that was loaded.
        """
        if any(not torch.equal(p, sample) for p, sample in self.unconfirmed.items()):
            raise RuntimeError(
                "the checkpoint was taken at the centre, and the parameters no longer hold the x' that it "
                "carries: call "
                "optimizer.train() after loading both the model and the optimizer"
            )
        self.unconfirmed.clear()
