"""What the widths of several seeds say together: ratios to the baseline, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from widevalley.experiments.results import Comparison
from widevalley.experiments.statistics import Interval, paired_interval
from widevalley.experiments.summaries import baseline
from widevalley.experiments.width_results import SeedWidths, WidthMeasure
from widevalley.landscape.compare import ROUNDING32

UNDECIDED = "undecided"


@dataclass(frozen=True)
class WidthRatio:
    """One measure of a method over that of the baseline: below 1 the valley is wider.

    ``interval`` is the geometric mean of the ratios over the seeds with its 95 % interval, exp of Student's on the
    paired log ratios; the ends are NaN for one seed, all is NaN where a value is not positive: there is no ratio then.
    ``verdict`` is "wider", "narrower" or "undecided": of several seeds, from the interval; of one, that of its
    networks, which says nothing of other seeds. "" for a measure that is not invariant.
    """

    method: str
    measure: str
    invariant: bool
    values: tuple[float, ...]  # of the method, by seed
    interval: Interval
    verdict: str

    @property
    def seeds(self) -> int:
        return len(self.values)


def width_ratios(comparison: Comparison) -> dict[str, tuple[WidthRatio, ...]]:
    """Method → its ratio of each measure, for those that share a seed with the baseline at matched loss."""
    base = baseline(comparison)
    found = {}
    for method in comparison.methods:
        seeds = [
            widths
            for widths in comparison.widths
            if widths.measures and {method, base} <= set(widths.methods) and not widths.incomparable(method)
        ]
        if method != base and seeds:
            rows = zip(*(widths.measures for widths in seeds), strict=True)
            found[method] = tuple(_ratio(method, base, row) for row in rows)
    return found


def _ratio(method: str, base: str, row: tuple[WidthMeasure, ...]) -> WidthRatio:
    ours, theirs = (np.array([measure.values[name] for measure in row]) for name in (method, base))
    if (ours > 0).all() and (theirs > 0).all():
        # One column: an interval over seeds alone.
        log = paired_interval(np.log(ours / theirs)[:, None])
    else:
        log = Interval(math.nan, math.nan, math.nan)
    verdict = ""
    if row[0].invariant:
        verdict = row[0].verdicts[method] if len(row) == 1 else _verdict(log)
    interval = Interval(*(math.exp(end) for end in (log.mean, log.low, log.high)))
    return WidthRatio(method, row[0].name, row[0].invariant, tuple(ours.tolist()), interval, verdict)


def _verdict(log: Interval) -> str:
    # Rescaled copies of one network differ by rounding, to the same side at every seed if it so falls.
    if log.high < -ROUNDING32:
        return "wider"
    return "narrower" if log.low > ROUNDING32 else UNDECIDED


def overall(comparison: Comparison, found: Mapping[str, Sequence[WidthRatio]]) -> dict[str, str]:
    """Method → what all its invariant measures say; "undecided" where they do not agree.

    Of one seed, what ``compare_widths`` says of its networks.
    """
    said = {}
    for method, ratios in found.items():
        verdicts = {ratio.verdict for ratio in ratios if ratio.invariant}
        if ratios[0].seeds == 1:
            verdicts = {_only(comparison, method).verdicts[method]}
        said[method] = verdicts.pop() if len(verdicts) == 1 else UNDECIDED
    return said


def _only(comparison: Comparison, method: str) -> SeedWidths:
    base = baseline(comparison)
    return next(w for w in comparison.widths if {method, base} <= set(w.methods) and w.measures)
