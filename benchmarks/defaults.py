"""The settings that Entropy-SGD has by default, each changed alone, on the digits at learning rates tuned for SGD.

    python benchmarks/defaults.py [--seeds 6] [--out results/defaults/digits.jsonl]

Validation split only. Each line of the file is one run; those that are there already are not run again. At the end a
table of means and standard errors over the seeds is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, presets
from widevalley.experiments import environment, train
from widevalley.experiments.methods import Method
from widevalley.experiments.tasks import TASKS
from widevalley.experiments.train import Unit

TASK = TASKS["digits"]
SGD_RATES, ADAM_RATES = (0.03, 0.1), (0.001, 0.003)
# None of the seeds of a comparison.
FIRST_SEED = 2000

Build = Callable[[Any, float, int], torch.optim.Optimizer]


def entropy_sgd(**changes: Any) -> Build:
    return lambda params, lr, seed: EntropySGD(params, lr, momentum=0.9, nesterov=True, seed=seed, **changes)


def entropy_adam(**changes: Any) -> Build:
    return lambda params, lr, seed: EntropyAdam(params, lr, seed=seed, **changes)


SGD_LIKE: dict[str, Build] = {
    "SGD": lambda params, lr, seed: torch.optim.SGD(params, lr, momentum=0.9, nesterov=True, fused=True),
    "EntropySGD, defaults": entropy_sgd(),
    **{f"L = {steps}": entropy_sgd(inner_steps=steps) for steps in (5, 10, 50)},
    **{f"alpha = {alpha}": entropy_sgd(alpha=alpha) for alpha in (0.1, 0.5, 0.75, 0.9)},
    **{f"gamma = {gamma:g}": entropy_sgd(gamma=gamma) for gamma in (0.0, 0.001, 0.1, 1.0)},
    **{f"T = {t:g}": entropy_sgd(temperature=t) for t in (1e-8, 1e-6, 1e-5, 1e-4)},
    "T = 1/N": entropy_sgd(temperature=1 / 1150),
    "restart": entropy_sgd(restart=True),
    "decoupled pull": entropy_sgd(decoupled_pull=True),
    "outer momentum 0.5": entropy_sgd(outer_momentum=0.5),
    "presets.authors": lambda params, lr, seed: EntropySGD(params, **{**presets.authors, "lr": lr, "seed": seed}),
}
ADAM_LIKE: dict[str, Build] = {
    "Adam": lambda params, lr, seed: torch.optim.Adam(params, lr, fused=True),
    "EntropyAdam, defaults": entropy_adam(),
    "outer betas (0.9, 0.999)": entropy_adam(outer_betas=(0.9, 0.999)),
    "outer betas (0.5, 0.9)": entropy_adam(outer_betas=(0.5, 0.9)),
    "NestedOptimizer(Adam)": lambda params, lr, seed: NestedOptimizer(
        torch.optim.Adam(params, lr, fused=True), seed=seed
    ),
}
KEPT = ("diverged", "gradients", "outer_updates", "validation_error", "validation_loss", "train_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("results/defaults/digits.jsonl"))
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    data = TASK.data(None)
    gradients = TASK.gradients(len(data.train), TASK.epochs)
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    runs = [json.loads(line) for line in lines]
    done = {(run["setting"], run["lr"], run["seed"]) for run in runs}
    common = {"task": TASK.name, "versions": environment.versions(), "machine": environment.machine()}
    for builds, rates in ((SGD_LIKE, SGD_RATES), (ADAM_LIKE, ADAM_RATES)):
        for setting, build in builds.items():
            for lr in rates:
                for seed in range(FIRST_SEED, FIRST_SEED + arguments.seeds):
                    if (setting, lr, seed) in done:
                        continue
                    method = Method(setting, setting, build, (lr,) * 5)
                    result = train.run(Unit("tune", method, lr, seed, gradients), TASK, data)[-1]
                    run = {"setting": setting, "lr": lr, "seed": seed, **{k: result.get(k) for k in KEPT}, **common}
                    with arguments.out.open("a") as file:
                        file.write(json.dumps(run) + "\n")
                    runs.append(run)
                print(row(setting, lr, [r for r in runs if (r["setting"], r["lr"]) == (setting, lr)]), flush=True)


def row(setting: str, lr: float, runs: list[dict[str, Any]]) -> str:
    """Mean ± standard error of validation error (%) and loss, and mean training loss."""

    def mean(key: str, digits: int) -> str:
        values = [run[key] for run in runs]
        return f"{statistics.fmean(values):.{digits}f} ± {statistics.stdev(values) / len(values) ** 0.5:.{digits}f}"

    train_loss = statistics.fmean(run["train_loss"] for run in runs)
    return f"| {setting} | {lr:g} | {mean('validation_error', 2)} | {mean('validation_loss', 4)} | {train_loss:.5f} |"


if __name__ == "__main__":
    main()
