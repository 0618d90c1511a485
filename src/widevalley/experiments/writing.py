"""Writing result files: all or nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# Ends the name of a file while it is being written.
PARTIAL = ".partial"


def write(path: Path, content: str | bytes, partial: str = PARTIAL) -> None:
    """Writes the file whole or not at all: a process that is killed, or a full disk, leaves the old one.

    ``partial`` is added to its name while it is being written: two processes that may write the same file at the same
    time need two names, or a lock.

    Raises OSError where it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + partial)
    try:
        with beside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        _replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _replace(partial: Path, path: Path) -> None:
    # On Windows a file that somebody reads at this moment cannot be replaced.
    for _ in range(50):
        try:
            partial.replace(path)
        except PermissionError:
            time.sleep(0.02)
        else:
            return
    partial.replace(path)


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
