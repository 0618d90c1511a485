"""The noise is standard normal, independent wherever it should be, and has no memory: to four standard errors."""

import itertools
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer
from widevalley.optim.noise import BLOCK, add_gaussian_, displacement, gaussian

N = 3 * BLOCK + 12_345
SIZES = [0, 1, 2, 3, 7, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3]


def draw(n: int, dtype: torch.dtype = torch.float32, *, seed: int = 3, step: int = 5, index: int = 7) -> Tensor:
    return gaussian(torch.empty(n, dtype=dtype), seed=seed, step=step, index=index)


def assert_standard_normal(x: Tensor) -> None:
    """Moments to the fourth, whose squares have means of 1, 3, 15, 105, and the distance of the distributions."""
    n = x.numel()
    x = x.double().flatten()
    assert abs(x.mean()) < 4 / math.sqrt(n)
    assert abs((x**2).mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs((x**3).mean()) < 4 * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < 4 * math.sqrt(96 / n)
    # One in 16,000, as four standard errors are.
    assert stats.kstest(x.numpy(), "norm").pvalue > 6e-5


def assert_independent(x: Tensor, y: Tensor) -> None:
    """No correlation of the values, of their squares, or of one's values with the other's squares."""
    x, y, n = x.double(), y.double(), x.numel()
    assert abs((x * y).mean()) < 4 / math.sqrt(n)
    assert abs(((x**2 - 1) * (y**2 - 1)).mean()) < 4 * 2 / math.sqrt(n)
    assert abs((x * (y**2 - 1)).mean()) < 4 * math.sqrt(2 / n)
    assert abs(((x**2 - 1) * y).mean()) < 4 * math.sqrt(2 / n)


@pytest.mark.parametrize(
    ("dtype", "noise_dtype"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_real_noise_is_standard_normal(dtype: torch.dtype, noise_dtype: torch.dtype) -> None:
    x = draw(N, dtype)
    assert x.dtype == noise_dtype
    assert_standard_normal(x)
    for block in x.split(BLOCK):
        assert_standard_normal(block)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_noise_is_standard_normal_in_both_parts(dtype: torch.dtype) -> None:
    z = draw(N // 2, dtype)
    assert z.dtype == dtype
    assert_standard_normal(z.real)
    assert_standard_normal(z.imag)
    assert_independent(z.real, z.imag)
    p = torch.empty(N // 2, 2, dtype=dtype.to_real())
    assert torch.equal(torch.view_as_real(z), gaussian(p, seed=3, step=5, index=7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lag", [1, 2, 3, 1000, BLOCK // 2 - 1, BLOCK // 2, BLOCK // 2 + 1, BLOCK, 2 * BLOCK])
def test_elements_are_independent_of_one_another(lag: int, dtype: torch.dtype) -> None:
    """Box-Muller makes two numbers from one radius: half a block apart."""
    x = draw(N, dtype)
    assert_independent(x[:-lag], x[lag:])


# Neighbours in every coordinate, and keys with their numbers exchanged.
KEYS = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (1, 2, 3), (3, 2, 1), (2, 3, 1), (2**32, 0, 0)]


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(KEYS, 2)))
def test_seeds_steps_and_parameters_are_independent(one: Any, other: Any) -> None:
    x, y = (draw(BLOCK, seed=seed, step=step, index=index) for seed, step, index in (one, other))
    assert_independent(x, y)


def test_no_two_keys_share_a_stream() -> None:
    seeds = [0, 1, 2, 2**31, 2**32, 2**32 + 1, 2**64, 2**64 + 1, 2**100]
    keys = list(itertools.product(seeds, range(12), range(12)))
    first = {tuple(draw(2, torch.float64, seed=s, step=t, index=i).tolist()) for s, t, i in keys}
    assert len(first) == len(keys)


def test_over_steps_an_element_is_standard_normal() -> None:
    """The first, a middle and the last element of a small parameter, each along 8,000 steps."""
    path = torch.stack([draw(5, step=step) for step in range(8_000)])
    for element in (0, 2, 4):
        assert_standard_normal(path[:, element])
        assert_independent(path[:-1, element], path[1:, element])


def test_values_depend_on_nothing_else_that_is_drawn() -> None:
    expected = draw(1001)
    torch.manual_seed(99)
    for n in SIZES:
        draw(n, seed=4)
        draw(n, torch.float64)
    assert torch.equal(draw(1001), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_whole_blocks_are_the_same_in_a_larger_parameter(blocks: int, dtype: torch.dtype) -> None:
    """So a shard finds its own elements in the blocks that it overlaps."""
    whole = draw(N, dtype)
    assert torch.equal(draw(blocks * BLOCK, dtype), whole[: blocks * BLOCK])
    assert torch.equal(draw(blocks * BLOCK + 17, dtype)[: blocks * BLOCK], whole[: blocks * BLOCK])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("n", SIZES)
def test_every_size_is_filled(n: int, dtype: torch.dtype) -> None:
    x = draw(n, dtype)
    assert x.shape == (n,)
    assert x.isfinite().all()
    assert (torch.view_as_real(x) if x.is_complex() else x).unique().numel() >= 0.9 * n
    # A second tensor of this size holds the same: nothing was left as it was allocated.
    assert torch.equal(draw(n, dtype), x)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (3, 5, 7), (2, 0)])
def test_shapes(shape: tuple[int, ...]) -> None:
    x = gaussian(torch.empty(shape), seed=3, step=5, index=7)
    assert x.shape == shape
    assert torch.equal(x.flatten(), draw(math.prod(shape)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64])
def test_adding_rounds_once(dtype: torch.dtype) -> None:
    """p + scale · noise, the sum rounded to the parameter's type, whatever its layout in memory."""
    start = torch.randn(40, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    noise = gaussian(start, seed=3, step=5, index=7)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    exact = start.to(wide) + 0.3 * noise.to(wide)
    for p in (start.clone(), start.clone().t().contiguous().t()):
        pointer = p.data_ptr()
        add_gaussian_(p, 0.3, seed=3, step=5, index=7)
        assert p.data_ptr() == pointer
        assert p.dtype == dtype
        if dtype in (torch.bfloat16, torch.float16):
            # At most half a unit in the last place, and what float32 adds to that.
            bound = torch.finfo(dtype).eps * exact.abs() * (0.5 + 1e-3) + 1e-4 * torch.finfo(dtype).eps
            assert ((p.to(wide) - exact).abs() <= bound).all()
        else:
            torch.testing.assert_close(p, exact.to(dtype))


def test_displacement_is_the_root_of_2_lr_temperature() -> None:
    assert displacement(0.5, 4.0) == 2.0
    assert displacement(0.1, 0.0) == 0.0
    assert displacement(0.0, 1.0) == 0.0


BUILDERS: dict[str, Any] = {
    "EntropySGD": lambda p, **changes: EntropySGD(p, 0.3, **changes),
    "EntropySGD, momentum": lambda p, **changes: EntropySGD(p, 0.3, momentum=0.9, nesterov=True, **changes),
    "EntropyAdam": lambda p, **changes: EntropyAdam(p, 0.3, **changes),
    "NestedOptimizer": lambda p, **changes: NestedOptimizer(torch.optim.RMSprop(p, lr=0.3), **changes),
}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_displacement_in_real_steps(name: str) -> None:
    """On a flat loss all that moves x′ is noise, and after k steps of which lr was halved once, it is their sum.

    Two groups of two temperatures and a frozen parameter between: each has the place in the order for its stream.
    """
    hot, frozen, cold = (nn.Parameter(torch.zeros(n)) for n in (20_001, 5, 10_000))
    frozen.requires_grad_(False)
    groups = [{"params": [hot, frozen], "temperature": 0.02}, {"params": [cold], "temperature": 1e-4}]
    optimizer = BUILDERS[name](groups, inner_steps=3, gamma=0.0, alpha=1.0, seed=11, rho=0.5)
    expected = {hot: torch.zeros_like(hot), cold: torch.zeros_like(cold)}
    step = 0
    for call in range(10):
        if call == 2:
            for group in optimizer.param_groups:
                group["lr"] = 0.15
        at_rho = optimizer.cycle_position == 3
        before = {p: p.detach().clone() for p in expected}
        for p in expected:
            p.grad = torch.zeros_like(p)
        last = optimizer.cycle_position == 2
        optimizer.step()
        if at_rho:
            continue
        for index, p, temperature in ((0, hot, 0.02), (2, cold, 1e-4)):
            x_prime = optimizer.state[p]["average"] if last else p.detach()
            moved = x_prime - before[p]
            variance = 2 * (0.3 if call < 2 else 0.15) * temperature
            assert_standard_normal(moved / math.sqrt(variance))
            drawn = gaussian(p, seed=11, step=step, index=index)
            torch.testing.assert_close(moved, math.sqrt(variance) * drawn, rtol=1e-4, atol=1e-6)
        step += 1
    assert (optimizer.outer_updates, optimizer.cycle_position) == (2, 2)
    assert torch.equal(frozen, torch.zeros(5))


@pytest.mark.parametrize("name", BUILDERS)
def test_without_temperature_nothing_is_drawn(name: str) -> None:
    p = nn.Parameter(torch.zeros(100))
    optimizer = BUILDERS[name]([p], inner_steps=3, temperature=0.0)
    for _ in range(7):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert torch.equal(p, torch.zeros(100))
