"""Reading result files: what is damaged is named, with what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]

REMEDY = "the file is damaged: move it away, and go on by the same command (with --resume, where it has that)"


class ResultsError(ValueError):
    """A result file is damaged; the message names it."""


def text(path: Path) -> str:
    """The file's text, which must be UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: not UTF-8 text ({error}); {REMEDY}") from None


def parsed(text: str, where: str) -> Record:
    """The JSON object that ``text`` is; ``where`` it stands is named in errors."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ResultsError(f"{where}: not JSON ({error}); {REMEDY}") from None
    if not isinstance(record, dict):
        raise ResultsError(f"{where}: {type(record).__name__} where an object belongs; {REMEDY}")
    return record


def entry(record: Record, key: str, kind: type, where: str) -> Any:
    """The value of ``key``, which must be of that type."""
    value = record.get(key)
    if not isinstance(value, kind):
        raise ResultsError(f"{where}: {key}={value!r} where a value of type {kind.__name__} belongs; {REMEDY}")
    return value


def number(record: Record, key: str, where: str, may_lack: bool = False) -> float:
    """The number of ``key``; null is NaN, as is a missing one that may lack."""
    value = record.get(key)
    if value is None and (may_lack or key in record):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ResultsError(f"{where}: {key}={value!r} where a number belongs; {REMEDY}")
    return float(value)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Errors of missing keys and wrong types inside name ``where``."""
    try:
        yield
    except ResultsError:
        raise
    except KeyError as error:
        raise ResultsError(f"{where}: {error} is missing; {REMEDY}") from None
    except (TypeError, AttributeError, ValueError) as error:
        raise ResultsError(f"{where}: a value has the wrong type ({error}); {REMEDY}") from None
