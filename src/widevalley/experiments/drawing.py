"""What all figures share: colours, axes, and SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

# Hues of Okabe and Ito ("Color universal design"), darkened until each has a contrast of 4 on white, and for dark
# pages lightened likewise: (light, dark).
COLOURS = (
    ("#0069a8", "#5ab4f0"),
    ("#c24e00", "#ff9a57"),
    ("#007a5a", "#3fc79a"),
    ("#a8407f", "#ee8fc8"),
    ("#806600", "#e3c84a"),
    ("#4d4d4d", "#c4c4c4"),
    ("#5b4bb5", "#a99cff"),
)
# In points. Their number shares no factor with that of the colours, so the pairs repeat only after 35 methods; the
# order keeps apart those that are two apart, which the first and the eighth method with one colour are.
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (1.8, 1.8), (11, 2, 2, 2), (7, 1.6, 1.6, 1.6, 1.6, 1.6))
MARKERS = "osD^v"

# matplotlib writes colours as hexadecimal numbers: these stand for CSS variables until ``svg`` puts those in. Black
# would not do for the text, since matplotlib leaves the default colour out.
TEXT, GRID, PAGE = "#fd0000", "#fd0001", "#fd0002"
_VARIABLES = {
    TEXT: "currentColor",
    GRID: "var(--grid, #ddd)",
    PAGE: "var(--page, #fff)",
    **{f"#fe00{k:02x}": f"var(--series-{k}, {light})" for k, (light, _) in enumerate(COLOURS)},
}


@dataclass(frozen=True)
class Style:
    """How a method is drawn: number of its colour, dashes in points (empty: solid), marker."""

    series: int
    dashes: tuple[float, ...]
    marker: str

    @property
    def colour(self) -> str:
        return f"#fe00{self.series:02x}"


def style(place: int) -> Style:
    """Of the line in that place, the same in every figure of a page."""
    return Style(place % len(COLOURS), DASHES[place % len(DASHES)], MARKERS[place % len(MARKERS)])


def svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an ``<svg>`` element for a page; ``name`` makes its ids unique there, ``description`` is read out.

    Equal figures give equal text.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], text)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    return text.replace("<svg ", f'<svg class="plot" role="img" aria-label="{html.escape(description)}" ', 1)


def empty(labels: tuple[str, str]) -> tuple[Figure, Axes]:
    """Axes with nothing in them yet but their labels, of x and y."""
    figure = Figure(figsize=(4.7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(TEXT)
    axes.tick_params(which="both", colors=TEXT, labelsize=9)
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(labels[0], color=TEXT)
    axes.set_ylabel(labels[1], color=TEXT)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    return figure, axes


def line(axes: Axes, xs: Sequence[float], ys: Sequence[float], look: Style, marker: str) -> None:
    """A line, with a marker at each point if there is a ``marker``."""
    drawn = axes.plot(xs, ys, color=look.colour, linewidth=1.9, marker=marker, ms=4.5, mec=PAGE, mew=0.6, zorder=3)[0]
    if look.dashes:
        drawn.set_dashes([length / 1.9 for length in look.dashes])


def logarithmic(axes: Axes, axis: str, values: Iterable[float]) -> None:
    """A logarithmic axis around the positive ones of ``values``, its ticks plain numbers, more of them if it is short.

    What is not positive leaves through the edge of the axes.
    """
    positive = [value for value in values if math.isfinite(value) and value > 0]
    low, high = (min(positive), max(positive)) if positive else (0.1, 1.0)
    margin = max((high / low) ** 0.06, 1.05)
    decades = math.log10(high / low)
    digits: Sequence[float] = (1.0,)
    if decades < 0.7:
        digits = [float(digit) for digit in range(1, 10)]
    elif decades < 2.2:
        digits = (1.0, 2.0, 5.0)
    elif decades < 4:
        digits = (1.0, 3.0)
    # Limits first: they end the autoscaling, which refuses data without a positive value.
    (axes.set_xlim if axis == "x" else axes.set_ylim)(low / margin, high * margin)
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log", nonpositive="clip")
    ticks = axes.xaxis if axis == "x" else axes.yaxis
    ticks.set_major_locator(LogLocator(subs=digits, numticks=50))
    ticks.set_major_formatter(FuncFormatter(plain))
    ticks.set_minor_locator(NullLocator())


def plain(value: float, _: int) -> str:
    """Without an exponent: 0.00001."""
    return np.format_float_positional(value, precision=6, unique=False, fractional=False, trim="-")
