"""Copies of the optimizer, and that everything of the caller's is given back as it was.

Gradients, global random states, closures, learning rates that are tensors; and what is refused before it is touched.
"""

import copy
import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, assert_same, entropy_sgd, loss, nested, snapshot, train
from torch import Tensor

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, center_state_dict

RHO = 0.3
CYCLE = INNER_STEPS + 1


# ---------------------------------------------------------------------- copies


def by_deepcopy(pair: Any) -> Any:
    return copy.deepcopy(pair)


def by_pickle(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


@pytest.mark.parametrize("duplicate", [by_deepcopy, by_pickle])
@pytest.mark.parametrize("position", range(CYCLE))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_copies_continue_identically_and_independently(name: str, position: int, duplicate: Any) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO, check_finite=True)
    train(model, optimizer, range(4, 4 + CYCLE + position))
    before = snapshot(model, optimizer)
    twin, twin_optimizer = duplicate((model, optimizer))
    assert twin_optimizer.param_groups is twin_optimizer.inner.param_groups
    assert [id(p) for p in twin_optimizer.param_groups[0]["params"]] == [id(p) for p in twin.parameters()]
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    train(twin, twin_optimizer, range(20, 20 + 2 * CYCLE))
    assert_same(snapshot(model, optimizer), before)
    train(model, optimizer, range(20, 20 + 2 * CYCLE))
    assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
    assert twin_optimizer.check_finite
    for each in (twin_optimizer, optimizer):
        with each.at_center():
            pass
        each.close_cycle()
    assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))


@pytest.mark.parametrize("duplicate", [by_deepcopy, by_pickle])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_copy_made_at_the_center_goes_back_to_x_prime(name: str, duplicate: Any) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters())
    train(model, optimizer, range(10, 12))
    optimizer.eval()
    twin, twin_optimizer = duplicate((model, optimizer))
    assert_same(twin.state_dict(), model.state_dict())
    optimizer.train()
    assert not torch.equal(twin.first, model.first)
    twin_optimizer.train()
    assert_same(snapshot(twin, twin_optimizer), snapshot(model, optimizer))


# ---------------------------------------------------------------------- what the caller handed over


@pytest.mark.parametrize("kind", [EntropySGD, EntropyAdam])
@pytest.mark.parametrize("settings", [{}, {"decoupled_pull": True, "temperature": 1e-3, "weight_decay": 0.1}])
def test_a_tensor_as_learning_rate(kind: type[NestedOptimizer], settings: dict[str, Any]) -> None:
    """As compiled loops and capturable optimizers have it; the scheduler writes into it."""
    model, twin = Network(), Network()
    # A number that float32 holds exactly.
    lr = torch.tensor(0.0625)
    optimizer = kind(model.parameters(), lr, inner_steps=3, **settings)
    twin_optimizer = kind(twin.parameters(), 0.0625, inner_steps=3, **settings)
    for call in range(10, 18):
        if call == 15:
            lr.fill_(0.125)
            twin_optimizer.param_groups[0]["lr"] = 0.125
        train(model, optimizer, [call])
        train(twin, twin_optimizer, [call])
        torch.testing.assert_close(model.state_dict(), twin.state_dict(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rho", [0.0, RHO])
def test_a_closure_is_called_once_with_gradients_enabled(rho: float) -> None:
    model, twin = Network(), Network()
    optimizer, twin_optimizer = (entropy_sgd(m.parameters(), rho=rho) for m in (model, twin))
    for call in range(10, 19):
        seen: list[Tensor] = []

        def closure(call: int = call, seen: list[Tensor] = seen) -> Tensor:
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            seen.append(loss(model, call))
            seen[-1].backward()
            return seen[-1]

        with torch.no_grad():
            returned = optimizer.step(closure)
        assert len(seen) == 1
        assert returned is seen[0]
        train(twin, twin_optimizer, [call])
        assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
    assert optimizer.step() is None


# SGD with Nesterov momentum adds into the gradients that it is given when it works on lists.
GREEDY = {
    "nested sgd, foreach": nested(
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=True)
    ),
    "nested sgd, nesterov": nested(
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=False)
    ),
    "nested adam, foreach": nested(lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1, foreach=True)),
    "nested sgd, nesterov outside": nested(
        lambda p: torch.optim.SGD(p, lr=0.05),
        outer=lambda c: torch.optim.SGD(c, lr=0.7, momentum=0.9, nesterov=True, weight_decay=0.1, foreach=True),
        outer_lr=None,
    ),
}


@pytest.mark.parametrize("changes", [{}, {"gamma": 0.0}, {"decoupled_pull": True}])
@pytest.mark.parametrize("name", [*OPTIMIZERS, *GREEDY])
def test_gradients_are_the_same_objects_and_unchanged(name: str, changes: dict[str, Any]) -> None:
    model = Network()
    optimizer = (OPTIMIZERS | GREEDY)[name](model.parameters(), rho=RHO, **changes)
    for call in range(2, 2 + 2 * CYCLE + 1):
        optimizer.zero_grad()
        loss(model, call).backward()
        given = [p.grad for p in model.parameters()]
        values = [None if g is None else g.clone() for g in given]
        optimizer.step()
        assert [id(p.grad) for p in model.parameters()] == [id(g) for g in given]
        assert_same(given, values)
        with optimizer.at_center():
            pass
        assert [id(p.grad) for p in model.parameters()] == [id(g) for g in given]
        assert_same(given, values)


def test_gradients_come_back_when_the_inner_optimizer_raises() -> None:
    model = Network()
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = NestedOptimizer(inner, gamma=0.1, inner_steps=3)
    loss(model, 10).backward()
    given = [p.grad for p in model.parameters()]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    inner.register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert [id(p.grad) for p in model.parameters()] == [id(g) for g in given]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_global_random_states_are_never_touched(name: str) -> None:
    model = Network()

    def states() -> list[Any]:
        return [torch.get_rng_state(), pickle.dumps(np.random.get_state()), random.getstate()]  # noqa: NPY002

    before = states()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO, temperature=0.1)
    assert_same(states(), before)
    for call in range(10, 10 + 2 * CYCLE + 2):
        optimizer.zero_grad()
        loss(model, call).backward()
        assert_same(states(), before)
        optimizer.step()
        assert_same(states(), before)
        with optimizer.at_center():
            assert_same(states(), before)
    optimizer.load_state_dict(snapshot(model, optimizer)["optimizer"])
    center_state_dict(model, optimizer)
    optimizer.close_cycle()
    by_pickle((model, optimizer))
    assert_same(states(), before)


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zero_grad(name: str, set_to_none: bool) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    for call in range(10, 10 + CYCLE):
        loss(model, call).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        for p in model.parameters():
            assert (p.grad is None) if set_to_none else torch.equal(p.grad, torch.zeros_like(p))
            # The outer loop's gradient is no part of the memory between steps.
            assert optimizer.state[p]["center"].grad is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_repr_shows_the_settings(name: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), gamma=0.125, inner_steps=7)
    shown = repr(optimizer)
    assert shown.startswith(f"{type(optimizer).__name__} (")
    assert "gamma: 0.125" in shown
    assert "inner_steps: 7" in shown
    assert "tensor" not in shown


# ---------------------------------------------------------------------- refusals


def test_an_optimizer_that_needs_its_closure_is_refused() -> None:
    model = Network()
    with pytest.raises((TypeError, ValueError), match=r"LBFGS.*closure.*SGD"):
        NestedOptimizer(torch.optim.LBFGS(model.parameters()))


def test_nesting_twice_is_refused() -> None:
    model = Network()
    with pytest.raises(TypeError, match="nest once"):
        NestedOptimizer(entropy_sgd(model.parameters()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_check_finite_refuses_before_anything_is_touched(name: str, value: float) -> None:
    model, twin = Network(), Network()
    optimizer = OPTIMIZERS[name](model.named_parameters(), rho=RHO, check_finite=True)
    twin_optimizer = OPTIMIZERS[name](twin.named_parameters(), rho=RHO)
    for call in range(10, 10 + CYCLE + 2):
        before = snapshot(model, optimizer)
        optimizer.zero_grad()
        loss(model, call).backward()
        model.last.grad[1, 2] = value
        with pytest.raises(ValueError, match=r"'last'.*(NaN|infinite).*check_finite=False"):
            optimizer.step()
        assert_same(snapshot(model, optimizer), before)
        train(model, optimizer, [call])
        train(twin, twin_optimizer, [call])
    assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))


def test_without_check_finite_a_nan_goes_through() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters())
    loss(model, 10).backward()
    model.bias.grad[0] = float("nan")
    optimizer.step()
    assert model.bias.isnan().tolist() == [True, False, False, False]
    assert optimizer.cycle_position == 1
