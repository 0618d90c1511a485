"""What is changed about a task's data on purpose: wrong labels, fewer examples, another minibatch.

Every change is drawn from a fixed seed, so that all methods and all runs see the same data.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch

from widevalley.experiments.data import Data, DataError, Split, proportional_order
from widevalley.experiments.tasks import Task

SEED = 0


def label_noise(data: Data, fraction: float, seed: int = SEED) -> Data:
    """That fraction of the training targets, drawn at random, each replaced by a uniformly drawn other class.

    The count is exact, to rounding: round(fraction * targets). Validation and test targets stay as they are, so that
    errors on them are against the truth. Of text, targets are characters, one a position.

    Raises:
        ValueError: fraction is outside (0, 1).
    """
    _fraction("label_noise", fraction)
    targets = data.train.targets.clone()
    flat = targets.view(-1)
    classes = 1 + int(max(part.targets.max() for part in (data.train, data.validation, data.test)))
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(flat), generator=generator)[: round(fraction * len(flat))]
    # 1 to classes - 1 further on, cyclically: every other class is as likely.
    flat[wrong] = (flat[wrong] + torch.randint(1, classes, wrong.shape, generator=generator)) % classes
    return dataclasses.replace(data, train=Split(data.train.inputs, targets))


def train_size(data: Data, n: int, seed: int = SEED) -> Data:
    """n of the training examples, each class in proportion; a smaller n is part of a larger one.

    Raises:
        DataError: there are fewer than n.
        ValueError: n is not positive.
    """
    _positive("train_size", n)
    if n > len(data.train):
        raise DataError(f"train_size={n} is more than the {len(data.train)} training examples there are: ask for fewer")
    return dataclasses.replace(data, train=_first(data.train, n, seed))


def subset(data: Data, fraction: float, seed: int = SEED) -> Data:
    """That fraction of every split, one example at least, each class in proportion.

    Raises:
        ValueError: fraction is outside (0, 1).
    """
    _fraction("subset", fraction)

    def part(split: Split) -> Split:
        return _first(split, max(1, round(fraction * len(split))), seed)

    return Data(part(data.train), part(data.validation), part(data.test))


@dataclasses.dataclass(frozen=True)
class Alterations:
    """What is changed about a task; by default nothing. Bad values are a ValueError on construction."""

    label_noise: float = 0.0
    train_size: int | None = None
    subset: float | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("label_noise", "subset"):
            if name in self.given():
                _fraction(name, getattr(self, name))
        for name in ("train_size", "batch_size"):
            if name in self.given():
                _positive(name, getattr(self, name))

    def given(self) -> dict[str, Any]:
        """Those that change something, by name."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }

    def apply(self, task: Task) -> Task:
        """The task with its data and minibatch so changed: the subset first, then the training size, then the noise.

        Its ``data`` raises DataError if there are fewer training examples than asked for.
        """
        batch_size = task.batch_size if self.batch_size is None else self.batch_size

        def altered(folder: Path | None) -> Data:
            data = task.data(folder)
            if self.subset is not None:
                data = subset(data, self.subset)
            if self.train_size is not None:
                data = train_size(data, self.train_size)
            if self.label_noise:
                data = label_noise(data, self.label_noise)
            return data

        return dataclasses.replace(task, data=altered, batch_size=batch_size) if self.given() else task


def _first(split: Split, n: int, seed: int) -> Split:
    return split.take(proportional_order(split.targets, seed)[:n])


def _fraction(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0 < value < 1):
        raise ValueError(f"{name}={value:g} is no fraction: give a number between 0 and 1, both excluded")


def _positive(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r} is no number of examples: give a whole number, 1 at least")
