"""The file of one run, ``units/NAME.jsonl``, read into frozen records: its configuration, its evaluations, its result.

Errors are in percent, losses are means over samples in nats, times in seconds. A number that is null or not finite in
the file is kept as it is, null as NaN: divergence is a result too. What older files lack is NaN, None or empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from widevalley.experiments.reading import REMEDY, Record, ResultsError, entry, number, parsed, text


@dataclass(frozen=True)
class Measurement:
    """One look at a network at its centre, and what it had cost until then.

    ``paper_epochs`` is outer updates × batch size / training size, the paper's axis; it equals ``epochs`` for an
    optimizer without an inner loop. A curve's runs are watched on the test split, all others on the validation split;
    what is of the other split is NaN. The last three are of a nested method's latest whole cycle, before its last inner
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
    test_loss: float
    test_error: float
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

    ``whole_train_loss`` and ``whole_train_error`` are over all training examples, of a curve's runs alone.
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
    whole_train_loss: float
    whole_train_error: float


@dataclass(frozen=True)
class Unit:
    """One run of one method; ``result`` is None while it has not ended."""

    phase: str
    task: str
    method: str
    lr: float
    seed: int
    gradients: int
    batch_size: int
    optimizer: Record
    versions: Record
    machine: Record
    evaluations: tuple[Measurement, ...]
    result: Result | None


def read_unit(path: Path) -> Unit | None:
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
                evaluations.append(_measurement(record, where, watched=_watched(configuration)))
            case "result":
                result = _result(record, where, watched=_watched(configuration))
            case kind:
                raise ResultsError(f"{where}: kind={kind!r} is none of configuration, evaluation and result; {REMEDY}")
    if configuration is None:
        if evaluations or result:
            raise ResultsError(f"{path}: there is no line of kind configuration; {REMEDY}")
        return None
    where = f"{path}, configuration"
    return Unit(
        phase=str(entry(configuration, "phase", str, where)),
        task=str(entry(configuration, "task", str, where)),
        method=str(entry(configuration, "method", str, where)),
        lr=number(configuration, "lr", where),
        seed=int(entry(configuration, "seed", int, where)),
        gradients=int(entry(configuration, "gradients", int, where)),
        batch_size=int(entry(configuration, "batch_size", int, where)),
        optimizer=dict(entry(configuration, "optimizer", dict, where)),
        versions=dict(entry(configuration, "versions", dict, where)),
        machine=dict(entry(configuration, "machine", dict, where)),
        evaluations=tuple(evaluations),
        result=result,
    )


def _watched(configuration: Record | None) -> str:
    """The split that is evaluated beside training examples."""
    return "test" if configuration and configuration.get("phase") == "curve" else "validation"


def _measurement(record: Record, where: str, watched: str, may_lack: bool = False) -> Measurement:
    return Measurement(
        gradients=int(entry(record, "gradients", int, where)),
        epochs=number(record, "epochs", where, may_lack),
        outer_updates=int(entry(record, "outer_updates", int, where)),
        paper_epochs=number(record, "paper_epochs", where, may_lack),
        seconds=number(record, "seconds", where, may_lack),
        train_loss=number(record, "train_loss", where, may_lack),
        train_error=number(record, "train_error", where, may_lack),
        validation_loss=number(record, "validation_loss", where, may_lack or watched != "validation"),
        validation_error=number(record, "validation_error", where, may_lack or watched != "validation"),
        test_loss=number(record, "test_loss", where, may_lack or watched != "test"),
        test_error=number(record, "test_error", where, may_lack or watched != "test"),
        displacement=number(record, "displacement", where, may_lack=True),
        pull_to_gradient=number(record, "pull_to_gradient", where, may_lack=True),
        noise_to_gradient=number(record, "noise_to_gradient", where, may_lack=True),
    )


def _result(record: Record, where: str, watched: str) -> Result:
    diverged = bool(entry(record, "diverged", bool, where))
    return Result(
        diverged=diverged,
        last=_measurement(record, where, watched, may_lack=diverged),
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
        whole_train_loss=number(record, "whole_train_loss", where, may_lack=True),
        whole_train_error=number(record, "whole_train_error", where, may_lack=True),
    )


def _wrong(record: Record, where: str) -> tuple[tuple[int, int], ...] | None:
    pairs = record.get("test_wrong")
    if pairs is None:
        return None
    try:
        return tuple((int(example), int(count)) for example, count in pairs)
    except (TypeError, ValueError):
        raise ResultsError(f"{where}: test_wrong is no list of [example, count]; {REMEDY}") from None
