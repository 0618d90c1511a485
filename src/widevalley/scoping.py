"""Schedules of the scope γ (and of η): frozen values that are functions of the count t of outer updates, from 0.

``EntropySGD(params, lr, gamma=Geometric(1e-4, 1e-3))`` lets the scope grow as in the authors' runs. Any function of an
integer serves in their place; these can be compared, printed and pickled.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass

from widevalley.validation import integer, real


@dataclass(frozen=True)
class Constant:
    """γ(t) = value."""

    value: float

    def __post_init__(self) -> None:
        real("value", self.value, minimum=0.0)

    def __call__(self, t: int) -> float:
        return self.value


@dataclass(frozen=True)
class Geometric:
    """γ(t) = initial · (1 + rate)^t; the authors' runs: initial 1e-4 (MNIST) or 0.03 (CIFAR-10), rate 1e-3.

    Raises OverflowError past about 1.8e308: put it into ``Bounded`` for long runs.
    """

    initial: float
    rate: float

    def __post_init__(self) -> None:
        real("initial", self.initial, minimum=0.0)
        real("rate", self.rate, above=-1.0)

    def __call__(self, t: int) -> float:
        return self.initial * (1.0 + self.rate) ** t


@dataclass(frozen=True)
class Linear:
    """γ(t) runs from initial to final over ``updates`` outer updates, and stays there."""

    initial: float
    final: float
    updates: int

    def __post_init__(self) -> None:
        real("initial", self.initial, minimum=0.0)
        real("final", self.final, minimum=0.0)
        integer("updates", self.updates, minimum=1)

    def __call__(self, t: int) -> float:
        share = min(t / self.updates, 1.0)
        return (1.0 - share) * self.initial + share * self.final


@dataclass(frozen=True)
class Steps:
    """values[k] from the k-th of the counts ``at`` on, values[0] before the first: η in the authors' runs."""

    values: tuple[float, ...]
    at: tuple[int, ...]

    def __post_init__(self) -> None:
        for value in self.values:
            real("values", value, minimum=0.0)
        for count in self.at:
            integer("at", count, minimum=1)
        if len(self.values) != len(self.at) + 1 or list(self.at) != sorted(set(self.at)):
            raise ValueError(
                f"values={self.values!r} with at={self.at!r}: give ascending counts, and one value more than counts"
            )

    def __call__(self, t: int) -> float:
        return self.values[bisect(self.at, t)]


@dataclass(frozen=True)
class Bounded:
    """min(max(schedule(t), minimum), maximum): a growing scope that stops, so that γ·lr stays stable."""

    schedule: Callable[[int], float]
    minimum: float = 0.0
    maximum: float = math.inf

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise TypeError(
                f"schedule={self.schedule!r} is not a function of t: give one, such as Geometric(1e-4, 1e-3)"
            )
        real("minimum", self.minimum, minimum=0.0)
        if self.maximum != math.inf:
            real("maximum", self.maximum, minimum=self.minimum)

    def __call__(self, t: int) -> float:
        try:
            value = self.schedule(t)
        except OverflowError:
            value = math.inf
        return min(max(value, self.minimum), self.maximum)
