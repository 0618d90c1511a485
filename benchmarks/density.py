"""Density of the eigenvalues of a convolutional network of 1.4 million parameters on MNIST, against other estimates.

    python benchmarks/density.py mnist [--images 250] [--epochs 2] [--probes 4] [--steps 100] [--products 120]
                                       [--vectors 40] [--out …]

Trains the network, and writes one JSON object: nodes and weights of each probe, what it cost, and whether the density's
first two moments are those that other random vectors z give, tr H = E zᵀHz and tr H² = E ‖Hz‖², by one exact test.
Beside it, the first against Hutch++.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import permutation_test, t
from telling import append, made, progress
from torch import nn
from trained import RECIPE, error, trained

from widevalley.experiments import data as datasets
from widevalley.experiments.subsets import balanced
from widevalley.landscape import Estimate, Objective, hessian_vector_product, spectral_density, trace

SEEDS = {"density": 0, "trace": 1, "other vectors": 2}
# The probes' nodes tell no smaller eigenvalues from 0 in this network.
NEAR = 0.1


def network() -> nn.Module:
    """LeNet's shape, wider, without batch-norm: 1,397,606 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 1300),
        nn.ReLU(),
        nn.Linear(1300, 10),
    )


def forms(objective: Objective, count: int, seed: int) -> NDArray[np.float64]:
    """zᵀHz and zᵀH²z = ‖Hz‖² of random z, uniform on the sphere of radius √n, shape (count, 2).

    Of a law with the means tr H and tr H², that of the density's probes.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        z = torch.randn(objective.n, generator=generator, dtype=torch.float64)
        z *= math.sqrt(objective.n) / z.norm()
        product = hessian_vector_product(objective, z.to(objective.dtype)).double()
        rows.append([float(z @ product), float(product.square().sum())])
    return np.array(rows)


def compare(probes: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, object]:
    """One test that the probes (p, 2) and the other vectors (q, 2) have the same law, by their means.

    Hotelling's T² of all ways to call p of the p + q vectors the probes: exact for any law. Student's and the F
    distribution are not, as values of four vectors are skewed: with Yao's degrees of freedom the latter rejected at
    p < 0.05 in 58 of 600 simulations of a spectrum like a network's.
    """
    rows = np.concatenate([probes, others])
    whitened = (rows - rows.mean(0)) @ np.linalg.cholesky(np.linalg.inv(np.cov(rows.T)))

    def distance(chosen: NDArray[np.float64], rest: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        # Given the covariance of all, T² rises with the distance of the mean of the few from that of all.
        squares: NDArray[np.float64] = whitened[chosen.astype(int)].mean(axis - 1) ** 2
        total: NDArray[np.float64] = squares.sum(-1)
        return total

    order = np.arange(len(rows))
    ways = math.comb(len(rows), len(probes))
    found = permutation_test(
        (order[: len(probes)], order[len(probes) :]),
        distance,
        vectorized=True,
        n_resamples=ways,
        batch=10_000,
        alternative="greater",
    )
    means = {"density": probes.mean(0), "other vectors": others.mean(0)}
    errors = {"density": probes.std(0, ddof=1) / math.sqrt(len(probes))}
    errors["other vectors"] = others.std(0, ddof=1) / math.sqrt(len(others))
    return {
        "moments": {name: value.tolist() for name, value in means.items()},
        "standard_errors": {name: value.tolist() for name, value in errors.items()},
        "ways": ways,
        "squared_distance": float(found.statistic),
        "p": float(found.pvalue),
    }


def against_trace(probes: NDArray[np.float64], whole: Estimate, freedom: int) -> dict[str, float]:
    """Welch's t test of the probes' zᵀHz against Hutch++, whose error has so many degrees of freedom."""
    assert whole.standard_error is not None
    own, other = probes.var(ddof=1) / len(probes), whole.standard_error**2
    freedoms = (own + other) ** 2 / (own**2 / (len(probes) - 1) + other**2 / freedom)
    value = (probes.mean() - whole.value) / math.sqrt(own + other)
    return {
        "value": whole.value,
        "standard_error": whole.standard_error,
        "t": float(value),
        "degrees_of_freedom": float(freedoms),
        "p": float(2 * t.sf(abs(value), freedoms)),
    }


def mnist(arguments: argparse.Namespace) -> None:
    data = datasets.mnist(arguments.data_dir)
    start = time.perf_counter()
    model = trained(network, data.train, arguments.epochs)
    training = time.perf_counter() - start
    images = balanced(data.train, arguments.images, seed=0)
    objective = Objective(model, data=[(images.inputs, images.targets)])
    loss, gradient = objective.value_and_gradient()

    seconds = {"training": training}
    start = time.perf_counter()
    density = spectral_density(
        objective, probes=arguments.probes, steps=arguments.steps, seed=SEEDS["density"], progress=progress
    )
    seconds["density"] = time.perf_counter() - start
    start = time.perf_counter()
    whole = trace(objective, products=arguments.products, seed=SEEDS["trace"], progress=progress)
    seconds["trace"] = time.perf_counter() - start
    start = time.perf_counter()
    others = forms(objective, arguments.vectors, SEEDS["other vectors"])
    seconds["other vectors"] = time.perf_counter() - start
    print(file=sys.stderr)
    probes = objective.n * torch.stack([(density.nodes**k * density.weights).sum(1) for k in (1, 2)], 1).numpy()
    near = density.share(-NEAR, NEAR)
    record = {
        "network": "1-32-64 convolutions of 5×5, 1024-1300-10",
        "parameters": objective.n,
        "training": f"{RECIPE}, {arguments.epochs} epochs, seed 0",
        "validation_error": error(model, data.validation),
        "images": arguments.images,
        "loss": loss,
        "gradient_norm": float(gradient.norm()),
        "weight_norm": float(objective.vector().norm()),
        "probes": arguments.probes,
        "steps": arguments.steps,
        "seeds": SEEDS,
        "products": {
            "density": density.diagnostics["products"],
            "trace": arguments.products,
            "other vectors": len(others),
        },
        "seconds": seconds,
        "standard_error": density.standard_error,
        "near_zero": {"within": NEAR, "share": near.value, "standard_error": near.standard_error, **near.diagnostics},
        "forms": {"density": probes.tolist(), "other vectors": others.tolist()},
        "test": compare(probes, others),
        "trace": against_trace(probes[:, 0], whole, arguments.products - 2 * (arguments.products // 4) - 1),
        **made(),
    }
    print(json.dumps(record | {"ends": [density.nodes.min(1).values.tolist(), density.nodes.max(1).values.tolist()]}))
    if arguments.out is not None:
        rounded = {
            name: [[float(f"{value:.9g}") for value in row] for row in rows.tolist()]
            for name, rows in (("nodes", density.nodes), ("weights", density.weights))
        }
        append(arguments.out, record | rounded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = parser.add_subparsers(dest="mode", required=True).add_parser("mnist")
    real.add_argument("--images", type=int, default=250)
    real.add_argument("--epochs", type=int, default=2)
    real.add_argument("--probes", type=int, default=4)
    real.add_argument("--steps", type=int, default=100)
    real.add_argument("--products", type=int, default=120)
    real.add_argument("--vectors", type=int, default=40)
    real.add_argument("--data-dir", type=Path)
    real.add_argument("--out", type=Path)
    mnist(parser.parse_args())


if __name__ == "__main__":
    main()
