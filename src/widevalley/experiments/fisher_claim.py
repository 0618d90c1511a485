"""The paper's "Fisher information is exactly the Hessian", and Adam's moments for its diagonal (Sec. 5.1, Fig. 3c)."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam

from widevalley.experiments.batches import Draws
from widevalley.experiments.data import Data, whole_mnist
from widevalley.experiments.networks import small_mnist_fc
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.subsets import balanced
from widevalley.landscape import (
    Objective,
    fisher_diagonal,
    fisher_from_adam,
    gauss_newton_vector_product,
    hessian_vector_product,
    top_eigenpairs,
    trace,
)

Told = Callable[[str, float], None]

IMAGES, BATCH, EPOCHS, RATE = 4096, 128, 5, 1e-3
# Of the Hessian's diagonal, exact, each by a product; and random vectors for the difference of the whole matrices.
COORDINATES, PROBES, PRODUCTS = 1024, 32, 120
# Of the outermost eigenvalues, as a share of the largest.
TOLERANCE = 1e-3
# Rows of one call: what it holds at once grows with them.
ROWS = 32
# Fig. 3c's: of All-CNN-BN's diagonal 95 % lie below.
THRESHOLD = 1e-5


def small_mnist_fc_tanh() -> nn.Sequential:
    """784-64-10 with tanh in place of ReLU: parameters enter the logits with a curvature of their own."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 10))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"relu": small_mnist_fc, "tanh": small_mnist_fc_tanh}


def fisher_and_hessian(folder: Path | None, told: Told) -> Record:
    """Hessian, model Fisher, empirical Fisher and Adam's moments side by side, of 784-64-10 with ReLU and with tanh.

    Each network is trained on MNIST by Adam, 5 epochs at 1e-3, and measured on 4,096 class-balanced training images in
    float64. In a network that is piecewise linear in each single parameter the diagonal of the Hessian is that of the
    Gauss-Newton matrix, which is the model Fisher: ∂²ℓ/∂w² = (∂z/∂w)ᵀ ∇²ℓ ∂z/∂w + ∇ℓᵀ ∂²z/∂w², the last term 0 except
    on kinks. Off the diagonal it is not 0; with tanh not on it either.

    Args:
        folder: of the data, as for ``data.mnist``.
        told: is told what is going on and the fraction done.

    Returns:
        ``networks``: of each the loss and ‖∇f‖ on the images, ``test_error``; ``hessian``: ``coordinates``, at random
        places of the diagonal, exact, their ``sum``, how many are ``negative``, ``share_zero``, ``share_below`` 1e-5 in
        magnitude; ``trace`` of all of it by Hutch++ with its standard error; ``difference``, as
        ``difference_from_fisher`` has it, G the model's Fisher; the largest and the lowest eigenvalue, which of G is
        not negative, and the larger of their residuals. ``diagonals``: "model", "empirical", "adam" (E g² − (E g)² of
        minibatch means) and "adam_per_sample" (times the batch size), each with its ``trace`` and shares, and at the
        Hessian's places the ``ratio`` of sums, the ``median_ratio``, Pearson's ``correlation`` and Spearman's
        ``rank_correlation`` with it.

    Raises:
        DataError: a file is missing or damaged.
    """
    data = whole_mnist(folder)
    found: list[Record] = []
    for place, name in enumerate(NETWORKS):

        def tell(what: str, done: float, place: int = place, name: str = name) -> None:
            told(f"{name}: {what}", (place + done) / len(NETWORKS))

        found.append({"name": name, **_network(NETWORKS[name], data, tell)})
    told("done", 1.0)
    return dict(
        rounded({"images": IMAGES, "batch_size": BATCH, "epochs": EPOCHS, "threshold": THRESHOLD, "networks": found})
    )


def _network(build: Callable[[], nn.Module], data: Data, tell: Told) -> Record:
    model, optimizer = _trained(build, data, tell)
    wrong = model(data.test.inputs).argmax(1) != data.test.targets
    adam = fisher_from_adam(optimizer, BATCH)
    images = balanced(data.train, IMAGES, 0)
    model.double()
    objective = Objective(model, data=[(images.inputs.double(), images.targets)])
    value, gradient = objective.value_and_gradient()
    places = torch.randperm(objective.n, generator=torch.Generator().manual_seed(0))[:COORDINATES]
    curvature = hessian_diagonal(objective, places, lambda done: tell("the Hessian's diagonal", 0.3 + 0.2 * done))
    whole = trace(objective, products=PRODUCTS)
    tell("Hessian and Gauss-Newton matrix", 0.55)
    difference = difference_from_fisher(objective)
    ends = top_eigenpairs(objective, 1, tolerance=TOLERANCE)
    tell("the model's Fisher information", 0.6)
    diagonals = {
        "model": fisher_diagonal(objective, "model"),
        "empirical": fisher_diagonal(objective, "empirical"),
        "adam": adam.minibatch.double(),
        "adam_per_sample": adam.per_sample.double(),
    }
    return {
        "parameters": objective.n,
        "loss": value,
        "gradient_norm": float(gradient.norm()),
        "test_error": 100 * float(wrong.double().mean()),
        "hessian": {
            "coordinates": len(places),
            "sum": float(curvature.sum()),
            **_small(curvature),
            "trace": whole.value,
            "trace_error": whole.standard_error,
            "difference": difference,
            "largest_eigenvalue": float(ends.values[-1]),
            "lowest_eigenvalue": float(ends.values[0]),
            "residual": float(ends.residuals.max()),
        },
        "diagonals": {
            name: {"trace": float(d.sum()), **_small(d), **beside(d[places], curvature)}
            for name, d in diagonals.items()
        },
    }


def _trained(build: Callable[[], nn.Module], data: Data, tell: Told) -> tuple[nn.Module, Adam]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
    optimizer = Adam(model.parameters(), RATE)
    batches, steps = Draws(len(data.train), BATCH, 0), EPOCHS * (len(data.train) // BATCH)
    for step in range(steps):
        if step % 100 == 0:
            tell("training", 0.3 * step / steps)
        drawn = data.train.take(batches.next())
        optimizer.zero_grad()
        cross_entropy(model(drawn.inputs), drawn.targets).backward()
        optimizer.step()
    return model, optimizer


def hessian_diagonal(objective: Objective, places: Tensor, told: Callable[[float], None]) -> Tensor:
    """H_ii at these places i, shape (k,), each by a product with a unit vector."""
    found: list[Tensor] = []
    for some in places.split(ROWS):
        told(len(found) * ROWS / len(places))
        units = torch.zeros(len(some), objective.n, dtype=objective.dtype)
        units[torch.arange(len(some)), some] = 1
        found.append(hessian_vector_product(objective, units)[torch.arange(len(some)), some])
    return torch.cat(found)


def difference_from_fisher(objective: Objective) -> float:
    """√(Σ‖(H − G)z‖²/Σ‖Hz‖²) over random normal z, an estimate of ‖H − G‖/‖H‖ in the Frobenius norm."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(PROBES, objective.n, generator=generator, dtype=objective.dtype)
    h = torch.cat([hessian_vector_product(objective, rows) for rows in z.split(ROWS)])
    apart = h - gauss_newton_vector_product(objective, z)
    return math.sqrt(float(apart.square().sum()) / float(h.square().sum()))


def _small(diagonal: Tensor) -> Record:
    return {
        "negative": int((diagonal < 0).sum()),
        "share_zero": float((diagonal == 0).double().mean()),
        "share_below": float((diagonal.abs() < THRESHOLD).double().mean()),
    }


def beside(diagonal: Tensor, curvature: Tensor) -> Record:
    """How a diagonal compares with the Hessian's at the same places; the median ratio is over those not 0 there."""
    nonzero = curvature != 0
    return {
        "ratio": float(diagonal.sum() / curvature.sum()),
        "median_ratio": float((diagonal[nonzero] / curvature[nonzero]).median()),
        "correlation": float(torch.corrcoef(torch.stack([diagonal, curvature]))[0, 1]),
        "rank_correlation": float(spearmanr(diagonal.numpy(), curvature.numpy()).statistic),
    }
