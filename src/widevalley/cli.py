"""The command ``widevalley``."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: the command proper, or how to install what it needs."""
    try:
        from widevalley.commands import app
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("widevalley"):
            raise
        sys.exit(f'The command needs the package {error.name}: pip install "widevalley[cli]"')
    app()
