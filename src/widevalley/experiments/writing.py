"""Writing result files: all or nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def write(path: Path, content: str | bytes) -> None:
    """Writes the file whole or not at all: a process that is killed, or a full disk, leaves the old one.

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """One JSON object a line."""
    write(path, "".join(json.dumps(rounded(record)) + "\n" for record in records))


def rounded(item: Any) -> Any:
    """Six significant digits: what a reader can use, in files that stay small."""
    if isinstance(item, float):
        return float(f"{item:.6g}")
    if isinstance(item, dict):
        return {key: rounded(value) for key, value in item.items()}
    return [rounded(value) for value in item] if isinstance(item, list) else item
