"""The schedules are functions of t with the values of their formulas, and frozen."""

import math
import pickle
from dataclasses import FrozenInstanceError

import pytest
import torch
from torch import nn

from widevalley import EntropySGD
from widevalley.scoping import Bounded, Constant, Geometric, Linear, Steps

schedules = [
    Constant(0.3),
    Geometric(1e-4, 1e-3),
    Linear(0.5, 2.4, 10),
    Bounded(Geometric(1e-4, 1e-3), 2e-4, 1.0),
    Steps((1.0, 0.1), (7,)),
]


def test_constant():
    assert [Constant(0.3)(t) for t in (0, 1, 1000)] == [0.3, 0.3, 0.3]


def test_geometric():
    """γ₀(1 + γ₁)^t: 0.03 doubles after 693.5 updates of the authors' 1e-3."""
    assert Geometric(8.0, 0.5)(0) == 8.0
    assert [Geometric(8.0, 0.5)(t) for t in (1, 2, 3)] == [12.0, 18.0, 27.0]
    assert Geometric(8.0, -0.5)(2) == 2.0
    assert Geometric(0.03, 1e-3)(693) < 0.06 < Geometric(0.03, 1e-3)(694)


def test_linear_stays_at_its_end():
    assert [Linear(1.0, 3.0, 4)(t) for t in (0, 1, 2, 3, 4, 5, 100)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    assert [Linear(3.0, 1.0, 2)(t) for t in (0, 1, 2, 3)] == [3.0, 2.0, 1.0, 1.0]


def test_steps():
    assert [Steps((1.0, 0.2, 0.04), (2, 5))(t) for t in range(7)] == [1.0, 1.0, 0.2, 0.2, 0.2, 0.04, 0.04]
    assert Steps((0.5,), ())(100) == 0.5


@pytest.mark.parametrize(("values", "at"), [((1.0,), (2,)), ((1.0, 0.5, 0.2), (3, 3)), ((1.0, 0.5, 0.2), (5, 3))])
def test_steps_that_are_none(values, at):
    with pytest.raises(ValueError, match="give ascending counts, and one value more than counts"):
        Steps(values, at)


def test_bounded():
    doubling = Bounded(Geometric(1.0, 1.0), minimum=3.0, maximum=20.0)
    assert [doubling(t) for t in range(7)] == [3.0, 3.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    assert [Bounded(lambda t: t - 5.0)(t) for t in (0, 5, 7)] == [0.0, 0.0, 2.0]
    assert Bounded(Geometric(1.0, 1.0))(40) == 2.0**40


def test_bounded_holds_where_the_power_leaves_the_floats():
    assert Bounded(Geometric(1e-4, 1e-3), maximum=5.0)(10**7) == 5.0


@pytest.mark.parametrize("schedule", schedules, ids=repr)
def test_frozen_values(schedule):
    copy = pickle.loads(pickle.dumps(schedule))
    assert copy == schedule
    assert hash(copy) == hash(schedule)
    assert [copy(t) for t in range(20)] == [schedule(t) for t in range(20)]
    for name in type(schedule).__dataclass_fields__:
        with pytest.raises(FrozenInstanceError):
            setattr(schedule, name, 1.0)
    with pytest.raises((FrozenInstanceError, TypeError, AttributeError)):
        schedule.new = 1.0


def test_values_that_differ_are_unequal():
    assert Constant(0.3) != Constant(0.4)
    assert Geometric(0.1, 0.2) != Geometric(0.2, 0.1)
    assert Geometric(0.1, 0.2) != Linear(0.1, 0.2, 3)


bad = [
    (Constant, {"value": -1.5}, ValueError),
    (Constant, {"value": math.nan}, ValueError),
    (Constant, {"value": math.inf}, ValueError),
    (Constant, {"value": "0.3"}, TypeError),
    (Constant, {"value": True}, TypeError),
    (Geometric, {"initial": -0.1, "rate": 0.1}, ValueError),
    (Geometric, {"initial": None, "rate": 0.1}, TypeError),
    (Geometric, {"rate": -2.0, "initial": 0.1}, ValueError),
    (Geometric, {"rate": math.inf, "initial": 0.1}, ValueError),
    (Geometric, {"rate": [0.1], "initial": 0.1}, TypeError),
    (Linear, {"initial": -1.0, "final": 1.0, "updates": 3}, ValueError),
    (Linear, {"final": -1.0, "initial": 1.0, "updates": 3}, ValueError),
    (Linear, {"final": math.nan, "initial": 1.0, "updates": 3}, ValueError),
    (Linear, {"updates": 0, "initial": 1.0, "final": 2.0}, ValueError),
    (Linear, {"updates": -4, "initial": 1.0, "final": 2.0}, ValueError),
    (Linear, {"updates": 2.5, "initial": 1.0, "final": 2.0}, TypeError),
    (Bounded, {"schedule": 0.3}, TypeError),
    (Bounded, {"minimum": -0.5, "schedule": Constant(1.0)}, ValueError),
    (Bounded, {"minimum": math.nan, "schedule": Constant(1.0)}, ValueError),
    (Bounded, {"minimum": "low", "schedule": Constant(1.0)}, TypeError),
    (Bounded, {"maximum": 0.5, "minimum": 0.75, "schedule": Constant(1.0)}, ValueError),
    (Bounded, {"maximum": math.nan, "schedule": Constant(1.0)}, ValueError),
    (Bounded, {"maximum": "high", "schedule": Constant(1.0)}, TypeError),
]


@pytest.mark.parametrize(("kind", "arguments", "error"), bad)
def test_bad_arguments_are_named_with_their_value(kind, arguments, error):
    name, value = next(iter(arguments.items()))
    with pytest.raises(error) as raised:
        kind(**arguments)
    assert name in str(raised.value)
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("schedule", schedules, ids=repr)
def test_optimizer_asks_once_per_update_from_zero_on(schedule):
    """γ(t) of the optimizer's own count: on a zero gradient x′ returns to x by the factor 1 − η′γ(t) a step."""
    p = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = EntropySGD([p], 0.5, gamma=schedule, inner_steps=3, alpha=1.0, temperature=0.0)
    for t in range(6):
        away, zero = torch.tensor([2.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
        x = p.item()
        steps = []
        for gradient in (away, zero, zero):
            p.grad = gradient
            optimizer.step()
            steps.append(p.item() - x)
        keep = 1 - 0.5 * schedule(t)
        assert steps == pytest.approx([-1.0, -keep, -(keep**2)], rel=1e-9)
