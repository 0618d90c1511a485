"""The numbers behind the figures and tables of a comparison.

All are over the runs that have ended. Where the file says nothing else, runs that diverged are left out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from widevalley.experiments.results import Comparison, Measurement, Result, Unit
from widevalley.experiments.statistics import Interval, expected_minimum, paired_interval


@dataclass(frozen=True)
class Point:
    """A mean over seeds and the band around it."""

    x: float
    mean: float
    low: float
    high: float


def curve(comparison: Comparison, method: str, measure: str, axis: str) -> list[Point]:
    """Mean and range over the finished seeds of a method, as ``over_seeds``."""
    units = [unit for unit, _ in comparison.finished(method)]
    return over_seeds(units, measure, axis, lambda ys: (min(ys), max(ys)))


def over_seeds(
    units: Sequence[Unit], measure: str, axis: str, band: Callable[[Sequence[float]], tuple[float, float]]
) -> list[Point]:
    """Mean and band over runs, at each count of gradients that all of them looked at.

    ``measure`` and ``axis`` name fields of ``Measurement``; where a run has no such value there is no point.
    """
    looks = [{look.gradients: look for look in unit.evaluations} for unit in units]
    points = []
    for count in sorted(set.intersection(*(set(look) for look in looks))) if looks else ():
        xs = [float(getattr(look[count], axis)) for look in looks]
        ys = [float(getattr(look[count], measure)) for look in looks]
        if not any(map(math.isnan, (*xs, *ys))):
            points.append(Point(statistics.fmean(xs), statistics.fmean(ys), *band(ys)))
    return points


def rise(comparison: Comparison, method: str) -> list[Point]:
    """Mean over the finished seeds ± its standard error; with one seed, ± the standard error over perturbations."""
    rises = [{rise.size: rise for rise in result.rise} for _, result in comparison.finished(method) if result.rise]
    points = []
    for size in sorted(set.intersection(*(set(seen) for seen in rises))) if rises else ():
        means = [seen[size].mean for seen in rises]
        mean = statistics.fmean(means)
        if len(means) > 1:
            error = statistics.stdev(means) / math.sqrt(len(means)) if all(map(math.isfinite, means)) else math.nan
        else:
            error = rises[0][size].standard_error
        points.append(Point(size, mean, mean - error, mean + error))
    return points


def tuned(comparison: Comparison, method: str) -> list[Point]:
    """Validation error at each learning rate, mean and range over the tuning seeds; NaN where a run diverged."""
    points = []
    for lr, results in comparison.tuned(method).items():
        errors = [math.nan if result.diverged else result.last.validation_error for result in results]
        mean = statistics.fmean(errors)
        points.append(Point(lr, mean, *((min(errors), max(errors)) if math.isfinite(mean) else (mean, mean))))
    return points


def trials(comparison: Comparison, method: str) -> list[Point]:
    """Expected best validation error after 1, 2, … of the method's learning rates, tried in random order.

    A rate with a run that diverged, or ended at no finite error, counts as ``worst_seen``. Empty while a tuning run is
    missing: the best of fewer rates would look like an easier grid.
    """
    rates, seeds = comparison.learning_rates[method], len(comparison.tuning_seeds)
    found = comparison.tuned(method)
    if not rates or any(len(found.get(lr, ())) < seeds for lr in rates):
        return []
    means = [point.mean if math.isfinite(point.mean) else worst_seen(comparison) for point in tuned(comparison, method)]
    best = [expected_minimum(means, k) for k in range(1, len(means) + 1)]
    return [Point(k, value, value, value) for k, value in enumerate(best, start=1)]


def worst_seen(comparison: Comparison) -> float:
    """The highest finite validation error of all tuning runs at any time: as a rule the untrained network's."""
    looks = (look for unit in comparison.units if unit.phase == "tune" for look in unit.evaluations)
    return max((look.validation_error for look in looks if math.isfinite(look.validation_error)), default=math.nan)


def levels(comparison: Comparison, count: int = 6) -> list[float]:
    """Up to that many round validation errors, from the slowest method's first evaluation down to the best method's.

    That first one is the first after training began: what all have passed by then tells nothing. The levels are equally
    spaced in the logarithm, then rounded up to one digit (two, if one makes them fall together), so that half of the
    seeds of one method at least reach the lowest.
    """
    starts, ends = [], []
    for method in comparison.methods:
        runs = [looks for unit, _ in comparison.finished(method) if len(looks := unit.evaluations) > 1]
        if runs:
            starts.append(statistics.median(looks[1].validation_error for looks in runs))
            ends.append(statistics.median(min(look.validation_error for look in looks) for looks in runs))
    start, best = max(filter(math.isfinite, starts), default=0.0), min(filter(math.isfinite, ends), default=0.0)
    if not 0 < best < start:
        return []
    wanted = [best * (start / best) ** (k / count) for k in range(count)]
    for digits in (1, 2):
        found = {level for value in wanted if (level := _rounded_up(value, digits)) < start}
        if len(found) >= count - 1:
            break
    return sorted(found, reverse=True)


def _rounded_up(value: float, digits: int) -> float:
    places = digits - 1 - math.floor(math.log10(value))
    # Just below a round number by floating point alone is that number.
    return round(math.ceil(round(value * 10.0**places, 9)) / 10.0**places, max(places, 0))


def gradients_to(comparison: Comparison, method: str, level: float) -> list[float]:
    """For each ended run, the gradients at its first evaluation with a validation error of ``level`` or less.

    Infinite for a run that had none, and for one that diverged.
    """

    def first(looks: Sequence[Measurement], result: Result | None) -> float:
        counts = (float(look.gradients) for look in looks if look.validation_error <= level)
        return math.inf if result is None or result.diverged else next(counts, math.inf)

    return [first(unit.evaluations, unit.result) for unit in comparison.finals(method)]


@dataclass(frozen=True)
class Difference:
    """A figure of a method less the baseline's over the ``pairs`` seeds that both finished.

    As a rule test error, in percentage points. ``over`` says what the interval generalises to: "seeds and test
    examples", "seeds", "test examples", or "" where there is no interval.
    """

    method: str
    pairs: int
    interval: Interval
    over: str

    @property
    def verdict(self) -> str:
        """ "lower" or "higher" where the whole interval is, else "not decidable"."""
        if self.interval.high < 0:
            return "lower"
        return "higher" if self.interval.low > 0 else "not decidable"


def baseline(comparison: Comparison) -> str:
    """sgd where it was compared, else the first method."""
    return reference(comparison.methods)


def reference(methods: Sequence[str]) -> str:
    """The one of these that the others are compared with."""
    return "sgd" if "sgd" in methods else methods[0]


def differences(comparison: Comparison) -> dict[str, Difference]:
    """Method → its difference to the baseline, for those that share a finished seed with it.

    Raises ValueError where a run names a test example that there is not.
    """
    base = baseline(comparison)
    theirs = {unit.seed: result for unit, result in comparison.finished(base)}
    found = {}
    for method in comparison.methods:
        ours = {unit.seed: result for unit, result in comparison.finished(method)}
        seeds = [seed for seed in comparison.seeds if seed in ours and seed in theirs]
        if method != base and seeds:
            pairs = [(ours[seed], theirs[seed]) for seed in seeds]
            found[method] = _difference(comparison, method, pairs)
    return found


def _difference(comparison: Comparison, method: str, pairs: Sequence[tuple[Result, Result]]) -> Difference:
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    if all(result.test_wrong is not None for result in (*ours, *theirs)):
        wrong = _wrong(comparison, ours) - _wrong(comparison, theirs)
        # A column for each example; the mean over examples is in points of the error over targets.
        interval = paired_interval(wrong * (100 * comparison.test_size / comparison.test_targets))
        over = "seeds and test examples" if len(pairs) > 1 else "test examples"
        return Difference(method, len(pairs), interval, over if math.isfinite(interval.low) else "")
    return difference_over_seeds(method, [ours.test_error - theirs.test_error for ours, theirs in pairs])


def difference_over_seeds(method: str, found: Sequence[float]) -> Difference:
    """Of differences paired by seed: the interval is over seeds alone, there is none for one seed."""
    # Files have six digits. Rounding errors below them would look like scatter where all differences are equal.
    interval = paired_interval(np.array([[round(difference, 9)] for difference in found]))
    return Difference(method, len(found), interval, "seeds" if math.isfinite(interval.low) else "")


def _wrong(comparison: Comparison, results: Sequence[Result]) -> NDArray[np.float64]:
    """Wrongly predicted targets, shape (results, test examples)."""
    counts = np.zeros((len(results), comparison.test_size))
    for row, result in zip(counts, results, strict=True):
        for example, count in result.test_wrong or ():
            if not 0 <= example < comparison.test_size:
                raise ValueError(
                    f"test_wrong names example {example} of {comparison.test_size}: a unit's file belongs to another "
                    "comparison; delete it and run the comparison again"
                )
            row[example] = count
    return counts
