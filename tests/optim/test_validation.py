"""The arguments of the constructors: what is valid trains, what is not is named with its value."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, presets, scoping

modest = settings(max_examples=40, deadline=None, derandomize=True, database=None)

Build = Callable[..., NestedOptimizer]


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor(0.5))]


def entropy_sgd(lr: Any = 0.05, **arguments: Any) -> NestedOptimizer:
    return EntropySGD(parameters(), lr, **arguments)


def entropy_adam(lr: Any = 0.05, **arguments: Any) -> NestedOptimizer:
    return EntropyAdam(parameters(), lr, **arguments)


def nested(**arguments: Any) -> NestedOptimizer:
    return NestedOptimizer(torch.optim.SGD(parameters(), 0.05, momentum=0.9), **arguments)


def nested_adam(**arguments: Any) -> NestedOptimizer:
    return NestedOptimizer(torch.optim.AdamW(parameters(), 0.05), torch.optim.SGD, **arguments)


def two_cycles(optimizer: NestedOptimizer) -> None:
    """On half the squared distance from 0."""
    for _ in range(2 * optimizer.cycle_length):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = p.detach().clone()
        optimizer.step()


# ---------------------------------------------------------------------- what is valid

UNIT = st.floats(0.01, 1.0)
MOMENTUM = st.floats(0.0, 0.99)
BETAS = st.tuples(MOMENTUM, MOMENTUM)
OUTER_STEP = st.floats(0.01, 1.0) | st.sampled_from([scoping.Constant(0.5), scoping.Linear(1.0, 0.0, 5)])
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "restart": st.booleans(),
    "decoupled_pull": st.booleans(),
    "inner_steps": st.integers(1, 7),
    "gamma": st.floats(0.0, 2.0) | st.sampled_from([scoping.Geometric(0.1, 0.5), lambda t: 0.1 * t, 1]),
    "rho": st.just(0.0) | st.floats(0.0, 1.0),
    "alpha": UNIT,
    "pull": st.floats(0.01, 1.0) | st.just(1),
    "temperature": st.just(0.0) | st.floats(0.0, 1e-2),
    "seed": st.integers(0, 2**40),
    "check_finite": st.booleans(),
}


def some(**arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the arguments, each with a valid value."""
    return st.fixed_dictionaries({}, optional=COMMON | arguments)


def assert_trains(optimizer: NestedOptimizer) -> None:
    before = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    two_cycles(optimizer)
    after = [p.detach() for group in optimizer.param_groups for p in group["params"]]
    assert optimizer.outer_updates == 2
    assert optimizer.cycle_position == 0
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(p, q) for p, q in zip(after, before, strict=True))


@modest
@given(
    some(
        momentum=st.floats(0.01, 0.99),
        nesterov=st.booleans(),
        weight_decay=st.floats(0.0, 0.1),
        outer_lr=OUTER_STEP,
        outer_momentum=MOMENTUM,
    )
)
def test_valid_arguments_of_entropy_sgd(arguments: dict[str, Any]) -> None:
    nesterov = arguments.get("nesterov") and (arguments.get("momentum") or arguments.get("outer_momentum"))
    assert_trains(entropy_sgd(0.01, **arguments | {"nesterov": bool(nesterov)}))


@modest
@given(
    some(
        betas=BETAS,
        outer_betas=BETAS,
        eps=st.floats(1e-10, 1e-3),
        weight_decay=st.floats(0.0, 0.1),
        outer_lr=OUTER_STEP | st.none(),
    )
)
def test_valid_arguments_of_entropy_adam(arguments: dict[str, Any]) -> None:
    assert_trains(entropy_adam(0.01, **arguments))


@modest
@given(some(outer_lr=OUTER_STEP | st.none()), st.sampled_from([nested, nested_adam]))
def test_valid_arguments_of_a_nested_optimizer(arguments: dict[str, Any], build: Build) -> None:
    assert_trains(build(**arguments))


@pytest.mark.parametrize("preset", [presets.paper, presets.authors])
def test_the_presets_are_valid(preset: dict[str, Any]) -> None:
    assert_trains(EntropySGD(parameters(), **preset))


@pytest.mark.parametrize(
    ("gamma", "pull", "rho"), [(0.0, 1.0, 0.0), (0.0, None, 0.5), (lambda t: 0.0 if t < 1 else 1.0, None, 0.0)]
)
def test_gamma_of_0_is_valid_where_the_center_can_move(gamma: Any, pull: float | None, rho: float) -> None:
    assert_trains(entropy_sgd(inner_steps=2, gamma=gamma, pull=pull, rho=rho))


def test_a_learning_rate_of_0_is_valid() -> None:
    """Warm-up schedules begin there."""
    optimizer = entropy_sgd(0.0, inner_steps=2)
    two_cycles(optimizer)
    assert torch.equal(optimizer.param_groups[0]["params"][0], parameters()[0])


# ---------------------------------------------------------------------- what is not

NAN, INF = math.nan, math.inf
NOT_A_NUMBER: list[Any] = ["0.1", [0.1], True, 1j]
NOT_FINITE_OR_NEGATIVE: list[Any] = [NAN, INF, -INF, -0.1, -3]
NOT_A_FLAG: list[Any] = [1, 0, "yes", None, 0.5]
NOT_BETAS: list[Any] = [0.9, None, (0.9,), (0.9, 0.99, 0.999), ("0.9", 0.9), (True, 0.9), "ab"]
BETAS_OUT_OF_RANGE: list[Any] = [(1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN), (INF, 0.9), (0.9, 1.5)]

NUMBERS_WRONG = {TypeError: [*NOT_A_NUMBER, None], ValueError: NOT_FINITE_OR_NEGATIVE}
MOMENTUM_WRONG = {TypeError: NUMBERS_WRONG[TypeError], ValueError: [*NOT_FINITE_OR_NEGATIVE, 1.0, 1.5]}
WRONG: dict[str, dict[type[Exception], list[Any]]] = {
    "lr": NUMBERS_WRONG,
    "momentum": MOMENTUM_WRONG,
    "nesterov": {TypeError: NOT_A_FLAG},
    "weight_decay": NUMBERS_WRONG,
    "betas": {TypeError: NOT_BETAS, ValueError: BETAS_OUT_OF_RANGE},
    "outer_betas": {TypeError: NOT_BETAS, ValueError: BETAS_OUT_OF_RANGE},
    "eps": NUMBERS_WRONG,
    "restart": {TypeError: NOT_A_FLAG},
    "decoupled_pull": {TypeError: NOT_A_FLAG},
    "outer_lr": {TypeError: NOT_A_NUMBER, ValueError: [*NOT_FINITE_OR_NEGATIVE, 0.0, lambda t: -0.25]},
    "outer_momentum": MOMENTUM_WRONG,
    "inner_steps": {TypeError: ["3", 2.5, 3.0, True, None, NAN], ValueError: [0, -1]},
    "gamma": {TypeError: [*NOT_A_NUMBER, None], ValueError: [*NOT_FINITE_OR_NEGATIVE, lambda t: -0.25]},
    "rho": NUMBERS_WRONG,
    "alpha": {TypeError: [*NOT_A_NUMBER, None], ValueError: [*NOT_FINITE_OR_NEGATIVE, 0.0, 0, 1.01, 2]},
    "pull": {TypeError: NOT_A_NUMBER, ValueError: [*NOT_FINITE_OR_NEGATIVE, 0.0]},
    "temperature": NUMBERS_WRONG,
    "seed": {TypeError: ["7", 1.5, True, None], ValueError: [-1]},
    "check_finite": {TypeError: NOT_A_FLAG},
}
ONLY: dict[str, tuple[Build, ...]] = {
    "lr": (entropy_sgd, entropy_adam),
    "momentum": (entropy_sgd,),
    "nesterov": (entropy_sgd,),
    "weight_decay": (entropy_sgd, entropy_adam),
    "outer_momentum": (entropy_sgd,),
    "betas": (entropy_adam,),
    "outer_betas": (entropy_adam,),
    "eps": (entropy_adam,),
}
EVERY: tuple[Build, ...] = (entropy_sgd, entropy_adam, nested, nested_adam)

CASES = [
    pytest.param(build, name, value, error, id=f"{build.__name__}-{name}-{i}-{error.__name__}")
    for name, wrong in WRONG.items()
    for error, values in wrong.items()
    for i, value in enumerate(values)
    for build in ONLY.get(name, EVERY)
]


def shown(value: Any) -> str:
    """What of the value has to be in the message; of a function, what it returned."""
    return re.escape("-0.25" if callable(value) else repr(value))


@pytest.mark.parametrize(("build", "name", "value", "error"), CASES)
def test_a_wrong_value_is_named(build: Build, name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=rf"(?s)\b{name}\b.*{shown(value)}") as caught:
        build(**{name: value})
    # And what to do instead.
    assert re.search(r"give |call |use |set ", str(caught.value)), str(caught.value)


OF_GROUPS: dict[Build, Build] = {
    entropy_sgd: lambda groups: EntropySGD(groups, 0.05),
    entropy_adam: lambda groups: EntropyAdam(groups, 0.05),
    nested: lambda groups: NestedOptimizer(torch.optim.SGD(groups, 0.05)),
    nested_adam: lambda groups: NestedOptimizer(torch.optim.AdamW(groups, 0.05), torch.optim.SGD),
}
IN_GROUPS = [c for c in CASES if c.values[1] not in ("inner_steps", "rho", "seed", "check_finite")]


@pytest.mark.parametrize(("build", "name", "value", "error"), IN_GROUPS)
def test_a_wrong_value_in_a_group_is_named(build: Build, name: str, value: Any, error: type[Exception]) -> None:
    p, q = parameters()
    groups = [{"params": [p]}, {"params": [q], name: value}]
    with pytest.raises(error, match=rf"(?s)\b{name}\b.*{shown(value)}"):
        OF_GROUPS[build](groups)


@pytest.mark.parametrize("name", ["alpha", "gamma", "lr", "momentum", "outer_lr", "pull", "temperature"])
@modest
@given(st.floats(max_value=-1e-300) | st.sampled_from([NAN, INF]))
def test_no_negative_number_passes(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"\b{name}\b.*{re.escape(repr(value))}"):
        entropy_sgd(**{name: value})


@pytest.mark.parametrize("build", EVERY)
@pytest.mark.parametrize("name", ["gamma", "outer_lr"])
@pytest.mark.parametrize("bad", [-0.25, NAN, "0.1"])
def test_a_function_that_goes_wrong_later_is_named_then(build: Build, name: str, bad: Any) -> None:
    """With its value and while the weights are still finite."""
    optimizer = build(inner_steps=2, **{name: lambda t: 0.5 if t < 2 else bad})
    pattern = rf"\b{name}\b.*{re.escape(repr(bad))}"
    with pytest.raises(TypeError if isinstance(bad, str) else ValueError, match=pattern):
        two_cycles(optimizer)
    assert optimizer.outer_updates in (1, 2)
    assert all(p.isfinite().all() for group in optimizer.param_groups for p in group["params"])


@pytest.mark.parametrize("build", EVERY)
def test_what_can_never_move_is_refused(build: Build) -> None:
    with pytest.raises(ValueError, match=r"(?s)gamma.*0.*pull.*None"):
        build(gamma=0.0, pull=None, rho=0.0)


def test_nesterov_without_any_momentum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"nesterov.*True.*momentum"):
        entropy_sgd(nesterov=True)
    entropy_sgd(nesterov=True, momentum=0.5)
    entropy_sgd(nesterov=True, outer_momentum=0.5)


@pytest.mark.parametrize(("name", "values"), [("inner_steps", (3, 4)), ("rho", (0.0, 0.5)), ("seed", (0, 1))])
@pytest.mark.parametrize("kind", [EntropySGD, EntropyAdam])
def test_what_is_one_for_the_whole_optimizer_cannot_differ(kind: Any, name: str, values: tuple[Any, Any]) -> None:
    p, q = parameters()
    with pytest.raises(ValueError, match=rf"(?s){name}.*{values[1]}"):
        kind([{"params": [p]}, {"params": [q], name: values[1]}], 0.05, **{name: values[0]})
    same = kind([{"params": [p]}, {"params": [q], name: values[1]}], 0.05, **{name: values[1]})
    assert_trains(same)


@pytest.mark.parametrize("kind", [EntropySGD, EntropyAdam])
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (torch.ones(2, requires_grad=True), TypeError),
        ([], ValueError),
        ([{"params": []}, "weights"], TypeError),
        ([torch.ones(2, requires_grad=True) * 2], ValueError),
        (["weights"], TypeError),
    ],
    ids=["tensor", "empty", "string among groups", "not a leaf", "string"],
)
def test_wrong_parameters(kind: Any, wrong: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        kind(wrong, 0.05)


@pytest.mark.parametrize("build", EVERY)
def test_an_unknown_argument(build: Build) -> None:
    with pytest.raises(TypeError, match="gama"):
        build(gama=0.1)


def test_the_settings_are_keyword_only() -> None:
    """EntropySGD(params, 0.1, 0.9) would be a guess at which of 17 settings comes first."""
    with pytest.raises(TypeError, match="positional"):
        EntropySGD(parameters(), 0.05, 0.9)  # type: ignore[misc]


@pytest.mark.parametrize("inner", [None, "sgd", 0.1, torch.optim.SGD, parameters()])
def test_what_is_no_inner_optimizer(inner: Any) -> None:
    with pytest.raises(TypeError, match="inner"):
        NestedOptimizer(inner)


@pytest.mark.parametrize("outer", ["sgd", 0.7, torch.optim.SGD(parameters(), 0.1), lambda groups: None])
def test_what_makes_no_outer_optimizer(outer: Any) -> None:
    with pytest.raises(TypeError, match="outer"):
        NestedOptimizer(torch.optim.SGD(parameters(), 0.1), outer)
