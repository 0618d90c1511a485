"""Records as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from widevalley.writing import write

Record = dict[str, Any]


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """One JSON object a line."""
    write(path, "".join(json.dumps(rounded(record)) + "\n" for record in records))


def rounded(item: Any, digits: int = 6) -> Any:
    """Six significant digits: what a reader can use, in files that stay small."""
    if isinstance(item, float):
        return float(f"{item:.{digits}g}")
    if isinstance(item, dict):
        return {key: rounded(value, digits) for key, value in item.items()}
    return [rounded(value, digits) for value in item] if isinstance(item, list) else item
