"""The report page in a browser: drawn, quiet, as wide as a phone, dark where the reader wants it dark."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from types import SimpleNamespace

import pytest
import synthetic_results as synthetic
from matplotlib.image import imread

from widevalley.experiments.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not BROWSER, reason="no chromium, chromium-browser or google-chrome on PATH")

# A window is never as narrow as a phone, a frame is: the page stands in one, and what is measured beside it.
FRAME = """<!DOCTYPE html>
<style>body {{ margin: 0 }} iframe {{ display: block; border: 0; width: {width}px; height: 900px }}</style>
<iframe src="{name}"></iframe>
<pre></pre>
<script>
document.querySelector("iframe").onload = (event) => {{
  const page = event.target.contentDocument, size = (element) => [element.clientWidth, element.clientHeight];
  document.querySelector("pre").textContent = JSON.stringify({{
    figures: [...page.querySelectorAll("figure")].map((f) => [f.id, ...[...f.querySelectorAll(".plot")].map(size)]),
    methods: [...page.querySelectorAll("table")[0]?.querySelectorAll("tbody th") ?? []].map((th) => th.textContent),
    verdict: page.querySelector(".verdict")?.getBoundingClientRect().right,
    inner: page.documentElement.clientWidth,
    outer: page.documentElement.scrollWidth,
  }});
}};
</script>"""
LIGHT, DARK = 1, 0


def look(page, width, scheme=LIGHT):
    """Opens the page in a frame of that width: what was measured in it, the console's messages, pixels in [0, 1]."""
    frame, shot = page.with_name("frame.html"), page.with_name("shot.png")
    frame.write_text(FRAME.format(name=page.name, width=width), encoding="utf-8")
    command = [
        *(
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-background-networking",
        ),
        *(
            "--no-first-run",
            "--disable-extensions",
            "--disable-component-update",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ),
        *(f"--user-data-dir={page.parent / 'browser'}", "--allow-file-access-from-files"),
        *(f"--blink-settings=preferredColorScheme={scheme}", f"--window-size={max(width, 500)},900"),
        *("--enable-logging=stderr", "--dump-dom", f"--screenshot={shot}", frame.as_uri()),
    ]
    ended = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, env={**os.environ, "LANG": "C"})
    measured = re.search(r"<pre>(\{.*?\})</pre>", ended.stdout)
    assert measured, ended.stderr
    messages = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return SimpleNamespace(**json.loads(unescape(measured[1])), messages=messages, pixels=imread(shot)[:, :width, :3])


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
    for name, *plots in seen.figures:
        for wide, high in plots:
            assert 280 <= wide <= width, name
            assert 100 <= high <= 700, name
    # Nothing but what scrolls by itself is wider than the page, and the verdicts are in sight without scrolling.
    assert seen.outer == seen.inner == width
    assert seen.verdict <= width
    brightness = seen.pixels.mean(axis=2)
    assert (brightness.mean() < 0.3) if scheme == DARK else (brightness.mean() > 0.8)
    assert brightness.std() > 0.05


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
