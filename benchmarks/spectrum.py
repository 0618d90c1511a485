"""Time of each part of an exact spectrum, against looped products and scipy.linalg.eigh; and the real thing.

    python benchmarks/spectrum.py [--hidden 24] [--pixels 64] [--samples 1000] [--rounds 5]
    python benchmarks/spectrum.py mnist [--hidden 64] [--images 4096] [--dtype float32] [--folder …] [--out …]

The first, on random inputs: the Hessian by Gram matrices, by batched products and looped ones, and its eigenvalues by
the reduction to a band and by scipy.linalg.eigh, interleaved; medians with quartiles, and the ratios of each round.

The second trains 784-hidden-10 by SGD on MNIST (64: the paper's small-mnistfc, 50,890 parameters), takes its exact
Hessian on so many class-balanced training images, and writes one JSON object: every eigenvalue, their sum, the noise
floor, seconds of each part, peak memory, what tells a minimum from another place, and the twenty largest eigenvalues
and the trace on other images. With --epochs 0 it is the spectrum at initialisation. With --folder a killed run goes on
with the same arguments.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import scipy.linalg
import torch
from telling import append, progress
from torch import Tensor, nn
from trained import error, trained

from widevalley.experiments import data as datasets
from widevalley.experiments import environment
from widevalley.experiments.networks import small_mnist_fc
from widevalley.experiments.parts import outermost
from widevalley.experiments.subsets import balanced
from widevalley.landscape import Objective, exact_hessian, hessian_eigenvalues
from widevalley.landscape.band import reduce_to_band
from widevalley.landscape.cost import cost
from widevalley.landscape.rounding import in_float64


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def forming(objective: Objective, way: str) -> Callable[[], Tensor]:
    """The dense Hessian by one of the ways, whatever is fastest; the trial that chooses is no part of it."""
    exact = in_float64(objective)
    planned = cost(exact, objective.dtype)
    if way != "gram":
        most = 1 if way == "looped" else max(planned.chunks)
        planned = dataclasses.replace(planned, layer=None, way=way, chunks=(most,) * len(planned.chunks))

    def form() -> Tensor:
        with patch.multiple("widevalley.landscape.hessian", cost=lambda *_: planned, in_float64=lambda _: exact):
            return exact_hessian(objective).matrix

    return form


def parts(arguments: argparse.Namespace) -> None:
    pixels, hidden = arguments.pixels, arguments.hidden
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    batch = (torch.randn(arguments.samples, pixels), torch.randint(0, 10, (arguments.samples,)))
    objective = Objective(model, data=[batch])
    ways = {way: forming(objective, way) for way in ("looped", "batched", "gram")}
    matrix = ways["gram"]()
    print(
        f"torch {torch.__version__}, scipy {scipy.__version__}, {torch.get_num_threads()} threads, float32, "
        f"{pixels}-{hidden}-10, n = {objective.n:,}, {arguments.samples} samples, {arguments.rounds} rounds"
    )

    def lapack() -> None:
        # Fortran order without a copy: a symmetric matrix is its transpose.
        own = matrix.clone().numpy().T
        scipy.linalg.eigh(own, driver="evd", eigvals_only=True, overwrite_a=True, check_finite=False)

    taken: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for way, form in ways.items():
            taken.setdefault(f"Hessian, {way}", []).append(seconds(form))
        taken.setdefault("scipy.linalg.eigh", []).append(seconds(lapack))
        own = matrix.clone()
        start = time.perf_counter()
        form_of_band = reduce_to_band(own)
        middle = time.perf_counter()
        form_of_band.eigenvalues()
        taken.setdefault("reduction to a band", []).append(middle - start)
        taken.setdefault("eigenvalues of the band", []).append(time.perf_counter() - middle)
    taken["both"] = [a + b for a, b in zip(taken["reduction to a band"], taken["eigenvalues of the band"], strict=True)]
    rivals = dict.fromkeys(["Hessian, batched", "Hessian, gram"], "Hessian, looped") | {"both": "scipy.linalg.eigh"}
    print(f"{'':26}  seconds  (quartiles)      times faster than")
    for name, values in taken.items():
        low, median, high = statistics.quantiles(values, n=4)
        line = f"{name:26}  {median:7.3f}  ({low:.3f} to {high:.3f})"
        if name in rivals:
            low, median, high = statistics.quantiles(
                [theirs / own for theirs, own in zip(taken[rivals[name]], values, strict=True)], n=4
            )
            line += f"  {median:.2f} ({low:.2f} to {high:.2f}) {rivals[name]}"
        print(line)


def network(hidden: int) -> nn.Module:
    if hidden == 64:
        return small_mnist_fc()
    return nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def batched(model: nn.Module, images: datasets.Split, dtype: torch.dtype) -> Objective:
    inputs = images.inputs.to(dtype)
    return Objective(model, data=list(zip(inputs.split(1024), images.targets.split(1024), strict=True)))


def mnist(arguments: argparse.Namespace) -> None:
    data = datasets.mnist(arguments.data_dir)
    dtype = {"float32": torch.float32, "float64": torch.float64}[arguments.dtype]
    model = trained(lambda: network(arguments.hidden), data.train, arguments.epochs)
    wrong = error(model, data.validation)
    images = balanced(data.train, arguments.images, seed=0)
    others = {f"subset {seed}": balanced(data.train, arguments.images, seed) for seed in (1, 2)}
    others["training set"] = data.train
    # In float64 the same weights, so that the two spectra are of the same point.
    model = model.to(dtype)
    elsewhere = {name: outermost(batched(model, split, dtype), progress) for name, split in others.items()}
    objective = batched(model, images, dtype)
    value, gradient = objective.value_and_gradient()
    spectrum = hessian_eigenvalues(objective, folder=arguments.folder, progress=progress)
    print(file=sys.stderr)
    record = {
        "network": f"784-{arguments.hidden}-10",
        "parameters": objective.n,
        "dtype": arguments.dtype,
        "images": arguments.images,
        "epochs": arguments.epochs,
        "threads": torch.get_num_threads(),
        "seed": 0,
        "versions": environment.versions(),
        "machine": environment.machine(),
        "validation_error": wrong,
        "loss": value,
        "gradient_norm": float(gradient.norm()),
        "weight_norm": float(objective.vector().norm()),
        "rank_bound_gauss_newton": arguments.images * 9,
        "structural_zeros": spectrum.structural_zeros,
        "asymmetry": spectrum.asymmetry,
        "noise_floor": spectrum.noise_floor,
        "trace": float(spectrum.eigenvalues.sum()),
        "elsewhere": elsewhere,
        "seconds": dict(spectrum.seconds),
        # In KiB on Linux, in bytes on macOS.
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "eigenvalues": [float(f"{value:.9g}") for value in spectrum.eigenvalues.tolist()],
    }
    shown = {name: value for name, value in record.items() if name not in ("eigenvalues", "elsewhere")}
    print(json.dumps(shown | {"top": spectrum.eigenvalues[-5:].tolist(), "bottom": spectrum.eigenvalues[:5].tolist()}))
    if arguments.out is not None:
        append(arguments.out, record)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=24)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    real = parser.add_subparsers(dest="mode").add_parser("mnist")
    real.add_argument("--hidden", type=int, default=64)
    real.add_argument("--images", type=int, default=4096)
    real.add_argument("--epochs", type=int, default=20)
    real.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    real.add_argument("--data-dir", type=Path)
    real.add_argument("--folder", type=Path)
    real.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    mnist(arguments) if arguments.mode == "mnist" else parts(arguments)


if __name__ == "__main__":
    main()
