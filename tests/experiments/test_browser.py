"""The report page in a browser: drawn, quiet, as wide as a phone, dark where the reader wants it dark."""

import pytest
import synthetic_results as synthetic
from browser import DARK, LIGHT, assert_well_drawn, look, needs_browser

from widevalley.experiments.report import write_report

pytestmark = needs_browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(synthetic.write_ten(tmp_path_factory.mktemp("ten")))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_the_page_is_drawn_without_a_complaint(report, width, scheme):
    seen = look(report, width, scheme)
    assert seen.messages == []
    assert seen.methods == list(synthetic.TEN)
    assert {figure[0]: len(figure[1:]) for figure in seen.figures} == {
        "differences-to-the-baseline": 1,
        "against-gradients": 2,
        "against-seconds": 2,
        "against-paper-epochs": 2,
        "rise-of-the-loss": 1,
        "inner-loop": 3,
        "learning-rates": 1,
        "tuning-trials": 1,
    }
    assert_well_drawn(seen, width, scheme)


def test_a_complaint_would_be_seen(report):
    """The checks above, on a page that breaks its own content policy and is wider than a phone."""
    text = report.read_text(encoding="utf-8")
    broken = report.with_name("broken.html")
    broken.write_text(
        text.replace("<main>", '<main><div style="width: 600px">wide</div><script>1</script><img src="no.png">', 1),
        encoding="utf-8",
    )
    seen = look(broken, 390)
    assert len([message for message in seen.messages if "Content Security Policy" in message]) == 2
    assert seen.outer > seen.inner


def test_a_blank_page_would_be_seen(tmp_path):
    blank = tmp_path / "blank.html"
    blank.write_text("<!DOCTYPE html><title>nothing</title>")
    seen = look(blank, 390)
    assert (seen.figures, seen.methods) == ([], [])
    assert seen.pixels.std() < 0.01
