"""Wrong labels, fewer examples, another minibatch."""

from pathlib import Path

import pytest
import torch
from torch import nn

from widevalley.experiments import Data, Split, Task
from widevalley.experiments.alterations import Alterations, label_noise, subset, train_size
from widevalley.experiments.data import DataError


def made(n: int, targets: torch.Tensor) -> Split:
    return Split(torch.arange(n), targets)


DATA = Data(
    train=made(1000, torch.arange(1000) % 5),
    validation=made(100, torch.arange(100) % 5),
    test=made(200, torch.arange(200) % 5),
)
TASK = Task("made", "made up", lambda folder: DATA, lambda: nn.Linear(1, 5), batch_size=32, epochs=1)


def test_label_noise_replaces_that_many_training_targets_by_another_class() -> None:
    noisy = label_noise(DATA, 0.4, seed=0)
    before, after = DATA.train.targets, noisy.train.targets
    wrong = before != after
    assert int(wrong.sum()) == 400
    assert torch.equal(before, torch.arange(1000) % 5)
    assert (noisy.validation, noisy.test) == (DATA.validation, DATA.test)
    # Of each class a fifth is hit, and every other class is as likely: 400 draws over 4 steps, within four deviations.
    steps = torch.bincount((after - before)[wrong] % 5, minlength=5)
    assert steps[0] == 0
    assert (steps[1:] - 100).abs().max() < 4 * (400 * 0.25 * 0.75) ** 0.5
    assert torch.equal(after, label_noise(DATA, 0.4, seed=0).train.targets)
    assert not torch.equal(after, label_noise(DATA, 0.4, seed=1).train.targets)


def test_label_noise_counts_positions_of_sequences() -> None:
    sequences = Split(torch.arange(10), torch.arange(80).view(10, 8) % 5)
    noisy = label_noise(Data(sequences, DATA.validation, DATA.test), 0.25)
    assert noisy.train.targets.shape == (10, 8)
    assert int((noisy.train.targets != sequences.targets).sum()) == 20


def test_a_smaller_training_set_is_balanced_and_part_of_a_larger_one() -> None:
    small, large = train_size(DATA, 50).train, train_size(DATA, 500).train
    assert torch.bincount(small.targets).tolist() == [10] * 5
    assert set(small.inputs.tolist()) < set(large.inputs.tolist())
    assert torch.equal(small.inputs % 5, small.targets)
    assert len(train_size(DATA, 1000).train) == 1000
    with pytest.raises(DataError, match="train_size=1001 is more than the 1000 training examples"):
        train_size(DATA, 1001)


def test_a_subset_is_of_every_split() -> None:
    part = subset(DATA, 0.1)
    assert [len(split) for split in (part.train, part.validation, part.test)] == [100, 10, 20]
    for split in (part.train, part.validation, part.test):
        assert torch.bincount(split.targets).tolist() == [len(split) // 5] * 5
    assert len(subset(DATA, 0.0001).validation) == 1


def test_alterations_are_applied_to_a_task_together() -> None:
    alterations = Alterations(label_noise=0.5, train_size=100, subset=0.5, batch_size=20)
    assert alterations.given() == {"label_noise": 0.5, "train_size": 100, "subset": 0.5, "batch_size": 20}
    task = alterations.apply(TASK)
    data = task.data(None)
    assert (task.name, task.batch_size, len(data.train), len(data.test)) == ("made", 20, 100, 100)
    assert int((data.train.targets != data.train.inputs % 5).sum()) == 50
    assert torch.equal(data.test.targets, data.test.inputs % 5)


def test_no_alteration_is_none() -> None:
    assert Alterations().given() == {}
    assert Alterations().apply(TASK) is TASK


def test_the_folder_reaches_the_data() -> None:
    asked: list[Path | None] = []

    def read(folder: Path | None) -> Data:
        asked.append(folder)
        return DATA

    Alterations(subset=0.5).apply(Task("made", "", read, TASK.network, 32, 1)).data(Path("here"))
    assert asked == [Path("here")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"label_noise": 1.0}, "label_noise=1 is no fraction"),
        ({"label_noise": -0.1}, "label_noise=-0.1 is no fraction"),
        ({"label_noise": float("nan")}, "label_noise=nan is no fraction"),
        ({"subset": 0.0}, "subset=0 is no fraction"),
        ({"train_size": 0}, "train_size=0 is no number of examples"),
        ({"batch_size": 2.5}, "batch_size=2.5 is no number of examples"),
    ],
)
def test_bad_values_are_refused_at_once(given: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Alterations(**given)


@pytest.mark.parametrize(
    ("alterations", "said"),
    [
        (Alterations(train_size=31), "31 training examples are fewer than a minibatch of 32"),
        (Alterations(batch_size=1001), "1000 training examples are fewer than a minibatch of 1001"),
        (Alterations(subset=0.5, train_size=501), "more than the 500 training examples"),
    ],
)
def test_too_few_examples_are_refused_when_the_data_are_read(alterations: Alterations, said: str) -> None:
    with pytest.raises(DataError, match=said):
        alterations.apply(TASK).load(None)
