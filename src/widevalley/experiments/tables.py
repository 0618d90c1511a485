"""The tables of the report page, every number as text."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from widevalley.experiments import summaries
from widevalley.experiments.results import Comparison
from widevalley.experiments.summaries import Difference

NOTHING = "–"
MEBIBYTE = 2**20
# (title, unit or other small print) of each column.
Heads = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """The first of ``heads`` stands over the names of the rows, the others over their cells."""

    caption: str
    heads: Heads
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def plus_minus(values: Sequence[float], digits: int | None = None) -> str:
    """ "mean ± sample standard deviation" of values, the mean alone for one, a dash for none.

    ``digits`` after the point; by default as many as show two figures of the deviation (four of the mean where there
    is none).
    """
    if not values:
        return NOTHING
    return with_error(statistics.fmean(values), _deviation(values) if len(values) > 1 else None, digits)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


def with_error(mean: float, error: float | None, digits: int | None = None, figures: int = 2) -> str:
    """ "mean ± error", the mean alone where ``error`` is None; ``figures`` of the error decide where digits end."""
    if not math.isfinite(mean + (error or 0.0)):
        return "not finite"
    if digits is None:
        scale, figures = (error, figures) if error else (abs(mean), 4)
        digits = min(max(figures - 1 - math.floor(math.log10(scale)), 0), 12) if scale > 0 else 1
    return f"{mean:.{digits}f}" if error is None else f"{mean:.{digits}f} ± {error:.{digits}f}"


def significant(value: float, digits: int = 4) -> str:
    """With so many significant digits; beyond 10⁻⁴ and 10⁶ as a power of 10, a dash for NaN."""
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "not finite"
    mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
    exponent = int(power)
    if value == 0:
        said = "0"
    elif -4 <= exponent < 6:
        said = f"{value:,.{max(digits - 1 - exponent, 0)}f}"
    else:
        said = f"{mantissa}·10{str(exponent).translate(SUPERSCRIPT)}"
    return said.replace("-", "−")


SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def points(difference: Difference) -> tuple[str, str]:
    """The mean difference with its sign, and "low to high" (a dash without an interval)."""
    interval = difference.interval
    if not math.isfinite(interval.mean):
        return NOTHING, NOTHING
    ends = [interval.low, interval.high] if difference.over else []
    # An end that is not 0 is not written as 0: on which side of it the interval ends is the verdict.
    digits = next((d for d in (2, 3, 4) if all(round(end, d) or not end for end in ends)), 5)
    mean, *said = (f"{value:+.{digits}f}".replace("-", "−") for value in (interval.mean, *ends))
    return mean, " to ".join(said) or NOTHING


def results(comparison: Comparison, found: Mapping[str, Difference]) -> Table:
    def row(method: str) -> tuple[str, ...]:
        finished = [result for _, result in comparison.finished(method)]
        lost = len(comparison.finals(method)) - len(finished)
        return (
            plus_minus([result.test_error for result in finished], 2),
            _against(comparison, method, found.get(method)),
            f"{len(finished)} of {len(comparison.seeds)}" + (f", {lost} diverged" if lost else ""),
            plus_minus([result.test_loss for result in finished]),
            plus_minus([result.last.validation_error for result in finished], 2),
            plus_minus([result.last.train_loss for result in finished]),
        )

    against = (f"Against {summaries.baseline(comparison)}", "points, 95 % interval")
    heads: Heads = (("Method", ""), ("Test error", "%"), against, ("Seeds", "in the means"))
    heads += (("Test loss", ""), ("Validation error", "%"), ("Training loss", ""))
    caption = "After the last gradient: mean ± standard deviation over seeds"
    return _by_method(caption, heads, {method: row(method) for method in comparison.methods})


def _against(comparison: Comparison, method: str, difference: Difference | None) -> str:
    if method == summaries.baseline(comparison):
        return Markup("<small>the baseline</small>")
    return verdict(difference, len(comparison.seeds))


def verdict(difference: Difference | None, seeds: int) -> str:
    """With the difference and its interval below, and over how many seeds where these are not all of ``seeds``."""
    if difference is None:
        return NOTHING
    mean, ends = points(difference)
    said = f"({ends})" if difference.over else "(no interval)"
    if difference.pairs < seeds:
        said += f", {difference.pairs} seed{'' if difference.pairs == 1 else 's'}"
    return Markup('<div class="verdict"><strong>{}</strong> <small>{} <span>{}</span></small></div>').format(
        difference.verdict, mean, said
    )


def costs(comparison: Comparison) -> Table:
    def row(method: str) -> tuple[str, ...]:
        finished = [result for _, result in comparison.finished(method)]
        chosen = comparison.chosen.get(method)
        return (
            NOTHING if chosen is None else f"{chosen:g}",
            _range(result.last.gradients for result in finished),
            _range(result.last.outer_updates for result in finished),
            plus_minus([1000 * result.seconds_per_gradient for result in finished], 2),
            _mebibytes([result.state_bytes for result in finished]),
            _mebibytes([result.gradient_bytes for result in finished]),
        )

    heads: Heads = (("Method", ""), ("Learning rate", "chosen"), ("Gradients", ""), ("Outer updates", ""))
    heads += (("Time per gradient", "ms"), ("State kept", "MiB"), ("More for a gradient", "MiB"))
    return _by_method("What a run took", heads, {method: row(method) for method in comparison.methods})


def _range(counts: Iterable[int]) -> str:
    found = sorted(set(counts))
    return " to ".join(f"{count:,}" for count in (found[:1] + found[-1:] if len(found) > 1 else found)) or NOTHING


def _mebibytes(counts: Sequence[float]) -> str:
    measured = [count / MEBIBYTE for count in counts if not math.isnan(count)]
    if not measured:
        return NOTHING
    mean = statistics.fmean(measured)
    return f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"


def reach(comparison: Comparison) -> Table | None:
    """Median gradients to each of ``summaries.levels``, a run that never got there counting as infinitely many."""
    levels = summaries.levels(comparison)

    def cell(method: str, level: float) -> str:
        counts = summaries.gradients_to(comparison, method, level)
        reached = sum(map(math.isfinite, counts))
        if not reached:
            return NOTHING
        median = statistics.median(counts)
        said = f"{median:,.0f}" if math.isfinite(median) else f"> {comparison.gradients:,}"
        return said if reached == len(counts) else f"{said} ({reached} of {len(counts)})"

    heads = (("Method", ""), *((f"{level:g}\N{NO-BREAK SPACE}%", "") for level in levels))
    rows = {method: tuple(cell(method, level) for level in levels) for method in comparison.methods}
    caption = "Gradients until the validation error was as low as this: median over seeds"
    return _by_method(caption, heads, rows) if levels else None


def trials(comparison: Comparison) -> Table | None:
    found = {m: steps for m in comparison.methods if (steps := summaries.trials(comparison, m))}
    if not found:
        return None
    most = max(map(len, found.values()))
    rows = {
        method: tuple(with_error(step.mean, None, 2) for step in steps) + (NOTHING,) * (most - len(steps))
        for method, steps in found.items()
    }
    heads = (("Method", ""), *((f"{k}", "") for k in range(1, most + 1)))
    return _by_method("Expected best validation error (%) by number of learning rates tried", heads, rows)


def rises(comparison: Comparison) -> Table | None:
    """The rise at each size for the methods that have networks."""
    found = {
        method: {point.x: point for point in line}
        for method in comparison.methods
        if (line := summaries.rise(comparison, method))
    }
    sizes = sorted({size for line in found.values() for size in line})

    def row(method: str) -> tuple[str, ...]:
        line = found[method]
        losses = [result.last.train_loss for _, result in comparison.finished(method)]
        at = (line.get(size) for size in sizes)
        return (
            plus_minus(losses),
            *(with_error(point.mean, point.high - point.mean, figures=1) if point else NOTHING for point in at),
        )

    heads: Heads = (("Method", ""), ("Training loss", "± sd"), *((f"{size:g}", "") for size in sizes))
    caption = "Rise of the training loss at each relative size of the perturbation: mean ± standard error"
    return _by_method(caption, heads, {method: row(method) for method in found}) if found else None


def inner_loops(comparison: Comparison) -> Table | None:
    """Displacement and the forces in the last whole cycle, for the methods that have cycles."""

    def row(method: str) -> tuple[str, ...]:
        lasts = [result.last for _, result in comparison.finished(method)]
        values = ([getattr(last, name) for last in lasts] for name in ("displacement", *FORCES))
        return tuple(plus_minus([value for value in column if not math.isnan(value)]) for column in values)

    rows = {method: cells for method in comparison.methods if set(cells := row(method)) != {NOTHING}}
    heads: Heads = (("Method", ""), ("Displacement", "‖x′ − x‖"), ("Pull / gradient", "γ‖x′ − x‖ / ‖∇f(x′)‖"))
    heads += (("Noise / gradient", "√(2η′T n) / (η′‖∇f(x′)‖)"),)
    caption = "In the last whole cycle: mean ± standard deviation over seeds"
    return _by_method(caption, heads, rows) if rows else None


FORCES = ("pull_to_gradient", "noise_to_gradient")


def settings(comparison: Comparison) -> Table | None:
    """Setting by method. The learning rate is the chosen one, whichever run the others are read from."""
    found: dict[str, dict[str, str]] = {"lr": {method: f"{lr:g}" for method, lr in comparison.chosen.items()}}
    for method in comparison.methods:
        unit = next(iter([*comparison.finals(method), *(u for u in comparison.units if u.method == method)]), None)
        for name, value in (unit.optimizer if unit else {}).items():
            if name != "lr":
                found.setdefault(name, {})[method] = f"{value:g}" if isinstance(value, float) else f"{value}"
    rows = tuple((n, tuple(v.get(method, NOTHING) for method in comparison.methods)) for n, v in found.items())
    heads = (("Setting", ""), *((method, "") for method in comparison.methods))
    return Table("Settings of each optimizer", heads, rows)


def _by_method(caption: str, heads: Heads, rows: Mapping[str, tuple[str, ...]]) -> Table:
    return Table(caption, heads, tuple(rows.items()))
