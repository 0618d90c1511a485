"""The networks of the spectra: the paper's counts, matched losses, lines that are written on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import quick
import torch
from torch import Tensor, nn

from widevalley.experiments import minima
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.data import Data, Split
from widevalley.experiments.evaluation import score
from widevalley.experiments.methods import METHODS
from widevalley.experiments.minima import MINIMA, Minimum, MinimumError, Samples, prefixes, reach, regenerated
from widevalley.experiments.records import Record
from widevalley.experiments.train import Stopped


def test_the_networks_have_the_papers_counts() -> None:
    counts = {
        each.figure: sum(p.numel() for p in each.task.network().parameters())
        for each in MINIMA
    }  # fmt: skip
    assert counts == {"fig1": 47_658, "fig3a": 50_890, "fig3b": 32_640}


def test_shortest_beginnings() -> None:
    assert prefixes([[1, 2, 3], [1, 2, 4], [2, 2, 2], [5, 5, 5], [5, 5, 5]]) == [3, 3, 1, 3, 3]


class Following(nn.Module):
    """Predicts that c follows c - 1, of 9 characters."""

    def forward(self, characters: Tensor) -> Tensor:
        return nn.functional.one_hot((characters + 1) % 9, 9).transpose(1, 2).double()


def test_a_line_counts_if_it_is_written_on_from_its_shortest_beginning() -> None:
    # The first two need two characters; the second goes on wrongly after them, the third only before it must.
    text = torch.tensor([[1, 2, 3, 4], [1, 7, 5, 6], [2, 3, 4, 5], [3, 1, 2, 3], [3, 2, 3, 4]])
    assert prefixes(text.tolist()) == [2, 2, 1, 2, 2]
    split = Split(text[:, :-1], text[:, 1:])
    assert regenerated(Following(), split) == 4


def _samples() -> Samples:
    data = quick.digits()
    return Samples(data, data.train, {"validation": data.validation})


class Telling:
    """Asks to stop where ``at`` says so of what is told."""

    def __init__(self, at: Callable[[str, float], bool] = lambda what, done: False) -> None:
        self.at, self.stopping = at, False
        self.told: list[tuple[str, float]] = []

    def stage(self, what: str, done: float) -> None:
        self.told.append((what, done))
        self.stopping = self.at(what, done)

    def stop(self) -> bool:
        return self.stopping


def reached(minimum: Minimum, folder: Path, telling: Telling | None = None) -> tuple[nn.Module, Record]:
    return reach(minimum, _samples(), telling or Telling(), lambda name: Checkpoints(folder / name))


SGD = Minimum("sgd", "", quick.TASK, METHODS["sgd"], 0.03, 100)
OTHER = Minimum("other", "", quick.TASK, METHODS["entropy-sgd"], 0.03, 0, matched=SGD)


def test_trained_initial_and_matched(tmp_path: Path) -> None:
    given = _samples()
    network, about = reached(SGD, tmp_path)
    found = score(network, given.measured)
    assert (about["gradients"], about["train_loss"]) == (100, found.loss)
    assert about["test_error"] == score(network, given.data.test).error
    again, _ = reached(SGD, tmp_path)
    assert same(network, again)

    _, about = reached(replace(SGD, gradients=0), tmp_path)
    assert about["gradients"] == 0
    assert about["train_loss"] > found.loss

    network, about = reached(OTHER, tmp_path)
    loss = score(network, given.measured).loss
    assert about["matched"] == "sgd"
    assert 0.5 * found.loss < loss <= found.loss
    assert about["gradients"] % 20 == 0


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_how_far_a_training_is() -> None:
    telling = Telling()
    watching = minima._Watching("training", 1_000, telling)
    for done in range(1, 1_001):
        watching.gradient(done)
    assert telling.told == [("training", 0.001), *(("training", k / 100) for k in range(1, 101))]


def test_stopped_trainings_go_on_as_if_they_had_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # 469 gradients, a cycle more than four hundredths of them: each is told.
    monkeypatch.setattr(minima, "PATIENCE", 1)
    telling = Telling()
    network, about = reached(OTHER, tmp_path / "whole", telling)
    (own,) = {what for what, _ in telling.told} - {"training of sgd"}
    last = max(done for what, done in telling.told if what == own)
    assert last > 60 / 469

    for stop in (
        Telling(lambda what, done: what == "training of sgd" and done >= 0.5),
        Telling(lambda what, done: what == own and done >= last / 2),
    ):
        with pytest.raises(Stopped):
            reached(OTHER, tmp_path / "stopped", stop)
    ending = Telling()
    again, also = reached(OTHER, tmp_path / "stopped", ending)
    assert same(network, again)
    assert about == also
    # The one to be matched is not trained a second time.
    assert {what for what, _ in ending.told} == {own}
    assert min(done for _, done in ending.told) > last / 2


@pytest.mark.parametrize(("minimum", "what"), [(SGD, "training of sgd"), (OTHER, "training to")])
def test_at_another_rate_training_begins_anew(minimum: Minimum, what: str, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        reached(minimum, tmp_path / "stopped", Telling(lambda told, done: told.startswith(what)))
    slower = replace(minimum, lr=0.02)
    network, about = reached(slower, tmp_path / "stopped")
    whole, also = reached(slower, tmp_path / "whole")
    assert same(network, whole)
    assert about == also


@pytest.mark.parametrize("minimum", [SGD, OTHER], ids=["plain", "matched"])
def test_one_that_diverges_is_said(minimum: Minimum, tmp_path: Path) -> None:
    with pytest.raises(MinimumError, match=f"^the training of {minimum.name} diverged$"):
        reached(replace(minimum, lr=1e30), tmp_path)


def test_a_loss_that_is_never_reached_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # 47 gradients, two whole cycles of 20.
    monkeypatch.setattr(minima, "PATIENCE", 0.1)
    slow = replace(OTHER, name="slow", lr=1e-5, matched=replace(SGD, gradients=200))
    with pytest.raises(MinimumError, match=r"slow did not reach a loss of .* in 0.1 epochs: lower its rate"):
        reached(slow, tmp_path)


def test_lines_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = bytes((ord("a") + k % 26) for k in range(256 * 33 + 5))
    monkeypatch.setattr("widevalley.experiments.files.contents", lambda file, folder: payload)
    data: Data = minima.lines()
    assert data.train.inputs.shape == data.train.targets.shape == (256, 32)
    assert torch.equal(data.train.inputs[:, 1:], data.train.targets[:, :-1])
    letters = "".join(minima.datasets.CHARACTERS[k] for k in data.train.inputs[1, :3].tolist())
    assert letters == "hij"
