"""Refusals wherever they come from, drawn at large: constructors, groups, functions of t, groups that come late.

Each names the argument, shows what was given, and says what to do; what was refused leaves no trace.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle import OPTIMIZERS, Network, assert_same, snapshot, train
from torch import nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer
from widevalley.scoping import Linear

properties = settings(derandomize=True, deadline=None, max_examples=25, database=None)


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor(0.5))]


def build_sgd(params: Any = None, **arguments: Any) -> EntropySGD:
    return EntropySGD(parameters() if params is None else params, **({"lr": 0.1} | arguments))


def build_adam(params: Any = None, **arguments: Any) -> EntropyAdam:
    return EntropyAdam(parameters() if params is None else params, **({"lr": 0.1} | arguments))


def build_nested(params: Any = None, **arguments: Any) -> NestedOptimizer:
    return NestedOptimizer(torch.optim.SGD(parameters() if params is None else params, lr=0.1), **arguments)


def build_two(params: Any = None, **arguments: Any) -> NestedOptimizer:
    inner = torch.optim.RMSprop(parameters() if params is None else params, lr=0.01)
    return NestedOptimizer(inner, lambda centers: torch.optim.SGD(centers, lr=0.7, momentum=0.9), **arguments)


BUILDERS: dict[str, Callable[..., NestedOptimizer]] = {
    "EntropySGD": build_sgd,
    "EntropyAdam": build_adam,
    "NestedOptimizer": build_nested,
    "NestedOptimizer of two": build_two,
}


# ---------------------------------------------------------------------- what is not

not_finite = st.sampled_from([math.nan, math.inf, -math.inf, np.float32("nan")])
negative = st.one_of(st.floats(max_value=-1e-300, allow_infinity=False), st.integers(-9, -1))
too_large = st.floats(1.0, 1e9, exclude_min=True)
no_number = st.sampled_from(["0.1", "", True, False, [0.1], (0.1,), {}, 1j, b"1", np.array([0.1, 0.2])])
no_integer = st.sampled_from([1.0, 2.5, "3", True, False, None, [3], math.nan])
no_bool = st.sampled_from([0, 1, 1.0, "True", None, [], "no"])
nothing = st.none()
no_beta = st.one_of(not_finite, negative, too_large, st.just(1.0), st.just("0.9"), st.none(), st.booleans())
no_pair = st.one_of(
    st.sampled_from([0.9, "0.9", "ab", None, (), (0.9,), (0.9, 0.99, 0.999), {0.9: 0.99}]),
    st.tuples(no_beta, st.just(0.5)),
    st.tuples(st.just(0.5), no_beta),
)

# Of each argument: values that are of a wrong type, and values that are out of range.
nonnegative = (st.one_of(no_number, nothing), st.one_of(not_finite, negative))
share = (st.one_of(no_number, nothing), st.one_of(not_finite, negative, too_large, st.just(1.0)))
flag = (no_bool, st.nothing())
WRONG = {
    "lr": nonnegative,
    "momentum": share,
    "nesterov": flag,
    "weight_decay": nonnegative,
    "betas": (st.nothing(), no_pair),
    "outer_betas": (st.nothing(), no_pair),
    "eps": nonnegative,
    "restart": flag,
    "decoupled_pull": flag,
    "outer_lr": (no_number, st.one_of(not_finite, negative, st.sampled_from([0, 0.0]))),
    "outer_momentum": share,
    "inner_steps": (no_integer, st.integers(-9, 0)),
    "gamma": nonnegative,
    "rho": nonnegative,
    "alpha": (st.one_of(no_number, nothing), st.one_of(not_finite, negative, too_large, st.sampled_from([0, 0.0]))),
    "pull": (no_number, st.one_of(not_finite, negative)),
    "temperature": nonnegative,
    "seed": (no_integer, st.integers(-9, -1)),
    "check_finite": flag,
}
NESTED = [
    "inner_steps", "gamma", "rho", "alpha", "pull", "temperature", "restart", "decoupled_pull", "outer_lr", "seed",
    "check_finite",
]  # fmt: skip
ARGUMENTS = {
    "EntropySGD": ["lr", "momentum", "nesterov", "weight_decay", "outer_momentum", *NESTED],
    "EntropyAdam": ["lr", "betas", "outer_betas", "eps", "weight_decay", *NESTED],
    "NestedOptimizer": NESTED,
    "NestedOptimizer of two": NESTED,
}
EVERY = [(kind, name) for kind, names in ARGUMENTS.items() for name in names]
IN_GROUPS = [(kind, name) for kind, name in EVERY if name != "check_finite"]


def assert_tells(error: BaseException, name: str, value: Any) -> None:
    """The argument, what was given, and what to do."""
    message = str(error)
    assert name in message
    assert repr(value) in message
    assert "give " in message


def draw_wrong(data: st.DataObject, name: str) -> tuple[Any, Any]:
    """A value, and the errors that it may meet: a pair may be of a wrong type in one of its elements only."""
    types, ranges = WRONG[name]
    value, errors = data.draw(
        st.one_of(types.map(lambda v: (v, TypeError)), ranges.map(lambda v: (v, ValueError))), label=name
    )
    return value, (TypeError, ValueError) if name in ("betas", "outer_betas") else errors


@pytest.mark.parametrize(("kind", "name"), EVERY)
@properties
@given(data=st.data())
def test_what_is_invalid_is_refused_by_the_constructor(kind: str, name: str, data: st.DataObject) -> None:
    value, errors = draw_wrong(data, name)
    with pytest.raises(errors) as caught:
        BUILDERS[kind](**{name: value})
    assert_tells(caught.value, name, value)


@pytest.mark.parametrize(("kind", "name"), IN_GROUPS)
@properties
@given(data=st.data())
def test_what_is_invalid_is_refused_in_a_group(kind: str, name: str, data: st.DataObject) -> None:
    value, errors = draw_wrong(data, name)
    one, other = parameters()
    key = "nested_alpha" if (kind, name) == ("NestedOptimizer of two", "alpha") else name
    if value is None and name == "outer_lr":
        return
    with pytest.raises(errors) as caught:
        BUILDERS[kind]([{"params": [one]}, {"params": [other], key: value}])
    assert_tells(caught.value, name, value)


@pytest.mark.parametrize("name", ["lr", "momentum", "outer_momentum", "weight_decay"])
@pytest.mark.parametrize("value", [torch.tensor(-1.0), torch.tensor(math.nan), torch.tensor([math.inf])])
def test_a_tensor_is_checked_as_its_number(name: str, value: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=f"{name}={value.item()}"):
        build_sgd(**{name: value})


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma=1000"):
        build_sgd(gamma=10**400)


def test_entropy_sgds_outer_rate_is_not_left_out() -> None:
    """None has a meaning for Adam and for a caller's own outer optimizer only."""
    with pytest.raises(TypeError, match="outer_lr=None"):
        build_sgd(outer_lr=None, outer_momentum=0.5)


@pytest.mark.parametrize("grouped", [False, True])
def test_nesterov_needs_a_momentum(grouped: bool) -> None:
    one, other = parameters()
    # The optimizer's own momentum does not help a group that has none.
    groups = [{"params": [one]}, {"params": [other], "momentum": 0.0}] if grouped else [one, other]
    with pytest.raises(ValueError, match=r"nesterov=True.*momentum.*outer_momentum.*give"):
        build_sgd(groups, momentum=0.9 if grouped else 0.0, nesterov=True)
    assert build_sgd(groups, nesterov=True, outer_momentum=0.5).defaults["nesterov"]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("still", [{"gamma": 0.0, "pull": None}, {"gamma": 0, "pull": None}, {"pull": 0.0}])
@pytest.mark.parametrize("kind", BUILDERS)
def test_what_can_never_move_is_refused(kind: str, still: dict[str, Any], grouped: bool) -> None:
    one, other = parameters()
    with pytest.raises(ValueError, match=r"gamma=.*pull=.*rho=0.*give"):
        BUILDERS[kind]([{"params": [one]}, {"params": [other], **still}]) if grouped else BUILDERS[kind](**still)
    # Each of these three moves.
    BUILDERS[kind](**still, rho=0.1)
    BUILDERS[kind](**still | {"pull": 1.0})
    BUILDERS[kind](**{"pull": None, "gamma": lambda t: 0.1 * t})


@pytest.mark.parametrize(("name", "one", "two"), [("inner_steps", 3, 4), ("rho", 0.0, 0.1), ("seed", 0, 1)])
@pytest.mark.parametrize("kind", BUILDERS)
def test_what_is_one_for_the_whole_optimizer_does_not_differ(kind: str, name: str, one: Any, two: Any) -> None:
    p, q = parameters()
    with pytest.raises(ValueError, match=rf"{name}={two!r} .*{one!r}.*give"):
        BUILDERS[kind]([{"params": [p], name: one}, {"params": [q], name: two}])
    optimizer = BUILDERS[kind]([{"params": [p], name: two}, {"params": [q], name: two}])
    assert [group[name] for group in optimizer.param_groups] == [two, two]


# ---------------------------------------------------------------------- functions of t

wrong_returns = {
    "gamma": st.one_of(not_finite, negative, st.sampled_from(["0.1", None, True, [0.1], abs])),
    "outer_lr": st.one_of(not_finite, negative, st.sampled_from(["0.1", None, True, [0.1], abs])),
}


@pytest.mark.parametrize("name", wrong_returns)
@pytest.mark.parametrize("kind", BUILDERS)
@settings(properties, max_examples=40)
@given(data=st.data(), bad=st.integers(0, 3))
def test_what_a_function_returns_is_checked(kind: str, name: str, data: st.DataObject, bad: int) -> None:
    """At once for t = 0, else as soon as t is reached."""
    value = data.draw(wrong_returns[name])

    def function(t: int) -> Any:
        return value if t == bad else 0.5

    held = parameters()
    updates = -1
    with pytest.raises((TypeError, ValueError)) as caught:  # noqa: PT012
        optimizer = BUILDERS[kind](held, **{name: function}, inner_steps=2)
        updates = 0
        for p in held:
            p.grad = torch.ones_like(p)
        for step in range(8):
            optimizer.step()
            updates = (step + 1) // 2
    assert updates == bad - 1
    assert_tells(caught.value, name, value)


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("name", ["gamma", "outer_lr"])
def test_a_schedule_may_reach_zero(kind: str, name: str) -> None:
    held = parameters()
    optimizer = BUILDERS[kind](held, **{name: Linear(0.5, 0.0, 2)}, inner_steps=2, rho=0.1)
    for p in held:
        p.grad = torch.ones_like(p)
    for _ in range(4 * optimizer.cycle_length):
        optimizer.step()
    assert optimizer.param_groups[0][name] == 0.0


# ---------------------------------------------------------------------- groups that come later

refused_groups = {
    "alpha": ({"alpha": 1.5}, ValueError, "alpha=1.5"),
    "gamma": ({"gamma": math.nan}, ValueError, "gamma=nan"),
    "type": ({"temperature": "hot"}, TypeError, "temperature='hot'"),
    "still": ({"gamma": 0.0, "pull": None}, ValueError, "never moves"),
    "inner_steps": ({"inner_steps": 99}, ValueError, "inner_steps=99"),
    "function": ({"gamma": lambda t: -1.0}, ValueError, "gamma=-1.0"),
    "function of eta": ({"outer_lr": lambda t: math.nan}, ValueError, "outer_lr=nan"),
    "function that raises": ({"gamma": lambda t: 1 / t}, ValueError, "gamma=.*division.*give"),
}


@pytest.mark.parametrize("case", refused_groups)
@pytest.mark.parametrize("name", ["sgd", "sgd, outer momentum", "adam", "nested adamw", "nested adamw, adam outside"])
def test_after_a_refused_group_all_is_as_before(name: str, case: str) -> None:
    changes, error, message = refused_groups[case]
    model, twin = Network(), Network()
    optimizer, twin_optimizer = (OPTIMIZERS[name]([m.first, m.last, m.late], rho=0.0) for m in (model, twin))
    train(model, optimizer, range(10, 12))
    train(twin, twin_optimizer, range(10, 12))
    with pytest.raises(error, match=message):
        optimizer.add_param_group({"params": [model.bias], **changes})
    assert len(optimizer.param_groups) == len(optimizer.inner.param_groups) == 1
    assert model.bias not in optimizer.state
    train(model, optimizer, range(20, 27))
    train(twin, twin_optimizer, range(20, 27))
    assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
    for m, o in ((model, optimizer), (twin, twin_optimizer)):
        o.add_param_group({"params": [m.bias]})
        train(m, o, range(30, 37))
    assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
