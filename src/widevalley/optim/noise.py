"""Standard normal noise without state: each element is a function of where and when it is drawn.

Line 5 of Algorithm 1 adds Gaussian noise to every weight at every inner step. Here the noise of an element
depends on (seed, step, parameter and its size, index of the element in the whole parameter). So there
is nothing to save in a checkpoint, the global random state is never consumed, replicas draw equal noise, and
shards of one parameter draw the pieces of what the whole would have drawn.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Elements that share one stream. A shard generates whole blocks, so that it finds its own elements in them.
BLOCK = 1 << 18


def gaussian(p: Tensor, *, seed: int, step: int, index: int) -> Tensor:
    """N(0, I) in the shape and on the device of ``p``.

    Args:
        p: the parameter; real (float32 noise for half precision) or complex (unit variance in the real and
            in the imaginary part each).
        seed: the optimizer's seed, an integer >= 0.
        step: inner steps taken before this one, from 0.
        index: position of the parameter among all parameters of the optimizer.

    The values on a CPU and on an accelerator differ; on one kind of device they are reproducible.
    """
    if p.is_complex():
        return torch.view_as_complex(gaussian(torch.view_as_real(p), seed=seed, step=step, index=index))
    dtype = torch.float64 if p.dtype == torch.float64 else torch.float32
    noise = torch.empty(p.numel(), dtype=dtype, device=p.device)
    for block, start in enumerate(range(0, p.numel(), BLOCK)):
        _fill(noise[start : start + BLOCK], (seed, step, index, block))
    return noise.view(p.shape)


def add_gaussian_(p: Tensor, scale: float, *, seed: int, step: int, index: int) -> None:
    """p ← p + scale · N(0, I), in place."""
    noise = gaussian(p, seed=seed, step=step, index=index)
    if noise.dtype in (p.dtype, p.dtype.to_real()):
        p.add_(noise, alpha=scale)
    else:
        # One rounding, of the sum: half precision would otherwise round the noise first.
        p.copy_(p.float().add_(noise, alpha=scale))


def displacement(lr: float, temperature: float) -> float:
    """√(2η′T), the standard deviation of one inner step's noise."""
    return math.sqrt(2.0 * lr * temperature)


def _fill(out: Tensor, key: tuple[int, ...]) -> None:
    """Fills a contiguous block from the stream of ``key``."""
    stream = np.random.SeedSequence(key)
    if out.device.type == "cpu":
        # Uniform bits by numpy, Box-Muller by torch: half the time of numpy's own normal numbers (benchmarks/step.py).
        half = out.numel() // 2
        uniform = torch.empty(2 * (out.numel() - half), dtype=out.dtype)
        np.random.Generator(np.random.SFC64(stream)).random(dtype=uniform.numpy().dtype.type, out=uniform.numpy())
        radius, angle = uniform.chunk(2)
        radius.neg_().log1p_().mul_(-2.0).sqrt_()
        angle.mul_(2.0 * math.pi)
        torch.mul(radius[:half], torch.sin(angle[:half]), out=out[:half])
        torch.mul(radius, angle.cos_(), out=out[half:])
    else:
        on_device = torch.Generator(out.device)
        on_device.manual_seed(int(stream.generate_state(1, np.uint64)[0]))
        out.normal_(generator=on_device)
