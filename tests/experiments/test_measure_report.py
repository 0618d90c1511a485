"""The page of a measurement, against its file."""

import math
import re

import matplotlib
import pytest
import small_measurement as small
from browser import DARK, LIGHT, assert_well_drawn, look, needs_browser
from page import Page, figures

from widevalley.experiments.measure_findings import findings
from widevalley.experiments.measure_report import write_measure_report
from widevalley.experiments.measure_tables import estimate, percent
from widevalley.experiments.measurements import read
from widevalley.experiments.tables import significant

PANELS = {
    # No eigenvalue of these networks is far enough to the left for a tail, nor are there enough for a density.
    "spectrum-histograms": 6,
    "density-per-decade": 1,
    "entropy-by-gamma": 2,
    "surface-around": 3,
    "surface-lines": 1,
}


def page_of(folder, record):
    return write_measure_report(small.write(folder, record)).read_text(encoding="utf-8")


def words(text):
    return re.sub(r"\s+", " ", Page(text).text)


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("three"), small.three())


def test_figures_of_three_networks(three):
    assert figures(three) == PANELS
    page = Page(three)
    described = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(described) == three.count('<svg class="plot"') == sum(PANELS.values())
    assert "#fe00" not in three
    assert "#fd00" not in three
    assert "not complete" not in page.text


def test_the_page_stands_alone(three):
    page = Page(three)
    assert not {"script", "link", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", three)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")]
    targets += [found for _, _, value in page.attributes for found in re.findall(r"url\(#([^)]*)\)", value or "")]
    assert set(targets) <= set(ids)
    assert page.tags.count("caption") == page.tags.count("table") == len(page.tables)


def test_tables_have_the_files_numbers(three):
    record = small.three()
    page, network = Page(three), record["networks"]["net-1"]
    assert page.tables["Table of the networks"]["net-1"][:3] == ["30", significant(network["point"]["loss"]), "2.50"]
    largest = significant(network["spectrum"]["eigenvalues"][-1])
    assert page.tables["Table of spectra"]["net-1"][2] == largest
    assert page.tables["Table of outermost eigenvalues"]["1"][2] == largest
    other = record["networks"]["net-0"]["spectrum"]["elsewhere"]["subset 1"]
    assert page.tables["Table of other samples"]["net-0, subset 1"][3] == significant(other["largest"][0])
    assert page.tables["Table of the largest eigenvalues of net-0"]["5"][1] == significant(other["largest"][4])
    point = network["entropy"]["points"][0]
    row = page.tables["Table of local entropy of net-1"]["10"]
    assert row[0] == estimate(point["value"], point["standard_error"])
    assert row[2] == significant(point["rms_radius"], 3)
    rows = {(row["kind"], row["radius"]): row for row in network["sharpness"]["rows"]}
    assert page.tables["Table of sharpness"]["worst, 0.05"][1].startswith(
        f"≥\N{NO-BREAK SPACE}{significant(rows['worst', 0.05]['value'])} runs agree to "
    )
    average = rows["average", 0.05]
    assert page.tables["Table of sharpness"]["average, 0.05"][1] == estimate(
        average["value"], average["standard_error"]
    )


def test_learning_coefficients_stand_beside_half_the_parameters(tmp_path, three):
    found = small.three()["networks"]["net-1"]["entropy"]["learning_coefficient"]
    rows = Page(three).tables["Table of learning coefficients"]
    assert rows["net-1"] == [estimate(found["value"], found["standard_error"]), "15", "mixed"]
    record = small.three()
    record["networks"]["net-2"]["entropy"] |= {"learning_coefficient": None, "unfinished": True}
    text = write_measure_report(small.write(tmp_path, record)).read_text()
    assert set(Page(text).tables["Table of learning coefficients"]) == {"Network", "net-0", "net-1"}
    assert "This measurement is not complete" in text


def test_raw_widths_get_no_verdict(three):
    rows = Page(three).tables["Table of widths"]
    said = {"wider", "narrower", "undecided"}
    for name, cells in rows.items():
        verdicts = said & set(" ".join(cells).split())
        assert bool(verdicts) == (name == "adaptive sharpness" or ", per " in name), name
        assert "comparable" not in " ".join(cells)
    assert list(rows)[-3:] == ["largest eigenvalue (raw)", "trace (raw)", "average sharpness (raw)"]


def test_the_page_says_first_which_valley_is_wider(tmp_path):
    record = small.three()
    record["widths"]["verdicts"] = {"net-1": "wider", "net-2": "undecided"}
    said = " ".join(findings(read(small.write(tmp_path, record))))
    assert said.startswith("net-1 lies in a wider valley than net-0 at equal training loss, by every measure")
    assert "Whether the valley of net-2 is wider than that of net-0 is undecided" in said
    record["widths"]["verdicts"] = {"net-1": "narrower", "net-2": "narrower"}
    said = " ".join(findings(read(small.write(tmp_path, record))))
    assert said.startswith("net-1 and net-2 each lie in a narrower valley than net-0")
    record["widths"]["verdicts"] = {"net-1": "not comparable because it has 5 samples", "net-2": "undecided"}
    said = " ".join(findings(read(small.write(tmp_path, record))))
    assert "net-1 and net-0 are not comparable because it has 5 samples." in said
    assert "wider valley" not in said


def test_minimum_is_said_only_of_a_small_gradient_and_no_way_down(tmp_path):
    record = small.one()
    network = record["networks"]["net-0"]
    network["spectrum"] |= {"eigenvalues": [0.0] * 29 + [4.0], "noise_floor": 1e-6}
    said = {}
    for norm, lowest in ((1e-4, 0.0), (1e-4, -1e-3), (0.5, 0.0)):
        network["point"]["gradient_norm"] = norm
        network["spectrum"]["eigenvalues"][0] = lowest
        said[norm, lowest] = " ".join(findings(read(small.write(tmp_path, record))))
    assert "net-0 is at a minimum" in said[1e-4, 0.0]
    assert "strictly not a minimum" in said[1e-4, -1e-3]
    assert "not at a minimum: a step against the gradient, of norm 0.500," in said[0.5, 0.0]
    del network["spectrum"], network["density"]
    assert "takes the largest eigenvalue to say" in " ".join(findings(read(small.write(tmp_path, record))))


def test_one_network_has_no_widths_and_says_its_own(tmp_path):
    record = small.one()
    record["networks"]["net-0"]["spectrum"] |= {"eigenvalues": [0.0] * 27 + [1.0, 2.0, 3.0], "noise_floor": 1e-6}
    text = page_of(tmp_path, record)
    said = words(text)
    assert "Of the 30 eigenvalues of net-0’s Hessian 90.0\N{NO-BREAK SPACE}% are smaller than 10⁻⁴" in said.replace(
        "90.0 %", "90.0\N{NO-BREAK SPACE}%"
    )
    assert "the largest is 3.000, none is negative, their sum" in said
    assert Page(text).tables["Table of spectra"]["net-0"][3:5] == ["0 within the floor", "0"]
    assert "Which valley is wider" not in said
    assert "surface-lines" not in figures(text)
    assert figures(text)["surface-around"] == 1
    record["networks"]["net-0"]["spectrum"]["noise_floor"] = 0.01
    said = words(page_of(tmp_path, record))
    assert "cannot be told from 0" in said
    assert "smaller than 10⁻⁴" not in said
    assert "within the floor" in said


def test_parts_that_are_absent_skipped_and_not_there_yet(tmp_path):
    record = small.three()
    first, second, _ = record["networks"].values()
    record["what"] = ["spectrum", "density", "entropy"]
    for network in record["networks"].values():
        del network["surface"], network["sharpness"]
    second["spectrum"] = {"skipped": "20 GiB are needed and 3 are free."}
    del first["density"], second["density"], record["networks"]["net-2"]["density"]
    record["widths"] = {"skipped": "The logits of net-1 are hidden."}
    text = page_of(tmp_path, record)
    said = words(text)
    assert set(figures(text)) == {"spectrum-histograms", "entropy-by-gamma"}
    assert figures(text)["spectrum-histograms"] == 4
    assert "net-1: 20 GiB are needed and 3 are free." in said
    assert "The widths are not compared: The logits of net-1 are hidden." in said
    assert "density of net-0" in said
    assert "density of net-2" in said
    for absent in ("Sharpness", "The loss around", "the comparison of widths", "Density of the eigenvalues"):
        assert absent not in said
    record["widths"] = None
    assert "the comparison of widths" in words(page_of(tmp_path, record))


def test_a_network_keeps_its_colour_where_another_is_skipped(tmp_path):
    record = small.three()
    record["networks"]["net-0"]["entropy"] = {"skipped": "No γ was given."}
    text = page_of(tmp_path, record)
    figure = re.search(r'<figure id="entropy-by-gamma">(.*?)</figure>', text, flags=re.S)[1]
    assert set(re.findall(r"fill: none[^\"]*stroke: var\(--series-(\d)", figure)) == {"1", "2"}


def test_chains_that_did_not_mix_are_said(tmp_path):
    record = small.one()
    assert "did not mix:" not in words(page_of(tmp_path, record))
    record["networks"]["net-0"]["entropy"]["points"][1]["warning"] = "chains that do not agree: r_hat 1.4"
    text = page_of(tmp_path, record)
    assert "net-0 at γ = 100: chains that do not agree: r_hat 1.4" in words(text)
    assert Page(text).tables["Table of local entropy of net-0"]["100"][-1] == "did not mix"


def test_text_is_escaped_and_the_same_file_gives_the_same_page(tmp_path):
    record = small.one(checkpoint="<script>x</script>")
    record["networks"]["<b>&"] = record["networks"].pop("net-0")
    record["samples"] = "a < b & $x$"
    text = page_of(tmp_path, record)
    assert "<script>" not in text
    assert "<b>&" not in text
    assert "a < b & $x$" in Page(text).text
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
        assert page_of(tmp_path, record) == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["measure.html", "measurement.json"]


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (123.456, 1.234, "123.5 ± 1.2"),
        (-2516.64, 0.09, "−2,516.64 ± 0.090"),
        (1.59e-6, 2.4e-7, "(1.59 ± 0.24)·10⁻⁶"),
        (0.000162, 2.7e-5, "0.000162 ± 0.000027"),
        (-6676.1, 0.0023, "−6,676.10 ± 0.0023"),
        (5.0, math.nan, "5.000"),
        (5.0, None, "5.000"),
    ],
)
def test_estimates_show_two_digits_of_the_error_and_six_of_the_value(value, error, said):
    assert estimate(value, error) == said


def test_numbers_in_words():
    found = [significant(value, 3) for value in (0, 1234.5, -0.01234, 1.5e-5, -9.996e-5, 2e7, math.nan, math.inf)]
    assert found == ["0", "1,234", "−0.0123", "1.50·10⁻⁵", "−0.000100", "2.00·10⁷", "–", "not finite"]
    assert [percent(share) for share in (0.0, 0.5, 0.94, 0.99987, 1.0)] == [
        f"{said}\N{NO-BREAK SPACE}%" for said in ("0.0", "50.0", "94.0", "99.987", "100.0")
    ]


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_the_page_is_drawn_without_a_complaint(tmp_path_factory, three, width, scheme):
    path = tmp_path_factory.mktemp("page") / "measure.html"
    path.write_text(three, encoding="utf-8")
    seen = look(path, width, scheme)
    assert seen.messages == []
    assert seen.methods == ["net-0", "net-1", "net-2"]
    assert {name: len(plots) for name, *plots in seen.figures} == figures(three)
    assert_well_drawn(seen, width, scheme)
