"""The numbers behind the figures of a measurement, worked out by hand, and how they are drawn."""

import dataclasses
import math

import numpy as np
import pytest
import small_measurement as small
import torch

from widevalley.experiments import drawing, measure_plots
from widevalley.experiments import measure_numbers as numbers
from widevalley.experiments.measured import Eigenvalues, Quadrature
from widevalley.experiments.measurements import read
from widevalley.landscape.density import Density
from widevalley.landscape.surface import Surface

LOOKS = {name: drawing.style(place) for place, name in enumerate(("a", "b"))}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return read(small.write(tmp_path_factory.mktemp("one"), small.one())).networks["net-0"]


def spectrum(values, floor=1e-6):
    values = np.sort(np.asarray(values, dtype=float))
    return Eigenvalues(values, floor, 0, 0.0, float(values.sum()), "float64", {}, {}, unfinished=False)


def quadrature(density, largest=(), most_negative=()):
    return Quadrature(density, 1, largest, most_negative, 0.0, 0.0, math.nan, 1.0)


def exact(values, probes=3):
    """The quadrature that has every eigenvalue for a point."""
    nodes = torch.tensor(values, dtype=torch.float64).sort().values.repeat(probes, 1)
    return Density(nodes, torch.full_like(nodes, 1 / len(values)), len(values))


def counts(figure):
    """Of a histogram's bins; those of 0 are drawn below the axis."""
    [stairs] = figure.axes[0].patches[:1]
    heights, edges, _ = stairs.get_data()
    return np.where(heights < 1, 0, heights), edges


def test_the_three_panels_have_every_eigenvalue_once_and_the_same_axes():
    """95 % of a are 0 and of b within 0.019: the middle ends at 0.02."""
    a = spectrum([0.0] * 96 + [-0.5, 1.0, 2.0, 3.0])
    b = spectrum(np.linspace(-0.02, 0.02, 100), floor=1e-3)
    figures = measure_plots.spectrum({"a": a, "b": b}, LOOKS)
    for name in ("a", "b"):
        left, middle, right = map(counts, figures[name])
        assert left[1][[0, -1]] == pytest.approx([-0.5, -0.02])
        assert middle[1][[0, -1]] == pytest.approx([-0.02, 0.02])
        assert right[1][[0, -1]] == pytest.approx([0.02, 3.0])
        assert sum(part[0].sum() for part in (left, middle, right)) == 100
        assert figures[name][0].axes[0].get_ylim() == figures["b"][2].axes[0].get_ylim()
    assert counts(figures["a"][1])[0][measure_plots.MIDDLE // 2] == 96
    assert [text.get_text() for text in figures["b"][2].axes[0].texts] == ["none"]


def test_the_noise_floor_is_shaded_to_scale():
    figure = measure_plots.spectrum({"a": spectrum(np.linspace(-1, 1, 50), floor=0.25)}, LOOKS)["a"][1]
    band = figure.axes[0].patches[-1].get_extents().transformed(figure.axes[0].transData.inverted())
    assert (band.x0, band.x1) == pytest.approx((-0.25, 0.25))


def test_a_hessian_of_zeros_is_drawn():
    left, middle, right = measure_plots.spectrum({"a": spectrum([0.0] * 10, floor=0.0)}, LOOKS)["a"]
    assert left is right is None
    assert counts(middle)[0].sum() == 10


def test_no_share_is_stated_below_the_noise_floor():
    """Of |λ| = 0, 5e-5, 9.5e-5, 1.05e-4 and 1 with a floor of 1e-5, the second and third may be on either side."""
    values = [0.0, 5e-5, -9.5e-5, 1.05e-4, 1.0]
    assert numbers.near_zero(spectrum(values, 1e-5)) == numbers.NearZero(1e-4, 0.6, 0.4, 0.8)
    assert numbers.near_zero(spectrum(values, 2e-4)) == numbers.NearZero(2e-4, 0.8, 0.8, 0.8)
    assert numbers.negative(spectrum([-1e-4, -1e-5, 1.0], 2e-5)) == 1


def test_eigenvalues_per_decade_of_a_flat_spectrum():
    """400 of them evenly over 4 decades are 100 a decade on either side, away from the ends."""
    sizes = np.logspace(-3, 1, 400)
    for sign in (1, -1):
        x, mean, error = numbers.per_decade(exact(sign * sizes), sign)
        inside = (x > 1e-2) & (x < 1)
        assert inside.sum() > 50
        assert mean[inside] == pytest.approx(100, rel=0.01)
        assert error == pytest.approx(0, abs=1e-9)
        assert numbers.per_decade(exact(sign * sizes), -sign) is None


def test_the_error_per_decade_is_over_probes():
    """Two probes, all their weight on one side or on the other: mean half, standard error half."""
    nodes = torch.tensor([[-1.0, -0.9, 0.9, 1.0]] * 2, dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.5, 1e-30, 1e-30], [1e-30, 1e-30, 0.5, 0.5]], dtype=torch.float64)
    _, mean, error = numbers.per_decade(Density(nodes, weights, 10), 1)
    peak = mean.argmax()
    assert mean[peak] == pytest.approx(10 / 2 / (numbers.WIDTH * math.sqrt(2 * math.pi)), rel=0.03)
    assert error == pytest.approx(mean)


def test_the_density_begins_where_the_points_are_close_in_every_probe():
    """0.3 decades are a factor of 2: 1.9 to 3 is close in one probe, only 3 to 5 in the other."""
    nodes = torch.tensor([[-1.0, 0.1, 1.9, 3.0, 5.0], [-1.0, 0.1, 1.0, 3.0, 5.0]], dtype=torch.float64)
    density = Density(nodes, torch.full_like(nodes, 0.2), 5)
    assert numbers.resolved(density, 1) == 5.0
    assert numbers.resolved(density, -1) is None
    assert measure_plots.density({"a": quadrature(density)}, LOOKS, -1) is None


def test_bands_and_marks_of_the_density():
    found = {"b": quadrature(exact(np.logspace(-2, 0, 50)), largest=(1.0, 0.9), most_negative=(-0.5,))}
    figure = measure_plots.density(found, LOOKS, 1)
    assert [line.get_color() for line in figure.axes[0].lines] == [LOOKS["b"].colour]
    marks = figure.axes[0].collections[-1].get_segments()
    assert sorted(segment[0][0] for segment in marks) == pytest.approx([0.9, 1.0])


def test_points_whose_chains_did_not_mix_are_hollow(network):
    first, second = network.entropy.points
    entropy = dataclasses.replace(network.entropy, points=(dataclasses.replace(first, warning="no"), second))
    for figure in (measure_plots.phi({"b": entropy}, LOOKS), measure_plots.radius({"b": entropy}, LOOKS)):
        faces = [line.get_markerfacecolor() for line in figure.axes[0].lines if line.get_marker() == "s"]
        assert faces == [drawing.PAGE, LOOKS["b"].colour]


def test_error_bars_are_two_standard_errors(network):
    point = dataclasses.replace(network.entropy.points[0], phi=-10.0, standard_error=0.5)
    figure = measure_plots.phi({"a": dataclasses.replace(network.entropy, points=(point,))}, LOOKS)
    [bar] = [c for c in figure.axes[0].collections if len(c.get_segments())]
    assert bar.get_segments()[0][:, 1].tolist() == [-11.0, -9.0]


def plane(loss):
    loss = np.asarray(loss, dtype=float)
    return Surface(tuple(np.linspace(-1, 1, size) for size in loss.shape), loss, (1.0, 1.0))


def test_levels_are_common_and_logarithmic_where_the_loss_spans_decades():
    found = measure_plots.levels([plane([[0.03, 1.0], [1.0, 2.0]]), plane([[0.5, 3.0], [6.0, 1.0]])])
    assert found == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    short = measure_plots.levels([plane([[1.0, 1.1], [1.2, 1.4]])])
    assert len(short) >= 5
    assert np.diff(short) == pytest.approx(short[1] - short[0])
    assert measure_plots.levels([plane([[-1.0, 0.0], [0.5, 1.0]])])[0] < 0


def test_the_first_direction_is_across():
    """f = a² + (b/3)² is steep along d₁: its contour at 0.5 ends at a = ±√0.5."""
    axis = np.linspace(-1, 1, 41)
    found = Surface((axis, axis), axis[:, None] ** 2 + axis[None] ** 2 / 9, (1.0, 1.0))
    drawn = measure_plots.contours(found, [0.5])
    [contour] = [path for c in drawn.axes[0].collections for path in c.get_paths() if not c.get_facecolor().size]
    across, along = np.abs(contour.vertices).max(axis=0)
    assert across == pytest.approx(math.sqrt(0.5), abs=0.01)
    assert along == pytest.approx(1.0)


def test_every_colour_is_the_pages():
    axis = np.linspace(-1, 1, 9)
    found = Surface((axis, axis), 0.01 + axis[:, None] ** 2 + axis[None] ** 2, (1.0, 1.0))
    text = drawing.svg(measure_plots.contours(found, measure_plots.levels([found])), "name", "")
    assert "var(--series-0" in text
    assert "currentColor" in text
    assert "#fe00" not in text
    assert "#fd00" not in text


def test_lines_have_their_ends_marked():
    line = Surface((np.linspace(-0.5, 1.5, 5),), np.array([3.0, 1.0, 5.0, 2.0, 9.0]), (1.0,))
    figure = measure_plots.lines("a", {"b": line}, LOOKS)
    [ends] = [each for each in figure.axes[0].lines if each.get_marker() == "o"]
    assert ends.get_ydata().tolist() == [1.0, 2.0]
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]


def at(network, gradient_norm, values, floor=1e-6):
    position = dataclasses.replace(network.position, gradient_norm=gradient_norm, loss=0.5)
    return dataclasses.replace(network, position=position, spectrum=spectrum(values, floor))


def test_what_a_network_lies_at(network):
    """With λ_max = 4 and f = 0.5, ‖∇f‖ = 0.2 gains 0.04/(2 · 4 · 0.5) = 1 %; 0.02 gains 1e-4."""
    assert numbers.gain(at(network, 0.2, [-1.0, 0.0, 4.0])) == pytest.approx(0.01)
    assert numbers.state(at(network, 0.2, [0.0, 4.0])) == "slope"
    assert numbers.state(at(network, 0.02, [-1e-7, 4.0])) == "minimum"
    assert numbers.state(at(network, 0.02, [-1e-5, 4.0])) == "saddle"
    unknown = dataclasses.replace(network, spectrum=None, density=None)
    assert numbers.state(unknown) is numbers.gain(unknown) is None
    ends = quadrature(exact([1.0]), largest=(4.0,), most_negative=(-1.0,))
    assert numbers.ends(dataclasses.replace(network, spectrum=None, density=ends)) == (-1.0, 4.0, 0.0)
