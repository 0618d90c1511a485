"""The numbers behind the figures, worked out by hand, and how they are drawn."""

import math

import pytest
import synthetic_results as synthetic
from matplotlib.figure import Figure

from widevalley.experiments import drawing, plots, summaries
from widevalley.experiments.results import read


@pytest.fixture
def complete(tmp_path):
    return synthetic.write_comparison(tmp_path / "complete")


def test_the_rise_is_a_mean_over_seeds_with_its_standard_error(complete):
    """Rises (1, 2, 3) · size²: mean 2 size², standard error size²/√3; 0.02 ± 0.0058 at 0.1, 0.5 ± 0.14 at 0.5."""
    comparison = read(complete)
    first, last = summaries.rise(comparison, "sgd")
    assert (first.x, first.mean, first.high - first.mean) == pytest.approx((0.1, 0.02, 0.01 / math.sqrt(3)))
    assert (last.x, last.mean, last.mean - last.low) == pytest.approx((0.5, 0.5, 0.25 / math.sqrt(3)))


def test_a_curve_has_mean_and_range_on_both_axes(complete):
    """After 20 gradients: training losses 2.3/21 · (1, 1.5, 2); an outer update is 1/20 of an epoch."""
    comparison = read(complete)
    points = summaries.curve(comparison, "entropy-sgd", "train_loss", "gradients")
    assert [point.x for point in points] == [0, 20, 40, 60, 80]
    assert (points[1].low, points[1].mean, points[1].high) == pytest.approx((2.3 / 21, 3.45 / 21, 4.6 / 21))
    nested = [point.x for point in summaries.curve(comparison, "entropy-sgd", "train_loss", "paper_epochs")]
    assert nested == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert [point.x for point in summaries.curve(comparison, "sgd", "train_loss", "paper_epochs")] == [0, 1, 2, 3, 4]


def test_tuning_is_a_mean_and_range_over_its_seeds(complete):
    """Seeds 1000 and 1002 end at 90/81 + (0, 2)."""
    points = summaries.tuned(read(complete), "sgd")
    assert [point.x for point in points] == [0.03, 0.1, 0.3]
    assert (points[0].low, points[0].mean, points[0].high) == pytest.approx((90 / 81, 171 / 81, 252 / 81))


def test_a_method_name_is_escaped_in_what_is_read_out():
    text = drawing.svg(Figure(), "name", 'a "quoted" <name>')
    assert 'aria-label="a &quot;quoted&quot; &lt;name&gt;"' in text


def test_every_pair_of_colour_and_dashes_is_its_own_up_to_35_methods(tmp_path):
    names = [f"method {k}" for k in range(35)]
    synthetic.write_plan(
        tmp_path,
        methods=names,
        learning_rates={name: [0.1] for name in names},
        descriptions=dict.fromkeys(names, ""),
        chosen={},
    )
    comparison = read(tmp_path)
    looks = [plots.style(comparison, name) for name in names]
    assert len({(look.series, look.dashes) for look in looks}) == 35
