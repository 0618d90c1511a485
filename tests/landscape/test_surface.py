"""Surfaces: exact on quadratics, filter by filter, and between networks with and without batch-norm."""

import copy

import models
import numpy as np
import pytest
import torch
from torch import nn

from widevalley import update_batchnorm
from widevalley.landscape import Objective, surface

MATRIX = torch.tensor([[2.0, 0.3, 0.0], [0.3, -1.0, 0.5], [0.0, 0.5, 4.0]], dtype=torch.float64)
START = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)


def f(w: torch.Tensor) -> float:
    return (w @ MATRIX @ w / 2).item()


def test_a_line_on_a_quadratic_is_a_parabola() -> None:
    y = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    found = surface(models.quadratic(MATRIX, start=START), y)
    (t,) = found.coordinates
    assert (t.min(), t.max(), len(t)) == (-0.5, 1.5, 21)
    np.testing.assert_allclose(found.loss, [f(START + s * (y - START)) for s in t], rtol=1e-12, atol=1e-12)
    assert found.loss[t == 0.0] == pytest.approx(f(START), rel=1e-12)
    assert found.loss[np.isclose(t, 1.0)] == pytest.approx(f(y), rel=1e-12)
    assert found.lengths == pytest.approx(((y - START).norm().item(),))


def test_a_plane_on_a_quadratic_has_the_three_networks_at_its_corners() -> None:
    y, z = torch.eye(3, dtype=torch.float64)[:2]
    found = surface(models.quadratic(MATRIX, start=START), [y, z], limits=(0.0, 1.0), points=3)
    assert found.loss.shape == (3, 3)
    expected = [[f(START + s * (y - START) + t * (z - START)) for t in (0, 0.5, 1)] for s in (0, 0.5, 1)]
    np.testing.assert_allclose(found.loss, expected, rtol=1e-12, atol=1e-12)


def test_random_directions_on_a_quadratic() -> None:
    """‖d‖ = ‖x‖ for a vector, so on ½‖w‖² the loss at (a, b) is ‖x‖²(1 + a² + b²)/2 + cross terms that cancel."""
    objective = models.quadratic(torch.eye(3, dtype=torch.float64), start=START)
    found = surface(objective, points=3)
    assert [list(axis) for axis in found.coordinates] == [[-1.0, 0.0, 1.0]] * 2
    assert found.lengths == pytest.approx((START.norm().item(),) * 2)
    square = START.square().sum().item()
    loss = found.loss
    assert loss[1, 1] == pytest.approx(square / 2, rel=1e-12)
    np.testing.assert_allclose(loss[0, 1] + loss[2, 1], 2 * square, rtol=1e-12)
    np.testing.assert_allclose(loss[1, 0] + loss[1, 2], 2 * square, rtol=1e-12)
    np.testing.assert_allclose(loss[0, 0] + loss[2, 2] + loss[0, 2] + loss[2, 0], 6 * square, rtol=1e-12)
    # The second direction is another one.
    assert abs(loss[2, 1] - loss[1, 2]) > 1e-3


def test_rescaling_between_layers_changes_nothing() -> None:
    """A layer times a, the next divided by it, is the same function and has the same surface."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False)).double()
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        scaled[0].weight.mul_(8.0)
        scaled[2].weight.div_(8.0)
    one, other = (surface(Objective(m, data=models.data()), points=5).loss for m in (model, scaled))
    np.testing.assert_allclose(one, other, rtol=1e-9)
    assert one.max() - one.min() > 0.1


def test_the_ways_to_name_the_other_network_agree() -> None:
    objective, other = models.objective(), models.network()
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(0.5).add_(0.1)
    theirs = Objective(other, data=models.data())
    found = [surface(objective, to, points=5) for to in (other, theirs, theirs.vector(), [other])]
    for each in found[1:]:
        np.testing.assert_array_equal(each.loss, found[0].loss)
    assert found[0].loss[found[0].coordinates[0] == 1.0] == pytest.approx(theirs.value(), rel=1e-12)


def batchnorm_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    for inputs, _ in models.data():
        model(3 * inputs + 1)  # running statistics of other inputs than the objective's
    return model


def test_between_networks_with_batchnorm_statistics_are_estimated_anew_at_each_point() -> None:
    data = models.data()
    model, other = batchnorm_network(0), batchnorm_network(1)
    before = copy.deepcopy(model.state_dict())
    found = surface(Objective(model, data=data), other, limits=(0.0, 1.0), points=3)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    ends = []
    for each in (model, other):
        each = copy.deepcopy(each)
        update_batchnorm(each, data)
        ends.append(Objective(each, data=data).value())
    assert [found.loss[0], found.loss[2]] == pytest.approx(ends, rel=1e-12)
    # Not the loss with the statistics that the network came with.
    assert abs(Objective(model, data=data).value() - ends[0]) > 1e-3


def test_around_a_network_batchnorm_statistics_are_as_given() -> None:
    objective = Objective(batchnorm_network(0), data=models.data())
    found = surface(objective, points=3, limits=(-0.1, 0.1))
    assert found.loss[1, 1] == objective.value()


def test_it_repeats_by_seed_and_gives_the_model_back() -> None:
    objective = models.objective()
    before = copy.deepcopy(objective.model.state_dict())
    fractions = []
    one, again, other = (
        surface(objective, points=3, seed=seed, progress=lambda _, part: fractions.append(part)).loss
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert abs(one - other).max() > 1e-3
    assert all(torch.equal(before[name], value) for name, value in objective.model.state_dict().items())
    assert fractions[:9] == sorted(fractions[:9])
    assert fractions[8] == 1.0


@pytest.mark.parametrize(
    ("to", "said"),
    [
        (torch.zeros(4), "shape"),
        (nn.Linear(5, 3), r"0\.weight"),
        (nn.Sequential(nn.Linear(5, 9), nn.Tanh(), nn.Linear(9, 3)), r"\(9, 5\)"),
        ("weights.pt", "str"),
        ([torch.zeros(4)] * 3, "3 networks"),
    ],
)
def test_what_does_not_fit_is_refused(to, said) -> None:
    with pytest.raises(ValueError, match=said):
        surface(models.objective(), [to] if isinstance(to, str) else to)


@pytest.mark.parametrize("wrong", [{"points": 1}, {"limits": (1.0, 1.0)}, {"limits": (0.0, float("inf"))}])
def test_bad_arguments_are_refused_by_name(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        surface(models.objective(), **wrong)
