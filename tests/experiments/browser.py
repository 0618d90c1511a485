"""Opens a page in a browser, in a frame as wide as asked, and says what was seen."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from types import SimpleNamespace

import pytest
from matplotlib.image import imread

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(not BROWSER, reason="no chromium, chromium-browser or google-chrome on PATH")

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


def assert_well_drawn(seen, width, scheme):
    """Figures of a readable size, a page no wider than its frame, in the scheme's colours."""
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
