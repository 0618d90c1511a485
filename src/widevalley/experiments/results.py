"""The result files of a comparison, read into frozen records.

A folder holds ``comparison.json`` (what was to be run), ``units/*.jsonl`` (one file a run, ``unit_results``) and
``widths/*.json`` (one file a seed). Units that have not run yet, or not to their end, are no error; a file that cannot
be read is. What older files lack is NaN, None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from widevalley.experiments.reading import Record, ResultsError, naming, parsed, text
from widevalley.experiments.unit_results import Measurement, Result, Rise, Unit, read_unit
from widevalley.experiments.width_results import SeedWidths, read_widths

__all__ = ["Comparison", "Measurement", "Result", "ResultsError", "Rise", "SeedWidths", "Unit", "read"]


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
    units = tuple(unit for unit_path in sorted((folder / "units").glob("*.jsonl")) if (unit := read_unit(unit_path)))
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
