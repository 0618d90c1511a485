"""Does γ(x − μ), after a cycle of Entropy-SGD, point along −∇F(x, γ) = γ(x − ⟨x′⟩)? Both on one small network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR

from widevalley import EntropySGD, presets
from widevalley.experiments.batches import Draws
from widevalley.experiments.data import mnist
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.subsets import balanced
from widevalley.landscape import Objective, local_entropy_gradient, top_eigenpairs

Told = Callable[[str, float], None]

# Few parameters and β = N: the reference's error is √(nγ/(N · draws)), which is to be small beside its length.
IMAGES, POOL, HIDDEN, BATCH = 1000, 4, 10, 100
# Training: Nesterov 0.9, the rate falling from 0.1 to 0; two epochs and 300.
STEPS = {"early": 20, "end": 3000}
RATE = 0.1
# At γ = 10, η′(γ + λ_max) reaches 2 at the end of training, where plain inner steps diverge.
GAMMAS = (1.0, 0.1)
LENGTHS = (5, 20, 100, 500, 2000)
# At the end −∇F is a tenth as long.
DRAWS = {"early": 4000, "end": 32000}
REPEATS = 5
# The authors' weight of the newest sample.
ALPHA = 0.25


@dataclass(frozen=True)
class Cycle:
    """Settings of the inner loop; α = 0.25 in all."""

    name: str
    description: str
    settings: dict[str, Any]


def cycles(samples: int) -> list[Cycle]:
    authors = {key: presets.authors[key] for key in ("momentum", "nesterov", "decoupled_pull", "temperature")}
    return [
        Cycle("langevin", "plain inner steps, T = 1/N: the chain of −F at β = N", {"temperature": 1 / samples}),
        Cycle("descent", "plain inner steps, T = 0", {"temperature": 0.0}),
        Cycle("authors", "the authors' inner loop: Nesterov 0.9, T = 1e-8", authors),
    ]


def local_gradient(folder: Path | None, told: Told) -> Record:
    """Cosine and ratio of lengths of γ(x − μ) and −∇F at β = N, and of γ(x − μ) and ∇f, at two points of training.

    The network is 49-10-10 on 1,000 class-balanced training images of MNIST, pooled to 7 × 7, in float64; the
    reference, ``local_entropy_gradient`` with 4,000 draws early and 32,000 at the end. x − μ is the optimizer's own
    after L inner steps from x, at η′ = 0.1, with gradients of all images or of 100 drawn with replacement; beside its
    μ, of which the newest sample has 0.25, stands the uniform average of the x′.

    Args:
        folder: of the data, as for ``data.mnist``.
        told: is told what is going on and the fraction done.

    Returns:
        ``points``: for each the loss, ‖∇f‖, λ_max and ``scopes``. A scope has γ, the radius √⟨‖x′ − x‖²⟩/‖x‖; the
        reference's length less what its error adds, its ``standard_error`` as a length, ``attainable_cosine``, which an
        estimate without any error would have, its cosine with ∇f; ``estimates``: for each cycle, ``gradients`` ("all",
        "minibatch"), ``average`` ("authors", "uniform") and L, ``cosine``, ``ratio`` (None where the reference is all
        error) and ``cosine_to_gradient`` with their standard deviations over ``repeats``, and ``cosine_of_mean``, that
        of the repeats' mean.

    Raises:
        DataError: a file is missing or damaged.
    """
    told("training", 0.0)
    inputs, targets = subset(folder)
    model, points = trained(inputs, targets)
    objective = Objective(model, data=[(inputs, targets)])
    total, done, record = len(points) * len(GAMMAS), 0, []
    for name, x in points.items():
        with objective.at(x):
            value, gradient = objective.value_and_gradient()
            largest = float(top_eigenpairs(objective, 1).values.max())
            scopes = []
            for gamma in GAMMAS:
                told(f"{name}, γ = {gamma:g}", done / total)
                scopes.append(_scope(objective, gamma, gradient, DRAWS[name]))
                done += 1
        record.append(
            {
                "name": name, "steps": STEPS[name], "loss": value, "gradient_norm": float(gradient.norm()),
                "norm": float(x.norm()), "largest_curvature": largest, "scopes": scopes,
            }
        )  # fmt: skip
    told("done", 1.0)
    return dict(
        rounded(
            {
                "parameters": objective.n, "images": objective.samples, "lr": RATE, "batch_size": BATCH,
                "alpha": ALPHA,
                "cycles": [{"name": each.name, "description": each.description} for each in cycles(objective.samples)],
                "points": record,
            }
        )
    )  # fmt: skip


def subset(folder: Path | None) -> tuple[Tensor, Tensor]:
    """Images (1000, 49) and classes."""
    images = balanced(mnist(folder).train, IMAGES, 0)
    return avg_pool2d(images.inputs, POOL).flatten(1).double(), images.targets


def trained(inputs: Tensor, targets: Tensor) -> tuple[nn.Module, dict[str, Tensor]]:
    """A network, and its parameters as vectors where training had taken ``STEPS``; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10)).double()
    optimizer = SGD(model.parameters(), RATE, momentum=0.9, nesterov=True)
    last = max(STEPS.values())
    schedule = LinearLR(optimizer, 1.0, 0.0, total_iters=last)
    batches = Draws(len(targets), BATCH, 0)
    points: dict[str, Tensor] = {}
    for step in range(1, last + 1):
        _gradient(model, inputs, targets, batches.next())
        optimizer.step()
        schedule.step()
        points |= {
            name: nn.utils.parameters_to_vector(model.parameters()).detach() for name, at in STEPS.items() if at == step
        }
    return model, points


def _gradient(model: nn.Module, inputs: Tensor, targets: Tensor, indices: Tensor | slice) -> None:
    model.zero_grad()
    cross_entropy(model(inputs[indices]), targets[indices]).backward()


def _scope(objective: Objective, gamma: float, gradient: Tensor, draws: int) -> Record:
    beta = float(objective.samples)
    found = local_entropy_gradient(objective, gamma, beta, draws=draws)
    reference, error = -found.vector, float(found.standard_error.norm())
    # E‖v‖² is ‖−∇F‖² and the squared error.
    length = math.sqrt(max(float(reference.norm()) ** 2 - error**2, 0.0))
    estimates = [
        row
        for cycle in cycles(objective.samples)
        for minibatch in (False, True)
        for row in _estimates(objective, cycle, gamma, minibatch, reference, length, gradient)
    ]
    return {
        "gamma": gamma,
        "relative_radius": found.diagnostics["rms_radius"] / float(objective.vector().norm()),
        "reference": {
            "length": length,
            "standard_error": error,
            "attainable_cosine": length / float(reference.norm()),
            "cosine_to_gradient": cosine(reference, gradient),
            "draws": draws,
            "r_hat": found.diagnostics["r_hat"],
            "effective_sample_size": found.diagnostics["effective_sample_size"],
        },
        "estimates": estimates,
    }


def _estimates(
    objective: Objective, cycle: Cycle, gamma: float, minibatch: bool, reference: Tensor, length: float, f: Tensor
) -> list[Record]:
    noisy = minibatch or cycle.settings["temperature"] > 0
    (inputs, targets), size = next(objective.batches())
    runs = []
    for seed in range(REPEATS if noisy else 1):
        batches = Draws(size, BATCH, seed)

        def backward(batches: Draws = batches) -> None:
            _gradient(objective.model, inputs, targets, batches.next() if minibatch else slice(None))

        with objective.at(objective.vector()):
            runs.append(displacements(objective, backward, gamma, LENGTHS, seed=seed, **cycle.settings))
    rows = []
    for place, steps in enumerate(LENGTHS):
        for average in ("authors", "uniform"):
            vectors = [gamma * run[place][average] for run in runs]
            rows.append(
                {
                    "cycle": cycle.name,
                    "gradients": "minibatch" if minibatch else "all",
                    "average": average,
                    "inner_steps": steps,
                    "repeats": len(runs),
                    "cosine": _spread([cosine(v, reference) for v in vectors]),
                    "ratio": _spread([float(v.norm()) / length for v in vectors]) if length else None,
                    "cosine_to_gradient": _spread([cosine(v, f) for v in vectors]),
                    "cosine_of_mean": cosine(torch.stack(vectors).mean(0), reference),
                }
            )
    return rows


def displacements(
    objective: Objective, backward: Callable[[], None], gamma: float, lengths: Sequence[int], **settings: Any
) -> list[dict[str, Tensor]]:
    """x − μ after each of these numbers of inner steps of one cycle of ``EntropySGD``, ascending; moves the parameters.

    ``backward`` leaves a gradient at the present x′. Each is a dictionary: "authors", the optimizer's own μ, of which
    the newest x′ has 0.25; "uniform", the mean of all x′. Shapes (n,).
    """
    # One step more than are taken: the cycle stays open.
    optimizer = EntropySGD(
        objective.parameters, RATE, gamma=gamma, inner_steps=lengths[-1] + 1, alpha=ALPHA, **settings
    )
    x = objective.vector()
    total, found = torch.zeros_like(x), []
    for step in range(1, lengths[-1] + 1):
        backward()
        optimizer.step()
        total += objective.vector() - x
        if step in lengths:
            average = objective.flat(optimizer.state[p]["average"] for p in objective.parameters)
            found.append({"authors": x - average, "uniform": -total / step})
    return found


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


def _spread(values: list[float]) -> list[float]:
    """Mean and standard deviation."""
    each = torch.tensor(values, dtype=torch.float64)
    return [float(each.mean()), float(each.std()) if len(values) > 1 else 0.0]
