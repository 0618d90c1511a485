"""One training run, from a seed to its records; stopped or killed at any step, it goes on to the same records."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from widevalley.experiments import learner, memory
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.data import Data, Split
from widevalley.experiments.evaluation import Evaluator, score, subset
from widevalley.experiments.learner import Diverged
from widevalley.experiments.methods import Method
from widevalley.experiments.perturbation import rise_of_loss
from widevalley.experiments.records import Record
from widevalley.experiments.tasks import Task, TaskError
from widevalley.optim.chain import Chain

EVALUATIONS = 20
# Training images whose mean loss is taken at every perturbed network.
RISE_IMAGES = 2_000


@dataclass(frozen=True)
class Unit:
    """One run of one method, and, with the task, all that decides its outcome."""

    # "tune", "final", "train" or "curve". A final run reads the test split once, at its end; a curve at every
    # evaluation, in place of the validation split: nothing may be chosen by it.
    phase: str
    method: Method
    lr: float
    seed: int
    gradients: int
    evaluations: int | None = None  # EVALUATIONS by default, beside the one before the first step

    @property
    def name(self) -> str:
        return f"{self.phase}-{self.method.name}-lr{self.lr:g}-seed{self.seed}"

    @property
    def steps(self) -> int:
        return max(1, self.gradients // self.method.gradients_per_step)


class Stopped(Exception):
    """A run was asked to stop, and its state has been saved."""


class Watcher(Protocol):
    """What a run tells while it goes on, and asks after every step."""

    def gradient(self, done: int) -> None: ...
    def records(self, records: list[Record], network: nn.Module) -> None:
        """All records so far, after each evaluation, and the network that was evaluated."""

    def saved(self, network: Callable[[], nn.Module]) -> None:
        """A checkpoint has been written, and this gives the network to it."""

    def stop(self) -> bool:
        """Whether the run is to save its state and to raise Stopped."""


def evaluation_steps(unit: Unit) -> list[int]:
    """After which steps it is evaluated: at the same gradient counts for every method, the first at 0.

    Where a step costs two gradients, at the last step before such a count; the last evaluation is at the end.
    """
    number = unit.evaluations or EVALUATIONS
    counts = (round(unit.gradients * k / number) for k in range(number))
    return sorted({*(count // unit.method.gradients_per_step for count in counts), unit.steps})


class Training:
    """A learner, the order of its data, its records so far, and the clock.

    Initialisation and dropout draw from torch's global random state, which is set to the unit's seed on construction:
    build and use it inside ``torch.random.fork_rng``. The order of the data has a generator of its own.
    """

    def __init__(self, unit: Unit, task: Task, data: Data, device: str = "cpu") -> None:
        self.unit, self.data, self.device = unit, data, torch.device(device)
        self.learner = learner.build(unit.method, task.network, unit.lr, unit.seed, unit.steps, device)
        self.learner.model.train()
        self.batches = task.batches(len(data.train), task.batch_size, unit.seed)
        self.chain = Chain(self.learner.optimizer)
        self.evaluate = Evaluator(
            self.learner, data, task.batch_size, "test" if unit.phase == "curve" else "validation"
        )
        self.per_epoch = len(data.train) // task.batch_size
        self.seconds = 0.0
        self.records: list[Record] = []

    @property
    def taken(self) -> int:
        """Gradients taken."""
        return self.learner.steps_taken * self.unit.method.gradients_per_step

    def step(self) -> None:
        began = time.perf_counter()
        batch = self.batches.next().to(self.device)
        try:
            self.learner.step(self.data.train.inputs[batch], self.data.train.targets[batch], self.chain.look)
            if self.learner.steps_taken == self.unit.steps:
                self.learner.finish()
        finally:
            self.seconds += time.perf_counter() - began

    def measure(self) -> tuple[Record, nn.Module]:
        """Evaluates the present weights. Raises Diverged if a loss is not finite."""
        if self.device.type == "cuda":
            began = time.perf_counter()
            torch.cuda.synchronize(self.device)
            self.seconds += time.perf_counter() - began
        ended = self.learner.steps_taken == self.unit.steps
        network = self.evaluate.network(whole=ended or self.unit.phase == "curve")
        measured = self.evaluate(network)
        if not all(map(math.isfinite, measured.values())):
            raise Diverged
        return {"kind": "evaluation", **self.cost(), **measured, **self.chain.latest}, network

    def cost(self) -> Record:
        """What has been spent so far."""
        return {
            "gradients": self.taken,
            "epochs": self.taken / self.per_epoch,
            "outer_updates": self.learner.outer_updates,
            "paper_epochs": self.learner.outer_updates / self.per_epoch,
            "seconds": self.seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        cuda = self.device.type == "cuda"
        return {
            "learner": self.learner.state_dict(),
            "batches": self.batches.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
            "chain": self.chain.latest,
            "seconds": self.seconds,
            "records": self.records,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.batches.load_state_dict(state["batches"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)
        self.chain.latest = state["chain"]
        self.seconds = state["seconds"]
        self.records = state["records"]


def run(
    unit: Unit,
    task: Task,
    data: Data,
    watcher: Watcher,
    checkpoints: Checkpoints | None = None,
    device: str = "cpu",
) -> tuple[list[Record], nn.Module | None]:
    """Trains the unit, from its newest checkpoint where there is one.

    Returns its evaluations and, last, its result; and the network at the end, None if it diverged. Seconds are those
    of gradients and steps, evaluations excluded. The test split is read once, by a final run, after the last
    gradient. Torch's global random state is left as it was.

    Raises:
        Stopped: the watcher asked for it; a checkpoint has been written.
        OSError: a checkpoint cannot be written.
    """
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        training = Training(unit, task, data, device)
        if checkpoints and (state := checkpoints.load()):
            training.load_state_dict(state)
        try:
            for _ in _advance(training, watcher, checkpoints):
                record, network = training.measure()
                training.records.append(record)
                watcher.records(training.records, network)
        except Diverged:
            return [*training.records, {"kind": "result", "diverged": True, **training.cost()}], None
        result = {**training.records[-1], "kind": "result", "diverged": False}
        result["seconds_per_gradient"] = training.seconds / training.taken
        if unit.phase == "final":
            result |= _ending(training, task, network)
        if unit.phase == "curve":
            whole = score(network, training.data.train)
            result |= {"whole_train_loss": whole.loss, "whole_train_error": whole.error}
    return [*training.records, result], network


def _advance(training: Training, watcher: Watcher, checkpoints: Checkpoints | None) -> Iterator[None]:
    """Trains, and yields at each evaluation that is not in the records yet; saves its state between steps."""
    for goal in evaluation_steps(training.unit)[len(training.records) :]:
        while training.learner.steps_taken < goal:
            training.step()
            watcher.gradient(training.taken)
            stop = watcher.stop()
            if checkpoints and (stop or checkpoints.due):
                checkpoints.save(training.taken, training.state_dict())
                watcher.saved(lambda: training.evaluate.network(whole=True))
            if stop:
                raise Stopped
        yield


def _ending(training: Training, task: Task, network: nn.Module) -> Record:
    """What only a final run tells: the test split, the width of the valley, the memory that it took."""
    test = score(network, training.data.test)
    images = subset(training.data.train, RISE_IMAGES)
    rises = rise_of_loss(network, lambda moved: score(moved, images).loss, seed=training.unit.seed)
    unit = training.unit
    spare = learner.build(unit.method, task.network, unit.lr, unit.seed, max(2, unit.steps), str(training.device))
    first = training.data.train.take(torch.arange(task.batch_size, device=training.device))
    return {
        "test_loss": test.loss,
        "test_error": test.error,
        "test_wrong": [[example, count] for example, count in enumerate(test.wrong) if count],
        "rise": [asdict(rise) for rise in rises],
        **memory.measure(spare, first.inputs, first.targets),
    }


def rehearse(task: Task, data: Data) -> None:
    """Raises TaskError if the task's network cannot be trained on a minibatch of its data."""
    batch = data.train.take(torch.arange(task.batch_size))
    try:
        with torch.random.fork_rng(devices=[]):
            logits = task.network().train()(batch.inputs)
            cross_entropy(logits, batch.targets).backward()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise TaskError(
            f"The network of {task.name} cannot be trained on a minibatch of its data: {error}. It must give logits "
            f"(n, classes, …) for targets of shape {tuple(batch.targets.shape)}."
        ) from error


def on(data: Data, device: str) -> Data:
    """The same data on a device."""

    def moved(split: Split) -> Split:
        return Split(split.inputs.to(device), split.targets.to(device))

    return Data(moved(data.train), moved(data.validation), moved(data.test))


class Quiet:
    """A watcher that says nothing and never stops."""

    def gradient(self, done: int) -> None: ...
    def records(self, records: list[Record], network: nn.Module) -> None: ...
    def saved(self, network: Callable[[], nn.Module]) -> None: ...
    def stop(self) -> bool:
        return False
