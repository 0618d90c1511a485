"""Packages that come with an extra, and are imported only when they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(Exception):
    """A package of an extra is not installed; the message says how to install it."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(f'The package {error.name} is missing: pip install "widevalley[{extra}]"') from error
