"""The command ``widevalley``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point: the command proper, or how to install what it needs."""
    # torch's profiler, which counts memory, announces its start and stop on standard error; read when torch is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    try:
        from widevalley.commands import app
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("widevalley"):
            raise
        sys.exit(f'The command needs the package {error.name}: pip install "widevalley[cli]"')
    app()
