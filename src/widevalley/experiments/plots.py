"""The figures of a comparison.

Lines carry the method by colour and by dashes, both functions of the method's place in the comparison, so that they
are the same in every figure; the page draws the legend.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from widevalley.experiments import drawing, summaries
from widevalley.experiments.drawing import GRID, PAGE, TEXT, Style, empty, line, logarithmic
from widevalley.experiments.results import Comparison
from widevalley.experiments.statistics import Interval
from widevalley.experiments.summaries import Difference, Point
from widevalley.experiments.width_ratios import WidthRatio

LABELS = {
    "gradients": "gradients",
    "epochs": "epochs of gradients",
    "paper_epochs": "the paper's epochs (outer updates)",
    "validation_error": "validation error (%)",
    "test_error": "test error (%)",
    "train_loss": "training loss",
    "seconds": "seconds of training",
    "displacement": "displacement ‖x′ − x‖",
    "pull_to_gradient": "pull / gradient",
    "noise_to_gradient": "noise / gradient",
}


def style(comparison: Comparison, method: str) -> Style:
    return drawing.style(comparison.methods.index(method))


def _looks(comparison: Comparison) -> dict[str, Style]:
    return {method: style(comparison, method) for method in comparison.methods}


def curves(comparison: Comparison, measure: str, axis: str) -> Figure | None:
    """``measure`` against ``axis`` (names of fields of ``Measurement``), or None while there is nothing to draw.

    The paper's epochs are on a logarithmic axis, or the nested methods would be a line along its left edge.
    """
    return lines(
        {method: summaries.curve(comparison, method, measure, axis) for method in comparison.methods},
        _looks(comparison),
        labels=(LABELS[axis], LABELS[measure]),
        log_x=axis == "paper_epochs",
    )


def rises(comparison: Comparison) -> Figure | None:
    """Rise of the training loss against perturbation size, or None while there is nothing to draw."""
    return lines(
        {method: summaries.rise(comparison, method) for method in comparison.methods},
        _looks(comparison),
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
    figure, axes = empty(("learning rate", LABELS["validation_error"]))
    drawn: list[Point] = []
    for method, found in points.items():
        look = style(comparison, method)
        shown = [point for point in found if math.isfinite(point.mean)]
        rates = [point.x for point in shown]
        line(axes, rates, [point.mean for point in shown], look, marker=look.marker)
        axes.vlines(rates, [point.low for point in shown], [point.high for point in shown], color=look.colour, lw=1)
        lost = [point.x for point in found if not math.isfinite(point.mean)]
        # x in data, y in shares of the axes: the upper edge wherever the finished runs lie.
        edge = axes.get_xaxis_transform()
        axes.plot(lost, [1.0] * len(lost), "x", color=look.colour, transform=edge, clip_on=False, ms=7, mew=2)
        for point in shown:
            if point.x == comparison.chosen.get(method):
                axes.plot([point.x], [point.mean], "o", mfc="none", mec=look.colour, ms=13, mew=1.6, zorder=4)
        drawn += shown
    logarithmic(axes, "x", [point.x for found in points.values() for point in found])
    logarithmic(axes, "y", [value for point in drawn for value in (point.mean, point.low, point.high)])
    return figure


def trials(comparison: Comparison) -> Figure | None:
    """Expected best validation error by number of learning rates tried; None while there is nothing to draw."""
    figure = lines(
        {method: summaries.trials(comparison, method) for method in comparison.methods},
        _looks(comparison),
        labels=("learning rates tried", f"best {LABELS['validation_error']}"),
        log_x=False,
        markers=True,
    )
    if figure:
        figure.axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def differences(found: Iterable[Difference], looks: Mapping[str, Style], base: str) -> Figure | None:
    """Each difference to ``base`` with its interval, a line a method; None if there is no interval."""
    shown = [difference for difference in found if difference.over]
    if not shown:
        return None
    figure, axes = empty((f"test error minus that of {base} (points)", ""))
    axes.axvline(0, color=TEXT, linewidth=1.2, zorder=2)
    for place, difference in enumerate(shown):
        interval_line(axes, difference.interval, place, looks[difference.method])
    named_rows(figure, axes, [difference.method for difference in shown])
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
    figure, axes = empty((f"ratio to {summaries.baseline(comparison)} (below 1: wider)", ""))
    step = 0.8 / len(found)
    figure.set_size_inches(4.7, 0.8 + len(rows) * (0.2 + 0.13 * len(found)))
    axes.axvline(1, color=TEXT, linewidth=1.2, zorder=2)
    places = {method: -0.4 + step * (place + 0.5) for place, method in enumerate(found)}
    for row, ratios in enumerate(rows.values()):
        for ratio in ratios:
            look, interval, y = style(comparison, ratio.method), ratio.interval, row + places[ratio.method]
            dashes = (0, look.dashes) if look.dashes else "solid"
            axes.plot([interval.low, interval.high], [y, y], color=look.colour, lw=1.6, linestyle=dashes, zorder=3)
            axes.plot([interval.mean], [y], look.marker, color=look.colour, ms=4.5, mec=PAGE, mew=0.5, zorder=4)
    intervals = [ratio.interval for ratios in rows.values() for ratio in ratios]
    ends = [end for interval in intervals for end in (interval.low, interval.mean, interval.high)]
    logarithmic(axes, "x", [1.0, *ends])
    axes.set_yticks(
        range(len(rows)), [measure.replace("_", "\n", 1).replace("lambda_max", "λ_max") for measure in rows]
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.hlines(
        [row - 0.5 for row in range(1, len(rows))], 0, 1, color=GRID, lw=1, transform=axes.get_yaxis_transform()
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure


def interval_line(axes: Axes, interval: Interval, y: float, look: Style) -> None:
    """A mean, and its interval where there is one."""
    axes.hlines([y], [interval.low], [interval.high], color=look.colour, linewidth=2.4, zorder=3)
    axes.plot([interval.mean], [y], look.marker, color=look.colour, ms=7, mec=PAGE, mew=0.6, zorder=4)


def named_rows(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """A row for each name, the first on top, in a figure as high as they need."""
    # Narrow, so that the names keep a readable size on a phone.
    figure.set_size_inches(3.9, 0.8 + 0.27 * len(names))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def lines(
    points: Mapping[str, Sequence[Point]],
    looks: Mapping[str, Style],
    labels: tuple[str, str],
    log_x: bool,
    markers: bool = False,
) -> Figure | None:
    """Mean lines with bands, None where there is no point. The y axis is logarithmic: its values span decades."""
    if not any(points.values()):
        return None
    figure, axes = empty(labels)
    drawn: list[Point] = []
    # Bands and markers of many methods lie on top of one another and would hide the lines.
    few = len(points) <= 5
    for name, found in points.items():
        look = looks[name]
        # An x of 0 has no place on a logarithmic axis.
        shown = [point for point in found if not log_x or point.x > 0]
        xs = [point.x for point in shown]
        line(axes, xs, [point.mean for point in shown], look, marker=look.marker if markers and few else "")
        if any(point.low < point.high for point in shown):
            low, high = [point.low for point in shown], [point.high for point in shown]
            axes.fill_between(xs, low, high, color=look.colour, alpha=0.16 if few else 0.08, linewidth=0, zorder=2)
        drawn += shown
    if log_x:
        logarithmic(axes, "x", [point.x for point in drawn])
    # The lower ends of bands that reach 0 would stretch the axis without end: means decide where it starts.
    logarithmic(axes, "y", [value for point in drawn for value in (point.mean, point.high)])
    return figure
