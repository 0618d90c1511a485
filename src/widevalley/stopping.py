"""Ctrl-C and a termination signal, turned into a question that is asked between two steps."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopping:
    """Inside it, the first SIGINT or SIGTERM is noted, and a second one acts as it would without.

    In other threads than the main one, where Python allows no handlers, nothing is noted.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._give_back()
        print("Stopping after this step; once more to leave at once.", file=sys.stderr, flush=True)

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def __call__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """As shells report a process that a signal ended."""
        return 128 + (self.signal or signal.SIGINT)
