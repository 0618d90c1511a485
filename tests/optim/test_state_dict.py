"""What a checkpoint holds, what loading takes from it, and what is refused."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, assert_same, entropy_adam, entropy_sgd, snapshot, train

from widevalley import EntropySGD, NestedOptimizer


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("position", range(INNER_STEPS))
def test_loading_keeps_float32_centers_under_half_precision_parameters(
    dtype: torch.dtype, rho: float, position: int
) -> None:
    model, fresh = Network(0, dtype), Network(1, dtype)
    optimizer = entropy_sgd(model.parameters(), rho=rho)
    train(model, optimizer, range(optimizer.cycle_length + position))
    saved = snapshot(model, optimizer)
    centers = [state["center"] for state in saved["optimizer"]["state"].values()]
    assert {center.dtype for center in centers} == {torch.float32}
    # The case is only worth something where rounding to the parameters' type would lose digits.
    assert not torch.equal(centers[0], centers[0].to(dtype).float())

    fresh_optimizer = entropy_sgd(fresh.parameters(), rho=rho)
    fresh.load_state_dict(saved["model"])
    fresh_optimizer.load_state_dict(saved["optimizer"])
    assert_same(snapshot(fresh, fresh_optimizer), saved)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


@pytest.mark.parametrize("place", ["construction", "mid-cycle", "center"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_dict_has_two_keys_and_no_function(name: str, place: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=0.1)
    if place != "construction":
        train(model, optimizer, range(6))
    if place == "center":
        optimizer.eval()
    state_dict = optimizer.state_dict()
    assert set(state_dict) == {"state", "param_groups"}
    assert sorted(state_dict["state"]) == [0, 1, 2, 3]
    for state in state_dict["state"].values():
        assert {"center", "average"} <= state.keys()
        assert ("sample" in state) == (place == "center")
    for leaf in leaves(state_dict):
        assert isinstance(leaf, torch.Tensor | bool | int | float | str | None), leaf


def test_loading_keeps_the_functions_of_the_constructor() -> None:
    """As LambdaLR does: what γ and η are is code, and the code that runs now has the last word."""
    model = Network()
    optimizer = entropy_sgd(model.parameters(), gamma=lambda t: 0.2 + t, outer_lr=lambda t: 0.5)
    train(model, optimizer, range(7))
    saved = snapshot(model, optimizer)

    seen = []

    def gamma(t: int) -> float:
        seen.append(t)
        return 0.4

    other = Network(1)
    other_optimizer = entropy_sgd(other.parameters(), gamma=gamma, outer_lr=lambda t: 0.25)
    other.load_state_dict(saved["model"])
    other_optimizer.load_state_dict(saved["optimizer"])
    seen.clear()
    train(other, other_optimizer, range(7, 14))
    assert seen
    assert min(seen) >= 2
    assert other_optimizer.outer_updates == 4


def test_a_function_that_was_a_number_when_saved_is_used_after_loading() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters(), gamma=0.3, outer_lr=1.0)
    train(model, optimizer, range(4))
    functions = Network(1)
    functions_optimizer = entropy_sgd(functions.parameters(), gamma=lambda t: 9.0, outer_lr=lambda t: 1.0)
    functions.load_state_dict(model.state_dict())
    functions_optimizer.load_state_dict(optimizer.state_dict())
    for run in ((model, optimizer), (functions, functions_optimizer)):
        train(*run, range(4, 6))
    # γ of 9 instead of 0.3 in two more inner steps.
    assert not torch.allclose(model.first, functions.first)


def test_numbers_come_from_the_checkpoint() -> None:
    model, other = Network(0), Network(1)
    optimizer = entropy_sgd(model.parameters(), gamma=0.3, alpha=0.7, temperature=1e-3, outer_lr=0.5, momentum=0.8)
    train(model, optimizer, range(4))
    other_optimizer = entropy_sgd(other.parameters(), gamma=0.2, alpha=0.4, temperature=0.0, outer_lr=1.0, seed=99)
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    for run in ((model, optimizer), (other, other_optimizer)):
        train(*run, range(4, 11))
    assert_same(snapshot(other, other_optimizer), snapshot(model, optimizer))


@pytest.mark.parametrize("plain", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("ours", [entropy_sgd, entropy_adam])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_plain_optimizers_checkpoint_is_refused(plain: Any, ours: Callable[..., Any], steps: int) -> None:
    model = Network()
    plain_optimizer = plain(model.parameters(), lr=0.1)
    train(model, plain_optimizer, range(steps))
    optimizer = ours(model.parameters())
    train(model, optimizer, range(4))
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=r"(?i)center|entropy|nested"):
        optimizer.load_state_dict(plain_optimizer.state_dict())
    assert_same(snapshot(model, optimizer), before)


def test_a_checkpoint_of_other_groups_is_refused() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters())
    train(model, optimizer, range(4))
    fewer = entropy_sgd(list(model.parameters())[:2])
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match="parameter group"):
        optimizer.load_state_dict(fewer.state_dict())
    assert_same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loading_does_not_alias_the_loaded_dictionary(name: str, dtype: torch.dtype) -> None:
    model, other = Network(0, dtype), Network(1, dtype)
    optimizer, other_optimizer = (OPTIMIZERS[name](m.parameters()) for m in (model, other))
    train(model, optimizer, range(4))
    loaded = optimizer.state_dict()
    before = snapshot(model, optimizer)
    other_optimizer.load_state_dict(loaded)
    assert_same(loaded, before["optimizer"])
    train(other, other_optimizer, range(4, 11))
    assert_same(loaded, before["optimizer"])
    assert_same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("cycles", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_loaded_at_position_0_are_the_new_center(cycles: int, dtype: torch.dtype) -> None:
    model, pretrained = Network(0, dtype), Network(7, dtype)
    optimizer = EntropySGD(model.parameters(), 0.05, inner_steps=3, gamma=0.3)
    train(model, optimizer, range(3 * cycles))
    model.load_state_dict(pretrained.state_dict())
    pretrained_optimizer = EntropySGD(pretrained.parameters(), 0.05, inner_steps=3, gamma=0.3)
    for run in ((model, optimizer), (pretrained, pretrained_optimizer)):
        train(*run, range(7))
    assert_same(model.state_dict(), pretrained.state_dict())
    for p, q in zip(model.parameters(), pretrained.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["center"], pretrained_optimizer.state[q]["center"])


def test_a_checkpoint_survives_a_second_save_before_any_step() -> None:
    """A run that is resumed and at once interrupted again loses nothing."""
    model = Network()
    optimizer = entropy_adam(model.parameters())
    train(model, optimizer, range(5))
    saved = snapshot(model, optimizer)
    for seed in (1, 2):
        model = Network(seed)
        optimizer = entropy_adam(model.parameters())
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        assert_same(snapshot(model, optimizer), saved)


def test_groups_are_the_inner_optimizers_after_loading() -> None:
    model = Network()
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    optimizer = NestedOptimizer(inner, inner_steps=3)
    train(model, optimizer, range(4))
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is inner.param_groups
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    train(model, optimizer, [4], scheduler)
    assert inner.param_groups[0]["lr"] == pytest.approx(0.001)


def test_settings_of_the_outer_optimizer_come_from_the_checkpoint() -> None:
    """Where outer_lr is None its rate is its own, and the caller may have a schedule for it."""
    model, other = Network(0), Network(1)
    optimizer, other_optimizer = (OPTIMIZERS["nested adamw, adam outside"](m.parameters()) for m in (model, other))
    assert optimizer.outer is not None
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer.outer, 0.5)
    for call in range(10, 18):
        updates = optimizer.outer_updates
        train(model, optimizer, [call])
        if optimizer.outer_updates > updates:
            scheduler.step()
    assert optimizer.outer.param_groups[0]["lr"] == 0.05 / 4
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    for run in ((model, optimizer), (other, other_optimizer)):
        train(*run, range(18, 25))
    assert_same(snapshot(other, other_optimizer), snapshot(model, optimizer))
