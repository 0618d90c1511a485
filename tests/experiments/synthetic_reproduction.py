"""Writes the files of a reproduction that never ran, with numbers from simple formulas."""

import json

import numpy as np
import synthetic_results as synthetic

from widevalley.experiments.ablations import ABLATIONS
from widevalley.experiments.paper import EPOCH, FIG4A, FIG4B
from widevalley.experiments.records import rounded
from widevalley.experiments.reproduced import SPECTRA

EVERY = {curve.name: curve for curve in (*FIG4A, *FIG4B, *ABLATIONS)}
# Gradients of an outer update.
CYCLES = {"mnistfc-text": 5, "mnistfc-authors": 20, "lenet-text": 21, "lenet-authors": 20, "base": 20}


def lowest(name):
    """Where the test error of a curve's seed 0 goes, in percent."""
    return 0.5 + 0.1 * list(EVERY).index(name)


def error_of(name, gradients, seed):
    scatter = 0.01 * (list(EVERY).index(name) * seed % 7) if seed < 1000 else 0.0
    return lowest(name) + scatter + 88 / (1 + gradients / 20)


def look(curve, gradients, seed, watched):
    cycle = CYCLES.get(curve.name, 1)
    error = error_of(curve.name, gradients, seed)
    inner = cycle > 1 and gradients > 0
    return {
        "gradients": gradients,
        "epochs": gradients / EPOCH,
        "outer_updates": gradients // cycle,
        "paper_epochs": gradients // cycle / EPOCH,
        "seconds": gradients * 0.01,
        "train_loss": error / 60,
        "train_error": error / 2,
        f"{watched}_loss": error / 30,
        f"{watched}_error": error,
        "displacement": 0.1 if inner else None,
        "pull_to_gradient": 0.05 * cycle if inner else None,
        "noise_to_gradient": 0.0 if inner else None,
    }


def lines(curve, unit, diverged=False, ended=True):
    """Those of one unit's file. Of the candidates the second has the lowest validation error."""
    curves_own = unit.phase == "curve"
    watched, task = ("test", curve.task) if curves_own else ("validation", curve.choosing_task)
    header = synthetic.unit("tune", "sgd", unit.lr, unit.seed)[0]
    header |= {"phase": unit.phase, "task": task.name, "method": unit.method.name, "gradients": unit.gradients}
    counts = [unit.gradients * k // 10 for k in range(11)]
    looks = [look(curve, count, unit.seed, watched) for count in counts]
    if not curves_own:
        place = [(each.method.name, each.lr) for each in curve.candidates].index((unit.method.name, unit.lr))
        for each in looks:
            each["validation_error"] += abs(place - 1)
    found = [header, *({"kind": "evaluation", **each} for each in looks)]
    if not ended:
        return found[:4]
    if diverged:
        cost = {name: looks[3][name] for name in ("gradients", "epochs", "outer_updates", "paper_epochs", "seconds")}
        return [*found[:4], {"kind": "result", "diverged": True, **cost}]
    result = {"kind": "result", "diverged": False, **looks[-1], "seconds_per_gradient": 0.01}
    if curves_own:
        result |= {"whole_train_loss": looks[-1]["train_loss"] / 2, "whole_train_error": 0.1}
    return [*found, result]


def choosing(folder, curve):
    for unit in curve.choosing():
        synthetic.write_unit(folder, rounded(lines(curve, unit)))


def running(folder, curve, seeds=None, **how):
    """The seeds' runs of the candidate that ``lines`` makes the best."""
    chosen = curve.candidates[min(1, len(curve.candidates) - 1)]
    for unit in curve.units(chosen):
        if seeds is None or unit.seed in seeds:
            synthetic.write_unit(folder, rounded(lines(curve, unit, **how)))


def spectrum(folder, name, n=200, **part):
    """The measurement of one network: n eigenvalues, most of them near 0, from -0.3 to a largest one by the name."""
    largest = 10.0 + len(name)
    values = sorted([*np.linspace(-1e-5, 1e-5, n - 4).tolist(), -0.3, 1.0, 3.0, largest])
    point = {"parameters": n, "samples": 4096, "loss": 0.01, "error": 0.5, "gradient_norm": 1e-3, "weight_norm": 9.0}
    found = {"eigenvalues": values, "noise_floor": 1e-7, "structural_zeros": 10, "asymmetry": 1e-8, "dtype": "float32"}
    found |= {"trace": sum(values), "seconds": {}, "elsewhere": {}}
    network = {"checkpoint": "a.safetensors", "sha256": "0", "point": point | {"rank_bound_gauss_newton": 40}}
    network |= {"configuration": {"method": "adam", "lr": 0.001, "optimizer": {"lr": 0.001}}}
    first = synthetic.unit("tune", "sgd", 0.1, 0)[0]
    record = {"command": f"widevalley measure {name}", "what": ["spectrum"], "samples": "4,096 images", "task": None}
    record |= {"objective": None, "widths": None, "networks": {"network": network | {"spectrum": found} | part}}
    path = folder / "spectra" / name / "measurement.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | {key: first[key] for key in ("versions", "machine")}), encoding="utf-8")
    return path


def estimate(cycle, gradients, average, steps):
    repeats = 1 if (cycle, gradients) == ("descent", "all") else 5
    cosine = [-0.5 + steps / 500, 0.02 if repeats > 1 else 0.0]
    found = {"cycle": cycle, "gradients": gradients, "average": average, "inner_steps": steps, "repeats": repeats}
    return found | {"cosine": cosine, "ratio": [steps / 10, 0.1], "cosine_to_gradient": [0.25, 0.1]}


def local_gradient(folder):
    """γ(x − μ) and −∇F at two points of training, for two γ; at the second the reference is all error for the last."""
    kinds = [(cycle, gradients, average) for cycle in ("langevin", "descent", "authors")
             for gradients in ("all", "minibatch") for average in ("authors", "uniform")]  # fmt: skip
    reference = {"length": 0.3, "standard_error": 0.01, "attainable_cosine": 0.99, "cosine_to_gradient": 0.8}
    scopes = [
        {"gamma": gamma, "reference": reference, "estimates": [estimate(*kind, steps) for kind in kinds
         for steps in (500, 5, 20)]} for gamma in (1.0, 0.1)
    ]  # fmt: skip
    points = [
        {"name": name, "steps": 3000, "loss": 1.5, "gradient_norm": 0.4, "scopes": json.loads(json.dumps(scopes))}
        for name in ("early", "end")
    ]
    for each in points[1]["scopes"][1]["estimates"]:
        each["ratio"] = None
    record = {"parameters": 610, "images": 1000, "lr": 0.1, "batch_size": 100, "alpha": 0.25, "points": points}
    return measured(folder, "local-gradient", record)


def fisher(folder):
    shares = {"share_zero": 0.25, "share_below": 0.5}
    diagonal = {"trace": 12.5, "ratio": 0.811, "median_ratio": 0.9, "correlation": 0.97, "rank_correlation": 0.875}
    own = {
        "coordinates": 1000,
        "trace": 101.9,
        "trace_error": 0.6,
        "difference": 0.088,
        "largest_eigenvalue": 13.1,
        **shares,
    }
    networks = [
        {"name": name, "test_error": 4.25, "hessian": own | {"lowest_eigenvalue": -0.227},
         "diagonals": dict.fromkeys(("model", "empirical", "adam", "adam_per_sample"), diagonal | shares)}
        for name in ("relu", "tanh")
    ]  # fmt: skip
    return measured(
        folder,
        "fisher",
        {"images": 4096, "batch_size": 128, "epochs": 5, "threshold": 1e-5, "networks": networks},
    )


def measured(folder, name, record):
    first = synthetic.unit("tune", "sgd", 0.1, 0)[0]
    path = folder / "measurements" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | {key: first[key] for key in ("versions", "machine")}), encoding="utf-8")
    return path


def write(folder):
    """All of it but Fig. 2."""
    folder.mkdir(parents=True, exist_ok=True)
    for curve in EVERY.values():
        choosing(folder, curve)
        running(folder, curve)
    for figure, names in SPECTRA.items():
        for name in names:
            spectrum(folder, f"{figure}-{name}")
    local_gradient(folder)
    fisher(folder)
    return folder
