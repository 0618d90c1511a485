"""The folder of a reproduction, read into frozen records.

``units/NAME.jsonl`` are training runs (``unit_results``), ``measurements/NAME.json`` what is measured once,
``spectra/NAME/measurement.json`` the Hessian of one network (``measurements``). What is not there yet, or has not run
to its end, is no error; a file that cannot be read is, and so is one that holds another run than its name says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from widevalley.experiments import measurements, reproduce, train
from widevalley.experiments.measured import Eigenvalues, Measurement
from widevalley.experiments.minima import MINIMA
from widevalley.experiments.paper import Candidate, Curve
from widevalley.experiments.reading import REMEDY, Record, ResultsError, parsed, text
from widevalley.experiments.rendering import distinct
from widevalley.experiments.reproduce import choose
from widevalley.experiments.unit_results import Result, Unit, read_unit

# Networks whose whole spectrum a figure shows, in its order.
SPECTRA: Mapping[str, tuple[str, ...]] = {
    figure: tuple(each.name.removeprefix(f"{figure}-") for each in MINIMA if each.figure == figure)
    for figure in reproduce.SPECTRA
}


@dataclass(frozen=True)
class Trial:
    """A candidate and the run by which it is chosen or not, None while there is none."""

    candidate: Candidate
    unit: Unit | None

    @property
    def result(self) -> Result | None:
        return self.unit.result if self.unit else None


@dataclass(frozen=True)
class CurveRuns:
    """What there is of a curve: ``trials`` where there was a choice, ``runs`` of the chosen one, by rising seed.

    ``chosen`` is None while a trial is missing; there are no runs then.
    """

    curve: Curve
    trials: tuple[Trial, ...]
    chosen: Candidate | None
    runs: tuple[Unit, ...]

    @property
    def name(self) -> str:
        return self.curve.name

    @property
    def ended(self) -> tuple[tuple[Unit, Result], ...]:
        """Runs that have ended, diverged ones among them."""
        return tuple((unit, unit.result) for unit in self.runs if unit.result)

    @property
    def finished(self) -> tuple[tuple[Unit, Result], ...]:
        """Those that did not diverge: what means are taken over."""
        return tuple((unit, result) for unit, result in self.ended if not result.diverged)

    def missing(self) -> str:
        """What has not been run to its end, in words; empty where nothing lacks."""
        lacking = [f"{trial.candidate.lr:g}" for trial in self.trials if not trial.result]
        if len({trial.candidate.method.name for trial in self.trials}) > 1:
            lacking = [trial.candidate.method.description for trial in self.trials if not trial.result]
        there = {unit.seed for unit, _ in self.ended}
        seeds = [f"{seed}" for seed in self.curve.seeds if seed not in there]
        notes = [f"the choice, for which {', '.join(lacking)} lacks"] if lacking else []
        notes += [f"seed {', '.join(seeds)}"] if seeds else []
        return f"{self.name}: {'; '.join(notes)}" if notes else ""


@dataclass(frozen=True)
class Spectra:
    """The measurements of a figure's networks, by their names in the figure; those not yet done are ``missing``."""

    found: Mapping[str, Measurement]
    missing: tuple[str, ...]

    @property
    def merged(self) -> Measurement | None:
        """All networks in one record, as if measured together."""
        if not self.found:
            return None
        networks = {name: network for name, each in self.found.items() for network in each.networks.values()}
        return dataclasses.replace(next(iter(self.found.values())), networks=networks, widths=None)


@dataclass(frozen=True)
class Reproduced:
    """Figures by name: their curves, their spectra. ``measurements`` are the files' own records, by name."""

    curves: Mapping[str, tuple[CurveRuns, ...]]
    spectra: Mapping[str, Spectra]
    measurements: Mapping[str, Record]

    def environments(self) -> list[dict[str, str]]:
        """Versions and machine of all that there is, each once."""
        units = [unit for curves in self.curves.values() for curve in curves for unit in _units(curve)]
        found = [environment(each.versions, each.machine) for each in units]
        for spectra in self.spectra.values():
            found += [environment(each.versions, each.machine) for each in spectra.found.values()]
        for each in self.measurements.values():
            found += [environment(each["versions"], each["machine"])] if {"versions", "machine"} <= set(each) else []
        return distinct(found)


def environment(versions: Record, machine: Record) -> Record:
    return {**versions, **machine}


def _units(curve: CurveRuns) -> list[Unit]:
    return [*(trial.unit for trial in curve.trials if trial.unit), *curve.runs]


def read(folder: Path) -> Reproduced:
    """The reproduction in ``folder``.

    Raises FileNotFoundError where there is no such folder, and ResultsError naming a file that is damaged.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; name one that `widevalley reproduce` has written")
    return Reproduced(
        {name: _curves(folder, curves) for name, curves in reproduce.CURVES.items()},
        {figure: _spectra(folder, figure, names) for figure, names in SPECTRA.items()},
        {path.stem: parsed(text(path), f"{path}") for path in sorted((folder / "measurements").glob("*.json"))},
    )


def _curves(folder: Path, curves: Iterable[Curve]) -> tuple[CurveRuns, ...]:
    return tuple(_curve(folder, curve) for curve in curves)


def _curve(folder: Path, curve: Curve) -> CurveRuns:
    units = curve.choosing()
    found = {unit.name: _unit(folder, unit, curve.choosing_task.name) for unit in units}
    candidates = curve.candidates if units else ()
    trials = tuple(Trial(each, found[unit.name]) for each, unit in zip(candidates, units, strict=True))
    chosen = choose(curve, lambda unit: _score(found[unit.name]))
    planned = curve.units(chosen) if chosen else []
    runs = tuple(run for unit in planned if (run := _unit(folder, unit, curve.task.name)))
    return CurveRuns(curve, trials, chosen, runs)


def _unit(folder: Path, unit: train.Unit, task: str) -> Unit | None:
    path = folder / "units" / f"{unit.name}.jsonl"
    found = read_unit(path) if path.is_file() else None
    if found is None:
        return None
    wanted = {"phase": unit.phase, "task": task, "method": unit.method.name, "seed": unit.seed}
    # As files hold a rate, rounded.
    wanted |= {"lr": float(f"{unit.lr:.6g}"), "gradients": unit.gradients}
    if different := [f"{key}: {getattr(found, key)!r} there" for key in wanted if getattr(found, key) != wanted[key]]:
        raise ResultsError(f"{path} is of another run ({', '.join(different)}): move it away, and run it again")
    return found


def _score(unit: Unit | None) -> dict[str, Any] | None:
    """What ``choose`` asks of a result."""
    if unit is None or unit.result is None:
        return None
    last = unit.result.last
    scores = {"validation_error": last.validation_error, "validation_loss": last.validation_loss}
    return {"diverged": unit.result.diverged, **scores}


def _spectra(folder: Path, figure: str, names: tuple[str, ...]) -> Spectra:
    found = {}
    for name in names:
        path = folder / "spectra" / f"{figure}-{name}"
        if not (path / "measurement.json").is_file():
            continue
        measurement = measurements.read(path)
        if len(measurement.networks) != 1:
            raise ResultsError(f"{path}: {len(measurement.networks)} networks where one belongs; {REMEDY}")
        if all(isinstance(network.spectrum, Eigenvalues) for network in measurement.networks.values()):
            found[name] = measurement
    return Spectra(found, tuple(name for name in names if name not in found))
