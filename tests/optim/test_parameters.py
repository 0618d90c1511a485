"""Which parameters are moved: frozen ones, those without a gradient, late ones, tied, complex and sparse."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, assert_same, entropy_sgd, loss, snapshot, train
from torch import Tensor, nn

from widevalley import EntropySGD, NestedOptimizer, center_state_dict

RHO = 0.3
CYCLE = INNER_STEPS + 1


def copies(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


def own_state(optimizer: NestedOptimizer, p: Tensor) -> dict[str, Any]:
    return copy.deepcopy(dict(optimizer.state[p]))


# ---------------------------------------------------------------------- frozen, absent and late parameters


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_frozen_parameter_is_untouched(name: str) -> None:
    """In two whole cycles, at the centre, and when a cycle is closed; the others move as they do without it."""
    model, alone = Network(), Network()
    model.bias.requires_grad_(False)
    alone.bias.requires_grad_(False)
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO, temperature=0.0)
    parameters = [p for p in alone.parameters() if p.requires_grad]
    optimizer_alone = OPTIMIZERS[name](parameters, rho=RHO, temperature=0.0)
    bias = model.bias.clone()
    for call in range(10, 10 + 2 * CYCLE + 2):
        train(model, optimizer, [call])
        train(alone, optimizer_alone, [call])
        assert torch.equal(model.bias, bias)
        with optimizer.at_center():
            assert torch.equal(model.bias, bias)
    optimizer.close_cycle()
    optimizer_alone.close_cycle()
    assert_same(model.state_dict(), alone.state_dict())
    assert torch.equal(center_state_dict(model, optimizer)["bias"], bias)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_frozen_parameter_that_the_user_changes_by_hand(name: str) -> None:
    """A teacher's average, or a temperature that is annealed."""
    model = Network()
    model.bias.requires_grad_(False)
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    bias = model.bias.clone()
    for call in range(10, 10 + 2 * CYCLE + 2):
        bias += 1.0
        model.bias.copy_(bias)
        with optimizer.at_center():
            assert torch.equal(model.bias, bias)
        train(model, optimizer, [call])
        assert torch.equal(model.bias, bias)
    optimizer.close_cycle()
    assert torch.equal(model.bias, bias)


@pytest.mark.parametrize("position", range(CYCLE))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_frozen_in_mid_cycle_is_untouched_from_then_on(name: str, position: int) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    train(model, optimizer, range(10, 10 + position))
    optimizer.zero_grad()
    model.bias.requires_grad_(False)
    bias = model.bias.clone()
    for call in range(20, 20 + 2 * CYCLE):
        train(model, optimizer, [call])
        assert torch.equal(model.bias, bias)
        with optimizer.at_center():
            assert torch.equal(model.bias, bias)
        assert torch.equal(model.bias, bias)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_gradient_left_over_from_before_freezing_moves_nothing(name: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    loss(model, 10).backward()
    model.bias.requires_grad_(False)
    bias, grad = model.bias.clone(), model.bias.grad.clone()
    for call in range(20, 20 + CYCLE):
        for p in model.parameters():
            p.grad = None if p.requires_grad else grad
        loss(model, call).backward()
        optimizer.step()
        assert torch.equal(model.bias, bias)


@pytest.mark.parametrize("position", range(CYCLE))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parameter_unfrozen_later_is_one_that_had_no_gradient_before(name: str, position: int) -> None:
    model, twin = Network(), Network()
    optimizer, twin_optimizer = (OPTIMIZERS[name](m.parameters(), rho=RHO) for m in (model, twin))
    # Adam counts the outer steps of a centre that stays where it is.
    comparable = not isinstance(optimizer.outer, torch.optim.Adam)
    bias = model.bias.clone()
    for call in range(10, 10 + 3 * CYCLE):
        frozen = call < 10 + CYCLE + position
        model.bias.requires_grad_(not frozen)
        train(model, optimizer, [call])
        twin_optimizer.zero_grad()
        loss(twin, call).backward()
        if frozen:
            twin.bias.grad = None
        twin_optimizer.step()
        if frozen:
            assert torch.equal(model.bias, bias)
        if frozen or comparable:
            assert_same(model.state_dict(), twin.state_dict())
    assert not torch.equal(model.bias, bias)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_a_gradient_x_prime_and_the_average_stay_in_that_call(name: str) -> None:
    """Network.late has none before call 8; here the bias has none in every other call of the inner loop."""
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    for call in range(10, 10 + 2 * CYCLE):
        optimizer.zero_grad()
        loss(model, call).backward()
        skipped = call % 2 == 0 and optimizer.cycle_position < INNER_STEPS
        if skipped:
            model.bias.grad = None
        last = optimizer.cycle_position == INNER_STEPS - 1
        (x_prime,), state = copies(model.bias), own_state(optimizer, model.bias)
        optimizer.step()
        if skipped and not last:
            assert torch.equal(model.bias, x_prime)
            # At position 0 the average starts anew.
            assert_same(own_state(optimizer, model.bias), state)
        elif not skipped:
            assert not torch.equal(model.bias, x_prime)


@pytest.mark.parametrize("skipped", range(3))
def test_without_a_gradient_by_hand(skipped: int) -> None:
    """f(p) = p, η′ = ½, γ = 1, α = ½, η = 1: two steps in three calls leave μ = −1/2 (see test_center)."""
    p, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = EntropySGD(
        [other, p], 0.5, inner_steps=3, gamma=1.0, alpha=0.5, outer_lr=1.0, restart=False, temperature=0.0
    )
    for call in range(3):
        other.grad = torch.ones(2)
        p.grad = None if call == skipped else torch.ones(2)
        optimizer.step()
    assert torch.equal(other.detach(), torch.full((2,), -11 / 16))
    assert torch.equal(p.detach(), torch.full((2,), -1 / 2))


def test_without_a_gradient_at_the_center_there_is_no_term_of_rho() -> None:
    p, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = EntropySGD(
        [other, p], 0.5, inner_steps=3, gamma=1.0, alpha=0.5, outer_lr=1.0, rho=2.0, restart=False, temperature=0.0
    )
    for call in range(4):
        other.grad = torch.ones(2)
        p.grad = None if call == 3 else torch.ones(2)
        optimizer.step()
    assert torch.equal(other.detach(), torch.full((2,), -11 / 16 - 2.0))
    assert torch.equal(p.detach(), torch.full((2,), -11 / 16))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_without_any_gradient_leaves_the_cycle(name: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    for call in range(10, 10 + CYCLE + 2):
        before, position = snapshot(model, optimizer), optimizer.cycle_position
        optimizer.zero_grad()
        optimizer.step()
        assert (optimizer.cycle_position, optimizer.outer_updates) == (position, (call - 10) // CYCLE)
        assert_same(snapshot(model, optimizer), before)
        train(model, optimizer, [call])


# ---------------------------------------------------------------------- groups


def takes_groups_later(kind: type[torch.optim.Adagrad]) -> bool:
    """torch's own Adagrad of 2.11 makes its state in the constructor alone, and fails on a group added later."""
    optimizer = kind([nn.Parameter(torch.zeros(1))])
    added = nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [added]})
    added.grad = torch.zeros(1)
    try:
        optimizer.step()
    except KeyError:
        return False
    return True


@pytest.mark.parametrize("to_inner", [False, True], ids=["added", "added to inner"])
@pytest.mark.parametrize("position", range(CYCLE))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_group_added_in_mid_cycle_joins_where_it_is(name: str, position: int, to_inner: bool) -> None:
    if "adagrad" in name and not takes_groups_later(torch.optim.Adagrad):
        pytest.skip("this torch's Adagrad takes no groups after construction")
    model = Network()
    optimizer = OPTIMIZERS[name]([model.first, model.last, model.late], rho=RHO)
    train(model, optimizer, range(10, 10 + CYCLE + position))
    first, bias = copies(model.first, model.bias)
    (optimizer.inner if to_inner else optimizer).add_param_group({"params": [model.bias]})
    with optimizer.at_center():
        assert torch.equal(model.bias, bias)
    assert_same(copies(model.first, model.bias), [first, bias])
    state = optimizer.state[model.bias]
    assert_same([state["center"], state["average"]], [bias, bias])
    group, other = optimizer.param_groups[1], optimizer.param_groups[0]
    # Whether the arithmetic is fused is no setting.
    assert group.keys() == other.keys()
    assert all(group[k] == other[k] for k in group.keys() - {"params", "fused"})
    assert optimizer.cycle_position == position

    remaining = CYCLE - position
    train(model, optimizer, range(20, 20 + remaining))
    assert (optimizer.cycle_position, optimizer.outer_updates) == (0, 2)
    # With only ρ's gradient left it moves by that alone.
    assert not torch.equal(model.bias, bias)
    assert torch.equal(state["center"], model.bias)
    train(model, optimizer, range(30, 30 + CYCLE))
    assert optimizer.outer_updates == 3


@pytest.mark.parametrize("position", range(3))
def test_a_group_added_in_mid_cycle_by_hand(position: int) -> None:
    """f(p) = p as above: it makes the steps that are left of the cycle, with a scope of its own, γ = 0 and η′ = 1."""
    p, late = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    optimizer = EntropySGD([p], 0.5, inner_steps=3, gamma=1.0, alpha=0.5, outer_lr=1.0, restart=False, temperature=0.0)
    for call in range(3):
        if call == position:
            optimizer.add_param_group({"params": [late], "gamma": 0.0, "lr": 1.0})
        p.grad, late.grad = torch.ones(2), torch.ones(2)
        optimizer.step()
    # x′ = −1, −2, −3, so μ = −1/2, −5/4, −17/8.
    assert torch.equal(late.detach(), torch.full((2,), {0: -17 / 8, 1: -5 / 4, 2: -1 / 2}[position]))
    assert torch.equal(p.detach(), torch.full((2,), -11 / 16))


def test_a_group_is_not_added_at_the_center() -> None:
    model = Network()
    optimizer = entropy_sgd([model.first])
    with optimizer.at_center(), pytest.raises(RuntimeError, match=r"add_param_group.*centre"):
        optimizer.add_param_group({"params": [model.bias]})
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.inner.param_groups) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_param_groups_are_the_inner_optimizers_and_hold_no_center(name: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    train(model, optimizer, range(10, 12))
    assert optimizer.param_groups is optimizer.inner.param_groups
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert optimizer.param_groups is optimizer.inner.param_groups
    assert len(optimizer.param_groups) == 2
    held = [id(p) for p in optimizer.param_groups[0]["params"]]
    assert held == [id(p) for p in model.parameters()]
    assert set(optimizer.param_groups[0]["params"]) == set(model.parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_named_parameters(name: str) -> None:
    model, named = Network(), Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=RHO)
    named_optimizer = OPTIMIZERS[name](named.named_parameters(), rho=RHO)
    assert named_optimizer.param_groups[0]["param_names"] == ["first", "bias", "last", "late"]
    train(model, optimizer, range(7))
    train(named, named_optimizer, range(7))
    assert_same(model.state_dict(), named.state_dict())
    named_optimizer.add_param_group({"params": [("extra", nn.Parameter(torch.ones(1)))]})
    assert named_optimizer.param_groups[1]["param_names"] == ["extra"]


def test_names_in_groups() -> None:
    model = Network()
    first, bias, last, late = model.named_parameters()
    optimizer = EntropySGD([{"params": [first, bias]}, {"params": [last, late], "lr": 0.5}], 0.1)
    assert [g["param_names"] for g in optimizer.param_groups] == [["first", "bias"], ["last", "late"]]
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]


# ---------------------------------------------------------------------- tied, complex, sparse


@pytest.mark.parametrize("build", [entropy_sgd, OPTIMIZERS["adam"], OPTIMIZERS["nested adamw, adam outside"]])
def test_tied_weights_are_one_parameter(build: Callable[..., NestedOptimizer]) -> None:
    model, untied = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 3, bias=False)), nn.Linear(3, 3)
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[0].weight.copy_(weight)
        untied.weight.copy_(weight)
    model[2].weight = model[0].weight
    optimizer, single = build(model.parameters(), rho=RHO), build([untied.weight], rho=RHO)
    assert len(optimizer.param_groups[0]["params"]) == len(optimizer.state) == 1
    for call in range(2 * CYCLE + 2):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(call))
        for each, output in ((optimizer, model), (single, lambda a: (a @ untied.weight.T).tanh() @ untied.weight.T)):
            each.zero_grad()
            output(inputs).square().mean().backward()
            each.step()
        assert model[2].weight is model[0].weight
        torch.testing.assert_close(model[0].weight, untied.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_complex_parameter_is_its_two_real_coordinates(name: str, dtype: torch.dtype) -> None:
    """f = log(1 + |p² − a|²), and the noise on real and imaginary parts alike."""
    generator = torch.Generator().manual_seed(0)
    start, a = torch.randn(2, 5, generator=generator, dtype=dtype)
    p, q = nn.Parameter(start.clone()), nn.Parameter(torch.view_as_real(start).clone())
    optimizer, real_optimizer = OPTIMIZERS[name]([p], rho=RHO), OPTIMIZERS[name]([q], rho=RHO)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.complex64 else {"rtol": 1e-10, "atol": 1e-11}
    for _ in range(2 * CYCLE + 2):
        for each, z in ((optimizer, lambda: p), (real_optimizer, lambda: torch.view_as_complex(q))):
            each.zero_grad()
            (z() ** 2 - a).abs().square().log1p().sum().backward()
            each.step()
        torch.testing.assert_close(torch.view_as_real(p.detach()), q.detach(), **tolerance)
        with optimizer.at_center(), real_optimizer.at_center():
            torch.testing.assert_close(torch.view_as_real(p.detach()), q.detach(), **tolerance)
    assert optimizer.state[p]["center"].dtype == dtype


@pytest.mark.parametrize("named", [False, True])
def test_sparse_gradients_are_refused_by_name(named: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Linear(3, 1))
    parameters = [*model.named_parameters()][::-1] if named else [*model.parameters()][::-1]
    optimizer = EntropySGD(parameters, 0.1, inner_steps=3)
    before = snapshot(model, optimizer)
    model(torch.arange(3)).sum().backward()
    with pytest.raises(ValueError, match=f"{'0.weight' if named else 'parameter 2'}.*sparse.*sparse=False"):
        optimizer.step()
    assert_same(snapshot(model, optimizer), before)
    assert optimizer.cycle_position == 0
