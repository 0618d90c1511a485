"""Fixed parts of a split."""

from __future__ import annotations

import torch

from widevalley.experiments.data import Split


def balanced(split: Split, count: int, seed: int) -> Split:
    """``count`` examples of which each class has as many as any other, within one; all, if there are fewer.

    A class that runs out leaves its share to the others. Where the targets are sequences, whose examples have no class,
    a plain random part. Drawn by a generator of its own.
    """
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    if split.targets.ndim > 1:
        return split.take(order[:count])
    targets = split.targets.cpu()
    place = torch.zeros(len(split), dtype=torch.int64)
    for label in targets.unique():
        of_class = order[targets[order] == label]
        place[of_class] = torch.arange(len(of_class))
    return split.take(order[place[order].argsort(stable=True)][:count])
