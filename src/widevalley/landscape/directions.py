"""Random directions in which a loss is looked at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Tells these streams from others that are made from the same seeds.
STREAM = 0x7761796C


def direction_generator(seed: int) -> torch.Generator:
    """A CPU's generator, a function of the seed, whose numbers are not those of ``torch.manual_seed(seed)``.

    With those, Gaussian directions lean on a network that was initialised under the same seed: uniform and Gaussian
    numbers come from the same bits, and the cosine between such a network's weights and the first direction was −0.34.
    """
    state = np.random.SeedSequence([STREAM, seed]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def filter_normalised_direction(x: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian of the shape of x; row by row of the norm of x for weights, as a whole for vectors.

    Rescaling a filter (a row of a weight along its first axis), which batch-norm undoes, rescales the direction alike
    (Li et al., 2018, arXiv:1712.09913). The generator is a CPU's.
    """
    direction = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    axes = tuple(range(1, x.ndim)) if x.ndim > 1 else None
    length: Tensor = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    wanted: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=True)
    return direction * (wanted / length)
