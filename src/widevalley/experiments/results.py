"""The result files of a comparison, read into frozen records.

A folder holds ``comparison.json`` (what was to be run), ``units/*.jsonl`` (one file a run: its configuration, its
evaluations, its result) and ``widths/*.json`` (one file a seed). Units that have not run yet, or not to their end, are
no error; a file that cannot be read is. Errors are in percent, losses are means over samples in nats, times in seconds.
A number that is null or not finite in the files is kept as it is, null as NaN: divergence is a result too. What older
files lack is NaN, None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from widevalley.experiments.reading import REMEDY, Record, ResultsError, entry, naming, number, parsed, text
from widevalley.experiments.width_results import SeedWidths, read_widths

__all__ = ["Comparison", "Measurement", "Result", "ResultsError", "Rise", "SeedWidths", "Unit", "read"]


@dataclass(frozen=True)
class Measurement:
    """One look at a network at its centre, and what it had cost until then.

    ``paper_epochs`` is outer updates × batch size / training size, the paper's axis; it equals ``epochs`` for an
    optimizer without an inner loop. The last three are of a nested method's latest whole cycle, before its last inner
    step: ‖x′ − x‖, γ‖x′ − x‖/‖∇f(x′)‖ and √(2η′T n)/(η′‖∇f(x′)‖); NaN for other methods and before a cycle has ended.
    """

    gradients: int
    epochs: float
    outer_updates: int
    paper_epochs: float
    seconds: float
    train_loss: float
    train_error: float
    validation_loss: float
    validation_error: float
    displacement: float
    pull_to_gradient: float
    noise_to_gradient: float


@dataclass(frozen=True)
class Rise:
    """Rise of the mean training loss under filter-normalised Gaussian perturbations of relative size ``size``."""

    size: float
    mean: float
    standard_error: float


@dataclass(frozen=True)
class Result:
    """The end of a unit; the test figures are NaN and ``rise`` empty in tuning and after divergence.

    ``test_wrong`` has (example, count) for each test example with wrongly predicted targets, None where it was not
    recorded. ``state_bytes`` are kept between two steps, ``gradient_bytes`` added while a gradient is taken.
    """

    diverged: bool
    last: Measurement
    seconds_per_gradient: float
    test_loss: float
    test_error: float
    rise: tuple[Rise, ...]
    test_wrong: tuple[tuple[int, int], ...] | None
    state_bytes: float
    gradient_bytes: float


@dataclass(frozen=True)
class Unit:
    """One run of one method; ``result`` is None while it has not ended."""

    phase: str
    method: str
    lr: float
    seed: int
    batch_size: int
    optimizer: Record
    versions: Record
    machine: Record
    evaluations: tuple[Measurement, ...]
    result: Result | None


@dataclass(frozen=True)
class Comparison:
    """What was to be run, and the units that there are of it. ``chosen`` is empty until tuning is done.

    ``changes`` are alterations of the task that were asked for. ``test_targets`` are what the test error is a share of.
    """

    command: str
    task: str
    description: str
    methods: tuple[str, ...]
    descriptions: Mapping[str, str]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    epochs: float
    gradients: int
    tuning_gradients: int
    batch_size: int
    train_size: int
    validation_size: int
    test_size: int
    parameters: int
    learning_rates: Mapping[str, tuple[float, ...]]
    chosen: Mapping[str, float]
    changes: Record
    gradients_per_step: Mapping[str, int]
    test_targets: int
    units: tuple[Unit, ...]
    widths: tuple[SeedWidths, ...] = ()  # in the order of the seeds

    def tuned(self, method: str) -> dict[float, tuple[Result, ...]]:
        """Results of the tuning runs that have ended, by learning rate in rising order."""
        found: dict[float, list[Result]] = {}
        for unit in self.units:
            if (unit.phase, unit.method) == ("tune", method) and unit.seed in self.tuning_seeds and unit.result:
                found.setdefault(unit.lr, []).append(unit.result)
        return {lr: tuple(found[lr]) for lr in sorted(self.learning_rates[method]) if lr in found}

    def finals(self, method: str) -> tuple[Unit, ...]:
        """Runs at the chosen learning rate that have ended, diverged ones among them, in the order of the seeds."""
        found = {
            unit.seed: unit
            for unit in self.units
            if (unit.phase, unit.method, unit.lr) == ("final", method, self.chosen.get(method)) and unit.result
        }
        return tuple(found[seed] for seed in self.seeds if seed in found)

    def finished(self, method: str) -> tuple[tuple[Unit, Result], ...]:
        """Those of ``finals`` that did not diverge, each beside its result: what means are taken over."""
        pairs = ((unit, unit.result) for unit in self.finals(method))
        return tuple((unit, result) for unit, result in pairs if result is not None and not result.diverged)


def read(folder: Path) -> Comparison:
    """The comparison in ``folder``.

    Raises FileNotFoundError where there is no ``comparison.json``, and ResultsError naming the file (and the line)
    where one is damaged.
    """
    path = folder / "comparison.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; name a folder that `widevalley compare` has written")
    plan = parsed(text(path), f"{path}")
    units = tuple(unit for unit_path in sorted((folder / "units").glob("*.jsonl")) if (unit := _unit(unit_path)))
    with naming(f"{path}"):
        methods = tuple(str(method) for method in plan["methods"])
        return Comparison(
            command=str(plan["command"]),
            task=str(plan["task"]),
            description=str(plan["description"]),
            methods=methods,
            descriptions={method: str(plan["descriptions"][method]) for method in methods},
            seeds=tuple(int(seed) for seed in plan["seeds"]),
            tuning_seeds=tuple(int(seed) for seed in plan["tuning_seeds"]),
            **{name: int(plan[name]) for name in _SIZES},
            epochs=float(plan["epochs"]),
            learning_rates={method: tuple(float(lr) for lr in plan["learning_rates"][method]) for method in methods},
            chosen={str(method): float(lr) for method, lr in (plan.get("chosen") or {}).items()},
            changes={str(name): value for name, value in (plan.get("changes") or {}).items()},
            gradients_per_step={m: int((plan.get("gradients_per_step") or {}).get(m, 1)) for m in methods},
            test_targets=int(plan.get("test_targets") or plan["test_size"]),
            units=units,
            widths=tuple(found for seed in plan["seeds"] if (found := read_widths(folder, int(seed)))),
        )


_SIZES = (
    "gradients",
    "tuning_gradients",
    "batch_size",
    "train_size",
    "validation_size",
    "test_size",
    "parameters",
)


def _unit(path: Path) -> Unit | None:
    """The unit of one file; None where the file is still empty."""
    configuration: Record | None = None
    evaluations: list[Measurement] = []
    result: Result | None = None
    for place, line in enumerate(text(path).splitlines(), start=1):
        where = f"{path}, line {place}"
        record = parsed(line, where)
        match record.get("kind"):
            case "configuration":
                configuration = record
            case "evaluation":
                evaluations.append(_measurement(record, where))
            case "result":
                result = _result(record, where)
            case kind:
                raise ResultsError(f"{where}: kind={kind!r} is none of configuration, evaluation and result; {REMEDY}")
    if configuration is None:
        if evaluations or result:
            raise ResultsError(f"{path}: there is no line of kind configuration; {REMEDY}")
        return None
    where = f"{path}, configuration"
    return Unit(
        phase=str(entry(configuration, "phase", str, where)),
        method=str(entry(configuration, "method", str, where)),
        lr=number(configuration, "lr", where),
        seed=int(entry(configuration, "seed", int, where)),
        batch_size=int(entry(configuration, "batch_size", int, where)),
        optimizer=dict(entry(configuration, "optimizer", dict, where)),
        versions=dict(entry(configuration, "versions", dict, where)),
        machine=dict(entry(configuration, "machine", dict, where)),
        evaluations=tuple(evaluations),
        result=result,
    )


def _measurement(record: Record, where: str, may_lack: bool = False) -> Measurement:
    return Measurement(
        gradients=int(entry(record, "gradients", int, where)),
        epochs=number(record, "epochs", where, may_lack),
        outer_updates=int(entry(record, "outer_updates", int, where)),
        paper_epochs=number(record, "paper_epochs", where, may_lack),
        seconds=number(record, "seconds", where, may_lack),
        train_loss=number(record, "train_loss", where, may_lack),
        train_error=number(record, "train_error", where, may_lack),
        validation_loss=number(record, "validation_loss", where, may_lack),
        validation_error=number(record, "validation_error", where, may_lack),
        displacement=number(record, "displacement", where, may_lack=True),
        pull_to_gradient=number(record, "pull_to_gradient", where, may_lack=True),
        noise_to_gradient=number(record, "noise_to_gradient", where, may_lack=True),
    )


def _result(record: Record, where: str) -> Result:
    diverged = bool(entry(record, "diverged", bool, where))
    return Result(
        diverged=diverged,
        last=_measurement(record, where, may_lack=diverged),
        seconds_per_gradient=number(record, "seconds_per_gradient", where, may_lack=diverged),
        test_loss=number(record, "test_loss", where, may_lack=True),
        test_error=number(record, "test_error", where, may_lack=True),
        rise=tuple(
            Rise(number(rise, "size", where), number(rise, "mean", where), number(rise, "standard_error", where))
            for rise in record.get("rise") or ()
        ),
        test_wrong=_wrong(record, where),
        state_bytes=number(record, "state_bytes", where, may_lack=True),
        gradient_bytes=number(record, "gradient_bytes", where, may_lack=True),
    )


def _wrong(record: Record, where: str) -> tuple[tuple[int, int], ...] | None:
    pairs = record.get("test_wrong")
    if pairs is None:
        return None
    try:
        return tuple((int(example), int(count)) for example, count in pairs)
    except (TypeError, ValueError):
        raise ResultsError(f"{where}: test_wrong is no list of [example, count]; {REMEDY}") from None
