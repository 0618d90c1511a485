"""Fixed parts of a data set, for what all of it would cost too much."""

from __future__ import annotations

import torch

from widevalley.experiments.data import Split


def balanced(split: Split, count: int, seed: int) -> Split:
    """``count`` examples of which each class has as many as any other, within one; all where there are fewer.

    Of targets that are sequences, so many drawn at random.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    if split.targets.ndim > 1:
        return split.take(order[:count])
    place = torch.zeros(len(split), dtype=torch.int64)
    for label in split.targets.unique():
        of_class = order[split.targets[order] == label]
        place[of_class] = torch.arange(len(of_class))
    return split.take(order[place[order].argsort(stable=True)][:count])
