"""Intervals against Student's t, a literal analysis of variance and simulated truths; trials by force."""

import itertools
import math
import statistics
from typing import ClassVar

import numpy as np
import pytest
from scipy import stats

from widevalley.experiments.statistics import expected_minimum, paired_interval

COMPARISONS = 2_000
EXAMPLES = 1_000
# Four standard errors of a coverage of 95 % measured with that many comparisons.
MARGIN = 4 * math.sqrt(0.95 * 0.05 / COMPARISONS)


class Simulation:
    """Two methods whose networks predict an example wrongly where a sum of normal effects is high.

    Effects in units of the noise between two runs: of the example, common to both methods; of the example in one
    method; of the seed. The true difference of the error rates is that of ``rates``. With ``digits``, the variances of
    seed, example and rest in the difference come out as 2e-5, 2e-3 and 2e-2, between those that ten runs of each of
    entropy-sgd, entropy-adam, adam and sgd have on the digits task (0 to 5e-5, 2e-4 to 5e-4, 5e-3 to 1e-2) at the rate
    of wrong images there.
    """

    CASES: ClassVar = {
        "no effect of the seed": ((0.026, 0.030), (3.5, 0.4, 0.0)),
        "digits": ((0.026, 0.030), (3.5, 0.4, 0.2)),
        "other images": ((0.080, 0.075), (2.0, 2.0, 0.05)),
        "strong effect of the seed": ((0.030, 0.030), (2.0, 0.3, 0.5)),
    }

    def __init__(self, case, seeds):
        self.rates, self.effects = self.CASES[case]
        self.seeds, self.draw = seeds, np.random.default_rng(seeds)
        self.truth = self.rates[1] - self.rates[0]

    def differences(self):
        common, own, seed = self.effects
        shared = common * self.draw.standard_normal(EXAMPLES)
        scale = math.sqrt(1 + common**2 + own**2 + seed**2)
        wrong = []
        for rate in self.rates:
            score = self.draw.standard_normal((self.seeds, EXAMPLES)) + shared
            score += own * self.draw.standard_normal(EXAMPLES) + seed * self.draw.standard_normal((self.seeds, 1))
            wrong.append(score > scale * stats.norm.isf(rate))
        return wrong[1].astype(float) - wrong[0]

    def coverage(self, ends, comparisons=COMPARISONS):
        pairs = (ends(self.differences()) for _ in range(comparisons))
        return statistics.fmean(low <= self.truth <= high for low, high in pairs)


def ours(differences):
    interval = paired_interval(differences)
    return interval.low, interval.high


def pigeonhole(differences, resamples=400):
    """Seeds and, independently, examples drawn with replacement: 2.5 % and 97.5 % of the means (Owen 2007)."""
    draw = np.random.default_rng(0)
    seeds, examples = differences.shape
    rows = draw.multinomial(seeds, [1 / seeds] * seeds, size=resamples)
    # How often the examples without a difference are drawn does not matter.
    kept = differences[:, differences.any(axis=0)]
    rest = examples - kept.shape[1]
    columns = draw.multinomial(examples, [1 / examples] * kept.shape[1] + [rest / examples], size=resamples)[:, :-1]
    return np.quantile(np.einsum("bs,se,be->b", rows, kept, columns, optimize=True) / differences.size, (0.025, 0.975))


def over_seeds_alone(differences):
    return ours(differences.mean(axis=1, keepdims=True))


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("case", Simulation.CASES)
def test_the_interval_covers_the_truth_as_often_as_it_says(case, seeds):
    coverage = Simulation(case, seeds).coverage(ours)
    assert coverage >= 0.95 - MARGIN
    if case == "strong effect of the seed" or (case == "other images" and seeds == 5):
        assert coverage <= 0.95 + MARGIN


def test_the_simulation_tells_a_narrow_interval():
    """What the docstring of ``paired_interval`` says of its rivals."""
    assert Simulation("strong effect of the seed", 3).coverage(pigeonhole, 500) < 0.90
    assert Simulation("other images", 5).coverage(over_seeds_alone, 500) < 0.80


def literal(differences):
    """Mean, standard error and degrees of freedom by loops over the formulas of the docstring."""
    seeds, examples = len(differences), len(differences[0])
    mean = sum(map(sum, differences)) / (seeds * examples)
    row = [sum(values) / examples for values in differences]
    column = [sum(values) / seeds for values in zip(*differences, strict=True)]
    ms_seed = examples * sum((value - mean) ** 2 for value in row) / (seeds - 1)
    ms_example = seeds * sum((value - mean) ** 2 for value in column) / (examples - 1)
    rest = 0.0
    for s, e in itertools.product(range(seeds), range(examples)):
        rest += (differences[s][e] - row[s] - column[e] + mean) ** 2
    ms_rest = rest / ((seeds - 1) * (examples - 1))
    bounded = max(ms_seed, ms_rest)
    total = bounded + max(ms_example - ms_rest, 0)
    return mean, math.sqrt(total / (seeds * examples)), total**2 / (bounded**2 / (seeds - 1))


@pytest.mark.parametrize("effects", [(0, 0, 1), (3, 0, 1), (0, 3, 1), (1, 1, 1)])
def test_the_interval_is_the_literal_analysis_of_variance(effects):
    draw = np.random.default_rng(1)
    seed, example, rest = effects
    differences = seed * draw.standard_normal((4, 1)) + example * draw.standard_normal(30)
    differences = differences + rest * draw.standard_normal((4, 30))
    mean, error, freedom = literal(differences.tolist())
    interval = paired_interval(differences)
    assert interval.mean == pytest.approx(mean)
    assert (interval.low, interval.high) == pytest.approx(stats.t.interval(0.95, freedom, mean, error))


@pytest.mark.parametrize("shape", [(5, 1), (1, 200)])
def test_over_seeds_or_examples_alone_it_is_students(shape):
    values = np.random.default_rng(2).standard_normal(shape)
    expected = stats.ttest_1samp(values.ravel(), 0).confidence_interval(0.95)
    assert ours(values) == pytest.approx((expected.low, expected.high))


def test_seeds_that_happen_to_agree_do_not_shrink_the_interval_to_nothing():
    """Each of two seeds is better on one image, another one in each: equal means, and no proof of anything."""
    differences = np.zeros((2, 100))
    differences[0, 0] = differences[1, 1] = -1
    interval = paired_interval(differences)
    assert interval.mean == pytest.approx(-0.01)
    assert interval.low < -0.05
    assert interval.high > 0.03


@pytest.mark.parametrize("differences", [[[0.3]], [[0.3], [0.3]], [[0.3], [0.3], [0.3]]])
def test_without_scatter_there_is_no_interval(differences):
    interval = paired_interval(np.array(differences))
    assert interval.mean == pytest.approx(0.3)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_networks_that_fail_alike_have_no_difference_and_no_width():
    assert ours(np.zeros((3, 50))) == (0.0, 0.0)
    assert ours(np.zeros((1, 50))) == (0.0, 0.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_difference_that_is_not_finite_makes_all_of_it_unknown(broken):
    interval = paired_interval(np.array([[0.1], [broken], [0.2]]))
    assert all(map(math.isnan, (interval.mean, interval.low, interval.high)))


@pytest.mark.parametrize("trials", [1, 2, 3, 4, 5])
def test_the_expected_minimum_is_the_mean_over_all_subsets(trials):
    values = [3.0, 9.0, 2.0, 4.0, 90.0]
    by_force = statistics.fmean(min(subset) for subset in itertools.combinations(values, trials))
    assert expected_minimum(values, trials) == pytest.approx(by_force)


@pytest.mark.parametrize("trials", [0, 4])
def test_trials_beyond_the_values_are_refused(trials):
    with pytest.raises(ValueError, match=rf"between 1 and the 3 values, got {trials}"):
        expected_minimum([1.0, 2.0, 3.0], trials)
