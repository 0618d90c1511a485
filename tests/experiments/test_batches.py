"""Minibatches: with and without replacement, repeated, and continued from their state."""

from collections.abc import Callable

import pytest
import torch

from widevalley.experiments.batches import Batches, Draws, Minibatches, Repeated

KINDS: dict[str, Callable[[], Batches]] = {
    "minibatches": lambda: Minibatches(10, 3, seed=1),
    "draws": lambda: Draws(10, 3, seed=1),
    "repeated": lambda: Repeated(Draws(10, 3, seed=1), (1, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_another_continues_from_the_state(kind: str) -> None:
    for taken in range(6):
        first, second = KINDS[kind](), KINDS[kind]()
        for _ in range(taken):
            first.next()
        second.load_state_dict(first.state_dict())
        for _ in range(8):
            assert torch.equal(first.next(), second.next())


def test_draws_are_with_replacement_and_uniform() -> None:
    """Of 10 examples, 3 drawn 2,000 times: each 600 times, standard deviation 23.3; three are distinct in 72 %."""
    batches = Draws(10, 3, seed=0)
    drawn = torch.stack([batches.next() for _ in range(2_000)])
    assert (drawn.flatten().bincount(minlength=10) - 600).abs().max() < 4 * 23.3
    distinct = torch.tensor([len(set(batch.tolist())) == 3 for batch in drawn]).double()
    assert abs(float(distinct.mean()) - 0.72) < 4 * (0.72 * 0.28 / 2_000) ** 0.5


def test_repeats_follow_the_counts_in_turn() -> None:
    plain, repeated = Draws(100, 4, seed=0), Repeated(Draws(100, 4, seed=0), (1, 2))
    expected = [plain.next() for _ in range(4)]
    for place in (0, 1, 1, 2, 3, 3):
        assert torch.equal(repeated.next(), expected[place])


@pytest.mark.parametrize("kind", [Minibatches, Draws])
def test_a_batch_larger_than_the_data_is_refused(kind: Callable[..., Batches]) -> None:
    with pytest.raises(ValueError, match="batch_size must lie between 1 and the 10 training samples, got 11"):
        kind(10, 11, seed=0)
