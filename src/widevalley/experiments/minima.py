"""The networks of Figs. 1 and 3: where their spectra are taken, and how training got there.

The losses are means over 4,096 class-balanced training images of MNIST, or over the 256 lines of text. What the text
leaves open is ours: lengths and rates were chosen on 54,000/6,000 so that the error is about the paper's (2.4 % after
an epoch of Adam at 1e-3, the paper's rate on MNIST; 2.4 % after 30 of momentum SGD at 0.03 falling by a cosine), and
then used on all 60,000. The text has no such split: its own were tried on the lines themselves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from widevalley.experiments import data as datasets
from widevalley.experiments import files, networks, train
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.data import Data, Split
from widevalley.experiments.evaluation import score
from widevalley.experiments.learner import Diverged
from widevalley.experiments.methods import METHODS, Method, cosine
from widevalley.experiments.paper import EPOCH, authors, method, mnist_task
from widevalley.experiments.records import Record
from widevalley.experiments.subsets import balanced
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Training, Unit
from widevalley.scoping import Constant

IMAGES = 4_096
LINES, LENGTH = 256, 32
# Epochs of gradients after which a loss that is to be matched is given up.
PATIENCE = 100


class MinimumError(RuntimeError):
    """A minimum was not reached, or nothing can be measured there; says why."""


@dataclass(frozen=True)
class Minimum:
    """A network whose spectrum is taken.

    With ``matched`` trained until its loss on the measured samples is no more than that of this other one, else for so
    many gradients; with none it is as initialised.
    """

    name: str
    figure: str
    task: Task
    method: Method
    lr: float
    gradients: int
    seed: int = 0
    matched: Minimum | None = None
    double: bool = True  # the spectrum is taken in float64


@dataclass(frozen=True)
class Samples:
    """What is trained on, what the spectrum is measured on, and what its outermost eigenvalues are looked at on."""

    data: Data
    measured: Split
    elsewhere: Mapping[str, Split]


def samples(minimum: Minimum, folder: Path | None) -> Samples:
    data = minimum.task.data(folder)
    if data.train.targets.ndim > 1:
        return Samples(data, data.train, {})
    own = datasets.mnist(folder).train
    others = {f"subset {seed}": balanced(own, IMAGES, seed) for seed in (1, 2)}
    if minimum.figure != "fig1":
        # On all images a product of LeNet takes long, and hundreds are needed.
        others["training set"] = data.train
    return Samples(data, balanced(own, IMAGES, 0), others)


class Stages(Protocol):
    """What a training tells, and asks."""

    def stage(self, what: str, done: float) -> None: ...
    def stop(self) -> bool:
        """Whether to save its state and to leave."""


class _Watching(train.Quiet):
    """Tells each hundredth of a training."""

    def __init__(self, what: str, gradients: int, stages: Stages) -> None:
        self.what, self.gradients, self.stages, self.told = what, gradients, stages, -1

    def gradient(self, done: int) -> None:
        if (hundredths := 100 * done // self.gradients) > self.told:
            self.told = hundredths
            self.stages.stage(self.what, done / self.gradients)

    def stop(self) -> bool:
        return self.stages.stop()


def reach(
    minimum: Minimum, given: Samples, stages: Stages, states: Callable[[str], Checkpoints]
) -> tuple[nn.Module, Record]:
    """The network, in eval mode, and how it came about.

    Args:
        states: of the training of that name, which says minimum, method, rate and seed; one that has ended may leave
            its last ones there.

    Raises:
        MinimumError: training diverges, or a loss is not matched within ``PATIENCE`` epochs.
        Stopped: ``stages`` asked for it; with the same ``states`` training goes on from there.
    """
    gradients = minimum.gradients if minimum.matched is None else round(PATIENCE * EPOCH)
    unit = Unit("curve", minimum.method, minimum.lr, minimum.seed, max(1, gradients), evaluations=1)
    about: Record = {"method": minimum.method.description, "lr": minimum.lr, "seed": minimum.seed}
    try:
        if minimum.matched is not None:
            network, taken = _matched(unit, minimum, minimum.matched, given, stages, states)
        elif minimum.gradients:
            watching = _Watching(f"training of {minimum.name}", gradients, stages)
            records, trained = train.run(unit, minimum.task, given.data, watching, states(_training(minimum, unit)))
            if trained is None:
                raise Diverged
            network, taken = trained, records[-1]["gradients"]
        else:
            network, taken = _initial(unit, minimum.task), 0
    except Diverged:
        raise MinimumError(f"the training of {minimum.name} diverged") from None
    about["gradients"] = taken
    about["optimizer"] = minimum.method.settings(minimum.lr, unit.steps)
    if minimum.matched is not None:
        about["matched"] = minimum.matched.name
    whole = score(network, given.data.train)
    about |= {"train_loss": whole.loss, "train_error": whole.error}
    if given.elsewhere:
        test = score(network, given.data.test)
        return network, about | {"test_loss": test.loss, "test_error": test.error}
    return network, about | {"regenerated": regenerated(network, given.data.train)}


def _training(minimum: Minimum, unit: Unit) -> str:
    return f"{minimum.name}-{unit.name}"


def _initial(unit: Unit, task: Task) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(unit.seed)
        return task.network().eval()


def _matched(
    unit: Unit, minimum: Minimum, other: Minimum, given: Samples, stages: Stages, states: Callable[[str], Checkpoints]
) -> tuple[nn.Module, int]:
    checkpoints = states(_training(minimum, unit))
    state = checkpoints.load()
    wanted = state["wanted"] if state else score(reach(other, given, stages, states)[0], given.measured).loss
    watching = _Watching(f"training to a loss of {wanted:.4g}, at most", unit.gradients, stages)
    with torch.random.fork_rng(devices=[]):
        training = Training(unit, minimum.task, given.data)
        if state:
            training.load_state_dict(state["training"])
        cycle = int(getattr(training.learner.optimizer, "cycle_length", 1))
        # Whole cycles: what is evaluated is a centre, and the last one is not cut short.
        while training.learner.steps_taken + cycle <= unit.steps:
            for _ in range(cycle):
                training.step()
            network = training.evaluate.network()
            if score(network, given.measured).loss <= wanted:
                return network, training.taken
            watching.gradient(training.taken)
            stop = watching.stop()
            if stop or checkpoints.due:
                checkpoints.save(training.taken, {"wanted": wanted, "training": training.state_dict()})
            if stop:
                raise train.Stopped
    raise MinimumError(f"{minimum.name} did not reach a loss of {wanted:.4g} in {PATIENCE} epochs: lower its rate")


def lines(folder: Path | None = None) -> Data:
    """The first 256 lines of 33 characters of the text, cut without regard to its own: each predicts its next 32."""
    (file,) = files.DATASETS["text"].files
    codes = torch.tensor(list(files.contents(file, datasets.data_folder(folder))))
    lookup = torch.full((256,), -1)
    lookup[torch.tensor(list(datasets.CHARACTERS.encode("ascii")))] = torch.arange(len(datasets.CHARACTERS))
    text = lookup[codes[: LINES * (LENGTH + 1)]].view(LINES, LENGTH + 1)
    whole = Split(text[:, :-1].contiguous(), text[:, 1:].contiguous())
    nothing = whole.take(torch.arange(0))
    return Data(whole, nothing, whole)


@torch.no_grad()
def regenerated(network: nn.Module, text: Split) -> int:
    """How many lines the network writes on without a mistake, from the fewest characters that tell them apart.

    Greedily: where every prediction after the true characters is right, the written characters are the true ones.
    """
    whole = torch.cat([text.inputs[:, :1], text.targets], dim=1).tolist()
    right = network(text.inputs).argmax(1) == text.targets
    return sum(bool(right[row, given - 1 :].all()) for row, given in enumerate(prefixes(whole)))


def prefixes(text: list[list[int]]) -> list[int]:
    """For each line the fewest characters with which no other begins; all of them for one that is there twice."""
    beginnings = [Counter(tuple(line[:length]) for line in text) for length in range(len(text[0]) + 1)]

    def shortest(line: list[int]) -> int:
        lengths = range(1, len(line) + 1)
        return next((length for length in lengths if beginnings[length][tuple(line[:length])] == 1), len(line))

    return [shortest(line) for line in text]


def _text_task() -> Task:
    return Task("char-lstm-lines", "256 lines of text", lines, networks.char_lstm, LINES, 1)


def _own(name: str, plain: str, schedule: Callable[[Optimizer, int], LRScheduler] | None = None) -> Method:
    given = METHODS[plain]
    said = f"{given.description.partition(';')[0]}, {'cosine schedule' if schedule else 'constant rate'}"
    return method(name, said, given.build, schedule, at_center=given.at_center)


_LENET = mnist_task("small-lenet", networks.small_lenet)
_FC = mnist_task("small-mnistfc", networks.small_mnist_fc)
_TEXT = _text_task()
# By the authors' settings but for the rate: without batch-norm 0.1 is too large for these networks.
_ENTROPY = authors("entropy-sgd", Constant(1.0))
_ENTROPY_RATE = 0.03
_ADAM = _own("adam", "adam")
_LENET_ADAM = Minimum("fig1-adam-seed0", "fig1", _LENET, _ADAM, 0.001, EPOCH)
_FC_SGD = Minimum("fig3a-sgd", "fig3a", _FC, _own("sgd", "sgd", cosine), 0.03, 30 * EPOCH)
_TEXT_ADAM = Minimum("fig3b-adam", "fig3b", _TEXT, _own("adam", "adam", cosine), 0.01, 10_000)
# "Adam for outer and inner loops" (Sec. 4.3).
_TEXT_ENTROPY = _own("entropy-adam", "entropy-adam", cosine)

MINIMA = (
    _LENET_ADAM,
    Minimum("fig1-adam-seed1", "fig1", _LENET, _ADAM, 0.001, EPOCH, seed=1),
    Minimum("fig1-initial", "fig1", _LENET, _ADAM, 0.001, 0, double=False),
    Minimum("fig1-entropy-sgd", "fig1", _LENET, _ENTROPY, _ENTROPY_RATE, 0, matched=_LENET_ADAM),
    _FC_SGD,
    Minimum("fig3a-initial", "fig3a", _FC, _FC_SGD.method, 0.03, 0, double=False),
    Minimum("fig3a-entropy-sgd", "fig3a", _FC, _ENTROPY, _ENTROPY_RATE, 0, matched=_FC_SGD),
    _TEXT_ADAM,
    Minimum("fig3b-initial", "fig3b", _TEXT, _TEXT_ADAM.method, 0.01, 0),
    Minimum("fig3b-entropy-sgd", "fig3b", _TEXT, _TEXT_ENTROPY, 0.005, 0, matched=_TEXT_ADAM),
)
