"""Writes the result files of a comparison that never ran, with numbers from simple formulas."""

import json
from pathlib import Path

GRADIENTS = 80
RATES = {"entropy-sgd": [0.03, 0.1, 0.3], "sgd": [0.03, 0.1, 0.3]}
INNER_STEPS = {"entropy-sgd": 20, "sgd": 1}
TEST_ERRORS = {"entropy-sgd": [2.0, 3.0, 4.0], "sgd": [3.0, 3.5, 5.5]}


def plan(**changes):
    return {
        "command": "widevalley compare digits --methods entropy-sgd,sgd --seeds 3",
        "task": "digits",
        "description": "8×8 digits",
        "methods": ["entropy-sgd", "sgd"],
        "descriptions": {"entropy-sgd": "EntropySGD", "sgd": "torch.optim.SGD"},
        "seeds": [0, 1, 2],
        "tuning_seeds": [1000, 1002],
        "epochs": 4,
        "gradients": GRADIENTS,
        "tuning_gradients": GRADIENTS,
        "batch_size": 64,
        "train_size": 1280,
        "validation_size": 200,
        "test_size": 400,
        "parameters": 27018,
        "learning_rates": RATES,
        "chosen": {"entropy-sgd": 0.1, "sgd": 0.1},
    } | changes


def measurement(method, gradients, seed):
    updates = gradients // INNER_STEPS[method]
    decay = 1 / (1 + gradients)
    return {
        "gradients": gradients,
        "epochs": gradients / 20,
        "outer_updates": updates,
        "paper_epochs": updates / 20,
        "seconds": gradients * (0.002 + 0.001 * seed),
        "train_loss": 2.3 * decay * (1 + 0.5 * seed),
        "train_error": 90 * decay,
        "validation_loss": 2.4 * decay,
        "validation_error": 90 * decay + seed % 1000,
    }


def unit(phase, method, lr, seed, diverged=False, ended=True):
    """The lines of one unit's file."""
    lines = [
        {
            "kind": "configuration",
            "phase": phase,
            "task": "digits",
            "method": method,
            "lr": lr,
            "seed": seed,
            "gradients": GRADIENTS,
            "batch_size": 64,
            "optimizer": {"lr": lr, "momentum": 0.9} | ({"inner_steps": 20} if method == "entropy-sgd" else {}),
            "versions": {"python": "3.11.4", "torch": "2.11.0", "numpy": "2.0.0", "widevalley": "0.1.0"},
            "machine": {"processor": "x86_64", "threads": 2, "device": "cpu"},
        }
    ]
    lines.extend({"kind": "evaluation", **measurement(method, count, seed)} for count in range(0, GRADIENTS + 1, 20))
    if not ended:
        return lines[:3]
    if diverged:
        cost = {"gradients": 33, "epochs": 1.65, "outer_updates": 1, "paper_epochs": 0.05, "seconds": 0.1}
        return [*lines[:3], {"kind": "result", "diverged": True, **cost}]
    end = measurement(method, GRADIENTS, seed)
    result = {"kind": "result", "diverged": False, **end, "seconds_per_gradient": 0.002 + 0.001 * seed}
    if phase == "final":
        result["test_error"] = TEST_ERRORS[method][seed]
        result["test_loss"] = 0.1 * (1 + seed)
        result["rise"] = [
            {"size": size, "mean": (1 + seed) * size**2, "standard_error": 0.1 * size**2} for size in (0.1, 0.5)
        ]
    return [*lines, result]


def all_units():
    """(phase, method, lr, seed) of every unit of ``plan()``."""
    for method, rates in RATES.items():
        yield from (("tune", method, lr, seed) for lr in rates for seed in (1000, 1002))
        yield from (("final", method, 0.1, seed) for seed in (0, 1, 2))


def write_unit(folder: Path, lines):
    first = lines[0]
    path = folder / "units" / f"{first['phase']}-{first['method']}-lr{first['lr']:g}-seed{first['seed']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_plan(folder: Path, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "comparison.json"
    path.write_text(json.dumps(plan(**changes)), encoding="utf-8")
    return path


def write_comparison(folder: Path, without=()):
    """Everything that ``plan()`` names but the units in ``without``."""
    write_plan(folder)
    for name in all_units():
        if name not in without:
            write_unit(folder, unit(*name))
    return folder
