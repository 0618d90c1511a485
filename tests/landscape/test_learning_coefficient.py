"""The local learning coefficient: regular and singular minima with closed forms or quadrature."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import nn

from widevalley.landscape import Objective, local_learning_coefficient


class Point(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start, dtype=torch.float64))


def objective(function, start, samples=1000):
    return Objective(Point(start), lambda model, batch: function(model.w), [torch.zeros(samples, 1)])


@pytest.mark.parametrize("n", [1, 6, 30])
def test_a_regular_minimum_has_half_the_number_of_parameters(n: int) -> None:
    curvatures = torch.linspace(0.5, 5.0, n, dtype=torch.float64)
    start = [0.3] * n
    measured = objective(lambda w: 7.0 + (curvatures * (w - 0.3) ** 2).sum() / 2, start)
    found = local_learning_coefficient(measured)
    gamma = found.diagnostics["gamma"]
    localised = float((curvatures / (curvatures + gamma)).sum()) / 2
    assert abs(found.value - localised) < 4 * found.standard_error
    assert found.value == pytest.approx(n / 2, rel=0.05)
    assert found.standard_error < 0.03 * n / 2
    assert found.diagnostics["loss"] == pytest.approx(7.0)
    assert found.diagnostics["inverse_temperature"] == pytest.approx(1000 / math.log(1000))


def test_directions_without_curvature_do_not_count_and_the_bias_is_told() -> None:
    measured = objective(lambda w: w[0] ** 2 / 2, [0.0, 0.0, 0.0])
    strong = local_learning_coefficient(measured, gamma=0.25, draws=20_000)
    assert abs(strong.value - 0.5 / 1.25) < 4 * strong.standard_error
    # To first order: ½ γh/(h + γ)² of ½ γ/(h + γ).
    assert strong.diagnostics["localisation_bias"] == pytest.approx(-0.5 * 0.25 / 1.25**2, rel=0.15)


def crossed(scale, gamma):
    """Nβ⟨f⟩ of f = (w₁w₂)² under the localised measure: w₂ by hand, w₁ by quadrature over its logarithm."""

    def density(s):
        w = math.exp(s)
        return w * math.exp(-scale * gamma / 2 * w * w) / math.sqrt(scale * (2 * w * w + gamma))

    def energy(s):
        w = math.exp(s)
        return density(s) * w * w / (2 * w * w + gamma)

    return quad(energy, -40, 10, limit=500)[0] / quad(density, -40, 10, limit=500)[0]


@pytest.mark.slow
def test_the_crossed_valley_tends_to_one_half() -> None:
    found = local_learning_coefficient(objective(lambda w: (w[0] * w[1]) ** 2, [0.0, 0.0]))
    scale, gamma = found.diagnostics["inverse_temperature"], found.diagnostics["gamma"]
    assert abs(found.value - crossed(scale, gamma)) < 4 * found.standard_error
    # ½ less about 1/log(Nβ).
    assert 0.5 - 1 / math.log(scale) < found.value + 4 * found.standard_error
    assert found.value - 4 * found.standard_error < 0.5
    assert crossed(1e12, 1e-13) == pytest.approx(0.5, abs=0.03)


def test_its_temperature_and_its_samples() -> None:
    few = objective(lambda w: w.square().sum(), [0.0], samples=1)
    with pytest.raises(ValueError, match=r"1 sample.* too few for β = 1/log N: give inverse_temperature"):
        local_learning_coefficient(few)
    found = local_learning_coefficient(few, gamma=1e-3, inverse_temperature=50.0)
    assert found.diagnostics["inverse_temperature"] == 50.0
    assert found.value == pytest.approx(0.5, abs=4 * found.standard_error + 1e-3)
    for changes, says in [({"gamma": 0.0}, "gamma=0.0"), ({"inverse_temperature": -1.0}, "inverse_temperature=-1.0")]:
        with pytest.raises(ValueError, match=says):
            local_learning_coefficient(few, **{"inverse_temperature": 1.0, **changes})
    with pytest.raises(ValueError, match="loss is nan"):
        local_learning_coefficient(objective(lambda w: w.sum() * math.nan, [0.0]))
