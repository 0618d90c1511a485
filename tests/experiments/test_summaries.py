"""Differences, trials and levels of comparisons that the test wrote itself, worked out by hand."""

import math

import numpy as np
import pytest
import synthetic_results as synthetic
from scipy import stats

from widevalley.experiments import summaries
from widevalley.experiments.results import read
from widevalley.experiments.statistics import paired_interval


@pytest.fixture
def complete(tmp_path):
    return synthetic.write_comparison(tmp_path / "complete")


def rewrite(folder, name, change):
    """Changes the lines of one unit's file: ``change`` gets its evaluations and its result."""
    lines = synthetic.unit(*name)
    change(lines[1:-1], lines[-1])
    synthetic.write_unit(folder, lines)


def with_wrong(folder, wrong, targets=400):
    """Gives every final run a list of wrong examples: method → for each seed, {example: count}."""
    synthetic.write_plan(folder, test_targets=targets)
    for method, seeds in wrong.items():
        for seed, counts in enumerate(seeds):
            rewrite(
                folder,
                ("final", method, 0.1, seed),
                lambda looks, result, counts=counts: result.update(
                    test_wrong=list(counts.items()), test_error=100 * sum(counts.values()) / targets
                ),
            )


def test_without_examples_differences_are_over_seeds(complete):
    """2, 3, 4 less 3, 3.5, 5.5: −1, −0.5, −1.5; mean −1, sd 0.5."""
    [difference] = summaries.differences(read(complete)).values()
    assert (difference.method, difference.pairs, difference.over) == ("entropy-sgd", 3, "seeds")
    half = stats.t.ppf(0.975, 2) * 0.5 / math.sqrt(3)
    assert (difference.interval.low, difference.interval.high) == pytest.approx((-1 - half, -1 + half))
    assert difference.verdict == "not decidable"


def test_with_examples_differences_are_over_both(complete):
    """Counts of wrong targets, 2 an example: sgd's 3 less than 12 of 800 targets each seed are −9/8 points."""
    ours = [{1: 1, 2: 2}, {1: 2, 7: 1}, {2: 1, 9: 2}]
    theirs = [dict.fromkeys(range(start, start + 6), 2) for start in (0, 1, 2)]
    with_wrong(complete, {"entropy-sgd": ours, "sgd": theirs}, targets=800)
    [difference] = summaries.differences(read(complete)).values()
    assert difference.interval.mean == pytest.approx(-9 / 8)
    assert difference.over == "seeds and test examples"
    dense = np.zeros((3, 400))
    for row, mine, base in zip(dense, ours, theirs, strict=True):
        for counts, sign in ((mine, 1), (base, -1)):
            for example, count in counts.items():
                row[example] += sign * count
    expected = paired_interval(dense * 50)
    assert (difference.interval.low, difference.interval.high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("sign", "verdict"), [(0, "lower"), (1, "higher")])
def test_a_verdict_is_the_side_of_zero_that_the_whole_interval_is_on(complete, sign, verdict):
    many = [dict.fromkeys(range(seed, 60 + seed), 1) for seed in range(3)]
    few = [dict.fromkeys(range(seed, 5 + seed), 1) for seed in range(3)]
    with_wrong(complete, dict(zip(("entropy-sgd", "sgd"), (many, few) if sign else (few, many), strict=True)))
    [difference] = summaries.differences(read(complete)).values()
    assert difference.verdict == verdict


def test_one_seed_is_over_examples_and_pairs_are_of_the_same_seed(complete):
    with_wrong(complete, {"entropy-sgd": [{1: 1}, {2: 1}, {3: 1}], "sgd": [{4: 1}, {5: 1, 6: 1}, {7: 1}]})
    for method, seed in (("sgd", 0), ("entropy-sgd", 2)):
        (complete / "units" / f"final-{method}-lr0.1-seed{seed}.jsonl").unlink()
    [difference] = summaries.differences(read(complete)).values()
    assert (difference.pairs, difference.over) == (1, "test examples")
    # Seed 1: one wrong less two of 400.
    assert difference.interval.mean == pytest.approx(-0.25)


def test_a_run_of_older_form_among_newer_ones_leaves_the_interval_over_seeds(complete):
    with_wrong(complete, {"entropy-sgd": [{1: 1}, {2: 1}, {3: 1}]})
    [difference] = summaries.differences(read(complete)).values()
    assert difference.over == "seeds"


def test_equal_differences_are_no_scatter_however_they_round():
    """2.33 − 2.13 and 2.43 − 2.23 differ in the last bit."""
    found = summaries.difference_over_seeds("a", [2.33 - 2.13, 2.43 - 2.23, 2.53 - 2.33])
    assert found.interval.mean == pytest.approx(0.2)
    assert (found.over, found.verdict) == ("", "not decidable")
    assert summaries.difference_over_seeds("a", [0.2, 0.21]).over == "seeds"


def test_an_example_that_there_is_not_is_named(complete):
    with_wrong(complete, {"entropy-sgd": [{1: 1}, {2: 1}, {400: 1}], "sgd": [{4: 1}, {5: 1}, {7: 1}]})
    with pytest.raises(ValueError, match=r"example 400 of 400.*another comparison"):
        summaries.differences(read(complete))


def test_the_baseline_is_sgd_or_else_the_first(tmp_path):
    assert summaries.baseline(read(synthetic.write_ten(tmp_path / "ten", seeds=1))) == "sgd"
    synthetic.write_plan(tmp_path, methods=["entropy-sgd"], chosen={})
    assert summaries.baseline(read(tmp_path)) == "entropy-sgd"


def test_trials_are_the_expected_best_rate(complete):
    """Three rates end at means of 1, 2 and 6 points over 90/81: 3, then (1 + 1 + 2)/3, then 1 over it."""
    for lr, extra in ((0.03, 1), (0.1, 2), (0.3, 6)):
        for seed in (1000, 1002):
            error = 90 / 81 + extra + (0.5 if seed == 1000 else -0.5)
            rewrite(complete, ("tune", "sgd", lr, seed), lambda _, r, error=error: r.update(validation_error=error))
    found = summaries.trials(read(complete), "sgd")
    assert [point.x for point in found] == [1, 2, 3]
    assert [point.mean - 90 / 81 for point in found] == pytest.approx([3, 4 / 3, 1])


def test_a_rate_that_diverged_counts_as_the_worst_that_was_seen(complete):
    """The untrained networks of seed 1002 err at 90 + 2 %. The other two rates end at 90/81 + (0, 2)."""
    synthetic.write_unit(complete, synthetic.unit("tune", "sgd", 0.3, 1000, diverged=True))
    comparison = read(complete)
    assert summaries.worst_seen(comparison) == 92
    ended = 90 / 81 + 1
    assert [point.mean for point in summaries.trials(comparison, "sgd")] == pytest.approx(
        [(92 + 2 * ended) / 3, ended, ended]
    )


def test_trials_wait_for_the_whole_grid(complete):
    (complete / "units" / "tune-sgd-lr0.3-seed1000.jsonl").unlink()
    comparison = read(complete)
    assert summaries.trials(comparison, "sgd") == []
    assert len(summaries.trials(comparison, "entropy-sgd")) == 3


def with_errors(folder, method, seed, errors):
    def change(looks, result):
        for look, error in zip(looks, errors, strict=True):
            look["validation_error"] = error

    rewrite(folder, ("final", method, 0.1, seed), change)


def test_gradients_to_a_level_are_the_first_evaluation_there(complete):
    """Evaluations after 0, 20, … 80 gradients. An error that rises again was reached all the same."""
    with_errors(complete, "sgd", 0, [90, 5, 3, 4, 2])
    with_errors(complete, "sgd", 1, [90, 9, 8, 7, 3])
    synthetic.write_unit(complete, synthetic.unit("final", "sgd", 0.1, 2, diverged=True))
    comparison = read(complete)
    assert summaries.gradients_to(comparison, "sgd", 3) == [40, 80, math.inf]
    assert summaries.gradients_to(comparison, "sgd", 2) == [80, math.inf, math.inf]
    assert summaries.gradients_to(comparison, "sgd", 90) == [0, 0, math.inf]


def test_levels_are_round_and_between_the_first_evaluation_and_the_best_end(complete):
    """From 64 down to 1: 64^(k/6) is 1, 2, 4, 8, 16, 32; up to one digit 1, 2, 4, 8, 20, 40."""
    for seed in range(3):
        with_errors(complete, "entropy-sgd", seed, [90, 64, 30, 10, 5])
        with_errors(complete, "sgd", seed, [90, 20, 10, 1, 3])
    comparison = read(complete)
    assert summaries.levels(comparison) == [40, 20, 8, 4, 2, 1]
    assert summaries.gradients_to(comparison, "sgd", 1) == [60] * 3


def test_levels_close_together_have_two_digits(complete):
    """From 36 down to 30 one digit would leave 30 alone: 30 · 1.2^(k/6) is 30, 30.9, 31.9, 32.9, 33.9, 34.9."""
    for method in ("sgd", "entropy-sgd"):
        for seed in range(3):
            with_errors(complete, method, seed, [90, 36, 34, 32, 30])
    assert summaries.levels(read(complete)) == [35, 34, 33, 32, 31, 30]


def test_no_levels_before_a_run_has_ended_or_once_all_are_perfect(complete, tmp_path):
    synthetic.write_plan(tmp_path / "new")
    assert summaries.levels(read(tmp_path / "new")) == []
    for method in ("sgd", "entropy-sgd"):
        for seed in range(3):
            with_errors(complete, method, seed, [90, 0, 0, 0, 0])
    assert summaries.levels(read(complete)) == []


def test_a_curve_leaves_out_what_was_not_measured(tmp_path):
    comparison = read(synthetic.write_ten(tmp_path, seeds=2))
    assert summaries.curve(comparison, "sgd", "displacement", "gradients") == []
    points = summaries.curve(comparison, "entropy-sgd", "displacement", "gradients")
    assert len(points) == 20
    assert points[-1].mean == pytest.approx(0.5 / 5.21)
