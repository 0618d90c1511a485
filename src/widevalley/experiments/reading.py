"""Reading JSON files that may be damaged: each error names the file and what is wrong in it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]

REMEDY = "the file is damaged: move it away, and go on by the same compare with --resume"


class ResultsError(ValueError):
    """A result file is damaged; the message names it."""


def text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path}: not UTF-8 text ({error}); {REMEDY}") from None


def record_of(text: str, where: str) -> Record:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ResultsError(f"{where}: not JSON ({error}); {REMEDY}") from None
    if not isinstance(record, dict):
        raise ResultsError(f"{where}: {type(record).__name__} where an object belongs; {REMEDY}")
    return record


def entry(record: Record, key: str, kind: type, where: str) -> Any:
    value = record.get(key)
    if not isinstance(value, kind):
        raise ResultsError(f"{where}: {key}={value!r} where a value of type {kind.__name__} belongs; {REMEDY}")
    return value


def number(record: Record, key: str, where: str, may_lack: bool = False) -> float:
    value = record.get(key)
    if value is None and (may_lack or key in record):
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ResultsError(f"{where}: {key}={value!r} where a number belongs; {REMEDY}")
    return float(value)
