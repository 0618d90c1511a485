"""The tables of the report page, the numbers worked out by hand."""

import math

import pytest
import synthetic_results as synthetic
from page import Page, page_of

from widevalley.experiments import tables
from widevalley.experiments.report import plus_minus
from widevalley.experiments.statistics import Interval
from widevalley.experiments.summaries import Difference


@pytest.fixture
def complete(tmp_path):
    return synthetic.write_comparison(tmp_path / "complete")


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    return Page(page_of(synthetic.write_ten(tmp_path_factory.mktemp("ten"))))


def test_the_table_has_every_method_with_its_numbers(complete):
    """entropy-sgd's test errors 2, 3, 4: mean 3, sd 1. sgd's 3, 3.5, 5.5: mean 4, sd √((1 + 0.25 + 2.25)/2) = 1.3229.

    Both: test losses 0.1, 0.2, 0.3; validation errors 90/81 + (0, 1, 2), mean 2.1111; training losses
    2.3/81 · (1, 1.5, 2), mean 0.042593, sd 0.014198; 2, 3, 4 ms a gradient.

    Differences −1, −0.5, −1.5: mean −1, sd 0.5; t(2) = 4.3027 times 0.5/√3 is 1.2421.
    """
    page = Page(page_of(complete))
    shared = ["3 of 3", "0.20 ± 0.10", "2.11 ± 1.00", "0.043 ± 0.014"]
    assert page.rows["entropy-sgd"] == ["3.00 ± 1.00", "not decidable −1.00 (−2.24 to +0.24)", *shared]
    assert page.rows["sgd"] == ["4.00 ± 1.32", "the baseline", *shared]
    costs = page.tables["Table of costs"]
    assert costs["entropy-sgd"] == ["0.1", "80", "4", "3.00 ± 1.00", "–", "–"]
    assert costs["sgd"] == ["0.1", "80", "80", "3.00 ± 1.00", "–", "–"]


def test_the_rise_stands_in_a_table(complete):
    """Rises (1, 2, 3) · size²: mean 2 size², standard error size²/√3; 0.02 ± 0.0058 at 0.1, 0.5 ± 0.14 at 0.5."""
    table = Page(page_of(complete)).tables["Table of the rise of the loss"]
    assert table["Method"] == ["Training loss± sd", "0.1", "0.5"]
    assert table["sgd"] == table["entropy-sgd"] == ["0.043 ± 0.014", "0.020 ± 0.006", "0.5 ± 0.1"]


def test_costs_have_memory(ten):
    """4 bytes · 1.3 million · 3 are 14.9 MiB, 9e7 bytes are 85.8 MiB."""
    costs = ten.tables["Table of costs"]
    assert costs["entropy-sgd"][1:3] == ["4,210", "210"]
    assert costs["entropy-sgd"][-2:] == ["14.9", "–"]
    assert costs["entropy-adam"][-2:] == ["14.9", "85.8"]
    assert costs["sam"][2] == "2,105"


def test_gradients_to_a_level_stand_in_a_table(complete):
    """From 90/21 + 1 down to 90/81 + 1, what the middle seed of three has after 20 gradients and at the end.

    2.2 % is reached where 90/(1 + n) is below 2.2, 1.2 and 0.2: after 40 gradients, after 80, and not at all.
    """
    page = Page(page_of(complete))
    table = page.tables["Table of gradients to each validation error"]
    assert table["Method"] == [f"{level}\N{NO-BREAK SPACE}%" for level in (4.6, 3.9, 3.4, 2.9, 2.5, 2.2)]
    assert table["sgd"][-1] == "80 (2 of 3)"


def test_levels_that_few_seeds_reach(complete):
    for seed in (1, 2):
        synthetic.write_unit(complete, synthetic.unit("final", "sgd", 0.1, seed, diverged=True))
    table = Page(page_of(complete)).tables["Table of gradients to each validation error"]
    assert table["sgd"][-1] == "> 80 (1 of 3)"


def test_trials_stand_in_a_table(complete):
    """Every rate ends at 90/81 + (0 + 2)/2."""
    table = Page(page_of(complete)).tables["Table of tuning trials"]
    assert table["sgd"] == ["2.11", "2.11", "2.11"]


def test_the_inner_loop_has_its_section_where_there_is_one(ten, complete):
    table = ten.tables["Table of the inner loop"]
    assert list(table) == ["Method", "entropy-sgd", "entropy-adam"]
    assert table["entropy-adam"][1:] == ["0.1042 ± 0.0000", "0.1000 ± 0.0000"]
    assert "How far the inner loop looks" not in Page(page_of(complete)).text


def test_an_interval_that_ends_just_beside_zero_is_not_written_as_zero(complete):
    difference = Difference("sam", 3, Interval(-0.1, -0.2, -0.0004), "seeds")
    assert tables.points(difference) == ("−0.1000", "−0.2000 to −0.0004")


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([], None, "–"),
        ([1.234567], None, "1.235"),
        ([0.00012345678], None, "0.0001235"),
        ([12345.6, 12345.6], None, "12346 ± 0"),
        ([1.0, 3.0], None, "2.0 ± 1.4"),
        ([0.001, 0.0012], None, "0.00110 ± 0.00014"),
        ([100.0, 500.0], None, "300 ± 283"),
        ([2.0, 3.0], 2, "2.50 ± 0.71"),
        ([0.0, 0.0], None, "0.0 ± 0.0"),
        ([1.0, math.nan], 2, "not finite"),
    ],
)
def test_plus_minus(values, digits, expected):
    assert plus_minus(values, digits) == expected
