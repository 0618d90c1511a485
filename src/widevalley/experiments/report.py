"""The report page: from the result files of a comparison to one self-contained ``report.html``.

The page states what was run and what came out; it ranks nothing. It loads nothing from anywhere and runs no script.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from widevalley.experiments import plots
from widevalley.experiments.results import Comparison, Result, read

NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """A method's line of the table of results, as text; ``seeds`` counts the runs behind it."""

    method: str
    lr: str
    seeds: str
    test_error: str
    test_loss: str
    validation_error: str
    train_loss: str
    gradients: str
    outer_updates: str
    milliseconds: str


@dataclass(frozen=True)
class Panel:
    """One plot: its heading and its SVG."""

    title: str
    svg: Markup


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` into a comparison's folder and returns its path.

    Units that have not been run, or not to their end, are named on the page and left out of every mean, as are
    diverged ones. Raises what ``results.read`` raises. The same files give the same page.
    """
    comparison = read(folder)
    environment = Environment(
        loader=PackageLoader("widevalley", "experiments/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The page's look does not depend on the settings of the user's own matplotlib.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        page = environment.get_template("report.html.j2").render(_context(comparison))
    path = folder / "report.html"
    # A page that is open in a browser is never half written.
    part = folder / "report.html.part"
    part.write_text(page, encoding="utf-8", newline="\n")
    os.replace(part, path)
    return path


def plus_minus(values: Sequence[float], digits: int | None = None) -> str:
    """ "mean ± sample standard deviation" of values, the mean alone for one, a dash for none.

    ``digits`` after the point; by default as many as show two figures of the deviation (four of the mean where there
    is none).
    """
    if not values:
        return NOTHING
    return _number(statistics.fmean(values), _deviation(values) if len(values) > 1 else None, digits)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def _number(mean: float, error: float | None, digits: int | None = None) -> str:
    """ "mean ± error", the mean alone where ``error`` is None."""
    if not math.isfinite(mean + (error or 0.0)):
        return "not finite"
    if digits is None:
        scale, figures = (error, 2) if error else (abs(mean), 4)
        digits = min(max(figures - 1 - math.floor(math.log10(scale)), 0), 12) if scale > 0 else 1
    return f"{mean:.{digits}f}" if error is None else f"{mean:.{digits}f} ± {error:.{digits}f}"


def _context(comparison: Comparison) -> dict[str, Any]:
    return {
        "comparison": comparison,
        "rows": [_row(comparison, method) for method in comparison.methods],
        "missing": _missing(comparison),
        "diverged": _diverged(comparison),
        "edges": [method for method in comparison.methods if _at_edge(comparison, method)],
        "legend": {method: plots.style(comparison, method) for method in comparison.methods},
        "colours": plots.COLOURS,
        "against_gradients": _curves(comparison, "gradients"),
        "against_paper_epochs": _curves(comparison, "paper_epochs"),
        "rises": _rises(comparison),
        "rise_table": _rise_table(comparison),
        "tuning": _tuning(comparison),
        "several_seeds": max((len(comparison.finished(method)) for method in comparison.methods), default=0) > 1,
        "settings": _settings(comparison),
        "versions": _distinct(unit.versions for unit in comparison.units),
        "machines": _distinct(unit.machine for unit in comparison.units),
        "example_points": f"{100 / comparison.test_size:.2g}" if comparison.test_size else NOTHING,
    }


def _row(comparison: Comparison, method: str) -> Row:
    results = [result for _, result in comparison.finished(method)]
    ended, planned = len(comparison.finals(method)), len(comparison.seeds)
    lost = ended - len(results)
    chosen = comparison.chosen.get(method)

    def column(value: Callable[[Result], float], digits: int | None = None) -> str:
        return plus_minus([value(result) for result in results], digits)

    return Row(
        method=method,
        lr=NOTHING if chosen is None else f"{chosen:g}",
        seeds=f"{len(results)} of {planned}" + (f", {lost} diverged" if lost else ""),
        test_error=column(lambda result: result.test_error, 2),
        test_loss=column(lambda result: result.test_loss),
        validation_error=column(lambda result: result.last.validation_error, 2),
        train_loss=column(lambda result: result.last.train_loss),
        gradients=_range(result.last.gradients for result in results),
        outer_updates=_range(result.last.outer_updates for result in results),
        milliseconds=column(lambda result: 1000 * result.seconds_per_gradient, 2),
    )


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return " to ".join(f"{count:,}" for count in (found[:1] + found[-1:] if len(found) > 1 else found)) or NOTHING


def _missing(comparison: Comparison) -> list[str]:
    """What has not been run to its end, a sentence's worth for each method and phase."""
    notes = []
    for method in comparison.methods:
        tuned = comparison.tuned(method)
        planned = len(comparison.tuning_seeds)
        if rates := [f"{lr:g}" for lr in comparison.learning_rates[method] if len(tuned.get(lr, ())) < planned]:
            notes.append(f"tuning of {method} at learning rate {', '.join(rates)}")
        ended = {unit.seed for unit in comparison.finals(method)}
        if seeds := [str(seed) for seed in comparison.seeds if seed not in ended]:
            notes.append(f"final runs of {method} with seed {', '.join(seeds)}")
    return notes


def _diverged(comparison: Comparison) -> list[str]:
    notes = []
    for method in comparison.methods:
        kept = {unit.seed for unit, _ in comparison.finished(method)}
        if seeds := [str(unit.seed) for unit in comparison.finals(method) if unit.seed not in kept]:
            notes.append(f"{method} with seed {', '.join(seeds)}")
    return notes


def _at_edge(comparison: Comparison, method: str) -> bool:
    rates = comparison.learning_rates[method]
    return bool(rates) and comparison.chosen.get(method) in (min(rates), max(rates))


def _panel(title: str, figure: Figure | None, name: str, description: str) -> list[Panel]:
    return [Panel(title, Markup(plots.svg(figure, name, description)))] if figure else []


def _curves(comparison: Comparison, axis: str) -> list[Panel]:
    panels = []
    for measure in ("validation_error", "train_loss"):
        label = plots.LABELS[measure]
        ends = {method: plots.curve(comparison, method, measure, axis)[-1:] for method in comparison.methods}
        said = [f"{method} ends at {end.mean:.4g}" for method, points in ends.items() for end in points]
        description = f"Lines: {label} against {plots.LABELS[axis]}, mean over seeds. {'; '.join(said)}."
        name = f"{measure}-{axis}".replace("_", "-")
        panels += _panel(label.capitalize(), plots.curves(comparison, measure, axis), name, description)
    return panels


def _rises(comparison: Comparison) -> list[Panel]:
    description = "Lines: rise of the training loss against the relative size of the perturbation; numbers below."
    return _panel("Rise of the training loss", plots.rises(comparison), "rise", description)


def _rise_table(comparison: Comparison) -> dict[str, Any] | None:
    """The methods that have networks, and for each size the rise of each of them as text."""
    points = {
        method: {point.x: point for point in found}
        for method in comparison.methods
        if (found := plots.rise(comparison, method))
    }
    sizes = sorted({size for found in points.values() for size in found})
    rows = {
        f"{size:g}": [
            _number(found[size].mean, found[size].high - found[size].mean) if size in found else NOTHING
            for found in points.values()
        ]
        for size in sizes
    }
    return {"methods": list(points), "rows": rows} if points else None


def _tuning(comparison: Comparison) -> list[Panel]:
    said = [
        f"{method} chosen at {point.x:g} with {point.mean:.4g} %"
        for method in comparison.methods
        for point in plots.tuned(comparison, method)
        if point.x == comparison.chosen.get(method)
    ]
    description = f"Lines: validation error against learning rate for each method. {'; '.join(said)}."
    return _panel("Validation error after tuning runs", plots.tuning(comparison), "tuning", description)


def _settings(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Setting → method → value as text. The learning rate is the chosen one, whichever run the others are read from."""
    table: dict[str, dict[str, str]] = {"lr": {method: f"{lr:g}" for method, lr in comparison.chosen.items()}}
    for method in comparison.methods:
        unit = next(iter([*comparison.finals(method), *(u for u in comparison.units if u.method == method)]), None)
        for name, value in (unit.optimizer if unit else {}).items():
            if name != "lr":
                table.setdefault(name, {})[method] = f"{value:g}" if isinstance(value, float) else f"{value}"
    return table


def _distinct(records: Iterable[Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for record in records:
        text = {name: f"{value}" for name, value in record.items()}
        if text not in found:
            found.append(text)
    return found
