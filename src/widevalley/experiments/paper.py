"""The training runs of the paper's Fig. 4, by name.

An epoch is 468 gradients of 128 images drawn with replacement from all 60,000; an epoch of the paper's, 468 outer
updates. Where the text and the authors' runs differ, both are here:

- ``authors``: their final settings, ``presets.authors``: μ taken over, η falling from 1 to 0.1, γ growing, L = 20;
- ``text``: the text's settings but for its noise, which is T = 1e-8 as in the authors' runs. "SGD with Nesterov's
  momentum and Adam for outer and inner loops" (Sec. 4.3) leaves open which; the best of three readings runs;
- ``text-sgld-large``: one of them with the inner rate of the authors' later runs, 0.1 throughout;
- ``printed``: each of the four with the noise as printed, 2√η′ N(0, I): T = 2;
- ``adam``: what both are compared with, with the text's dropout of 0.5;
- ``adam-dropout``: the same with the smaller dropout of the authors' final Entropy-SGD.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, presets
from widevalley.experiments import data as datasets
from widevalley.experiments import networks
from widevalley.experiments.batches import Batches, Draws
from widevalley.experiments.methods import METHODS, Method, Parameters
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Unit
from widevalley.scoping import Steps

TRAINING, CHOOSING, BATCH = 60_000, 54_000, 128
EPOCH = TRAINING // BATCH
AUTHORS_RATE, ADAMS_RATE = 0.1, 0.001
# Looks at the test set in a long run: more would take more than a tenth of its time.
LOOKS = 50
# Seed and epochs of gradients of the runs by which a candidate is chosen.
CHOOSING_SEED, CHOOSING_EPOCHS = 1000, 20


@dataclass(frozen=True)
class Candidate:
    method: Method
    lr: float


@dataclass(frozen=True)
class Curve:
    """Runs of one setting over several seeds, watched on the test set, which chooses nothing.

    Of several candidates the one with the lowest validation error runs, each trained on 54,000 images for it.
    """

    name: str
    description: str
    task: Task
    candidates: tuple[Candidate, ...]
    epochs: int  # of gradients
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)  # the authors ran five

    @property
    def choosing_task(self) -> Task:
        return Task(
            self.task.name, self.task.description, datasets.mnist, self.task.network, BATCH, CHOOSING_EPOCHS,
            batches=self.task.batches,
        )  # fmt: skip

    def choosing(self) -> list[Unit]:
        """A run of each candidate on ``choosing_task``; none where there is no choice."""
        several = self.candidates if len(self.candidates) > 1 else ()
        gradients = CHOOSING_EPOCHS * (CHOOSING // BATCH)
        return [Unit("tune", each.method, each.lr, CHOOSING_SEED, gradients) for each in several]

    def units(self, chosen: Candidate) -> list[Unit]:
        looks = min(self.epochs, LOOKS)
        return [Unit("curve", chosen.method, chosen.lr, seed, self.epochs * EPOCH, looks) for seed in self.seeds]


def mnist_task(
    name: str, network: Callable[[], nn.Module], batches: Callable[[int, int, int], Batches] = Draws
) -> Task:
    """On all of MNIST, drawn with replacement; ``name`` tells what network and batches are."""
    return Task(name, f"MNIST, {name}", datasets.whole_mnist, network, BATCH, CHOOSING_EPOCHS, batches=batches)


def method(
    name: str,
    description: str,
    build: Callable[..., Optimizer],
    schedule: Callable[[Optimizer, int], LRScheduler] | None = None,
    **fields: Any,
) -> Method:
    """One whose rates are not tuned by ``compare``; evaluated at the centre where there is one."""
    nested = METHODS["entropy-sgd"].at_center
    return Method(name, description, build, (), schedule=schedule, **{"at_center": nested, **fields})


def entropy_sgd(params: Parameters, lr: float, seed: int, steps: int, **settings: Any) -> Optimizer:
    return EntropySGD(params, lr, seed=seed, **settings)


def authors(name: str, outer_lr: Callable[[int], float], **changes: Any) -> Method:
    """The authors' final settings, but for changes."""
    settings: dict[str, Any] = {**presets.authors, "outer_lr": outer_lr, **changes}
    del settings["lr"]
    return method(name, "Entropy-SGD by the authors' settings", functools.partial(entropy_sgd, **settings))


def adam(name: str) -> Method:
    """Adam, its rate divided by 5 every 30 epochs (Sec. 5.2)."""

    def schedule(optimizer: Optimizer, steps: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: 0.2 ** (step // (30 * EPOCH)))

    plain = METHODS["adam"]
    return method(name, "Adam, rate divided by 5 every 30 epochs", plain.build, schedule, at_center=plain.at_center)


def readings(name: str, **settings: Any) -> tuple[Candidate, ...]:
    """What the text's settings may mean, and last what they do not: the inner rate of the authors' later runs.

    Nesterov momentum in both loops; Adam in both; Adam outside and plain SGLD inside, as the authors ran it at the
    time. η falls as Adam's rate does, counted in the paper's epochs, and η′ = 0.1 η with it, but for the last; the
    momenta of the inner loop begin anew (line 1), c = γ (line 9).
    """
    common = {**settings, "alpha": 0.9, "pull": None, "restart": True}
    cycle = settings["inner_steps"] + (settings["rho"] > 0)

    def eta(first: float) -> Steps:
        return Steps(tuple(first * 0.2**k for k in range(4)), tuple(30 * k * EPOCH for k in range(1, 4)))

    def falls(optimizer: Optimizer, steps: int) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: 0.2 ** (step // (30 * EPOCH * cycle)))

    def nesterov(params: Parameters, lr: float, seed: int, steps: int) -> Optimizer:
        return EntropySGD(
            params, lr, momentum=0.9, nesterov=True, outer_lr=eta(10 * lr), outer_momentum=0.9, seed=seed, **common
        )

    def both_adam(params: Parameters, lr: float, seed: int, steps: int) -> Optimizer:
        return EntropyAdam(params, lr, outer_betas=(0.9, 0.999), outer_lr=eta(10 * lr), seed=seed, **common)

    def sgld(params: Parameters, lr: float, seed: int, steps: int) -> Optimizer:
        inner = SGD(params, lr, fused=True)
        return NestedOptimizer(inner, lambda groups: Adam(groups, fused=True), outer_lr=eta(0.001), seed=seed, **common)

    return (
        Candidate(method(f"{name}-nesterov", "Nesterov's momentum in both loops", nesterov, falls), 0.01),
        Candidate(method(f"{name}-adam", "Adam in both loops", both_adam, falls), 0.0001),
        Candidate(method(f"{name}-sgld", "Adam outside, SGLD inside", sgld, falls), 0.0001),
        Candidate(method(f"{name}-sgld-large", "Adam outside, SGLD inside at the authors' later rate", sgld), 0.1),
    )


@dataclass(frozen=True)
class Setting:
    """One of the two networks of Fig. 4, as the authors' runs have it and as the text has it."""

    name: str
    own: Callable[[], nn.Module]
    text: Callable[[], nn.Module]
    of_adam: Callable[[], nn.Module]
    scope: dict[str, Any]  # γ, L and ρ of the text
    authors_epochs: int
    text_epochs: int
    text_seeds: tuple[int, ...]


def _curves(of: Setting) -> tuple[Curve, ...]:
    name = of.name
    eta = Steps((1.0, 0.1), (2 * EPOCH,))
    text = mnist_task(f"{name}-text", of.text)
    *by_the_text, large = readings(f"{name}-text", temperature=1e-8, **of.scope)
    final = mnist_task(f"{name}-authors", of.own)
    return (
        Curve(
            f"{name}-authors",
            "Entropy-SGD, the authors' final settings",
            final,
            (Candidate(authors(f"{name}-authors", eta), AUTHORS_RATE),),
            of.authors_epochs,
        ),
        Curve(
            f"{name}-adam",
            "Adam",
            mnist_task(f"{name}-adam", of.of_adam),
            (Candidate(adam(f"{name}-adam"), ADAMS_RATE),),
            100,
        ),
        Curve(
            f"{name}-adam-dropout",
            "Adam, with Entropy-SGD's dropout",
            final,
            (Candidate(adam(f"{name}-adam-dropout"), ADAMS_RATE),),
            100,
            (0, 1, 2),
        ),
        Curve(
            f"{name}-text",
            "Entropy-SGD, the text's settings, T = 1e-8",
            text,
            tuple(by_the_text),
            of.text_epochs,
            of.text_seeds,
        ),
        Curve(
            large.method.name,
            "The same with the authors' later inner rate, 0.1",
            text,
            (large,),
            of.text_epochs,
            (0,),
        ),
        *(
            Curve(each.method.name, f"The text as printed, T = 2: {each.method.description}", text, (each,), 10, (0,))
            for each in readings(f"{name}-printed", temperature=2.0, **of.scope)
        ),
    )


FIG4A = _curves(
    Setting(
        "mnistfc",
        own=functools.partial(networks.mnist_fc, dropout=0.15),
        # The version of the time, without batch-norm.
        text=functools.partial(networks.mnist_fc, dropout=0.5, batchnorm=False),
        of_adam=functools.partial(networks.mnist_fc, dropout=0.5),
        scope={"gamma": 1.0, "inner_steps": 5, "rho": 0.0},
        authors_epochs=120,
        # 25 of the paper's, which tells its best of epoch 22.
        text_epochs=125,
        text_seeds=(0, 1, 2),
    )
)
FIG4B = _curves(
    Setting(
        "lenet",
        own=functools.partial(networks.lenet, dropout=0.25),
        text=functools.partial(networks.lenet, dropout=0.5),
        of_adam=functools.partial(networks.lenet, dropout=0.5),
        scope={"gamma": 0.1, "inner_steps": 20, "rho": 1e-4},
        authors_epochs=100,
        # 40 of the paper's.
        text_epochs=840,
        text_seeds=(0,),
    )
)
