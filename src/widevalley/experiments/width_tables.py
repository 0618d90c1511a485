"""The widths of a comparison in words: the table of the report page, and its finding."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from widevalley.experiments import summaries
from widevalley.experiments.results import Comparison
from widevalley.experiments.tables import NOTHING, Heads, Table
from widevalley.experiments.width_ratios import WidthRatio, overall

Ratios = Mapping[str, Sequence[WidthRatio]]


def widths(comparison: Comparison, found: Ratios) -> Table | None:
    """Every measure of every method, invariant ones first; None where no seed has been measured."""
    seeds = [seed for seed in comparison.widths if seed.measures]
    if not seeds:
        return None
    base = summaries.baseline(comparison)
    measures = {measure.name: measure.invariant for measure in seeds[0].measures}
    names = sorted(measures, key=lambda name: not measures[name])
    verdicts = overall(comparison, found)

    def row(method: str) -> tuple[str, ...]:
        if method in found:
            ratios = {ratio.measure: ratio for ratio in found[method]}
            cells = [_cell(ratios[name]) for name in names]
            count = next(iter(ratios.values())).seeds
            of = f"{count} seed{'' if count == 1 else 's'}"
            said = Markup("<strong>{}</strong><small>{}</small>").format(verdicts[method], of)
        else:
            cells = []
            for name in names:
                rows = (measure for seed in seeds for measure in seed.measures if measure.name == name)
                cells.append(_plain([row.values[method] for row in rows if method in row.values], measures[name]))
            said = Markup("<small>{}</small>").format(
                "the baseline" if method == base else _why_not(comparison, method)
            )
        losses = [seed.matched_losses[method] for seed in seeds if method in seed.matched_losses]
        return Markup('<div class="verdict">{}</div>').format(said), plus_minus(losses), *cells

    heads: Heads = (("Method", ""), ("Valley", f"against {base}"), ("Training loss", "matched"))
    heads += tuple((_title(name), "" if measures[name] else "not invariant") for name in names)
    caption = f"Small is wide: mean ± standard deviation over seeds; ratio to {base}, 95 % interval"
    return Table(caption, heads, tuple((method, row(method)) for method in comparison.methods))


def _cell(ratio: WidthRatio) -> str:
    interval = ratio.interval
    lines = [plus_minus(ratio.values)]
    if math.isfinite(interval.mean):
        lines.append(f"× {interval.mean:.3g}")
        if math.isfinite(interval.low):
            lines[-1] += f" ({interval.low:.3g} to {interval.high:.3g})"
    small = Markup("").join(Markup("<small><span>{}</span></small>").format(line) for line in lines)
    strong = Markup("<strong>{}</strong>").format(ratio.verdict) if ratio.verdict else ""
    return Markup('<div class="verdict">{}{}</div>').format(strong, small)


def _plain(values: Sequence[float], invariant: bool) -> str:
    said = plus_minus(values)
    return said if invariant else Markup("<small>{}</small>").format(said)


def _why_not(comparison: Comparison, method: str) -> str:
    for seed in comparison.widths:
        if seed.incomparable(method):
            return seed.verdicts[method]
    return NOTHING


def _title(measure: str) -> str:
    return measure.replace("_", " ").replace("lambda max", "λ_max")


def plus_minus(values: Sequence[float]) -> str:
    """ "mean ± sample standard deviation" by significant digits: measures span many decades."""
    if not values:
        return NOTHING
    mean = f"{statistics.fmean(values):.3g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean


def finding(comparison: Comparison, found: Ratios) -> str:
    """One sentence on the widths; "" where nothing was measured against the baseline."""
    if not found:
        return ""
    base = summaries.baseline(comparison)
    said = overall(comparison, found)
    by_verdict = {v: [m for m in said if said[m] == v] for v in ("wider", "narrower")}
    parts = [f"{verdict} than {base}’s for {', '.join(those)}" for verdict, those in by_verdict.items() if those]
    if rest := [method for method in said if not any(method in those for those in by_verdict.values())]:
        parts.append(f"undecided for {', '.join(rest)}")
    one = all(ratios[0].seeds == 1 for ratios in found.values())
    scope = ", of these networks alone" if one else ""
    return f"At matched training loss{scope}, all invariant measures taken together, the valley is {'; '.join(parts)}."
