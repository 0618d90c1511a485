"""A run's records as TensorBoard's event files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from widevalley.experiments.extras import needs_extra
from widevalley.experiments.records import Record

# What a record says of when it was taken, and what it is; the rest is drawn.
_NOT_DRAWN = {"kind", "gradients"}


def writer() -> Callable[[str], Any]:
    """From a folder to what writes event files there. Raises MissingExtra if TensorBoard is not installed."""
    with needs_extra("tensorboard"):
        from torch.utils.tensorboard.writer import SummaryWriter
    return SummaryWriter


class Board:
    """Event files under ``folder``, which is written anew: a run that goes on tells its earlier records again."""

    def __init__(self, folder: Path) -> None:
        make = writer()
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = make(str(folder))
        self._told = 0

    def tell(self, records: list[Record]) -> None:
        """Draws those of the evaluations so far that are new, against gradients."""
        for record in [record for record in records if record["kind"] == "evaluation"][self._told :]:
            for name, value in record.items():
                if name not in _NOT_DRAWN and isinstance(value, int | float) and not isinstance(value, bool):
                    self._writer.add_scalar(name, value, record["gradients"])
            self._told += 1
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
