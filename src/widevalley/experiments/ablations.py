"""What of Entropy-SGD is it that works? Variants on mnistfc at equal gradients, each with a rate of its own.

The base is the authors' settings without noise, on their network (batch-norm, dropout 0.15): L = 20, μ taken over, α =
0.25, γ = 1e-4 growing, the inner momentum begun anew each cycle. As in their runs the outer rate falls to a tenth after
a third of the run; in the variants of SGD it is the rate that falls, or none. Each variant has three learning rates to
be chosen from on a validation split. Where the gradient is constant, the weights move by 5.2 rates a gradient in the
base, 1.7 with L = 5, 0.48 with L = 1, 10 with SGD and 2 with K = 5: rates are such that all have about the same steps
to choose from.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel

from widevalley import PerturbedSGD
from widevalley.experiments import averages, networks
from widevalley.experiments.averages import Average
from widevalley.experiments.batches import Batches, Draws, Repeated
from widevalley.experiments.methods import METHODS, Method, Parameters, cosine
from widevalley.experiments.paper import EPOCH, Candidate, Curve, authors, method, mnist_task
from widevalley.experiments.tasks import Task
from widevalley.scoping import Constant, Steps

EPOCHS = 20
SEEDS = (0, 1, 2)
FALL_AFTER, FALL_TO = 1 / 3, 0.1
RATES = (0.01, 0.03, 0.1)


def _fall(optimizer: Optimizer, steps: int) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: 1.0 if step < FALL_AFTER * steps else FALL_TO)


def _eta(cycle: int) -> Steps:
    """The same fall of the outer rate, in outer updates of so many gradients each."""
    return Steps((1.0, FALL_TO), (math.ceil(FALL_AFTER * EPOCHS * EPOCH / cycle),))


def _task(name: str = "", counts: tuple[int, ...] = ()) -> Task:
    def batches(size: int, batch_size: int, seed: int) -> Batches:
        return Repeated(Draws(size, batch_size, seed), counts)

    network: Callable[[], nn.Module] = functools.partial(networks.mnist_fc, dropout=0.15)
    return mnist_task(f"mnistfc{name}", network, batches if counts else Draws)


def _tail(model: nn.Module, steps: int) -> Average:
    """Equal weights over the second half, a sample every 20 steps, as often as the base takes over its average."""
    return Average(AveragedModel(model), math.ceil(steps / 2), 20)


def _curve(
    name: str, description: str, made: Callable[[str], Method], task: Task | None = None, factor: float = 1.0
) -> Curve:
    """``factor``: of the rates, where a variant's step a gradient is so much smaller, or larger."""
    own = made(name)
    candidates = tuple(Candidate(own, factor * rate) for rate in RATES)
    return Curve(name, description, task or _task(), candidates, EPOCHS, SEEDS)


def _variant(name: str, description: str, task: Task | None = None, factor: float = 1.0, **changes: Any) -> Curve:
    cycle = changes.get("inner_steps", 20) + (changes.get("rho", 0.0) > 0)
    changes = {"outer_lr": _eta(cycle), "temperature": 0.0, **changes}
    return _curve(name, description, lambda name: authors(name, **changes), task, factor)


def _scheduled(name: str, description: str, outer_lr: Steps | Constant) -> Curve:
    """With a falling inner rate."""

    def made(name: str) -> Method:
        own = authors(name, outer_lr, temperature=0.0)
        return method(name, own.description, own.build, _fall)

    return _curve(name, description, made)


def _sgd(name: str, description: str, schedule: Any, average: Any = None) -> Curve:
    plain = METHODS["sgd"]

    def made(name: str) -> Method:
        return method(
            name, "SGD, Nesterov momentum 0.9", plain.build, schedule, average=average, at_center=plain.at_center
        )

    return _curve(name, description, made, factor=0.5)


def _perturbed(name: str) -> Method:
    def build(params: Parameters, lr: float, seed: int, steps: int) -> Optimizer:
        return PerturbedSGD(params, lr, momentum=0.9, nesterov=True, seed=seed)

    return method(
        name, "PerturbedSGD, Nesterov momentum 0.9", build, _fall,
        gradients_per_step=5, takes_first=True, at_center=METHODS["sgd"].at_center,
    )  # fmt: skip


ABLATIONS = (
    _variant("base", "the authors' settings, T = 0"),
    _variant("noise", "with noise, T = 1e-8", temperature=1e-8),
    _variant("no-scope", "γ = 0", gamma=0.0),
    _variant("wide-pull", "γ = 1", gamma=1.0),
    _variant("L5", "L = 5", factor=3, inner_steps=5),
    _variant("L1", "L = 1", factor=10, inner_steps=1),
    _variant("momentum-kept", "inner momentum kept over the cycle's end", restart=False),
    _variant("eta-constant", "η = 1 throughout", outer_lr=Constant(1.0)),
    _scheduled("inner-falls", "η′ falls in place of η", Constant(1.0)),
    _scheduled("both-fall", "η′ falls with η", _eta(20)),
    _variant("one-minibatch", "one minibatch for the L steps of a cycle", _task("-one-minibatch", (20,))),
    # A tenth of what the inner loop does at a rate of 0.03.
    _variant("rho", "ρ = 0.3, its gradient of another minibatch", rho=0.3),
    _variant("rho-same", "ρ = 0.3, one minibatch for both loops", _task("-both-loops", (21,)), rho=0.3),
    _variant("rho-last", "ρ = 0.3, its gradient of the last one inside", _task("-last-again", (*[1] * 19, 2)), rho=0.3),
    _curve("perturbed", "Section 6: K = 5, σ = 0.01, the rate falls", _perturbed, factor=2.5),
    _sgd("sgd-constant", "SGD, constant rate", None),
    _sgd("sgd-ema", "SGD, constant rate, exponential average", None, averages.ema),
    _sgd("sgd-tail", "SGD, constant rate, average over the second half", None, _tail),
    _sgd("sgd-falls", "SGD, the rate falls", _fall),
    _sgd("sgd-cosine", "SGD, cosine", cosine),
)
