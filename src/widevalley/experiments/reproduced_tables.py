"""The tables of a reproduction, every number as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from markupsafe import Markup

from widevalley.experiments import reproduced_numbers as numbers
from widevalley.experiments.paper import EPOCH
from widevalley.experiments.reading import Record
from widevalley.experiments.rendering import distinct
from widevalley.experiments.reproduced import CurveRuns, Trial, environment
from widevalley.experiments.reproduced_numbers import REPORTED, Reached, Reported
from widevalley.experiments.tables import NOTHING, Heads, Table, plus_minus, significant, verdict
from widevalley.experiments.unit_results import Result

Environments = Sequence[Mapping[str, str]]
# How the runs of a row came about; ``_made`` fills these.
MADE: Heads = (("Seeds", ""), ("Gradients", "of each"), ("Made with", ""))


def errors(curves: Sequence[CurveRuns], base: CurveRuns, environments: Environments) -> Table:
    """A row a curve: its test error beside that of ``base`` and what others report."""

    def row(curve: CurveRuns) -> tuple[str, ...]:
        reported = REPORTED.get(curve.name, Reported())
        return (
            _seeds(curve),
            _costs(curve),
            _mean(curve, lambda result: result.test_error, 2),
            _against(curve, base, lambda result: result.test_error),
            _two_lines(*reported.text),
            _two_lines(*reported.authors),
            _best(numbers.best(curve)),
            _numbered(curve, environments),
        )

    heads: Heads = (("Setting", ""), ("Seeds", ""), ("Gradients", "of each"), ("Test error", "%"))
    heads += ((f"Against {base.name}", "points, 95 % interval"), ("The paper’s text", "%"))
    heads += (("The authors’ final version", "%"), ("Lowest along the curve", "%, picked by the test set"))
    heads += (("Made with", ""),)
    caption = "Test error after the last gradient: mean ± standard deviation over seeds"
    return Table(caption, heads, tuple((_named(curve), row(curve)) for curve in curves))


def losses(curves: Sequence[CurveRuns], base: CurveRuns, environments: Environments) -> Table | None:
    """A row a finished curve: its losses at the end."""

    def row(curve: CurveRuns) -> tuple[str, ...]:
        return (
            _mean(curve, lambda result: result.test_loss),
            _against(curve, base, lambda result: result.test_loss),
            _mean(curve, lambda result: result.whole_train_loss),
            _mean(curve, lambda result: result.whole_train_error),
            *_made(curve, environments),
        )

    heads: Heads = (("Setting", ""), ("Test loss", ""), (f"Against {base.name}", "test loss, 95 % interval"))
    heads += (("Training loss", "all 60,000 images"), ("Training error", "%, all 60,000 images"), *MADE)
    rows = tuple((_named(curve), row(curve)) for curve in curves if curve.finished)
    return Table("Losses after the last gradient", heads, rows) if rows else None


def ablations(curves: Sequence[CurveRuns], environments: Environments) -> Table:
    """A row a variant, against the first of them."""
    base, most = curves[0], max(len(curve.trials) for curve in curves)

    def row(curve: CurveRuns) -> tuple[str, ...]:
        tried = [_tried(trial, trial.candidate is curve.chosen) for trial in curve.trials]
        against = Markup("<small>the base</small>") if curve is base else _against(curve, base, lambda r: r.test_error)
        return (
            *tried,
            *[NOTHING] * (most - len(tried)),
            _mean(curve, lambda result: result.test_error, 2),
            against,
            _mean(curve, lambda result: result.test_loss),
            _mean(curve, lambda result: result.whole_train_loss),
            significant(numbers.pull(curve), 2),
            _best(numbers.best(curve)),
            *_made(curve, environments),
        )

    heads: Heads = (("Variant", ""), *(("Validation error", f"%, rate {k}") for k in range(1, most + 1)))
    heads += (("Test error", "%"), (f"Against {base.name}", "points, 95 % interval"), ("Test loss", ""))
    heads += (("Training loss", "all 60,000 images"), ("Pull / gradient", "median"))
    heads += (("Lowest along the curve", "%, picked by the test set"), *MADE)
    caption = "After the last gradient at the chosen rate: mean ± standard deviation over seeds"
    return Table(caption, heads, tuple((_named(curve), row(curve)) for curve in curves))


def choices(curves: Sequence[CurveRuns], environments: Environments) -> Table | None:
    """Every candidate of the curves that had a choice, the chosen one marked."""
    heads: Heads = (("Candidate", ""), ("Rate", ""), ("Validation error", "%"), ("Validation loss", ""), ("", ""))
    heads += (("Seed", ""), *MADE[1:])
    rows = []
    for curve in curves:
        for trial in curve.trials:
            mark = Markup("<strong>chosen</strong>") if trial.candidate is curve.chosen else ""
            found = _trial(trial)
            loss = significant(trial.result.last.validation_loss) if trial.result else NOTHING
            name = Markup("{} <small>{}</small>").format(
                trial.candidate.method.description, trial.candidate.method.name
            )
            rows.append((name, (f"{trial.candidate.lr:g}", found, loss, mark, *_tried_by(trial, environments))))
    return Table("Candidates, each trained once on 54,000 images", heads, tuple(rows)) if rows else None


def reach(curves: Sequence[CurveRuns], levels: Sequence[float], environments: Environments) -> Table | None:
    """What each finished curve had cost when its mean test error first was as low as each of ``levels``."""

    def cell(found: Reached | None) -> str:
        if found is None:
            return NOTHING
        epochs = f"{found.gradients / EPOCH:.3g} or {found.paper_epochs:.3g} epochs"
        return _two_lines(f"{found.gradients:,.0f}", epochs)

    def row(curve: CurveRuns) -> tuple[str, ...]:
        return (*(cell(numbers.first_below(curve, level)) for level in levels), *_made(curve, environments))

    heads = (("Setting", ""), *((f"{level:g}\N{NO-BREAK SPACE}%", "") for level in levels), *MADE)
    rows = [(_named(curve), row(curve)) for curve in curves if curve.finished]
    return Table("Gradients until the mean test error was first as low as this", heads, tuple(rows)) if rows else None


def _named(curve: CurveRuns) -> str:
    return Markup("{} <small>{}</small>").format(curve.name, curve.curve.description)


def _two_lines(first: str, small: str = "") -> str:
    if not small:
        return first
    return Markup('<div class="verdict">{} <small>{}</small></div>').format(first, small)


def _seeds(curve: CurveRuns) -> str:
    lost = len(curve.ended) - len(curve.finished)
    return f"{len(curve.finished)} of {len(curve.curve.seeds)}" + (f", {lost} diverged" if lost else "")


def _costs(curve: CurveRuns) -> str:
    """Gradients of one seed, and what that is in epochs of either kind; of one that diverged where all did."""
    lasts = [result.last for _, result in curve.finished or curve.ended]
    if not lasts:
        return NOTHING
    last = lasts[0]
    epochs = f"{last.gradients / EPOCH:.4g} or {last.paper_epochs:.3g} epochs"
    return _two_lines(f"{last.gradients:,}", epochs)


def _mean(curve: CurveRuns, figure: Callable[[Result], float], digits: int | None = None) -> str:
    return plus_minus([figure(result) for _, result in curve.finished], digits)


def _against(curve: CurveRuns, base: CurveRuns, figure: Callable[[Result], float]) -> str:
    if curve is base:
        return NOTHING
    return verdict(numbers.difference(curve, base, figure), max(len(curve.curve.seeds), len(base.curve.seeds)))


def _best(found: Reached | None) -> str:
    if found is None:
        return NOTHING
    return _two_lines(f"{found.error:.2f}", f"at {found.gradients:,.0f}")


def _trial(trial: Trial) -> str:
    if trial.result is None:
        return NOTHING
    return "diverged" if trial.result.diverged else f"{trial.result.last.validation_error:.2f}"


def _tried(trial: Trial, chosen: bool) -> str:
    error = Markup("<strong>{}</strong>").format(_trial(trial)) if chosen else _trial(trial)
    return _two_lines(error, f"at {trial.candidate.lr:.3g}")


def _made(curve: CurveRuns, environments: Environments) -> tuple[str, str, str]:
    return _seeds(curve), _costs(curve), _numbered(curve, environments)


def _tried_by(trial: Trial, environments: Environments) -> tuple[str, str, str]:
    unit = trial.unit
    if unit is None or unit.result is None:
        return NOTHING, NOTHING, NOTHING
    return (
        f"{unit.seed}",
        f"{unit.result.last.gradients:,}",
        places([environment(unit.versions, unit.machine)], environments),
    )


def _numbered(curve: CurveRuns, environments: Environments) -> str:
    return places([environment(unit.versions, unit.machine) for unit, _ in curve.ended], environments)


def places(made: Iterable[Record], environments: Environments) -> str:
    """Places, from 1, of these environments among all."""
    return ", ".join(f"{environments.index(each) + 1}" for each in distinct(made)) or NOTHING
