"""Every common scheduler of torch moves our optimizers as it moves the plain ones, and counts gradients."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lifecycle import assert_same
from torch import Tensor, nn
from torch.optim import lr_scheduler as ls
from torch.optim.swa_utils import SWALR

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer

CALLS = 24
# Within the first cycle and with γ = 0 the inner loop is the plain optimizer.
FIRST_CYCLE: dict[str, Any] = {"inner_steps": 100, "gamma": 0.0, "temperature": 0.0}

Pair = tuple[Callable[[Any], NestedOptimizer], Callable[[Any], torch.optim.Optimizer]]
PAIRS: dict[str, Pair] = {
    "EntropySGD": (
        lambda p: EntropySGD(p, 0.1, momentum=0.9, nesterov=True, **FIRST_CYCLE),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    ),
    "EntropySGD without momentum": (
        lambda p: EntropySGD(p, 0.1, **FIRST_CYCLE),
        lambda p: torch.optim.SGD(p, 0.1),
    ),
    "EntropyAdam": (
        lambda p: EntropyAdam(p, 0.1, **FIRST_CYCLE),
        lambda p: torch.optim.Adam(p, 0.1),
    ),
    "NestedOptimizer of AdamW": (
        lambda p: NestedOptimizer(torch.optim.AdamW(p, 0.1), **FIRST_CYCLE),
        lambda p: torch.optim.AdamW(p, 0.1),
    ),
    "NestedOptimizer of SGD": (
        lambda p: NestedOptimizer(torch.optim.SGD(p, 0.1, momentum=0.9), **FIRST_CYCLE),
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    ),
}

SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "StepLR": lambda o: ls.StepLR(o, 5, gamma=0.5),
    "MultiStepLR": lambda o: ls.MultiStepLR(o, [4, 9, 15]),
    "MultiplicativeLR": lambda o: ls.MultiplicativeLR(o, lambda k: 0.97),
    "ConstantLR": lambda o: ls.ConstantLR(o, factor=0.25, total_iters=6),
    "LinearLR": lambda o: ls.LinearLR(o, start_factor=0.1, total_iters=8),
    "ExponentialLR": lambda o: ls.ExponentialLR(o, 0.95),
    "PolynomialLR": lambda o: ls.PolynomialLR(o, total_iters=20, power=2.0),
    "CosineAnnealingLR": lambda o: ls.CosineAnnealingLR(o, T_max=15, eta_min=1e-3),
    "CosineAnnealingWarmRestarts": lambda o: ls.CosineAnnealingWarmRestarts(o, T_0=4, T_mult=2),
    "ChainedScheduler": lambda o: ls.ChainedScheduler(
        [ls.ConstantLR(o, factor=0.5, total_iters=4), ls.ExponentialLR(o, 0.9)]
    ),
    "SequentialLR": lambda o: ls.SequentialLR(
        o, [ls.LinearLR(o, 0.1, total_iters=5), ls.CosineAnnealingLR(o, T_max=19)], milestones=[5]
    ),
    # Warm-up from nothing: lr is 0 at the first gradient.
    "LambdaLR": lambda o: ls.LambdaLR(o, lambda k: min(1.0, k / 6) * math.cos(k / 20)),
    "OneCycleLR": lambda o: ls.OneCycleLR(o, max_lr=0.2, total_steps=CALLS + 1),
    "CyclicLR": lambda o: ls.CyclicLR(o, base_lr=0.01, max_lr=0.2, step_size_up=5),
    "ReduceLROnPlateau": lambda o: ls.ReduceLROnPlateau(o, patience=2, factor=0.5),
    "SWALR": lambda o: SWALR(o, swa_lr=0.02, anneal_epochs=6),
}


def gradient(call: int) -> Tensor:
    return torch.randn(3, generator=torch.Generator().manual_seed(call), dtype=torch.float64)


def weights() -> nn.Parameter:
    return nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))


def moved(group: dict[str, Any]) -> dict[str, Any]:
    return {key: group[key] for key in ("lr", "momentum", "betas") if key in group}


def advance(scheduler: Any, call: int) -> None:
    if isinstance(scheduler, ls.ReduceLROnPlateau):
        scheduler.step(1.0 if call > 3 else 2.0 - 0.1 * call)
    else:
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("pair", PAIRS)
def test_moves_as_on_the_plain_optimizer(pair: str, name: str) -> None:
    parameters = [weights(), weights()]
    optimizers = [build([p]) for build, p in zip(PAIRS[pair], parameters, strict=True)]
    schedulers = [SCHEDULERS[name](o) for o in optimizers]
    settings = []
    for call in range(CALLS):
        for p, optimizer in zip(parameters, optimizers, strict=True):
            p.grad = gradient(call)
            optimizer.step()
        # The step took the lr and the momentum that the scheduler had set.
        torch.testing.assert_close(parameters[0], parameters[1], rtol=1e-10, atol=1e-12)
        for scheduler in schedulers:
            advance(scheduler, call)
        ours, plain = (moved(o.param_groups[0]) for o in optimizers)
        plain = {key: plain[key] for key in ours}
        assert ours == plain
        settings.append(ours)
    assert optimizers[0].cycle_position == CALLS
    assert len({s["lr"] for s in settings}) > 1
    if name == "OneCycleLR":
        key = "betas" if "betas" in settings[0] else "momentum"
        first = [s[key][0] if key == "betas" else s[key] for s in settings]
        assert min(first) < 0.86
        assert max(first) > 0.94


@pytest.mark.parametrize("name", ["OneCycleLR", "CyclicLR"])
@pytest.mark.parametrize("pair", PAIRS)
def test_the_outer_momenta_stay_where_they_are(pair: str, name: str) -> None:
    p = weights()
    optimizer = PAIRS[pair][0]([p])
    outer = {k: v for k, v in optimizer.param_groups[0].items() if k.startswith("outer_")}
    scheduler = SCHEDULERS[name](optimizer)
    for call in range(5):
        p.grad = gradient(call)
        optimizer.step()
        scheduler.step()
    after = {k: v for k, v in optimizer.param_groups[0].items() if k.startswith("outer_")}
    # initial_lr and the like are the scheduler's; what is ours keeps its value.
    assert_same({k: after[k] for k in outer}, outer)


def test_the_schedule_counts_gradients_not_cycles() -> None:
    """With ρ > 0 the gradient at the centre is one more."""
    p = weights()
    optimizer = EntropySGD([p], 0.1, inner_steps=2, rho=0.1)
    scheduler = ls.StepLR(optimizer, 4, gamma=0.1)
    rates = []
    for call in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        p.grad = gradient(call)
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 4)
    assert optimizer.outer_updates == 4


def test_each_group_has_its_own_schedule() -> None:
    parameters = [weights(), weights()]
    optimizer = EntropySGD([{"params": [parameters[0]]}, {"params": [parameters[1]], "lr": 0.01}], 0.1, **FIRST_CYCLE)
    scheduler = ls.LambdaLR(optimizer, [lambda k: 1.0, lambda k: 1.0 + k])
    total = 0.0
    for call in range(4):
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
        total += 0.01 * (1 + call)
    torch.testing.assert_close(parameters[0].detach(), weights().detach() - 0.4)
    torch.testing.assert_close(parameters[1].detach(), weights().detach() - total)


def test_a_scheduler_that_was_made_for_the_inner_optimizer_goes_on() -> None:
    """The user wraps a tuned optimizer that has its scheduler already."""
    p = weights()
    inner = torch.optim.SGD([p], 0.1)
    scheduler = ls.ExponentialLR(inner, 0.5)
    optimizer = NestedOptimizer(inner, **FIRST_CYCLE)
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
        scheduler.step()
    torch.testing.assert_close(p.detach(), weights().detach() - 0.175)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_copy_made_while_a_scheduler_is_attached_steps_itself(pair: str) -> None:
    """Schedulers wrap the step of the optimizer they were given: the copy must not inherit that."""
    p = weights()
    optimizer = PAIRS[pair][0]([p])
    scheduler = ls.ExponentialLR(optimizer, 0.9)
    p.grad = gradient(0)
    optimizer.step()
    scheduler.step()
    q, copied = copy.deepcopy((p, optimizer))
    before = p.detach().clone()
    q.grad = gradient(1)
    copied.step()
    assert torch.equal(p, before)
    assert not torch.equal(q, before)
    assert (optimizer.cycle_position, copied.cycle_position) == (1, 2)
