"""Panels of a page as one SVG that stands alone, for documents: in the light colours, with headings and a legend."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence

from widevalley.experiments.drawing import COLOURS, Style
from widevalley.experiments.rendering import Panel

INK = "#222"
# In points: between panels, above each for its heading, a line of the legend, a letter's width in it, its sample.
GAP, HEADING, LINE, LETTER, SAMPLE = 18.0, 22.0, 20.0, 6.4, 56.0
_FONT = f'font-family="system-ui, sans-serif" fill="{INK}"'


def sheet(panels: Sequence[Panel], columns: int, looks: Mapping[str, Style], description: str) -> str:
    """The panels row by row in so many columns, above them a legend of ``looks``, if any.

    A figure's height varies; a row is as high as its highest, a column as wide as the widest panel.
    """
    sizes = [_size(panel) for panel in panels]
    rows = [range(start, min(start + columns, len(panels))) for start in range(0, len(panels), columns)]
    step = max(width for width, _ in sizes) + GAP
    width = min(columns, len(panels)) * step + GAP
    legend, y = _legend(looks, width)
    parts = [legend]
    for row in rows:
        for column, place in enumerate(row):
            x, (wide, high) = GAP + column * step, sizes[place]
            title = html.escape(panels[place].title)
            parts.append(f'<text x="{x:g}" y="{y + 13:g}" font-size="12" font-weight="600" {_FONT}>{title}</text>')
            place_at = f'x="{x:g}" y="{y + HEADING:g}" width="{wide:g}" height="{high:g}"'
            parts.append(_plain(panels[place].svg).replace("<svg ", f"<svg {place_at} ", 1))
        y += HEADING + GAP + max(sizes[place][1] for place in row)
    box = f'width="{width:g}pt" height="{y:g}pt" viewBox="0 0 {width:g} {y:g}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{html.escape(description)}">'
    return "\n".join([opening, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>", ""])


def _size(panel: Panel) -> tuple[float, float]:
    """Width and height of its view box."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', panel.svg)
    if found is None:
        raise ValueError(f"the figure {panel.title!r} has no view box that begins at 0 0")
    return float(found[1]), float(found[2])


def _plain(svg: str) -> str:
    """Without the page's variables."""
    return re.sub(r"var\(--[\w-]+, (#\w+)\)", r"\1", svg).replace("currentColor", INK)


def _legend(looks: Mapping[str, Style], width: float) -> tuple[str, float]:
    """Its lines, broken where the sheet ends, and the height that they take."""
    parts, x, y = [], GAP, GAP
    for name, look in looks.items():
        need = SAMPLE + LETTER * len(name) + GAP
        if x > GAP and x + need > width:
            x, y = GAP, y + LINE
        dashes = f' stroke-dasharray="{" ".join(f"{length:g}" for length in look.dashes)}"' if look.dashes else ""
        colour = COLOURS[look.series][0]
        parts.append(f'<path d="M{x:g} {y:g}h46" stroke="{colour}" stroke-width="2.4"{dashes}/>')
        parts.append(f'<text x="{x + SAMPLE:g}" y="{y + 4:g}" font-size="11" {_FONT}>{html.escape(name)}</text>')
        x += need
    return "\n".join(parts), y + LINE if parts else GAP / 2
