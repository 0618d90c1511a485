"""Writes the result files of a comparison that never ran, with numbers from simple formulas."""

import json
from pathlib import Path

import numpy as np

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


TEN = {  # method: lowest error in percent, cost of a step in gradients, has an inner loop
    "entropy-sgd": (2.0, 1, True),
    "entropy-adam": (2.3, 1, True),
    "sgd": (2.6, 1, False),
    "adam": (2.8, 1, False),
    "adamw": (2.7, 1, False),
    "swa": (2.2, 1, False),
    "ema": (2.3, 1, False),
    "sam": (1.4, 2, False),
    "lookahead": (2.5, 1, False),
    "schedule-free": (5.0, 1, False),
}


def write_ten(folder: Path, seeds=5, examples=1_000, gradients=4_210, **changes):
    """A comparison of ten methods with every field that a file can have, drawn from one seed."""
    draw = np.random.default_rng(0)
    difficulty = draw.standard_normal(examples)
    rates = [0.01, 0.03, 0.1, 0.3, 1.0]
    write_plan(
        folder,
        task="mnist-lenet",
        command="widevalley compare mnist-lenet --label-noise 0.2",
        description="MNIST, the convolutional network LeNet",
        methods=list(TEN),
        descriptions={method: f"the method {method} with its settings at their defaults" for method in TEN},
        seeds=list(range(seeds)),
        tuning_seeds=[1000],
        epochs=10,
        gradients=gradients,
        batch_size=128,
        train_size=54_000,
        test_size=examples,
        learning_rates=dict.fromkeys(TEN, rates),
        chosen=dict.fromkeys(TEN, 0.1),
        changes={"label_noise": 0.2},
        gradients_per_step={method: cost for method, (_, cost, _) in TEN.items()},
        test_targets=examples,
        **changes,
    )
    for place, (method, (lowest, cost, nested)) in enumerate(TEN.items()):
        runs = [("tune", lr, 1000) for lr in rates] + [("final", 0.1, seed) for seed in range(seeds)]
        for phase, lr, seed in runs:
            lines = unit(phase, "entropy-sgd" if nested else "sgd", lr, 0)
            lines[0] |= {"method": method, "seed": seed}
            worse = 1 + abs(np.log10(lr / 0.1)) * (1 + place / 5)
            looks = []
            for count in [round(gradients * k / 20) // cost * cost for k in range(21)]:
                error = lowest * worse * (1 + 0.1 * draw.random()) + 88 / (1 + count / (20 + 5 * place))
                inner = nested and count > 0
                looks.append(
                    measurement("sgd", count, 0)
                    | {"outer_updates": count // (20 if nested else cost), "seconds": count * (0.002 + place / 5e3)}
                    | {"paper_epochs": count / 421 / (20 if nested else cost), "epochs": count / 421}
                    | {"validation_error": error, "train_loss": error / 60}
                    | {
                        "displacement": 0.5 / (1 + place) / (1 + count / 1e3) if inner else None,
                        "pull_to_gradient": 0.02 * (1 + count / 1e3) if inner else None,
                        "noise_to_gradient": 0.1 * place if inner else None,
                    }
                )
            result = {"kind": "result", "diverged": False, **looks[-1]}
            result |= {"seconds_per_gradient": 0.002 + place / 5e3 + seed % 1000 / 2e4}
            result |= {"state_bytes": 4 * 1_300_000 * (2 + nested), "gradient_bytes": 9e7 if place else None}
            if phase == "final":
                score = difficulty + draw.standard_normal(examples)
                wrong = np.flatnonzero(
                    score > np.quantile(score, 1 - lowest * (1 + 0.2 * draw.random()) / 100)
                ).tolist()
                result |= {"test_wrong": [[example, 1] for example in wrong]}
                result |= {"test_error": 100 * len(wrong) / examples, "test_loss": len(wrong) / 3e4}
                sizes = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
                rises = [size**2 * (1 + place / 10) * (1 + 0.2 * draw.random()) for size in sizes]
                result["rise"] = [
                    {"size": size, "mean": mean, "standard_error": mean / 9}
                    for size, mean in zip(sizes, rises, strict=True)
                ]
            write_unit(folder, [lines[0], *({"kind": "evaluation"} | look for look in looks), result])
    return folder
