"""The figures of a comparison, as SVG that takes its colours and its font from the page around it.

Lines carry the method by colour and by dashes, both functions of the method's place in the comparison, so that they
are the same in every figure; the page draws the legend.
"""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from widevalley.experiments import summaries
from widevalley.experiments.results import Comparison
from widevalley.experiments.summaries import Difference, Point
from widevalley.experiments.width_ratios import WidthRatio

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
_TEXT, _GRID, _PAGE = "#fd0000", "#fd0001", "#fd0002"
_VARIABLES = {
    _TEXT: "currentColor",
    _GRID: "var(--grid, #ddd)",
    _PAGE: "var(--page, #fff)",
    **{f"#fe00{k:02x}": f"var(--series-{k}, {light})" for k, (light, _) in enumerate(COLOURS)},
}

LABELS = {
    "gradients": "gradients",
    "paper_epochs": "the paper's epochs (outer updates)",
    "validation_error": "validation error (%)",
    "train_loss": "training loss",
    "seconds": "seconds of training",
    "displacement": "displacement ‖x′ − x‖",
    "pull_to_gradient": "pull / gradient",
    "noise_to_gradient": "noise / gradient",
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


def style(comparison: Comparison, method: str) -> Style:
    place = comparison.methods.index(method)
    return Style(place % len(COLOURS), DASHES[place % len(DASHES)], MARKERS[place % len(MARKERS)])


def curves(comparison: Comparison, measure: str, axis: str) -> Figure | None:
    """``measure`` against ``axis`` (names of fields of ``Measurement``), or None while there is nothing to draw.

    The paper's epochs are on a logarithmic axis, or the nested methods would be a line along its left edge.
    """
    return _lines(
        {method: summaries.curve(comparison, method, measure, axis) for method in comparison.methods},
        comparison,
        labels=(LABELS[axis], LABELS[measure]),
        log_x=axis == "paper_epochs",
        markers=False,
    )


def rises(comparison: Comparison) -> Figure | None:
    """Rise of the training loss against perturbation size, or None while there is nothing to draw."""
    return _lines(
        {method: summaries.rise(comparison, method) for method in comparison.methods},
        comparison,
        labels=("relative size of the perturbation", "rise of the training loss"),
        log_x=True,
        markers=True,
    )


def tuning(comparison: Comparison) -> Figure | None:
    """Validation error over each method's learning rates, the chosen one ringed; None while there is nothing to draw.

    A rate with a run that diverged is a cross on the upper edge.
    """
    points = {method: summaries.tuned(comparison, method) for method in comparison.methods}
    if not any(points.values()):
        return None
    figure, axes = _empty(("learning rate", LABELS["validation_error"]))
    drawn: list[Point] = []
    for method, found in points.items():
        look = style(comparison, method)
        shown = [point for point in found if math.isfinite(point.mean)]
        rates = [point.x for point in shown]
        _line(axes, rates, [point.mean for point in shown], look, marker=look.marker)
        axes.vlines(rates, [point.low for point in shown], [point.high for point in shown], color=look.colour, lw=1)
        lost = [point.x for point in found if not math.isfinite(point.mean)]
        # x in data, y in shares of the axes: the upper edge wherever the finished runs lie.
        edge = axes.get_xaxis_transform()
        axes.plot(lost, [1.0] * len(lost), "x", color=look.colour, transform=edge, clip_on=False, ms=7, mew=2)
        for point in shown:
            if point.x == comparison.chosen.get(method):
                axes.plot([point.x], [point.mean], "o", mfc="none", mec=look.colour, ms=13, mew=1.6, zorder=4)
        drawn += shown
    _logarithmic(axes, "x", [point.x for found in points.values() for point in found])
    _logarithmic(axes, "y", [value for point in drawn for value in (point.mean, point.low, point.high)])
    return figure


def trials(comparison: Comparison) -> Figure | None:
    """Expected best validation error by number of learning rates tried; None while there is nothing to draw."""
    figure = _lines(
        {method: summaries.trials(comparison, method) for method in comparison.methods},
        comparison,
        labels=("learning rates tried", f"best {LABELS['validation_error']}"),
        log_x=False,
        markers=True,
    )
    if figure:
        figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def differences(comparison: Comparison, found: Mapping[str, Difference]) -> Figure | None:
    """Each method's difference to the baseline with its interval, a line a method; None if there is no interval."""
    shown = [difference for difference in found.values() if difference.over]
    if not shown:
        return None
    figure, axes = _empty((f"test error minus that of {summaries.baseline(comparison)} (points)", ""))
    # Narrow, so that the names keep a readable size on a phone.
    figure.set_size_inches(3.9, 0.8 + 0.27 * len(shown))
    axes.axvline(0, color=_TEXT, linewidth=1.2, zorder=2)
    for place, difference in enumerate(shown):
        look, interval = style(comparison, difference.method), difference.interval
        axes.hlines([place], [interval.low], [interval.high], color=look.colour, linewidth=2.4, zorder=3)
        axes.plot([interval.mean], [place], look.marker, color=look.colour, ms=7, mec=_PAGE, mew=0.6, zorder=4)
    axes.set_yticks(range(len(shown)), [difference.method for difference in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def width_ratios(comparison: Comparison, found: Mapping[str, Sequence[WidthRatio]]) -> Figure | None:
    """Each invariant measure's ratio to the baseline with its interval, a row a measure, in it a line a method.

    A ratio without an interval is a marker alone; None where there is no ratio.
    """
    rows: dict[str, list[WidthRatio]] = {}
    for ratio in (ratio for ratios in found.values() for ratio in ratios):
        if ratio.invariant and math.isfinite(ratio.interval.mean):
            rows.setdefault(ratio.measure, []).append(ratio)
    if not rows:
        return None
    figure, axes = _empty((f"ratio to {summaries.baseline(comparison)} (below 1: wider)", ""))
    step = 0.8 / len(found)
    figure.set_size_inches(4.7, 0.8 + len(rows) * (0.2 + 0.13 * len(found)))
    axes.axvline(1, color=_TEXT, linewidth=1.2, zorder=2)
    places = {method: -0.4 + step * (place + 0.5) for place, method in enumerate(found)}
    for row, ratios in enumerate(rows.values()):
        for ratio in ratios:
            look, interval, y = style(comparison, ratio.method), ratio.interval, row + places[ratio.method]
            dashes = (0, look.dashes) if look.dashes else "solid"
            axes.plot([interval.low, interval.high], [y, y], color=look.colour, lw=1.6, linestyle=dashes, zorder=3)
            axes.plot([interval.mean], [y], look.marker, color=look.colour, ms=4.5, mec=_PAGE, mew=0.5, zorder=4)
    intervals = [ratio.interval for ratios in rows.values() for ratio in ratios]
    ends = [end for interval in intervals for end in (interval.low, interval.mean, interval.high)]
    _logarithmic(axes, "x", [1.0, *ends])
    axes.set_yticks(
        range(len(rows)), [measure.replace("_", "\n", 1).replace("lambda_max", "λ_max") for measure in rows]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.hlines(
        [row - 0.5 for row in range(1, len(rows))], 0, 1, color=_GRID, lw=1, transform=axes.get_yaxis_transform()
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


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


def _lines(
    points: dict[str, list[Point]], comparison: Comparison, labels: tuple[str, str], log_x: bool, markers: bool
) -> Figure | None:
    """Mean lines with bands. The y axis is logarithmic: its values span decades."""
    if not any(points.values()):
        return None
    figure, axes = _empty(labels)
    drawn: list[Point] = []
    # Bands and markers of many methods lie on top of one another and would hide the lines.
    few = len(points) <= 5
    for method, found in points.items():
        look = style(comparison, method)
        # An x of 0 has no place on a logarithmic axis.
        shown = [point for point in found if not log_x or point.x > 0]
        xs = [point.x for point in shown]
        _line(axes, xs, [point.mean for point in shown], look, marker=look.marker if markers and few else "")
        if any(point.low < point.high for point in shown):
            low, high = [point.low for point in shown], [point.high for point in shown]
            axes.fill_between(xs, low, high, color=look.colour, alpha=0.16 if few else 0.08, linewidth=0, zorder=2)
        drawn += shown
    if log_x:
        _logarithmic(axes, "x", [point.x for point in drawn])
    # The lower ends of bands that reach 0 would stretch the axis without end: means decide where it starts.
    _logarithmic(axes, "y", [value for point in drawn for value in (point.mean, point.high)])
    return figure


def _empty(labels: tuple[str, str]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_TEXT)
    axes.tick_params(which="both", colors=_TEXT, labelsize=9)
    axes.grid(color=_GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(labels[0], color=_TEXT)
    axes.set_ylabel(labels[1], color=_TEXT)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}".replace("-", "−")))
    return figure, axes


def _line(axes: Axes, xs: Sequence[float], ys: Sequence[float], look: Style, marker: str) -> None:
    line = axes.plot(xs, ys, color=look.colour, linewidth=1.9, marker=marker, ms=4.5, mec=_PAGE, mew=0.6, zorder=3)[0]
    if look.dashes:
        line.set_dashes([length / 1.9 for length in look.dashes])


def _logarithmic(axes: Axes, axis: str, values: Iterable[float]) -> None:
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
    ticks.set_major_formatter(FuncFormatter(_plain))
    ticks.set_minor_locator(NullLocator())


def _plain(value: float, _: int) -> str:
    """Without an exponent: 0.00001."""
    return np.format_float_positional(value, precision=6, unique=False, fractional=False, trim="-")
