"""The tables of a reproduction, every number as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from widevalley.experiments import reproduced_numbers as numbers
from widevalley.experiments.paper import EPOCH
from widevalley.experiments.rendering import distinct
from widevalley.experiments.reproduced import Reproduced, Trial, environment
from widevalley.experiments.reproduced_numbers import REPORTED, Reached, Reported
from widevalley.experiments.tables import NOTHING, Heads, Table, plus_minus, significant, verdict
from widevalley.experiments.unit_results import Result, Unit

Environments = Sequence[Mapping[str, str]]


def ends(curves: Sequence[Reproduced], base: Reproduced, environments: Environments) -> Table:
    """A row a curve: the end of its runs beside ``base`` and what others report."""

    def row(curve: Reproduced) -> tuple[str, ...]:
        reported = REPORTED.get(curve.name, Reported())
        return (
            _seeds(curve),
            *_costs(curve),
            _mean(curve, lambda result: result.test_error, 2),
            _against(curve, base, lambda result: result.test_error),
            reported.text or NOTHING,
            reported.authors or NOTHING,
            _best(numbers.best(curve)),
            _mean(curve, lambda result: result.test_loss),
            _against(curve, base, lambda result: result.test_loss),
            _mean(curve, lambda result: result.whole_train_loss),
            _numbered(curve, environments),
        )

    heads: Heads = (
        ("Setting", ""),
        ("Seeds", ""),
        ("Gradients", ""),
        ("Epochs", "of gradients"),
        ("Epochs", "the paper’s"),
    )
    heads += (("Test error", "%"), (f"Against {_said(base)}", "points"), ("The paper’s text", "%"))
    heads += (("The authors’ final version", "%"), ("Lowest along the curve", "%, picked by the test set"))
    heads += (
        ("Test loss", ""),
        (f"Against {_said(base)}", ""),
        ("Training loss", "all 60,000 images"),
        ("Made with", ""),
    )
    caption = "After the last gradient: mean ± standard deviation over seeds"
    return Table(caption, heads, tuple((_said(curve), row(curve)) for curve in curves))


def ablations(curves: Sequence[Reproduced], environments: Environments) -> Table:
    """A row a variant, against the first of them."""
    base, most = curves[0], max(len(curve.trials) for curve in curves)

    def row(curve: Reproduced) -> tuple[str, ...]:
        tried = [_tried(trial, trial.candidate is curve.chosen) for trial in curve.trials]
        against = Markup("<small>the base</small>") if curve is base else _against(curve, base, lambda r: r.test_error)
        return (
            *tried,
            *[NOTHING] * (most - len(tried)),
            _seeds(curve),
            _mean(curve, lambda result: result.test_error, 2),
            against,
            _mean(curve, lambda result: result.test_loss),
            _mean(curve, lambda result: result.whole_train_loss),
            significant(numbers.pull(curve), 2),
            _numbered(curve, environments),
        )

    heads: Heads = (("Variant", ""), *(("Validation error", f"%, rate {k}") for k in range(1, most + 1)), ("Seeds", ""))
    heads += (("Test error", "%"), (f"Against {base.name}", "points, 95 % interval"), ("Test loss", ""))
    heads += (("Training loss", "all 60,000 images"), ("Pull / gradient", "median"), ("Made with", ""))
    caption = "After the last gradient at the chosen rate: mean ± standard deviation over seeds"
    return Table(caption, heads, tuple((_named(curve), row(curve)) for curve in curves))


def choices(curves: Sequence[Reproduced]) -> Table | None:
    """Every candidate of the curves that had a choice, the chosen one marked."""
    heads: Heads = (("Candidate", ""), ("Rate", ""), ("Validation error", "%"), ("Validation loss", ""), ("", ""))
    rows = []
    for curve in curves:
        for trial in curve.trials:
            mark = Markup("<strong>chosen</strong>") if trial.candidate is curve.chosen else ""
            found = _trial(trial)
            loss = significant(trial.result.last.validation_loss) if trial.result else NOTHING
            name = Markup("{} <small>{}</small>").format(
                trial.candidate.method.description, trial.candidate.method.name
            )
            rows.append((name, (f"{trial.candidate.lr:g}", found, loss, mark)))
    return Table("Candidates, each trained once on 54,000 images", heads, tuple(rows)) if rows else None


def reach(curves: Sequence[Reproduced], levels: Sequence[float]) -> Table | None:
    """What each finished curve had cost when its mean test error first was as low as each of ``levels``."""

    def cell(found: Reached | None) -> str:
        if found is None:
            return NOTHING
        gradients, epochs = f"{found.gradients:,.0f}", f"{found.gradients / EPOCH:.3g} epochs of gradients"
        return _small(
            '<div class="verdict">{} <small>{}</small> <small>{}</small></div>',
            gradients, epochs, f"{found.paper_epochs:.3g} of the paper’s",
        )  # fmt: skip

    heads = (("Setting", ""), *((f"{level:g}\N{NO-BREAK SPACE}%", "") for level in levels))
    rows = [(_said(c), tuple(cell(numbers.first_below(c, level)) for level in levels)) for c in curves if c.finished]
    return Table("Gradients until the mean test error was first as low as this", heads, tuple(rows)) if rows else None


def _said(curve: Reproduced) -> str:
    return curve.curve.description


def _named(curve: Reproduced) -> str:
    return _small("{} <small>{}</small>", curve.name, curve.curve.description)


def _small(template: str, *texts: str) -> str:
    return Markup(template).format(*texts)


def _seeds(curve: Reproduced) -> str:
    lost = len(curve.ended) - len(curve.finished)
    return f"{len(curve.finished)} of {len(curve.curve.seeds)}" + (f", {lost} diverged" if lost else "")


def _costs(curve: Reproduced) -> tuple[str, str, str]:
    """Gradients of one seed, and in epochs of either kind."""
    lasts = [result.last for _, result in curve.finished]
    if not lasts:
        return NOTHING, NOTHING, NOTHING
    last = lasts[0]
    return f"{last.gradients:,}", f"{last.gradients / EPOCH:.4g}", f"{last.paper_epochs:.3g}"


def _mean(curve: Reproduced, figure: Callable[[Result], float], digits: int | None = None) -> str:
    return plus_minus([figure(result) for _, result in curve.finished], digits)


def _against(curve: Reproduced, base: Reproduced, figure: Callable[[Result], float]) -> str:
    if curve is base:
        return NOTHING
    return verdict(numbers.difference(curve, base, figure), max(len(curve.curve.seeds), len(base.curve.seeds)))


def _best(found: Reached | None) -> str:
    if found is None:
        return NOTHING
    at = f"at {found.gradients:,.0f}"
    return _small('<div class="verdict">{} <small>{}</small></div>', f"{found.error:.2f}", at)


def _trial(trial: Trial) -> str:
    if trial.result is None:
        return NOTHING
    return "diverged" if trial.result.diverged else f"{trial.result.last.validation_error:.2f}"


def _tried(trial: Trial, chosen: bool) -> str:
    error = Markup("<strong>{}</strong>").format(_trial(trial)) if chosen else _trial(trial)
    return _small('<div class="verdict">{} <small>{}</small></div>', error, f"at {trial.candidate.lr:.3g}")


def _numbered(curve: Reproduced, environments: Environments) -> str:
    """Places, from 1, of the environments in which the runs were made."""
    units: list[Unit] = [unit for unit, _ in curve.finished]
    found = distinct(environment(unit.versions, unit.machine) for unit in units)
    return ", ".join(f"{environments.index(each) + 1}" for each in found) or NOTHING
