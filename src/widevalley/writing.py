"""Writing files: all or nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

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
