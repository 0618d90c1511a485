"""The report page: from the result files of a comparison to one self-contained ``report.html``.

The page states what was run and what came out, and calls a test error lower or higher only where its interval says so.
It loads nothing from anywhere and runs no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from widevalley.experiments import plots, summaries, tables, width_tables
from widevalley.experiments.rendering import Panel, distinct, panel, write_page
from widevalley.experiments.results import Comparison, read
from widevalley.experiments.summaries import Difference
from widevalley.experiments.tables import plus_minus
from widevalley.experiments.width_ratios import WidthRatio, width_ratios

__all__ = ["plus_minus", "write_report"]


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` into a comparison's folder and returns its path.

    Units that have not been run, or not to their end, are named on the page and left out of every mean, as are
    diverged ones. Raises what ``results.read`` raises. The same files give the same page.
    """
    comparison = read(folder)
    return write_page(folder / "report.html", "report.html.j2", lambda: _context(comparison))


def _context(comparison: Comparison) -> dict[str, Any]:
    differences = summaries.differences(comparison)
    ratios = width_ratios(comparison)
    return {
        "comparison": comparison,
        "findings": _findings(comparison, differences),
        "changes": [f"{name.replace('_', ' ')} {value}" for name, value in comparison.changes.items()],
        "results": tables.results(comparison, differences),
        "over": sorted({difference.over for difference in differences.values() if difference.over}),
        "intervals": sum(1 for difference in differences.values() if difference.over),
        "widths": width_tables.widths(comparison, ratios),
        "width_finding": width_tables.finding(comparison, ratios),
        "width_ratios": _width_ratios(comparison, ratios),
        "width_methods": [method for method in comparison.methods if method in ratios],
        "several_widths": any(ratio.seeds > 1 for found in ratios.values() for ratio in found),
        "width_notes": _width_notes(comparison),
        "costs": tables.costs(comparison),
        "costlier": {method: count for method, count in comparison.gradients_per_step.items() if count > 1},
        "reach": tables.reach(comparison),
        "missing": _missing(comparison),
        "diverged": _diverged(comparison),
        "edges": [method for method in comparison.methods if _at_edge(comparison, method)],
        "legend": {method: plots.style(comparison, method) for method in comparison.methods},
        "differences": _differences(comparison, differences),
        "against_gradients": _curves(comparison, "gradients"),
        "against_seconds": _curves(comparison, "seconds"),
        "against_paper_epochs": _curves(comparison, "paper_epochs"),
        "rises": _rises(comparison),
        "rise_table": tables.rises(comparison),
        "inner": _inner(comparison),
        "inner_table": tables.inner_loops(comparison),
        "tuning": _tuning(comparison),
        "trials": _trials(comparison),
        "trials_table": tables.trials(comparison),
        "worst_seen": f"{summaries.worst_seen(comparison):.4g}",
        "several_seeds": max((len(comparison.finished(method)) for method in comparison.methods), default=0) > 1,
        "settings": tables.settings(comparison),
        "versions": distinct(unit.versions for unit in comparison.units),
        "machines": distinct(unit.machine for unit in comparison.units),
        "target_points": f"{100 / comparison.test_targets:.2g}" if comparison.test_targets else tables.NOTHING,
    }


def _findings(comparison: Comparison, found: Mapping[str, Difference]) -> list[str]:
    """What the comparison says about test errors, in sentences that the intervals support."""
    base = summaries.baseline(comparison)
    if len(comparison.methods) < 2:
        return [f"{base} alone was run: there is nothing to compare it with."]
    if not found:
        return [f"No verdict yet: no method and {base} have both finished a run from the same seed."]
    said = []
    if {difference.over for difference in found.values()} == {"test examples"}:
        said.append("One seed: single networks are compared here, and another seed may say otherwise.")
    for verdict in ("lower", "higher"):
        those = [difference for difference in found.values() if difference.verdict == verdict]
        if those:
            listed = "; ".join("{} ({} points, {})".format(d.method, *tables.points(d)) for d in those)
            said.append(f"Test error is {verdict} than {base}’s for {listed}.")
    undecided = [method for method, difference in found.items() if difference.verdict == "not decidable"]
    if len(undecided) == len(found) == 1:
        said.append(f"Whether {undecided[0]}’s test error differs from {base}’s is not decidable from these runs.")
    elif len(undecided) == len(found):
        said.append(f"No method’s test error is decidably different from {base}’s.")
    elif undecided:
        said.append(f"Not decidable: {', '.join(undecided)}.")
    if lacking := [method for method in comparison.methods if method != base and method not in found]:
        said.append(f"Not comparable yet: {', '.join(lacking)}.")
    return said


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


def _differences(comparison: Comparison, found: Mapping[str, Difference]) -> list[Panel]:
    said = [f"{d.method} {d.verdict}, {' from '.join(tables.points(d))}" for d in found.values() if d.over]
    description = f"Points and intervals: difference of test error. {'; '.join(said)}."
    base, looks = summaries.baseline(comparison), {name: plots.style(comparison, name) for name in found}
    figure = plots.differences(found.values(), looks, base)
    return panel(f"Test error against {base}", figure, "differences", description)


def _width_ratios(comparison: Comparison, found: Mapping[str, tuple[WidthRatio, ...]]) -> list[Panel]:
    description = "Points and intervals: ratio of each measure to the baseline’s; numbers in the table."
    figure = plots.width_ratios(comparison, found)
    return panel(f"Measures of width, relative to {summaries.baseline(comparison)}", figure, "widths", description)


def _width_notes(comparison: Comparison) -> list[str]:
    """What could not be measured, and what the measures warn of, each once with its seeds."""
    notes: dict[str, list[str]] = {}
    for widths in comparison.widths:
        reasons = [f"not measured, {widths.reason}"] if widths.reason else []
        reasons += [f"{m}: {said}" for m, said in widths.verdicts.items() if widths.incomparable(m)]
        for reason in (*reasons, *widths.caveats):
            notes.setdefault(reason, []).append(f"{widths.seed}")
    return [f"Seed {', '.join(seeds)}: {reason}" for reason, seeds in notes.items()]


def _curves(
    comparison: Comparison, axis: str, measures: Iterable[str] = ("validation_error", "train_loss")
) -> list[Panel]:
    panels = []
    for measure in measures:
        label = plots.LABELS[measure]
        ends = {method: summaries.curve(comparison, method, measure, axis)[-1:] for method in comparison.methods}
        said = [f"{method} ends at {end.mean:.4g}" for method, points in ends.items() for end in points]
        description = f"Lines: {label} against {plots.LABELS[axis]}, mean over seeds. {'; '.join(said)}."
        name = f"{measure}-{axis}".replace("_", "-")
        panels += panel(label[0].upper() + label[1:], plots.curves(comparison, measure, axis), name, description)
    return panels


def _inner(comparison: Comparison) -> list[Panel]:
    """What is 0 throughout, as the noise is at temperature 0, has no place on a logarithmic axis."""
    shown = [
        measure
        for measure in ("displacement", *tables.FORCES)
        for method in comparison.methods
        if any(point.high > 0 for point in summaries.curve(comparison, method, measure, "gradients"))
    ]
    return _curves(comparison, "gradients", dict.fromkeys(shown))


def _rises(comparison: Comparison) -> list[Panel]:
    description = "Lines: rise of the training loss against the relative size of the perturbation; numbers below."
    return panel("Rise of the training loss", plots.rises(comparison), "rise", description)


def _tuning(comparison: Comparison) -> list[Panel]:
    said = [
        f"{method} chosen at {point.x:g} with {point.mean:.4g} %"
        for method in comparison.methods
        for point in summaries.tuned(comparison, method)
        if point.x == comparison.chosen.get(method)
    ]
    description = f"Lines: validation error against learning rate for each method. {'; '.join(said)}."
    return panel("Validation error after tuning runs", plots.tuning(comparison), "tuning", description)


def _trials(comparison: Comparison) -> list[Panel]:
    description = "Lines: expected best validation error against the number of learning rates tried; numbers below."
    return panel("What tuning buys", plots.trials(comparison), "trials", description)
