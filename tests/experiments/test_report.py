"""The report page against files that the test wrote itself, the numbers worked out by hand."""

import math
import re

import matplotlib
import pytest
import synthetic_results as synthetic
from page import Page, figures, page_of

from widevalley.experiments import summaries
from widevalley.experiments.results import read

TUNING = [name for name in synthetic.all_units() if name[0] == "tune"]
FINAL = [name for name in synthetic.all_units() if name[0] == "final"]


@pytest.fixture
def complete(tmp_path):
    return synthetic.write_comparison(tmp_path / "complete")


def test_figures_with_captions_and_descriptions(complete):
    text = page_of(complete)
    assert figures(text) == {
        "differences-to-the-baseline": 1,
        "against-gradients": 2,
        "against-seconds": 2,
        "against-paper-epochs": 2,
        "rise-of-the-loss": 1,
        "learning-rates": 1,
        "tuning-trials": 1,
    }
    page = Page(text)
    assert page.tags.count("figcaption") == 7
    described = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(described) == 10
    assert "hides the inner gradients" in page.text
    assert "compared only roughly" in page.text
    # Labels are text, not outlines.
    assert ">training loss</text>" in text


def test_curves_and_tuning_runs_are_drawn_in_the_methods_colours(complete):
    """Each of the two has a mean line in seven panels, its tuning line and its trials, in its own colour alone."""
    text = page_of(complete)
    for series, other in ((0, 2), (1, 3)):
        line = rf'<path d="[^"]*" clip-path="[^"]*" style="fill: none; [^"]*stroke: var\(--series-{series}, #\w+\)'
        assert len(re.findall(line, text)) >= 9
        assert f"var(--series-{other}," not in text
    assert "#fe00" not in text
    assert "#fd00" not in text


def test_nothing_is_loaded_from_anywhere(complete):
    text = page_of(complete)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#"), (tag, name, value)
        assert not name.startswith("on"), (tag, name)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", text)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}


def test_ids_are_unique_and_references_are_to_them(complete):
    page = Page(page_of(complete))
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")]
    targets += [found for _, _, value in page.attributes for found in re.findall(r"url\(#([^)]*)\)", value or "")]
    assert targets
    assert set(targets) <= set(ids)


def test_tables_name_their_rows_and_columns(complete):
    page = Page(page_of(complete))
    assert page.tags.count("caption") == page.tags.count("table") == len(page.tables) == 6
    scopes = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == page.tags.count("th")
    assert set(scopes) == {"col", "row"}


def test_configuration_and_command(complete):
    page = Page(page_of(complete))
    assert "widevalley compare digits --methods entropy-sgd,sgd --seeds 3" in page.text
    assert page.rows["lr"] == ["0.1", "0.1"]
    assert page.rows["inner_steps"] == ["20", "–"]
    for expected in ("2.11.0", "x86_64", "27,018 parameters", "80 minibatch gradients", "200 validation"):
        assert expected in page.text


def test_the_same_files_give_the_same_page(complete, tmp_path):
    first = page_of(complete)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert page_of(complete) == first
    assert page_of(synthetic.write_comparison(tmp_path / "again")) == first
    assert sorted(path.name for path in complete.iterdir()) == ["comparison.json", "report.html", "units"]


def test_text_is_escaped(tmp_path):
    synthetic.write_plan(tmp_path, command='widevalley compare "<script>x</script>"', task="a<b & $x$")
    for name in FINAL:
        lines = synthetic.unit(*name)
        lines[0]["machine"]["processor"] = "<b>CPU</b>"
        lines[0]["optimizer"]["<i>"] = "</td>"
        synthetic.write_unit(tmp_path, lines)
    text = page_of(tmp_path)
    page = Page(text)
    assert not {"script", "b", "i"} & set(page.tags)
    for expected in ('widevalley compare "<script>x</script>"', "a<b & $x$", "<b>CPU</b>"):
        assert expected in page.text
    assert page.rows["<i>"] == ["</td>", "</td>"]


def test_no_unit_yet(tmp_path):
    synthetic.write_plan(tmp_path, chosen={})
    text = page_of(tmp_path)
    page = Page(text)
    assert set(figures(text).values()) == {0}
    assert page.rows["sgd"] == ["–", "the baseline", "0 of 3", *["–"] * 3]
    assert page.rows["entropy-sgd"] == ["–", "–", "0 of 3", *["–"] * 3]
    assert page.tables["Table of costs"]["sgd"] == ["–"] * 6
    assert "No verdict yet" in page.text
    assert "tuning of sgd at learning rate 0.03, 0.1, 0.3" in page.text
    assert "final runs of entropy-sgd with seed 0, 1, 2" in page.text


def test_units_that_are_missing_or_running_are_named_and_left_out(tmp_path):
    """sgd is left with seeds 0 and 1: test errors 3 and 3.5, mean 3.25, sd 0.5/√2 = 0.354."""
    synthetic.write_comparison(tmp_path, without=[("tune", "entropy-sgd", 0.3, 1000)])
    synthetic.write_unit(tmp_path, synthetic.unit("final", "sgd", 0.1, 2, ended=False))
    (tmp_path / "units" / "final-entropy-sgd-lr0.1-seed1.jsonl").write_text("")
    page = Page(page_of(tmp_path))
    assert page.rows["sgd"][0::2][:2] == ["3.25 ± 0.35", "2 of 3"]
    # Seed 0 alone is in both: 2 less 3, and no scatter to tell an interval from.
    assert page.rows["entropy-sgd"][:3] == ["3.00 ± 1.41", "not decidable −1.00 (no interval), 1 seed", "2 of 3"]
    assert "tuning of entropy-sgd at learning rate 0.3" in page.text
    assert "final runs of sgd with seed 2" in page.text
    assert "final runs of entropy-sgd with seed 1" in page.text
    assert "tuning of sgd" not in page.text


def test_a_complete_comparison_has_no_notes(complete):
    page = Page(page_of(complete))
    assert "not complete" not in page.text
    assert "left out of every mean" not in page.text


def test_tuning_alone_draws_its_figure(tmp_path):
    synthetic.write_comparison(tmp_path, without=FINAL)
    found = figures(page_of(tmp_path))
    assert found.pop("learning-rates") == found.pop("tuning-trials") == 1
    assert set(found.values()) == {0}


def test_one_seed_has_no_deviation_and_its_own_error(tmp_path):
    synthetic.write_plan(tmp_path, seeds=[1])
    for name in [*TUNING, ("final", "sgd", 0.1, 1), ("final", "entropy-sgd", 0.1, 1)]:
        synthetic.write_unit(tmp_path, synthetic.unit(*name))
    page = Page(page_of(tmp_path))
    assert page.rows["sgd"][:3] == ["3.50", "the baseline", "1 of 1"]
    # The unit's own: 0.1 · 0.5².
    assert page.tables["Table of the rise of the loss"]["sgd"][-1] == "0.50 ± 0.03"
    assert "One seed" in page.text


def test_diverged_units_are_named_and_left_out(complete):
    """entropy-sgd is left with 2 and 4: mean 3, sd 2/√2 = 1.414; of sgd nothing is left."""
    synthetic.write_unit(complete, synthetic.unit("final", "entropy-sgd", 0.1, 1, diverged=True))
    for seed in (0, 1, 2):
        synthetic.write_unit(complete, synthetic.unit("final", "sgd", 0.1, seed, diverged=True))
    synthetic.write_unit(complete, synthetic.unit("tune", "sgd", 0.3, 1000, diverged=True))
    text = page_of(complete)
    page = Page(text)
    assert page.rows["entropy-sgd"][:3] == ["3.00 ± 1.41", "–", "2 of 3, 1 diverged"]
    assert page.rows["sgd"] == ["–", "the baseline", "0 of 3, 3 diverged", *["–"] * 3]
    assert "entropy-sgd with seed 1; sgd with seed 0, 1, 2" in page.text
    assert "not complete" not in page.text
    assert len(summaries.curve(read(complete), "sgd", "train_loss", "gradients")) == 0
    assert [point.x for point in summaries.tuned(read(complete), "sgd") if math.isnan(point.mean)] == [0.3]


def test_numbers_that_are_not_finite_are_drawn_around(complete):
    lines = synthetic.unit("final", "sgd", 0.1, 0)
    lines[2]["train_loss"] = math.inf
    lines[-1]["test_loss"] = math.nan
    lines[-1]["rise"][1]["mean"] = math.inf
    synthetic.write_unit(complete, lines)
    tuning = synthetic.unit("tune", "sgd", 0.03, 1000)
    tuning[-1]["validation_error"] = None
    synthetic.write_unit(complete, tuning)
    page = Page(page_of(complete))
    assert page.rows["sgd"][3] == "not finite"
    assert page.tables["Table of the rise of the loss"]["sgd"][-1] == "not finite"


def test_a_loss_of_zero_does_not_break_the_logarithmic_axes(tmp_path):
    synthetic.write_plan(tmp_path)
    for name in synthetic.all_units():
        lines = synthetic.unit(*name)
        for line in lines[1:]:
            line["train_loss"] = line["validation_error"] = 0.0
        synthetic.write_unit(tmp_path, lines)
    page = Page(page_of(tmp_path))
    assert page.rows["sgd"][4:] == ["0.00 ± 0.00", "0.0 ± 0.0"]


def test_a_rate_chosen_at_the_end_of_its_grid_is_said(complete):
    said = "a better rate may lie beyond it"
    assert said not in Page(page_of(complete)).text
    synthetic.write_plan(complete, chosen={"entropy-sgd": 0.1, "sgd": 0.3})
    assert f"{said}: sgd." in Page(page_of(complete)).text


def test_runs_on_two_machines_are_said(complete):
    lines = synthetic.unit("final", "sgd", 0.1, 0)
    lines[0]["machine"]["processor"] = "arm64"
    synthetic.write_unit(complete, lines)
    page = Page(page_of(complete))
    assert "different machines" in page.text
    assert "different versions" not in page.text


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    folder = synthetic.write_ten(tmp_path_factory.mktemp("ten"))
    return folder, Page(page_of(folder))


def test_what_the_comparison_says_comes_first_in_words(ten):
    folder, page = ten
    said = re.sub(r"\s+", " ", page.text)
    found = summaries.differences(read(folder))
    assert {method: difference.verdict for method, difference in found.items() if difference.verdict != "not decidable"}
    for verdict in ("lower", "higher"):
        sentence = said.split(f"Test error is {verdict} than sgd’s for ")[1].split(". ")[0]
        listed = [part.split(" (")[0] for part in sentence.split("; ")]
        assert listed == [method for method, difference in found.items() if difference.verdict == verdict]
    undecided = ", ".join(method for method, difference in found.items() if difference.verdict == "not decidable")
    assert f"Not decidable: {undecided}." in said
    assert "The intervals (95 %) are over seeds and test examples." in said
    assert "there are 9 here, so expect 0.45 false verdicts" in said
    assert said.index("Not decidable") < said.index("trained the network")


def test_no_verdict_is_claimed_that_the_intervals_do_not_support(complete):
    page = Page(page_of(complete))
    assert "Whether entropy-sgd’s test error differs from sgd’s is not decidable from these runs." in page.text
    assert "The intervals (95\N{NO-BREAK SPACE}%) are over seeds alone" in page.text
    assert "false verdicts" not in page.text
    assert "One seed" not in page.text
    assert "Test error is" not in page.text


def test_one_seed_compares_networks_and_not_methods(tmp_path):
    page = Page(page_of(synthetic.write_ten(tmp_path, seeds=1)))
    assert "One seed: single networks are compared here" in page.text
    assert "The intervals (95\N{NO-BREAK SPACE}%) are over test examples alone." in page.text


def test_alterations_and_steps_of_two_gradients_are_said_at_the_top(ten, complete):
    _, page = ten
    assert "The task was altered: label noise 0.2." in page.text
    assert "sam takes 2 gradients a step" in page.text
    other = Page(page_of(complete)).text
    assert "altered" not in other
    assert "gradients a step" not in other


def test_one_method_is_compared_with_nothing(tmp_path):
    synthetic.write_plan(tmp_path, methods=["sgd"])
    for name in synthetic.all_units():
        if name[1] == "sgd":
            synthetic.write_unit(tmp_path, synthetic.unit(*name))
    text = page_of(tmp_path)
    assert "there is nothing to compare it with" in Page(text).text
    assert "differences-to-the-baseline" not in figures(text)
