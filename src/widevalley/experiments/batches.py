"""Which examples make the minibatches: endless, drawn by a generator of their own, to be continued from its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Batches(Protocol):
    """Indices of minibatches without end."""

    def next(self) -> Tensor: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Minibatches:
    """Shuffled epochs; the smaller batch that an epoch leaves over is not used."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size = size, _checked(batch_size, size)
        self.generator = torch.Generator().manual_seed(seed)
        self.position = 0
        self._shuffle()

    def _shuffle(self) -> None:
        self.state = self.generator.get_state()
        self.order = torch.randperm(self.size, generator=self.generator)

    def next(self) -> Tensor:
        if (self.position + 1) * self.batch_size > self.size:
            self._shuffle()
            self.position = 0
        self.position += 1
        return self.order[(self.position - 1) * self.batch_size : self.position * self.batch_size]

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.state, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["epoch"].cpu())
        self._shuffle()
        self.position = state["position"]


class Draws:
    """Every example drawn with replacement, as in the authors' runs."""

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        self.size, self.batch_size = size, _checked(batch_size, size)
        self.generator = torch.Generator().manual_seed(seed)

    def next(self) -> Tensor:
        return torch.randint(self.size, (self.batch_size,), generator=self.generator)

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"].cpu())


class Repeated:
    """Each minibatch several times in a row: ``counts`` times, in turn, from the first again after the last.

    With counts (L + 1,) all gradients of a cycle with ρ > 0 are of one minibatch; with L - 1 ones and a two, the one at
    the centre is of the last minibatch inside.
    """

    def __init__(self, batches: Batches, counts: Sequence[int]) -> None:
        self.batches, self.counts = batches, tuple(counts)
        self.turn, self.left = -1, 0
        self.present = torch.empty(0, dtype=torch.int64)

    def next(self) -> Tensor:
        if not self.left:
            self.turn = (self.turn + 1) % len(self.counts)
            self.left = self.counts[self.turn]
            self.present = self.batches.next()
        self.left -= 1
        return self.present

    def state_dict(self) -> dict[str, Any]:
        return {
            "batches": self.batches.state_dict(), "turn": self.turn, "left": self.left, "present": self.present
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches.load_state_dict(state["batches"])
        self.turn, self.left, self.present = state["turn"], state["left"], state["present"]


def _checked(batch_size: int, size: int) -> int:
    if not 1 <= batch_size <= size:
        raise ValueError(f"batch_size must lie between 1 and the {size} training samples, got {batch_size}")
    return batch_size
