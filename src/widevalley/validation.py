"""Checks of arguments: what was given, why it is wrong, what to do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from torch import Tensor


def real(
    name: str,
    value: Any,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """Refuses what is not one finite real number within the bounds; a one-element tensor counts as its number."""
    bounds = _bounds(minimum, maximum, above, below)
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}, not a number: give a number{bounds}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    outside = (
        not math.isfinite(number)
        or (minimum is not None and number < minimum)
        or (maximum is not None and number > maximum)
        or (above is not None and number <= above)
        or (below is not None and number >= below)
    )
    if outside:
        raise ValueError(f"{name}={value!r} is out of range: give a finite number{bounds}")


def integer(name: str, value: Any, *, minimum: int, maximum: int | None = None) -> None:
    """Refuses what is not an integer within the bounds."""
    bounds = _bounds(minimum, maximum, None, None)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}, not an integer: give an integer{bounds}")
    number = int(value)
    if number < minimum or (maximum is not None and number > maximum):
        raise ValueError(f"{name}={value!r} is out of range: give an integer{bounds}")


def plain(value: Any) -> Any:
    """A number as Python's own int or float; anything else as it is."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def flag(name: str, value: Any) -> None:
    """Refuses what is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r} is a {type(value).__name__}, not a bool: give True or False")


def pair_of_betas(name: str, value: Any) -> None:
    """Refuses what is not two numbers in [0, 1)."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise TypeError(f"{name}={value!r} is not a pair: give two numbers in [0, 1), such as (0.9, 0.999)")
    for beta in value:
        try:
            real(name, beta, minimum=0.0, below=1.0)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"{name}={value!r} has the element {beta!r}: give two numbers in [0, 1), such as (0.9, 0.999)"
            ) from None


def _bounds(minimum: float | None, maximum: float | None, above: float | None, below: float | None) -> str:
    parts = [
        f"{sign} {bound:g}"
        for sign, bound in ((">=", minimum), (">", above), ("<=", maximum), ("<", below))
        if bound is not None
    ]
    return " " + " and ".join(parts) if parts else ""
