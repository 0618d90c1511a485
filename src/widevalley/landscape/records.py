"""What measures return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Estimate:
    """A number with its error.

    ``standard_error`` is None where ``value`` is exact but for rounding; ``diagnostics`` say how it came
    about, by name.
    """

    value: float
    standard_error: float | None = None
    diagnostics: Mapping[str, float] = field(default_factory=dict)
