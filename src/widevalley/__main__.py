"""``python -m widevalley``."""

from widevalley.cli import main

main()
