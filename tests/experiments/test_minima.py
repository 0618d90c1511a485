"""The networks of the spectra: the paper's counts, matched losses, lines that are written on."""

from dataclasses import replace

import pytest
import quick
import torch
from torch import Tensor, nn

from widevalley.experiments import minima
from widevalley.experiments.data import Data, Split
from widevalley.experiments.evaluation import score
from widevalley.experiments.methods import METHODS
from widevalley.experiments.minima import MINIMA, Minimum, MinimumError, Samples, prefixes, reach, regenerated


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


def test_trained_initial_and_matched() -> None:
    sgd = Minimum("sgd", "", quick.TASK, METHODS["sgd"], 0.03, 100)
    given = _samples()
    network, about = reach(sgd, given)
    found = score(network, given.measured)
    assert (about["gradients"], about["train_loss"]) == (100, found.loss)
    assert about["test_error"] == score(network, given.data.test).error
    again, _ = reach(sgd, given)
    assert all(map(torch.equal, network.state_dict().values(), again.state_dict().values()))

    _, about = reach(replace(sgd, gradients=0), given)
    assert about["gradients"] == 0
    assert about["train_loss"] > found.loss

    other = Minimum("other", "", quick.TASK, METHODS["entropy-sgd"], 0.03, 0, matched=sgd)
    network, about = reach(other, given)
    loss = score(network, given.measured).loss
    assert about["matched"] == "sgd"
    assert 0.5 * found.loss < loss <= found.loss
    assert about["gradients"] % 20 == 0


def test_a_loss_that_is_never_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    # 47 gradients, two whole cycles of 20.
    monkeypatch.setattr(minima, "PATIENCE", 0.1)
    sgd = Minimum("sgd", "", quick.TASK, METHODS["sgd"], 0.03, 200)
    slow = Minimum("slow", "", quick.TASK, METHODS["entropy-sgd"], 1e-5, 0, matched=sgd)
    with pytest.raises(MinimumError, match=r"slow did not reach a loss of .* in 0.1 epochs: lower its rate"):
        reach(slow, _samples())


def test_lines_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = bytes((ord("a") + k % 26) for k in range(256 * 33 + 5))
    monkeypatch.setattr("widevalley.experiments.files.contents", lambda file, folder: payload)
    data: Data = minima.lines()
    assert data.train.inputs.shape == data.train.targets.shape == (256, 32)
    assert torch.equal(data.train.inputs[:, 1:], data.train.targets[:, :-1])
    letters = "".join(minima.datasets.CHARACTERS[k] for k in data.train.inputs[1, :3].tolist())
    assert letters == "hij"
