"""Balanced parts of a split."""

import pytest
import torch

from widevalley.experiments.data import Split
from widevalley.experiments.subsets import balanced

TARGETS = torch.tensor([0] * 50 + [1] * 20 + [2] * 5)
SPLIT = Split(torch.arange(75.0)[:, None], TARGETS)


@pytest.mark.parametrize(
    ("count", "expected"), [(12, [4, 4, 4]), (25, [10, 10, 5]), (75, [50, 20, 5]), (99, [50, 20, 5])]
)
def test_each_class_has_as_many_as_any_other_while_it_lasts(count: int, expected: list[int]) -> None:
    part = balanced(SPLIT, count, seed=3)
    assert part.targets.bincount(minlength=3).tolist() == expected
    assert len(part.inputs.unique()) == len(part)
    assert torch.equal(TARGETS[part.inputs[:, 0].long()], part.targets)


def test_a_remainder_is_shared_within_one() -> None:
    counts = balanced(SPLIT, 14, seed=0).targets.bincount()
    assert sorted(counts.tolist()) == [4, 5, 5]


def test_the_seed_decides_and_the_global_random_state_does_not() -> None:
    first = balanced(SPLIT, 12, seed=0).inputs
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert torch.equal(balanced(SPLIT, 12, seed=0).inputs, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(balanced(SPLIT, 12, seed=1).inputs, first)


def test_sequences_have_no_class_and_are_drawn_plainly() -> None:
    split = Split(torch.arange(40)[:, None], torch.zeros(40, 3, dtype=torch.int64))
    part = balanced(split, 10, seed=0)
    assert part.targets.shape == (10, 3)
    assert len(part.inputs.unique()) == 10
    assert not torch.equal(part.inputs[:, 0], torch.arange(10))
