"""Fig. 2: quadrature against closed forms, what the record says of the classical entropy, walks, and the figures."""

import json
import math

import numpy as np
import pytest
import torch

from widevalley.experiments import two_valleys as module
from widevalley.experiments.drawing import svg
from widevalley.experiments.two_valleys import (
    DEVIATIONS,
    GAMMAS,
    GRID,
    POINTS,
    entropies,
    loss,
    minus_local_entropy,
    slope,
    two_valleys,
)
from widevalley.experiments.two_valleys_plots import figures


@pytest.fixture(scope="module")
def record():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CYCLES", 3)
        patch.setattr(module, "INNER_STEPS", 300)
        patch.setattr(module, "STARTS", 60)
        return two_valleys()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_local_entropy_by_quadrature_is_that_of_three_gaussians(gamma: float) -> None:
    x = GRID[::20]
    found, _ = entropies(x, gamma)
    np.testing.assert_allclose(found, [minus_local_entropy(float(each), gamma) for each in x], atol=1e-10)


@pytest.mark.parametrize("gamma", [3.0, 30.0])
def test_where_one_gaussian_is_alone_the_entropy_is_its_own(gamma: float) -> None:
    """f is quadratic there, h = 1/s²: P is N(·, 1/(γ + h))."""
    _, found = entropies(np.array([-9.0]), gamma)
    curvature = 1 / DEVIATIONS[2] ** 2
    assert found[0] == pytest.approx(math.log(2 * math.pi * math.e / (gamma + curvature)) / 2, abs=1e-6)


def test_slope_is_the_derivative_of_the_loss() -> None:
    x = torch.linspace(-11, 4, 50, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(loss(x).sum(), x)
    torch.testing.assert_close(slope(x.detach()), expected)


def test_the_points_are_what_the_paper_draws(record) -> None:
    f = {name: point["f"] for name, point in record["points"].items()}
    assert f["non-robust"] < f["robust"] < f["candidate"] - 3
    for name in POINTS:
        assert abs(slope(torch.tensor(record["points"][name]["x"])).item()) < 1e-3


def test_local_entropy_is_lowest_in_the_wide_valley_up_to_the_scope_that_is_told(record) -> None:
    places = {name: point["x"] for name, point in record["points"].items()}
    for scope in record["scopes"]:
        nearest = min(places, key=lambda name: abs(places[name] - scope["minus_f_least_at"]))
        assert nearest == ("robust" if scope["gamma"] < record["equal_depth_gamma"] else "non-robust")
    assert GAMMAS[-2] < record["equal_depth_gamma"] < GAMMAS[-1]


def test_classical_entropy_is_as_its_sentence_says(record) -> None:
    for scope in record["scopes"]:
        there = scope["entropy_at"]
        assert there["candidate"] > there["robust"] > there["non-robust"]
        # Nowhere on the high region, left of the slope into the wide valley, is it smallest.
        assert scope["entropy_least_at"] > record["points"]["non-robust"]["x"]


def test_walks_end_where_they_should(record) -> None:
    ends = {walk["name"]: walk for walk in record["ends"]}
    assert all(sum(walk["shares"].values()) == pytest.approx(1, abs=1e-5) for walk in ends.values())
    # 900 small steps from either side of the top between the wide and the sharp valley.
    assert ends["gd"]["shares"] == ends["sgd"]["shares"]
    sharp = [x for x in ends["gd"]["x"] if x > 0.3]
    assert sharp == pytest.approx([record["points"]["non-robust"]["x"]] * len(sharp), abs=1e-4)
    assert len(sharp) / 60 == pytest.approx(ends["gd"]["shares"]["non-robust"])
    assert ends["entropy-sgd"]["shares"]["non-robust"] < ends["gd"]["shares"]["non-robust"] / 2
    assert ends["entropy-sgd-cold"]["shares"]["non-robust"] == ends["gd"]["shares"]["non-robust"]


def test_the_record_is_small_json_and_has_three_figures(record) -> None:
    assert len(json.dumps(record, allow_nan=False)) < 100_000
    drawn = figures(json.loads(json.dumps(record)))
    assert len({title for title, _, _ in drawn}) == 3
    for number, (_, figure, description) in enumerate(drawn):
        assert description in svg(figure, f"figure-{number}", description)
    shares = record["ends"][0]["shares"]
    assert f"gradient descent: wide {100 * shares['robust']:.0f} %" in drawn[2][2]
