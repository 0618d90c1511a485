"""The full state of a run on disk, so that a process killed at any moment can be followed by another.

A file is ``state-GRADIENTS-DIGEST.pt``, written whole or not at all, its SHA-256 in its name; the two newest are kept,
so that there is another one where the newest is damaged. ``torch.load(path, weights_only=True)`` reads it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from widevalley.writing import write

KEPT = 2
# Seconds of training that a kill may cost. Writing mnistfc's state takes about 0.1 s.
EVERY = 30.0


class Checkpoints:
    """The states of one run in ``folder``.

    Args:
        every: seconds after which the next one is due; EVERY by default.
        warn: is told of damaged ones.
    """

    def __init__(
        self, folder: Path, every: float | None = None, warn: Callable[[str], None] = lambda message: None
    ) -> None:
        self.folder, self.warn = folder, warn
        self.every = EVERY if every is None else every
        self.last = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self.last >= self.every

    def save(self, gradients: int, state: dict[str, Any]) -> Path:
        """Raises OSError where it cannot be written; the older ones are still there then."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        path = self.folder / f"state-{gradients:09d}-{_digest(payload)}.pt"
        write(path, payload)
        for old in [*self._files()[KEPT:], *self._partials()]:
            old.unlink(missing_ok=True)
        self.last = time.monotonic()
        return path

    def load(self) -> dict[str, Any] | None:
        """The newest state that is whole, None where there is none; damaged ones are told of and deleted."""
        while files := self._files():
            path = files[0]
            payload = path.read_bytes()
            if path.stem.rpartition("-")[2] == _digest(payload):
                state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
                return state
            going_on = "from the one before it" if files[1:] else "from the start: there is no other"
            self.warn(f"{path} is damaged (its SHA-256 is not the one in its name): going on {going_on}")
            # Or it would count as the newest for ever.
            path.unlink()
        return None

    def clear(self) -> None:
        """Deletes them all, and the folder if nothing else is in it."""
        # Another process may be clearing it too.
        with contextlib.suppress(FileNotFoundError):
            for path in [*self._files(), *self._partials()]:
                path.unlink(missing_ok=True)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _partials(self) -> list[Path]:
        """What killed processes left half written."""
        return list(self.folder.glob("state-*.partial"))

    def _files(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("state-*-*.pt"), reverse=True)


def _digest(payload: bytes) -> str:
    return hashlib.sha256(payload).hexdigest()[:16]
