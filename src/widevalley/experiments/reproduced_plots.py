"""The figures of a reproduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from widevalley.experiments import plots
from widevalley.experiments import reproduced_numbers as numbers
from widevalley.experiments.drawing import Style, empty, logarithmic, style
from widevalley.experiments.rendering import Panel, panel
from widevalley.experiments.reproduced import CurveRuns

# A horizontal axis is logarithmic where the longest run is so many times longer than the shortest.
LONGER = 3.0
AXES = {"epochs": "epochs of gradients", "paper_epochs": "the paper’s epochs"}


def curves(found: Sequence[CurveRuns], looks: Mapping[str, Style], label: str) -> list[Panel]:
    """Test error and training loss against epochs of gradients, then against the paper's; ``label`` begins their names.

    Means over seeds ± one standard deviation.
    """
    panels: list[Panel] = []
    for axis, by in AXES.items():
        for measure in ("test_error", "train_loss"):
            every = {curve.curve.description: numbers.curve(curve, measure, axis) for curve in found}
            # Before training all are equal, and so bad that the axis would show little else.
            begun = {name: [point for point in points if point.x > 0] for name, points in every.items()}
            lines = {name: points for name, points in begun.items() if points}
            lengths = [points[-1].x for points in lines.values()]
            log_x = bool(lengths) and max(lengths) > LONGER * min(lengths)
            said = plots.LABELS[measure]
            ends = "; ".join(f"{name} ends at {points[-1].mean:.4g}" for name, points in lines.items())
            text = f"Lines: {said} against {plots.LABELS[axis]}, mean over seeds. {ends}."
            figure = plots.lines(lines, looks, (plots.LABELS[axis], said), log_x)
            name = f"{label}-{measure}-{axis}".replace("_", "-")
            panels += panel(f"{said[0].upper()}{said[1:]}, by {by}", figure, name, text)
    return panels


def ablations(found: Sequence[CurveRuns]) -> list[Panel]:
    """Test error of each variant, and its difference to the first, with intervals over seeds."""
    said = [f"{curve.name} {mean.mean:.4g}" for curve in found if (mean := numbers.interval(curve))]
    text = f"Points and intervals: test error in percent. {'; '.join(said)}."
    panels = panel("Test error", errors(found), "ablations-errors", text)
    base, others = found[0], found[1:]
    pairs = [numbers.difference(curve, base, lambda result: result.test_error) for curve in others]
    looks = {curve.name: style(0) for curve in found}
    figure = plots.differences([difference for difference in pairs if difference], looks, base.name)
    text = f"Points and intervals: test error minus that of {base.name}; numbers in the table."
    return panels + panel(f"Test error against {base.name}", figure, "ablations-differences", text)


def errors(found: Sequence[CurveRuns]) -> Figure | None:
    """A row a variant: its seeds as dots, their mean with its 95 % interval. None where none has finished."""
    shown = [(curve, mean) for curve in found if (mean := numbers.interval(curve))]
    if not shown:
        return None
    figure, axes = empty(("test error (%)", ""))
    values: list[float] = []
    for place, (curve, mean) in enumerate(shown):
        each = [result.test_error for _, result in curve.finished]
        axes.plot(each, [place] * len(each), "|", color=style(0).colour, ms=11, mew=1.4, zorder=3)
        plots.interval_line(axes, mean, place, style(0))
        values += each
    plots.named_rows(figure, axes, [curve.name for curve, _ in shown])
    if max(values) > LONGER * min(values):
        logarithmic(axes, "x", [*values, *(mean.high for _, mean in shown)])
    return figure
