"""What goes into the two loops of NestedOptimizer, and that it is treated as its owner would expect."""

from typing import Any

import pytest
import torch
from lifecycle import OPTIMIZERS, Network, assert_same, train
from torch import nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, update_batchnorm


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def descend(optimizer: torch.optim.Optimizer, calls: int = 1) -> None:
    """Steps on half the squared distance to 1 of every parameter that is to be trained."""
    for _ in range(calls):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = p.detach() - 1 if p.requires_grad else None
        optimizer.step()


def warm_sgd(p: nn.Parameter) -> torch.optim.Optimizer:
    inner = torch.optim.SGD([p], 0.1, momentum=0.9)
    descend(inner, 2)
    return inner


@pytest.mark.parametrize("make", [warm_sgd, lambda p: torch.optim.Adagrad([p], 0.1)], ids=["warm", "adagrad"])
def test_restart_needs_an_inner_optimizer_without_state(make: Any) -> None:
    """As new would be the state of its own first step, which is not there any more, or was never empty."""
    with pytest.raises(ValueError, match="restart"):
        NestedOptimizer(make(parameter(1.0)), restart=True)
    NestedOptimizer(make(parameter(1.0)), restart=False)


def test_a_refused_construction_leaves_the_inner_optimizer_as_it_was() -> None:
    """What the caller does next is to try again with other values: the first ones must not stay in the groups."""
    inner = warm_sgd(parameter(3.0))
    before = dict(inner.param_groups[0])
    for wrong in ({"restart": True}, {"alpha": 2.0}, {"gamma": 0.0, "pull": None}, {"gamma": lambda t: -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NestedOptimizer(inner, **{"inner_steps": 7, **wrong})
    assert inner.param_groups[0] == before
    optimizer = NestedOptimizer(inner, restart=False, alpha=0.5, inner_steps=3)
    settings = ("restart", "alpha", "inner_steps")
    assert [optimizer.param_groups[0][name] for name in settings] == [False, 0.5, 3]


def test_an_inner_optimizer_that_is_wrapped_again_is_refused_or_starts_anew() -> None:
    """What the first wrapper wrote into the groups must not silently outvote the arguments of the second."""
    p = parameter(3.0)
    inner = torch.optim.SGD([p], 0.1)
    descend(NestedOptimizer(inner, gamma=0.1, inner_steps=3), 2)
    try:
        second = NestedOptimizer(inner, gamma=0.5, inner_steps=7)
    except (TypeError, ValueError) as refusal:
        assert "inner" in str(refusal)  # noqa: PT017
    else:
        assert (second.param_groups[0]["gamma"], second.cycle_length, second.cycle_position) == (0.5, 7, 0)


@pytest.mark.parametrize("kind", [EntropySGD, EntropyAdam])
def test_a_construction_leaves_the_callers_groups_as_they_were(kind: Any) -> None:
    """People build several optimizers from one list of groups."""
    groups: list[dict[str, Any]] = [{"params": [parameter(1.0)], "lr": 0.2}, {"params": [parameter(2.0)]}]
    before = [dict(group) for group in groups]
    first = kind(groups, 0.1, gamma=0.25, inner_steps=3)
    assert groups == before
    second = kind(groups, 0.1, gamma=0.5, inner_steps=3)
    assert [o.param_groups[0]["gamma"] for o in (first, second)] == [0.25, 0.5]


def test_a_warm_inner_optimizer_keeps_its_moments() -> None:
    """The swap in the middle of a run: with γ = 0 the first cycle goes on as the inner optimizer would."""
    p, q = parameter(5.0, -2.0), parameter(5.0, -2.0)
    inner, plain = (torch.optim.Adam([r], 0.1) for r in (p, q))
    for optimizer in (inner, plain):
        descend(optimizer, 4)
    nested = NestedOptimizer(inner, restart=False, gamma=0.0, temperature=0.0, inner_steps=20)
    for _ in range(10):
        descend(nested)
        descend(plain)
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


def test_lbfgs_outside_is_refused() -> None:
    """It would fail at the end of the first cycle, an hour later."""
    with pytest.raises((TypeError, ValueError), match=r"LBFGS.*closure"):
        NestedOptimizer(
            torch.optim.SGD([parameter(1.0)], 0.1), outer=lambda groups: torch.optim.LBFGS(groups[0]["params"])
        )


def test_the_outer_optimizer_gets_groups_of_centers_in_order() -> None:
    model = Network()
    given: list[Any] = []

    def outer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        given.extend(groups)
        return torch.optim.SGD(groups, lr=0.7)

    inner = torch.optim.SGD([{"params": [model.first]}, {"params": [model.bias, model.last]}], lr=0.1)
    optimizer = NestedOptimizer(inner, outer, inner_steps=3)
    assert [[tuple(c.shape) for c in group["params"]] for group in given] == [[(4, 3)], [(4,), (2, 4)]]
    assert_same(given[0]["params"][0].detach(), model.first.detach())
    assert isinstance(optimizer.outer, torch.optim.SGD)
    assert [group["lr"] for group in optimizer.outer.param_groups] == [0.7, 0.7]
    assert NestedOptimizer(torch.optim.SGD([model.late], lr=0.1)).outer is None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_step_hooks_are_called_once_a_step(name: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=0.1)
    calls: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    train(model, optimizer, range(10, 18))
    assert calls == ["before", "after"] * 8


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_dict_hooks(name: str) -> None:
    model, other = Network(), Network(1)
    optimizer, other_optimizer = (OPTIMIZERS[name](m.parameters()) for m in (model, other))
    train(model, optimizer, range(4))
    calls: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda *_: calls.append("saving"))
    optimizer.register_state_dict_post_hook(lambda *_: calls.append("saved"))
    other_optimizer.register_load_state_dict_pre_hook(lambda *_: calls.append("loading"))
    other_optimizer.register_load_state_dict_post_hook(lambda *_: calls.append("loaded"))
    other_optimizer.load_state_dict(optimizer.state_dict())
    assert calls == ["saving", "saved", "loading", "loaded"]


@pytest.mark.parametrize("shape", [(), (0,), (1, 1, 1)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    p = nn.Parameter(torch.full(shape, 3.0))
    optimizer = OPTIMIZERS[name]([p], rho=0.1)
    for _ in range(9):
        p.grad = p.detach() - 1
        optimizer.step()
    with optimizer.at_center():
        assert p.shape == shape
    assert p.isfinite().all()
    assert (p < 3.0).all()


@pytest.mark.parametrize("build", [lambda ps: EntropySGD(ps, 0.1), lambda ps: EntropyAdam(ps, 0.1)])
def test_a_frozen_integer_parameter_is_no_obstacle(build: Any) -> None:
    """Quantised layers keep their weights as such."""
    index = nn.Parameter(torch.tensor([1, 2, 3]), requires_grad=False)
    p = parameter(3.0)
    optimizer = build([index, p])
    descend(optimizer, 25)
    with optimizer.at_center():
        assert index.tolist() == [1, 2, 3]
    optimizer.load_state_dict(optimizer.state_dict())
    assert index.tolist() == [1, 2, 3]
    assert p.item() < 3.0


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"lr": -1.0}, r"lr.*-1"),
        ({"gamma": -2.0}, r"gamma.*-2"),
        ({"alpha": 1.5}, r"alpha.*1\.5"),
        ({"momentum": 1.25}, r"momentum.*1\.25"),
        ({"outer_momentum": 1.25}, r"outer_momentum.*1\.25"),
        ({"temperature": float("nan")}, r"temperature.*nan"),
        ({"inner_steps": 7}, r"inner_steps.*7"),
        ({"rho": 0.5}, r"rho.*0\.5"),
        ({"seed": 9}, r"seed.*9"),
    ],
)
def test_a_bad_late_group_is_named_and_does_not_join(group: dict[str, Any], message: str) -> None:
    p, late = parameter(1.0), parameter(0.0)
    optimizer = EntropySGD([p], 0.1, inner_steps=3)
    descend(optimizer)
    before = optimizer.state_dict()
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [late], **group})
    assert len(optimizer.param_groups) == len(optimizer.inner.param_groups) == 1
    assert_same(optimizer.state_dict(), before)
    descend(optimizer, 5)
    assert late.item() == 0.0
    # The corrected group joins.
    optimizer.add_param_group({"params": [late]})
    descend(optimizer, 5)
    assert late.item() != 0.0


def test_unfrozen_at_position_0_starts_where_it_is() -> None:
    thawed, other, fresh = parameter(4.0, -3.0), parameter(0.0), parameter(0.0, 0.0)
    settings: dict[str, Any] = {"inner_steps": 3, "gamma": 0.3, "temperature": 0.0}
    optimizer = EntropySGD([thawed, other], 0.1, **settings)
    descend(optimizer, 2)
    thawed.requires_grad_(False)
    descend(optimizer, 4)
    assert optimizer.cycle_position == 0
    with torch.no_grad():
        fresh.copy_(thawed)
    thawed.requires_grad_(True)
    fresh_optimizer = EntropySGD([fresh], 0.1, **settings)
    for _ in range(7):
        descend(optimizer)
        descend(fresh_optimizer)
        assert torch.equal(thawed, fresh)


def test_batchnorm_statistics_taken_at_the_center_stay_when_x_prime_returns() -> None:
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, nn.BatchNorm1d(3))
    optimizer = EntropySGD(model.parameters(), 0.5, inner_steps=4, gamma=0.1)
    for seed in range(6):
        inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        (model(inputs) - inputs).square().sum().backward()
        optimizer.step()
    x_prime = layer.weight.detach().clone()
    with optimizer.at_center(), torch.no_grad():
        update_batchnorm(model, [inputs])
        at_x = layer(inputs).mean(dim=0)
    torch.testing.assert_close(model[1].running_mean, at_x)
    assert torch.equal(layer.weight, x_prime)
    assert not torch.allclose(layer(inputs).mean(dim=0), at_x)
