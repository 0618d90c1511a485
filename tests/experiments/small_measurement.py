"""A ``measurement.json`` with real measures of networks small enough to measure in a test."""

import copy
import functools
import hashlib
import json
import warnings

import torch
from torch import nn

from widevalley.experiments.measured import PARTS
from widevalley.experiments.records import rounded
from widevalley.landscape import (
    ConvergenceWarning,
    Objective,
    compare_widths,
    hessian_eigenvalues,
    local_entropy,
    sharpness,
    spectral_density,
    surface,
    top_eigenpairs,
    trace,
)

GAMMAS = (1.0, 10.0)
RADII = (0.05, 0.5)


def _clouds(seed, samples=60):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(samples) % 2
    return torch.randn(samples, 4, generator=generator, dtype=torch.float64) + targets[:, None], targets


def objective(seed=0, samples=60, steps=200):
    """Of a network of 30 parameters, trained on two clouds that overlap."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) / 2)
    inputs, targets = _clouds(1, samples)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return Objective(model, data=[(inputs, targets)])


def spectrum(of, others):
    found = hessian_eigenvalues(of)
    return {
        "eigenvalues": [float(f"{value:.9g}") for value in found.eigenvalues.tolist()],
        "noise_floor": found.noise_floor,
        "structural_zeros": found.structural_zeros,
        "asymmetry": found.asymmetry,
        "trace": float(found.eigenvalues.sum()),
        "dtype": "float64",
        "seconds": dict(found.seconds),
        "elsewhere": {name: elsewhere(other) for name, other in others.items()},
    }


def elsewhere(of):
    loss, gradient = of.value_and_gradient()
    ends = top_eigenpairs(of, 5)
    size = trace(of, products=12)
    return {
        "samples": of.samples,
        "loss": loss,
        "gradient_norm": float(gradient.norm()),
        "largest": ends.values[-5:].flip(0).tolist(),
        "most_negative": float(ends.values[0]),
        "largest_residual": float(ends.residuals.max()),
        "trace": size.value,
        "trace_standard_error": size.standard_error,
    }


def density(of, steps=12):
    found = spectral_density(of, probes=4, steps=steps)
    ends = top_eigenpairs(of, 3)
    size = trace(of, products=12)
    return {
        "nodes": found.nodes.tolist(),
        "weights": found.weights.tolist(),
        "n": found.n,
        "products": int(found.diagnostics["products"]),
        "largest": ends.values[-3:].flip(0).tolist(),
        "most_negative": ends.values[:3].tolist(),
        "largest_residual": float(ends.residuals.max()),
        "trace": size.value,
        "trace_standard_error": size.standard_error,
        "seconds": 1.0,
    }


def entropy(of, gammas=GAMMAS, tolerance=0.2):
    points = []
    for gamma in gammas:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", ConvergenceWarning)
            found = local_entropy(of, gamma, float(of.samples), tolerance=tolerance)
        names = ("phi", "classical_entropy", "rms_radius", "relative_radius", "mean_loss", "gradients", "acceptance")
        point = {"gamma": gamma, "value": found.value, "standard_error": found.standard_error}
        point |= {name: found.diagnostics[name] for name in (*names, "effective_sample_size")}
        points.append(point | {"warning": str(said[0].message) if said else None})
    return {"inverse_temperature": float(of.samples), "method": "thermodynamic", "points": points, "seconds": 1.0}


def sharpnesses(of, radii=RADII):
    rows = []
    for kind in ("worst", "box", "average", "adaptive"):
        for radius in radii:
            found = sharpness(of, kind, radius, directions=8)
            row = {"kind": kind, "radius": radius, "value": found.value, "standard_error": found.standard_error}
            rows.append(row | {name: found.diagnostics.get(name) for name in ("spread", "length")})
    return {"rows": rows, "seconds": 1.0}


def surroundings(of, others, points=9):
    around = surface(of, points=points)
    lines = {name: surface(of, other, points=points) for name, other in others.items()}
    return {
        "coordinates": [axis.tolist() for axis in around.coordinates],
        "loss": around.loss.tolist(),
        "lengths": list(around.lengths),
        "to": {
            name: {"coordinates": line.coordinates[0].tolist(), "loss": line.loss.tolist(), "length": line.lengths[0]}
            for name, line in lines.items()
        },
        "seconds": 1.0,
    }


def widths(networks):
    found = compare_widths(networks, products=12)
    return {
        "match": found.match,
        "losses": dict(found.losses),
        "scales": dict(found.scales),
        "matched_losses": dict(found.matched_losses),
        "verdicts": dict(found.verdicts),
        "caveats": list(found.caveats),
        "rows": [
            {
                "measure": row.measure,
                "invariant": row.invariant,
                "values": {name: estimate.value for name, estimate in row.estimates.items()},
                "intervals": {name: list(ends) for name, ends in row.intervals.items()},
                "verdicts": dict(row.verdicts),
            }
            for row in found.rows
        ],
    }


def measurement(networks, subsets=None, error=2.5, **settings):
    """The object of the file, all parts of it, ``networks`` an objective by name."""
    subsets = subsets or {}
    first, *others = networks
    objects = {}
    for name, of in networks.items():
        loss, gradient = of.value_and_gradient()
        objects[name] = {
            "checkpoint": f"runs/{name}.safetensors",
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
            "configuration": {"method": "sgd", "lr": 0.2, "seed": 0, "gradients": 200},
            "point": {
                "parameters": of.n,
                "samples": of.samples,
                "loss": loss,
                "error": error,
                "gradient_norm": float(gradient.norm()),
                "weight_norm": float(of.vector().norm()),
                "rank_bound_gauss_newton": min(of.n, of.samples),
            },
            "spectrum": spectrum(of, subsets.get(name, {})),
            "density": density(of, **settings.get("density", {})),
            "entropy": entropy(of, **settings.get("entropy", {})),
            "sharpness": sharpnesses(of),
            "surface": surroundings(
                of, {n: networks[n] for n in others if name == first}, **settings.get("surface", {})
            ),
        }
    return rounded(
        {
            "command": f"widevalley measure {' '.join(objects[name]['checkpoint'] for name in networks)}",
            "what": list(PARTS),
            "samples": f"{networks[first].samples} samples of two clouds, equally many of each class, seed 0",
            "task": None,
            "objective": "small_measurement:objective",
            "versions": {"python": "3.11.0", "torch": "2.13.0", "numpy": "2.4.0", "widevalley": "0.1.0"},
            "machine": {"processor": "x86_64", "threads": 1, "device": "cpu"},
            "networks": objects,
            "widths": widths(networks) if others else None,
        }
    )


def write(folder, record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measurement.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


@functools.cache
def _measured():
    networks = {f"net-{seed}": objective(seed) for seed in range(3)}
    subsets = {"net-0": {"subset 1": Objective(networks["net-0"].model, data=[_clouds(seed=2)])}}
    return measurement(networks, subsets)


def three():
    """Three networks, all parts of each; the first on another subset too."""
    return copy.deepcopy(_measured())


def one(**changes):
    """The first of them alone."""
    record = three()
    record["networks"] = {"net-0": record["networks"]["net-0"] | changes}
    record["networks"]["net-0"]["surface"].get("to", {}).clear()
    return record | {"widths": None}
