"""What all pages share: templates filled in and written whole, plots with headings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from widevalley.experiments import drawing
from widevalley.writing import PARTIAL, write


@dataclass(frozen=True)
class Panel:
    """One plot: its heading and its SVG."""

    title: str
    svg: Markup


def panel(title: str, figure: Figure | None, name: str, description: str) -> list[Panel]:
    """The figure as a panel, if there is one; ``name`` and ``description`` as for ``drawing.svg``."""
    return [Panel(title, Markup(drawing.svg(figure, name, description)))] if figure else []


def write_page(path: Path, template: str, context: Callable[[], Mapping[str, Any]]) -> Path:
    """Writes the template, filled in with what ``context`` returns, and returns the path.

    Figures are drawn inside ``context``: there the settings of the user's own matplotlib do not hold, so that the
    page's look does not depend on them.
    """
    environment = Environment(
        loader=PackageLoader("widevalley", "experiments/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        page = environment.get_template(template).render({"colours": drawing.COLOURS, **context()})
    # Two processes that end a job together both write its page.
    write(path, page, partial=f".{os.getpid()}{PARTIAL}")
    return path


def distinct(records: Iterable[Any]) -> list[dict[str, str]]:
    """The records without repetitions, every value as text."""
    found: list[dict[str, str]] = []
    for record in records:
        text = {name: f"{value}" for name, value in record.items()}
        if text not in found:
            found.append(text)
    return found
