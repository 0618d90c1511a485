"""What trainers and wrappers do to an optimizer behind its back, and what a user may do to the model."""

import copy
import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lifecycle import OPTIMIZERS, Network, assert_same, loss, snapshot, train
from torch import nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, center_state_dict


def moved_like_lightning(optimizer: torch.optim.Optimizer) -> None:
    """What Lightning does to the state at every fit and after every load: new containers, and perhaps new tensors."""

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.clone()
        return {key: moved(each) for key, each in value.items()} if isinstance(value, dict) else value

    for state in optimizer.state.values():
        for key, value in state.items():
            state[key] = moved(value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_trainer_may_replace_the_tensors_of_the_state(name: str) -> None:
    plain, trained = ((m := Network(0), OPTIMIZERS[name](m.parameters())) for _ in range(2))
    for start in range(0, 15, 5):
        moved_like_lightning(trained[1])
        for run in (plain, trained):
            train(*run, range(start, start + 5))
    assert_same(snapshot(*trained), snapshot(*plain))
    resumed = (model := Network(1)), OPTIMIZERS[name](model.parameters())
    saved = snapshot(*trained)
    resumed[0].load_state_dict(saved["model"])
    moved_like_lightning(resumed[1])
    resumed[1].load_state_dict(saved["optimizer"])
    moved_like_lightning(resumed[1])
    for run in (plain, resumed):
        train(*run, range(15, 25))
    assert_same(snapshot(*resumed), snapshot(*plain))


def test_a_new_list_of_groups_is_obeyed() -> None:
    model = Network(0)
    optimizer = EntropySGD(model.parameters(), 0.1, inner_steps=3)
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.param_groups[0]["gamma"] = 0.0
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, range(2))
    assert_same(model.state_dict(), before)


@pytest.mark.parametrize("name", ["sgd", "sgd, outer momentum", "adam", "nested adamw, adam outside"])
def test_a_model_converted_after_construction(name: str) -> None:
    """The state follows at the next cycle's start; the run is that of an optimizer made after the conversion."""
    early, late = Network(0), Network(0)
    optimizers = [OPTIMIZERS[name](early.parameters())]
    early.double(), late.double()
    optimizers.append(OPTIMIZERS[name](late.parameters()))
    for model, optimizer in zip((early, late), optimizers, strict=True):
        train(model, optimizer, range(12))
    assert_same(snapshot(early, optimizers[0])["model"], snapshot(late, optimizers[1])["model"])
    assert all(state["center"].dtype == torch.float64 for state in optimizers[0].state.values())


def test_numpy_numbers_pass_through_weights_only() -> None:
    model = Network(0)
    optimizer = EntropySGD(
        model.parameters(),
        0.1,
        gamma=lambda t: np.exp(-t),
        inner_steps=np.int64(3),
        seed=np.int64(3),
        alpha=np.float64(0.5),
        temperature=np.float32(1e-6),
        outer_lr=torch.tensor(0.5),
    )
    train(model, optimizer, range(4))
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    group = torch.load(buffer, weights_only=True)["param_groups"][0]
    assert group["gamma"] == pytest.approx(np.exp(-1))
    assert (group["inner_steps"], group["seed"], group["alpha"], group["outer_lr"]) == (3, 3, 0.5, 0.5)


def test_a_late_first_gradient_after_a_scheduler_has_set_the_momentum() -> None:
    model = Network(0)
    optimizer = EntropySGD(model.parameters(), 0.1, inner_steps=3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)
    train(model, optimizer, range(15), scheduler)
    assert optimizer.param_groups[0]["momentum"] > 0.8
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_maximize_is_refused() -> None:
    with pytest.raises(ValueError, match="maximize=True"):
        NestedOptimizer(torch.optim.SGD(Network(0).parameters(), lr=0.1, maximize=True))
    with pytest.raises(ValueError, match="maximize=True"):
        EntropySGD([{"params": list(Network(0).parameters()), "maximize": True}], 0.1)


def test_saving_before_x_prime_is_back_is_refused() -> None:
    """A checkpoint taken at the centre; the optimizer is loaded, then the model: the parameters hold x."""
    model = Network(0)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, range(5))
    with optimizer.at_center():
        saved = snapshot(model, optimizer)
    other = Network(1)
    resumed = OPTIMIZERS["sgd"](other.parameters())
    resumed.load_state_dict(saved["optimizer"])
    other.load_state_dict(saved["model"])
    with pytest.raises(RuntimeError, match=r"optimizer\.train\(\)"):
        resumed.state_dict()
    resumed.train()
    assert_same(snapshot(other, resumed), snapshot(model, optimizer))


def test_a_checkpoint_of_another_kind_or_shape_is_refused_and_nothing_changed() -> None:
    model = Network(0)
    optimizer = EntropySGD(model.parameters(), 0.1, momentum=0.9, inner_steps=3)
    train(model, optimizer, range(4))
    before = snapshot(model, optimizer)
    adam = EntropyAdam(Network(1).parameters(), 0.1)
    with pytest.raises(ValueError, match=r"momentum.*another optimizer"):
        optimizer.load_state_dict(adam.state_dict())
    wider = copy.deepcopy(before["optimizer"])
    wider["state"][1]["center"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"shape \(7,\).*\(4,\)"):
        optimizer.load_state_dict(wider)
    assert_same(snapshot(model, optimizer), before)


def test_an_outer_optimizer_over_other_parameters_is_refused() -> None:
    stranger = nn.Parameter(torch.zeros(2))
    inner = torch.optim.SGD(Network(0).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="not over the centres"):
        NestedOptimizer(inner, outer=lambda groups: torch.optim.SGD([stranger], lr=1.0))
    # And the inner one is free for a better try.
    NestedOptimizer(inner, outer=lambda groups: torch.optim.SGD(groups, lr=1.0))


@pytest.mark.parametrize("params", [None, nn.Linear(1, 1), 3])
def test_what_is_no_iterable_of_parameters_is_named(params: Any) -> None:
    with pytest.raises(TypeError, match=r"params=.*model\.parameters\(\)"):
        EntropySGD(params, 0.1)


def test_a_group_without_parameters_is_named() -> None:
    with pytest.raises(ValueError, match=r"'params'.*'lr'"):
        EntropySGD([{"lr": 0.1}], 0.1)


def test_the_centre_is_shipped_through_a_wrapper() -> None:
    model = Network(0)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, optimizer, range(5))
    wrapped: Any = SimpleNamespace(optimizer=optimizer)
    assert_same(center_state_dict(model, wrapped), center_state_dict(model, optimizer))
    assert loss(model, 0).isfinite()
