"""Curvature that a ReLU network has at any distance, and its Hessian does not: that of the kinks between.

    python benchmarks/kinks.py mnist [--images 200] [--gammas 2000000,…,20] [--pairs 24] [--out …]

For mnistfc as in entropy.py, the trace that the loss at a Gaussian's distance implies,
E [f(x + σz) + f(x − σz) − 2f(x)]/σ² with σ² = 1/(Nγ), which is tr H only where f is smooth over σ; and E zᵀHz of the
same z. In float64.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from functools import partial
from pathlib import Path

import torch
from telling import append, made
from trained import RECIPE, trained

from widevalley.experiments import data as datasets
from widevalley.experiments import networks
from widevalley.experiments.subsets import balanced
from widevalley.landscape import Objective, hessian_vector_product

SEED = 77
GAMMAS = "2000000,200000,20000,2000,400,100,20"


def mean(values: list[float]) -> dict[str, float]:
    return {"value": statistics.fmean(values), "standard_error": statistics.stdev(values) / math.sqrt(len(values))}


def mnist(arguments: argparse.Namespace) -> None:
    data = datasets.mnist(arguments.data_dir)
    model = trained(partial(networks.mnist_fc, batchnorm=False), data.train, arguments.epochs).double()
    images = balanced(data.train, arguments.images, seed=0)
    objective = Objective(model, data=[(images.inputs.double(), images.targets)])
    x, f = objective.vector(), objective.value()
    generator = torch.Generator().manual_seed(SEED)
    forms: list[float] = []
    implied: dict[float, list[float]] = {gamma: [] for gamma in arguments.gammas}
    for _ in range(arguments.pairs):
        z = torch.randn(objective.n, generator=generator, dtype=torch.float64)
        forms.append(float(z @ hessian_vector_product(objective, z)))
        for gamma, found in implied.items():
            sigma = 1 / math.sqrt(arguments.images * gamma)
            rise = -2 * f
            for moved in (x + sigma * z, x - sigma * z):
                with objective.at(moved):
                    rise += objective.value()
            found.append(rise / sigma**2)
    record = {
        "network": "mnistfc",
        "parameters": objective.n,
        "training": f"{RECIPE}, {arguments.epochs} epochs, seed 0",
        "images": arguments.images,
        "loss": f,
        "pairs": arguments.pairs,
        "seed": SEED,
        "trace_of_hessian": mean(forms),
        "implied_trace": {f"{gamma:g}": mean(found) for gamma, found in implied.items()},
        **made(),
    }
    print(json.dumps(record))
    if arguments.out is not None:
        append(arguments.out, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = parser.add_subparsers(dest="mode", required=True).add_parser("mnist")
    real.add_argument("--images", type=int, default=200)
    real.add_argument("--epochs", type=int, default=4)
    real.add_argument("--gammas", type=lambda text: [float(part) for part in text.split(",")], default=GAMMAS)
    real.add_argument("--pairs", type=int, default=24)
    real.add_argument("--data-dir", type=Path)
    real.add_argument("--out", type=Path)
    mnist(parser.parse_args())


if __name__ == "__main__":
    main()
