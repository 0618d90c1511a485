"""Logit temperatures at which networks have the same training loss, or each its lowest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch

from widevalley.landscape.objective import Objective

Match = Literal["loss", "temperature"]

# Factors of the logits that are looked at: logits of size 1 to 100 neither vanish nor overflow within.
LOWEST, HIGHEST = 1e-6, 1e6
# Halvings of the range of log s: to the last digit of float64.
HALVINGS = 60


class Temperature:
    """L(s), the mean loss with the logits times s, which is convex in s for the cross-entropy of logits.

    L falls from s = 0 to the optimum s*, and rises from there. The logits are computed once and kept, in float64 unless
    the criterion cannot take them so.

    Raises ValueError where the objective hides its outputs, or where they are not logits.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        with torch.no_grad(), objective.measuring():
            parts = [(objective.outputs(batch), batch, size) for batch, size in objective.batches()]
            self._parts = [(out.double(), batch, size) for out, batch, size in parts]
            self._samples = sum(size for _, _, size in parts)
            try:
                self.zero = self(0.0)
            except RuntimeError:
                # Targets of another float type than the outputs', which torch refuses to mix.
                self._parts = parts
                self.zero = self(0.0)
        # With the logits a cross-entropy grows in proportion at most, a squared error four times.
        if self(HIGHEST) > 3 * self(HIGHEST / 2):
            raise ValueError("its criterion grows faster than a cross-entropy, so that its outputs are not logits")
        self.present = self(1.0)
        rising = self._slope(LOWEST) >= 0
        falling = self._slope(HIGHEST) <= 0
        if rising or falling:
            self.optimum = 0.0 if rising else math.inf
        else:
            self.optimum = _bisected(lambda s: self._slope(s) < 0, LOWEST, HIGHEST)
        self.lowest = self.zero if rising else self(min(self.optimum, HIGHEST))

    def __call__(self, s: float) -> float:
        with torch.no_grad():
            return self._mean(torch.tensor(s, dtype=torch.float64, device=self._objective.device)).item()

    def _mean(self, s: torch.Tensor) -> torch.Tensor:
        total = sum(
            size * self._objective.criterion(s.to(out.dtype) * out, batch).double() for out, batch, size in self._parts
        )
        return torch.as_tensor(total) / self._samples

    def _slope(self, s: float) -> float:
        with torch.enable_grad():
            leaf = torch.tensor(s, dtype=torch.float64, device=self._objective.device, requires_grad=True)
            (slope,) = torch.autograd.grad(self._mean(leaf), leaf)
        return float(slope)

    def scale_of(self, loss: float) -> float:
        """The s ≤ s* with L(s) = loss, which lies between L(s*) and L(0)."""
        return _bisected(lambda s: self(s) > loss, LOWEST, min(self.optimum, HIGHEST))


def temperatures(objectives: Mapping[str, Objective]) -> tuple[dict[str, Temperature], dict[str, str]]:
    """L(s) of every network; and of those that hide their logits why they have none, by name."""
    curves, hidden = {}, {}
    for name, objective in objectives.items():
        try:
            curves[name] = Temperature(objective)
        except ValueError as error:
            hidden[name] = f"the logits of {name!r} cannot be scaled: {error}"
    return curves, hidden


def matched_scales(curves: Mapping[str, Temperature], match: Match) -> tuple[dict[str, float], dict[str, str]]:
    """Factors s > 0 of the logits; and of networks that have none why, by name.

    - ``"loss"``: L_i(s_i) = max_j L_j(1), the largest of the present losses that is below its network's loss at zero
      logits; where none is, max_j L_j(s_j*). Of the two s with this loss it is the less confident one, s_i ≤ s_i*, for
      every network, so that a network and the same one with its logits scaled end as one function.
    - ``"temperature"``: s_i = s_i*, which minimises L_i. There is none where the logits separate all classes.
    """
    scales, because = {}, {}
    usable = [curve for curve in curves.values() if curve.optimum > 0.0]
    target = max(
        (curve.present for curve in usable if curve.present < curve.zero),
        default=max((curve.lowest for curve in usable), default=math.nan),
    )
    for name, curve in curves.items():
        if curve.optimum == 0.0:
            because[name] = f"{name!r} does no better at any temperature than with zero logits, {curve.zero:.4g}"
        elif match == "temperature" and curve.optimum == math.inf:
            because[name] = f"the logits of {name!r} separate the classes, so that no temperature is best"
        elif match == "temperature":
            scales[name] = curve.optimum
        elif not curve.lowest <= target < curve.zero:
            because[name] = (
                f"{name!r} has losses from {curve.lowest:.4g} to {curve.zero:.4g} over its temperatures, and the one "
                f"to be matched is {target:.4g}"
            )
        else:
            scales[name] = curve.scale_of(target)
    return scales, because


def _bisected(above: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``above`` turns from true to false, by bisection of log s."""
    a, b = math.log(low), math.log(high)
    for _ in range(HALVINGS):
        middle = (a + b) / 2
        if above(math.exp(middle)):
            a = middle
        else:
            b = middle
    return math.exp((a + b) / 2)
