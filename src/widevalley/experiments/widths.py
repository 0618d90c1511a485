"""How wide the valleys are in which the final runs ended: the networks of each seed side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from widevalley.experiments import environment
from widevalley.experiments.data import Data, Split
from widevalley.experiments.folder import Folder, read_json
from widevalley.experiments.parts import widths_record
from widevalley.experiments.recording import Progress
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.sharing import share
from widevalley.experiments.subsets import balanced
from widevalley.experiments.summaries import reference
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Stopped, Unit
from widevalley.landscape import Objective, compare_widths, hessian_vector_product
from widevalley.writing import write

# Of the training split, the same for all networks.
EXAMPLES, SUBSET_SEED = 1_000, 0
# Hessian-vector products for each of five measures of a network; the digits' λ_max(D H D) have residuals below 1e-5 of
# them after as many (results/digits/widths).
PRODUCTS = 20
# What a network takes in all, sharpness and passes for the losses too, in units of one product: 165 for LeNet, 200 for
# the fully connected networks.
ALL_PRODUCTS = 180
# Memory for a product grows with the batch; all batches together are the examples.
BATCH = 250


@dataclass(frozen=True)
class _Seed:
    """The final runs of one seed that did not diverge, by method, the reference first."""

    seed: int
    runs: Mapping[str, Unit]

    @property
    def name(self) -> str:
        return f"widths-seed{self.seed}"

    @property
    def networks(self) -> dict[str, str]:
        return {method: run.name for method, run in self.runs.items()}


def measure_widths(
    task: Task, data: Data, folder: Folder, results: Sequence[tuple[Unit, Record]], progress: Progress, device: str
) -> None:
    """Compares the networks of each seed by ``compare_widths`` at matched training loss, and writes the seed's file.

    The objective is the mean cross-entropy over ``EXAMPLES`` training examples, balanced over classes, in eval mode.
    Runs that diverged are left out, and seeds of which fewer than two are left. A seed whose file has these networks is
    skipped. What cannot be measured has the reason in its file. Where a network's file is missing, or damaged, the seed
    is left out, which ``progress`` is warned of.

    Args:
        results: of the final runs.

    Raises:
        Stopped: ``progress`` asked for it; what is asked between two networks. The seed begins anew then.
        OSError: a file cannot be written.
    """
    subset = balanced(data.train, EXAMPLES, SUBSET_SEED)
    seeds = [seed for seed in _seeds(results) if len(seed.runs) > 1]
    done = 0

    def tell(seed: _Seed, record: Record, skipped: bool) -> None:
        nonlocal done
        done += 1
        progress.measured(seed.seed, _said(record), skipped)

    def work(seed: _Seed) -> Record:
        def measuring(what: str, share: float) -> None:
            progress.measuring(f"seed {seed.seed}: {what}", done + share, len(ready))
            if progress.stop():
                raise Stopped

        return _measure(seed, task, subset, folder, measuring, device)

    ready = [seed for seed in seeds if _there(seed, folder) or _readable(seed, task, folder, progress)]
    share(ready, folder, progress, ended=lambda seed: _there(seed, folder), work=work, tell=tell)


def _seeds(results: Sequence[tuple[Unit, Record]]) -> list[_Seed]:
    by_seed: dict[int, dict[str, Unit]] = {}
    for unit, result in results:
        runs = by_seed.setdefault(unit.seed, {})
        if not result["diverged"]:
            runs[unit.method.name] = unit
    found = []
    for seed, runs in by_seed.items():
        first = reference(list(runs)) if runs else ""
        found.append(_Seed(seed, {first: runs[first], **runs} if runs else {}))
    return found


def _there(seed: _Seed, folder: Folder) -> Record | None:
    """What the seed's file says, if it has all these networks; a comparison that has grown since may have more."""
    path = folder.widths(seed.seed)
    if not path.exists():
        return None
    record = read_json(path)
    return record if seed.networks.items() <= record.get("networks", {}).items() else None


def _readable(seed: _Seed, task: Task, folder: Folder, progress: Progress) -> bool:
    try:
        for run in seed.runs.values():
            _network(task, folder.weights(run))
    except (OSError, SafetensorError, RuntimeError) as error:
        progress.warn(f"widths of seed {seed.seed} are left out, a network of it cannot be read: {error}")
        return False
    return True


def _network(task: Task, path: Path) -> torch.nn.Module:
    # Its initialisation draws from the global random state.
    with torch.random.fork_rng(devices=[]):
        network = task.network()
    network.load_state_dict(load_file(path))
    return network.eval()


def _objective(network: torch.nn.Module, subset: Split) -> Objective:
    batches = zip(subset.inputs.split(BATCH), subset.targets.split(BATCH), strict=True)
    return Objective(network, data=list(batches))


def seconds_per_network(task: Task, data: Data, device: str) -> float:
    """About what the widths of one network take, from one Hessian-vector product; 0 where there is none."""
    with torch.random.fork_rng(devices=[]):
        network = task.network().to(device)
    objective = _objective(network.eval(), balanced(data.train, EXAMPLES, SUBSET_SEED))
    try:
        objective.check()
        began = time.perf_counter()
        hessian_vector_product(objective, objective.vector())
    except (ValueError, RuntimeError):
        return 0.0
    return ALL_PRODUCTS * (time.perf_counter() - began)


def _measure(
    seed: _Seed, task: Task, subset: Split, folder: Folder, progress: Callable[[str, float], None], device: str
) -> Record:
    began = time.perf_counter()
    objectives = {
        method: _objective(_network(task, folder.weights(run)).to(device), subset) for method, run in seed.runs.items()
    }
    record: Record = {
        "kind": "widths",
        "task": task.name,
        "seed": seed.seed,
        "networks": seed.networks,
        "examples": len(subset),
        "products": PRODUCTS,
    }
    try:
        # Probes of their own for each seed: their errors average out over seeds.
        found = compare_widths(objectives, "loss", products=PRODUCTS, seed=seed.seed, progress=progress)
        record |= {"reason": None, **widths_record(found)}
    except (ValueError, RuntimeError) as error:
        record["reason"] = f"{error}"
    record["seconds"] = time.perf_counter() - began
    record |= {"versions": environment.versions(), "machine": environment.machine(device)}
    record = rounded(record)
    write(folder.widths(seed.seed), json.dumps(record, indent=1) + "\n")
    return record


def _said(record: Record) -> str:
    if record["reason"]:
        return f"not measured, {record['reason']}"
    return ", ".join(f"{method} {verdict}" for method, verdict in record["verdicts"].items())
