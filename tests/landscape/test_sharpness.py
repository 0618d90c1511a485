"""Sharpness against trust-region solutions, expectations in closed form, scale laws, the rescaling of Dinh et al."""

import copy
import math

import models
import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from widevalley.landscape import Objective, sharpness


def symmetric(eigenvalues, seed=0):
    n = len(eigenvalues)
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


def trust_region(matrix: torch.Tensor, gradient: torch.Tensor, radius: float) -> float:
    """max ½δᵀAδ + gᵀδ over ‖δ‖ ≤ r: δ = (μI − A)⁻¹g with μ ≥ max(0, λ_max) and ‖δ‖ = r, or μ = 0 inside."""
    values, vectors = np.linalg.eigh(matrix.numpy())
    g = vectors.T @ gradient.numpy()

    def length(mu: float) -> float:
        return float(np.linalg.norm(g / (mu - values)))

    if values[-1] < 0 and length(0.0) <= radius:
        delta = g / -values
    else:
        low = max(0.0, values[-1])
        mu = brentq(lambda m: length(m) - radius, low + 1e-12, low + np.linalg.norm(g) / radius + 1.0, xtol=1e-14)
        delta = g / (mu - values)
    return float(delta @ (values * delta) / 2 + g @ delta)


SPECTRA = {
    "convex": (0.6, [0.1, 0.5, 1.0, 2.0, 3.0, 7.0]),
    "saddle": (0.6, [-9.0, -1.0, 0.0, 0.5, 1.0, 4.0]),
    "concave, ends at the boundary": (0.6, [-0.3, -0.2, -0.1, -0.1, -0.05, -0.01]),
    "concave, ends inside": (6.0, [-40.0, -30.0, -25.0, -20.0, -15.0, -10.0]),
}


@pytest.mark.parametrize(("radius", "spectrum"), SPECTRA.values(), ids=SPECTRA)
@pytest.mark.parametrize("kind", ["worst", "adaptive"])
def test_the_worst_case_on_a_quadratic_is_the_trust_region_solution(kind, radius, spectrum) -> None:
    """In the adaptive coordinates u = δ/|x| the matrix is |x| A |x|, the gradient |x| g."""
    matrix, slope = symmetric(spectrum), torch.linspace(-1, 1, 6, dtype=torch.float64)
    start = torch.tensor([0.5, -1.0, 2.0, 0.3, 1.5, -0.7], dtype=torch.float64)
    gradient = matrix @ start - slope
    scale = torch.diag(start.abs()) if kind == "adaptive" else torch.eye(6, dtype=torch.float64)
    expected = trust_region(scale @ matrix @ scale, scale @ gradient, radius)
    found = sharpness(models.quadratic(matrix, slope, start), kind, radius, steps=200)
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.value <= expected * (1 + 1e-12)
    assert found.standard_error is None
    assert found.diagnostics["spread"] <= expected
    if kind == "worst":
        assert (found.diagnostics["length"] < 0.9 * radius) == (max(spectrum) == -10.0)


@pytest.mark.parametrize("radius", [0.01, 0.1, 1.0])
def test_at_a_minimum_it_grows_with_the_square_of_the_radius(radius) -> None:
    """r² λ_max/2 at worst, and r² tr(A)/(2n) on average: both by the same factor."""
    objective = models.quadratic(symmetric([0.0, 0.5, 1.0, 6.0]))
    worst = sharpness(objective, "worst", radius)
    assert worst.value == pytest.approx(radius**2 * 6.0 / 2, rel=1e-6)
    assert worst.diagnostics["length"] == pytest.approx(radius)
    average = sharpness(objective, "average", radius, directions=10)
    unit = sharpness(objective, "average", 1.0, directions=10)
    assert average.value == pytest.approx(radius**2 * unit.value, rel=1e-9)


def test_the_average_on_a_quadratic_and_its_standard_error() -> None:
    """r² tr(A)/(2n) whatever the slope; Var δᵀAδ/2 = r⁴ (n tr A² − tr² A)/(2 n² (n + 2)) on the sphere."""
    spectrum, radius, directions = [-1.0, 0.2, 0.5, 3.0, 8.0], 0.7, 2000
    matrix = symmetric(spectrum)
    objective = models.quadratic(matrix, torch.ones(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64))
    found = sharpness(objective, "average", radius, directions=directions)
    n, trace, square = 5, sum(spectrum), sum(e**2 for e in spectrum)
    assert abs(found.value - radius**2 * trace / (2 * n)) < 4 * found.standard_error
    variance = radius**4 * (n * square - trace**2) / (2 * n**2 * (n + 2))
    assert found.standard_error == pytest.approx(math.sqrt(variance / directions), rel=0.1)
    assert found.diagnostics["passes"] == 2 * directions + 1


def test_there_is_no_rise_at_a_maximum() -> None:
    found = sharpness(models.quadratic(-torch.eye(3, dtype=torch.float64)), "worst", 0.5)
    assert (found.value, found.diagnostics["length"]) == (0.0, 0.0)


def test_a_ball_has_no_error() -> None:
    found = sharpness(models.quadratic(3 * torch.eye(4, dtype=torch.float64)), "average", 0.5, directions=3)
    assert found.value == pytest.approx(3 * 0.25 / 2)
    assert found.standard_error < 1e-15


def test_a_slope_alone() -> None:
    """f = −b·w: r‖b‖ in the ball, r Σ (|x| + 1)|b| in the box, r ‖|x| b‖ adaptively, 0 on average."""
    b = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    start = torch.tensor([0.0, 3.0, -1.0], dtype=torch.float64)
    objective = models.quadratic(torch.zeros(3, 3, dtype=torch.float64), b, start)
    expected = {
        "worst": 0.1 * b.norm().item(),
        "box": 0.1 * ((start.abs() + 1) * b.abs()).sum().item(),
        "adaptive": 0.1 * (start.abs() * b).norm().item(),
        "average": 0.0,
    }
    for kind, value in expected.items():
        assert sharpness(objective, kind, 0.1).value == pytest.approx(value, abs=1e-12), kind
    rise, loss = expected["box"], -(b @ start).item()
    assert sharpness(objective, "box", 0.1).diagnostics["percent"] == pytest.approx(100 * rise / (1 + loss))


def test_the_box_of_a_convex_quadratic_ends_at_its_best_corner() -> None:
    matrix, start = symmetric([0.5, 1.0, 2.0, 5.0]), torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=torch.float64)
    objective = models.quadratic(matrix, start=start)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    corners = start + 0.3 * (start.abs() + 1) * signs
    losses = torch.einsum("ki,ij,kj->k", corners, matrix, corners) / 2
    expected = losses.max() - start @ matrix @ start / 2
    assert sharpness(objective, "box", 0.3, starts=8).value == pytest.approx(expected.item(), rel=1e-9)


def relu_networks(factor):
    """One function twice: the first layer times ``factor``, the second divided by it (Dinh et al., 2017)."""
    torch.manual_seed(2)
    one = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[0].weight.mul_(factor)
        other[0].bias.mul_(factor)
        other[2].weight.div_(factor)
    return [Objective(model, data=models.data()) for model in (one, other)]


def test_the_adaptive_kind_is_invariant_under_rescaling_and_the_others_are_not() -> None:
    one, other = relu_networks(10.0)
    assert one.value() == pytest.approx(other.value(), rel=1e-12)
    adaptive = [sharpness(each, "adaptive", 0.3).value for each in (one, other)]
    assert adaptive[0] == pytest.approx(adaptive[1], rel=1e-6)
    assert adaptive[0] > 0.01
    for kind in ("worst", "average", "box"):
        first, second = (sharpness(each, kind, 0.3).value for each in (one, other))
        assert abs(second / first - 1) > 0.2, kind


def test_the_worst_case_of_a_network_beats_random_points_and_a_step_along_the_gradient() -> None:
    objective = models.objective()
    x, start = objective.vector(), objective.value()
    radius = 0.5
    found = sharpness(objective, "worst", radius)
    generator = torch.Generator().manual_seed(0)
    points = [objective.gradient(), *torch.randn(50, objective.n, generator=generator, dtype=torch.float64)]
    for point in points:
        with objective.at(x + radius * point / point.norm()):
            assert objective.value() - start <= found.value + 1e-12
    assert found.diagnostics["loss"] == pytest.approx(start)
    assert found.diagnostics["gradients"] <= 3 * 51 + 1


def test_the_step_grows_after_a_rise() -> None:
    """With a step that stays as it is after a fall the same search took 54 gradients."""
    assert sharpness(models.objective(), "worst", 0.05).diagnostics["gradients"] < 45


@pytest.mark.parametrize("kind", ["worst", "box", "average", "adaptive"])
def test_it_repeats_and_gives_the_model_back(kind) -> None:
    objective = models.objective()
    before = copy.deepcopy(objective.model.state_dict())
    torch.manual_seed(4)
    state = torch.get_rng_state()
    fractions = []
    first = sharpness(objective, kind, 0.2, steps=5, directions=3, progress=lambda _, part: fractions.append(part))
    assert first == sharpness(objective, kind, 0.2, steps=5, directions=3)
    if kind != "box":  # there all starts end in one corner
        assert first != sharpness(objective, kind, 0.2, steps=5, directions=3, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in objective.model.state_dict().items())
    assert all(p.grad is None for p in objective.model.parameters())
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "sharp"}, {"radius": 0.0}, {"radius": math.nan}, {"starts": 0}, {"steps": 0}, {"directions": 1}],
)
def test_bad_arguments_are_refused_by_name(wrong) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        sharpness(models.objective(), **wrong)


def test_weights_that_are_all_zero_have_no_adaptive_sharpness() -> None:
    with pytest.raises(ValueError, match="every weight is 0"):
        sharpness(models.quadratic(torch.eye(3, dtype=torch.float64)), "adaptive")
