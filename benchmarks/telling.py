"""How the long benchmarks tell how far they are, and keep what they found."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from widevalley.experiments import environment


def progress(what: str, done: float) -> None:
    print(f"\r{what} {done:.1%}".ljust(100), end="", file=sys.stderr, flush=True)


def made() -> dict[str, object]:
    """How a record came about."""
    return {
        "versions": environment.versions(),
        "machine": environment.machine(),
        "command": " ".join(["python", *sys.argv]),
    }


def append(out: Path, record: Mapping[str, object]) -> None:
    """One JSON object more at the end of the file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
