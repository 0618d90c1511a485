"""The page of a reproduction, whole and with parts missing, and the figures beside it."""

import json
import re
from xml.etree import ElementTree

import matplotlib
import pytest
import synthetic_reproduction as synthetic
from browser import DARK, LIGHT, assert_well_drawn, look, needs_browser
from matplotlib.figure import Figure
from page import Page, figures
from synthetic_reproduction import EVERY

from widevalley.experiments.reproduced_claims import ROWS
from widevalley.experiments.reproduction_report import write_reproduction

PANELS = {
    "fig1-figure": 12,
    "fig3a-figure": 9,
    "fig3b-figure": 9,
    "fig4a-figure": 4,
    "fig4b-figure": 4,
    "table-figure": 2,
    "direction-figure": 4,
}

EVERYTHING = {"figures", "measurements", "reproduction.html", "spectra", "units"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = synthetic.write(tmp_path_factory.mktemp("whole"))
    write_reproduction(folder)
    return folder


def text_of(folder):
    return write_reproduction(folder).read_text(encoding="utf-8")


def read(folder):
    return (folder / "reproduction.html").read_text(encoding="utf-8")


def words(text):
    return re.sub(r"\s+", " ", Page(text).text)


def said_in(figure):
    """The legend, then the panels' titles."""
    return [text.text for text in ElementTree.parse(figure).getroot().findall("{http://www.w3.org/2000/svg}text")]


def test_figures_and_tables(whole):
    text = read(whole)
    page = Page(text)
    assert figures(text) == PANELS
    assert page.tags.count("caption") == page.tags.count("table") == len(page.tables)
    for leftover in ("#fe00", "#fd00", "Nothing has been run"):
        assert leftover not in text
    assert page.tables["Table of spectra of fig1"]["adam-seed0"][2] == "25.00"
    assert (
        page.tables["Table of results of fig4b"]["lenet-text Entropy-SGD, the text's settings, T = 1e-8"][0] == "1 of 1"
    )
    # Fig. 2 alone has not been written.
    assert page.text.count("Not all is there.") == 1
    assert f"widevalley reproduce fig2 --out {whole.as_posix()}" in words(text)


def test_the_page_stands_alone(whole):
    text = read(whole)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "image"} & set(page.tags)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", text)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for _, name, value in page.attributes if name in ("href", "xlink:href")]
    targets += [found for _, _, value in page.attributes for found in re.findall(r"url\(#([^)]*)\)", value or "")]
    assert set(targets) <= set(ids)


def test_the_figures_stand_alone_too(whole):
    paths = sorted((whole / "figures").iterdir())
    assert [path.name for path in paths] == [f"{name.removesuffix('-figure')}.svg" for name in sorted(PANELS)]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        root = ElementTree.fromstring(text)
        panels = root.findall("{http://www.w3.org/2000/svg}svg")
        assert len(panels) == PANELS[f"{path.stem}-figure"]
        assert "var(" not in text
        assert "currentColor" not in text
        width, height = (float(root.get(side).removesuffix("pt")) for side in ("width", "height"))
        for panel in panels:
            x, y, wide, high = (float(panel.get(key)) for key in ("x", "y", "width", "height"))
            assert 0 < x < x + wide < width
            assert 0 < y < y + high < height
    said = said_in(whole / "figures" / "fig4a.svg")
    names = ("authors", "adam", "adam-dropout", "text", "text-sgld-large")
    assert said[:5] == [EVERY[f"mnistfc-{name}"].description for name in names]
    assert said[5] == "Test error (%), by epochs of gradients"


def test_the_noise_as_printed_is_in_the_table_and_not_in_the_figure(whole):
    drawn = (whole / "figures" / "fig4a.svg").read_text(encoding="utf-8")
    assert "T = 1e-8" in drawn
    assert "T = 2" not in drawn
    assert "The text as printed, T = 2" in words(read(whole))


def test_the_same_files_give_the_same_page(whole):
    before, figure = read(whole), (whole / "figures" / "table.svg").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True}):
        assert text_of(whole) == before
    assert (whole / "figures" / "table.svg").read_bytes() == figure
    assert {path.name for path in whole.iterdir()} == EVERYTHING


def test_an_empty_folder(tmp_path):
    text = text_of(tmp_path)
    assert set(figures(text).values()) == {0}
    said = words(text)
    assert "Nothing has been run yet." in said
    for name in ("fig1", "fig2", "fig3a", "fig3b", "fig4a", "fig4b", "table"):
        assert f"widevalley reproduce {name} --out {tmp_path.as_posix()} runs what is missing" in said
    assert not (tmp_path / "figures").exists()


def test_one_seed_of_one_curve(tmp_path):
    synthetic.running(tmp_path, EVERY["lenet-adam"], seeds=(2,))
    text = text_of(tmp_path)
    assert figures(text)["fig4b-figure"] == 4
    assert figures(text)["fig4a-figure"] == 0
    assert "lenet-adam: seed 0, 1, 3, 4" in words(text)
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["fig4b.svg"]
    assert said_in(tmp_path / "figures" / "fig4b.svg")[:2] == ["Adam", "Test error (%), by epochs of gradients"]


def test_a_variant_alone_has_a_test_error_and_no_difference(tmp_path):
    synthetic.choosing(tmp_path, EVERY["L5"])
    synthetic.running(tmp_path, EVERY["L5"])
    assert figures(text_of(tmp_path))["table-figure"] == 1


def test_runs_made_elsewhere_are_told_apart(tmp_path):
    synthetic.running(tmp_path, EVERY["mnistfc-adam"], seeds=(0, 1))
    path = tmp_path / "units" / "curve-mnistfc-adam-lr0.001-seed1.jsonl"
    path.write_text(path.read_text().replace("2.11.0", "2.12.0"))
    page = Page(text_of(tmp_path))
    assert page.tables["Table of results of fig4a"]["mnistfc-adam Adam"][-1] == "1, 2"
    assert page.tags.count("li") >= 2
    assert "torch 2.12.0" in page.text
    assert page.tables["Table of losses of fig4a"]["mnistfc-adam Adam"][-3::2] == ["2 of 5", "1, 2"]
    assert page.tables["Table of the way of fig4a"]["mnistfc-adam Adam"][-3::2] == ["2 of 5", "1, 2"]


def test_the_page_says_where_a_spectrum_was_made(tmp_path):
    for name, torch in (("fig3b-adam", "2.11.0"), ("fig3b-initial", "2.12.0")):
        path = synthetic.spectrum(tmp_path, name)
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"versions": record["versions"] | {"torch": torch}}))
    said = words(text_of(tmp_path))
    assert said.index("made with 1 of the list") < said.index("made with 2 of the list")


def test_the_page_says_where_what_is_measured_once_was_made(tmp_path):
    """Environments are told in the order of the files' names, sections in another: Fisher's is the last."""
    synthetic.fisher(tmp_path)
    synthetic.local_gradient(tmp_path)
    path = tmp_path / "measurements" / "local-gradient.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"versions": record["versions"] | {"torch": "2.12.0"}}))
    said = words(text_of(tmp_path))
    assert "repeats have seeds 0, 1, 2 and so on; made with 2 of the list" in said
    assert "Trained on MNIST by Adam, seed 0, 5 epochs of gradients, made with 1 of the list" in said


def test_two_valleys_are_drawn_by_their_own_module(tmp_path, monkeypatch):
    def drawn(record):
        figure = Figure(figsize=(4, 3))
        figure.add_subplot().plot(record["x"])
        return [("The landscape", figure, "A line.")]

    monkeypatch.setattr("widevalley.experiments.two_valleys_plots.figures", drawn)
    (tmp_path / "measurements").mkdir()
    record = {"x": [1, 2], "starts": {"count": 400}, "gradients": 40000, "versions": {"torch": "2"}, "machine": {}}
    (tmp_path / "measurements" / "two-valleys.json").write_text(json.dumps(record))
    text = text_of(tmp_path)
    assert (
        "Where 400 walks end, from evenly spaced starts, 40,000 gradients each, all with seed 0; made with 1 of"
        in words(text)
    )
    assert figures(text)["fig2-figure"] == 1
    assert "reproduce fig2" not in text
    assert (tmp_path / "figures" / "fig2.svg").exists()


def test_the_direction_of_local_entropy(tmp_path):
    synthetic.local_gradient(tmp_path)
    text = text_of(tmp_path)
    page = Page(text)
    assert figures(text)["direction-figure"] == 4
    early, end = (page.tables[f"Table of directions {place}"] for place in (1, 2))
    # By rising L: with its deviation where there were several runs, with its length where the reference has one.
    assert early["the authors’ loop, minibatches, μ γ = 1"] == [
        "−0.49 ± 0.02, × 0.50", "−0.46 ± 0.02, × 2.0", "0.50 ± 0.02, × 50", "0.25",
    ]  # fmt: skip
    assert early["T = 0, all images, μ γ = 0.1"][1] == "−0.46, × 2.0"
    assert end["T = 0, all images, μ γ = 0.1"][1] == "−0.46"
    assert end["without any error γ = 0.1"] == ["0.990"] * 3 + ["0.80"]
    assert "reproduce table --out" in words(text)
    assert (tmp_path / "figures" / "direction.svg").exists()


def test_fisher_information_beside_the_hessian(tmp_path):
    synthetic.fisher(tmp_path)
    page = Page(text_of(tmp_path))
    for place in (1, 2):
        table = page.tables[f"Table of Fisher information {place}"]
        assert table["Hessian"] == ["101.9 ± 0.6", "1", "1", "1, 1", "25.00", "50.00"]
        assert table["Adam’s moments"] == ["12.50", "0.811", "0.900", "0.970, 0.875", "25.00", "50.00"]
        assert set(table) == {"Diagonal", "Hessian", *ROWS.values()}
    assert "over 1,000 random entries of its diagonal" in page.text
    assert "784-64-10 with tanh, test error 4.25 %: ‖H − G‖ / ‖H‖ = 0.088, λ from −0.227 to 13.10" in page.text


def test_what_lemma_2_assumes_away(tmp_path):
    """Of 200 eigenvalues 196 lie within 1e-5 of 0; one is -0.3, three are 1 and more."""
    synthetic.spectrum(tmp_path, "fig3b-adam")
    page = Page(text_of(tmp_path))
    assert page.tables["Table of Lemma 2 of fig3b"]["adam"] == ["98.00", "98.50", "1.50"]


@pytest.mark.parametrize(
    ("eigenvalue", "shares"),
    [
        (-2.01, ["98.00", "98.00"]), (-1.99, ["98.00", "98.50"]), (-0.21, ["98.00", "98.50"]),
        (-0.19, ["98.50", "98.50"]), (9e-5, ["98.50", "98.50"]), (2e-4, ["98.00", "98.00"]),
    ],
)  # fmt: skip
def test_where_lemma_2_begins_and_ends(tmp_path, eigenvalue, shares):
    """[-2γ - c, c] for γ = 0.1 and 1, c = 1e-4: one eigenvalue of 200 on either side of each end."""
    path = synthetic.spectrum(tmp_path, "fig3b-adam")
    record = json.loads(path.read_text())
    found = record["networks"]["network"]["spectrum"]
    found["eigenvalues"] = sorted([eigenvalue, *found["eigenvalues"][1:]])
    path.write_text(json.dumps(record))
    assert Page(text_of(tmp_path)).tables["Table of Lemma 2 of fig3b"]["adam"][:2] == shares


def test_text_is_escaped(tmp_path):
    path = synthetic.spectrum(tmp_path, "fig3b-adam")
    record = json.loads(path.read_text())
    record["samples"] = "a <b>& $x$"
    record["networks"]["network"]["configuration"]["task"] = "<script>x</script>"
    path.write_text(json.dumps(record))
    text = text_of(tmp_path)
    assert "<script>" not in text
    assert "a <b>& $x$" in Page(text).text


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_the_page_is_drawn_without_a_complaint(whole, width, scheme):
    seen = look(whole / "reproduction.html", width, scheme)
    assert seen.messages == []
    assert {name: len(plots) for name, *plots in seen.figures} == PANELS
    assert_well_drawn(seen, width, scheme)
