"""Local entropy of the paper's mnistfc on MNIST by methods that know nothing of each other.

    python benchmarks/entropy.py mnist [--network mnistfc] [--images 200] [--gammas 2000,400,100,20]
                                       [--methods annealed,thermodynamic] [--tolerance 0.02] [--out …]

Trains the network, and writes one JSON object for each γ and method at inverse temperature β = N, the number of
class-balanced training images: F, Φ and their standard error, the radius, what it cost, and z, the difference to each
other method's F that is already there over the root of the sum of the squared standard errors. What --out has is not
measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
import zlib
from functools import partial
from pathlib import Path
from typing import Any

from telling import append, made, progress
from trained import RECIPE, error, trained

from widevalley.experiments import data as datasets
from widevalley.experiments import networks
from widevalley.experiments.subsets import balanced
from widevalley.landscape import Objective, local_entropy
from widevalley.landscape.local_entropy import Method

# 784-1024-1024-10 and 784-64-10, 1,863,690 and 50,890 parameters, without batch-norm: with it the curvature is several
# times larger, and a transition at the same γ takes several times as many gradients.
NETWORKS = {"mnistfc": partial(networks.mnist_fc, batchnorm=False), "small-mnistfc": networks.small_mnist_fc}
# Chains of the one, independent runs of the other, where each gradient is dear.
FEW = {"thermodynamic": 2, "annealed": 8}


def measure(objective: Objective, gamma: float, method: Method, arguments: argparse.Namespace) -> dict[str, Any]:
    # Of the pair alone: independent between all lines, and the same whatever else is asked for.
    seed = zlib.crc32(f"{gamma:g} {method}".encode())

    chains = FEW.get(method) if arguments.network == "mnistfc" else None
    start, busy = time.perf_counter(), time.process_time()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = local_entropy(
            objective,
            gamma,
            objective.samples,
            method,
            tolerance=arguments.tolerance,
            chains=chains,
            seed=seed,
            progress=lambda what, done: progress(f"{method}, γ = {gamma:g}: {what}", done),
        )
    print(file=sys.stderr)
    return {
        "gamma": gamma,
        "method": method,
        "inverse_temperature": objective.samples,
        "tolerance": arguments.tolerance,
        "chains": chains,
        "seed": seed,
        "value": found.value,
        "standard_error": found.standard_error,
        **{name: float(f"{value:.7g}") for name, value in found.diagnostics.items()},
        "warnings": [str(warning.message) for warning in said],
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - busy,
    }


def mnist(arguments: argparse.Namespace) -> None:
    data = datasets.mnist(arguments.data_dir)
    model = trained(NETWORKS[arguments.network], data.train, arguments.epochs)
    images = balanced(data.train, arguments.images, seed=0)
    objective = Objective(model, data=[(images.inputs, images.targets)])
    loss, gradient = objective.value_and_gradient()
    point = {
        "network": arguments.network,
        "parameters": objective.n,
        "training": f"{RECIPE}, {arguments.epochs} epochs, seed 0",
        "validation_error": error(model, data.validation),
        "images": arguments.images,
        "loss": loss,
        "gradient_norm": float(gradient.norm()),
        "weight_norm": float(objective.vector().norm()),
        **made(),
    }
    there: list[dict[str, Any]] = []
    if arguments.out is not None and arguments.out.exists():
        lines = map(json.loads, arguments.out.read_text(encoding="utf-8").splitlines())
        there = [line for line in lines if all(line[name] == point[name] for name in ("network", "images", "training"))]
    for gamma in arguments.gammas:
        for method in arguments.methods:
            rivals = {line["method"]: line for line in there if line["gamma"] == gamma}
            if method in rivals:
                continue
            found = measure(objective, gamma, method, arguments)
            z = {
                other: (found["value"] - line["value"]) / math.hypot(found["standard_error"], line["standard_error"])
                for other, line in rivals.items()
            }
            there.append(found | {"z": z} | point)
            print(json.dumps(found | {"z": z}), flush=True)
            if arguments.out is not None:
                append(arguments.out, there[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = parser.add_subparsers(dest="mode", required=True).add_parser("mnist")
    real.add_argument("--network", choices=list(NETWORKS), default="mnistfc")
    real.add_argument("--images", type=int, default=200)
    real.add_argument("--epochs", type=int, default=4)
    real.add_argument(
        "--gammas", type=lambda text: [float(part) for part in text.split(",")], default="2000,400,100,20"
    )
    real.add_argument("--methods", type=lambda text: text.split(","), default="annealed,thermodynamic")
    real.add_argument("--tolerance", type=float, default=0.02)
    real.add_argument("--data-dir", type=Path)
    real.add_argument("--out", type=Path)
    mnist(parser.parse_args())


if __name__ == "__main__":
    main()
