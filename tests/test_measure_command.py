"""``widevalley measure``: words, what it writes and says, stopping and going on."""

import json
from pathlib import Path

import pytest
import quick
from test_cli import run

from widevalley.experiments import parts
from widevalley.stopping import Stopping


@pytest.fixture
def nets(tmp_path: Path) -> list[str]:
    return [str(quick.save_tiny(tmp_path / f"net{seed}.pt", seed)) for seed in (0, 1)]


OWN = ["--objective", "quick:objective"]


def test_runs_of_train_are_measured_as_they_are_named(tmp_path: Path) -> None:
    for method in ("sgd", "entropy-sgd"):
        words = ["train", "digits", "--epochs", "1", "--train-size", "100", "--method", method]
        assert run(*words, "--out", str(tmp_path / method)).exit_code == 0
    out = tmp_path / "out"
    runs = [str(tmp_path / "sgd"), str(tmp_path / "entropy-sgd")]
    result = run("measure", *runs, "--what", "sharpness", "--images", "50", "--out", str(out))
    assert result.exit_code == 0, result.output
    found = json.loads((out / "measurement.json").read_text())
    assert list(found["networks"]) == ["sgd", "entropy-sgd"]
    assert found["networks"]["entropy-sgd"]["configuration"]["method"] == "entropy-sgd"
    assert found["samples"].startswith("50 training examples of digits, equally many of each class")
    assert found["samples"].endswith("(train size 100)")
    assert found["command"] == f"widevalley measure {runs[0]} {runs[1]} --what sharpness --images 50"
    assert "entropy-sgd against sgd, at matched loss: " in result.output
    page = (out / "measure.html").read_text()
    assert "<title>" in page
    assert "entropy-sgd" in page


def test_a_stopped_measurement_shows_what_it_has_and_goes_on(
    nets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["measure", *nets, *OWN, "--what", "sharpness,density", "--out", str(tmp_path / "out")]
    asked = 0

    def stop(self: Stopping) -> bool:
        nonlocal asked
        asked += 1
        return asked == 500

    monkeypatch.setattr(Stopping, "__call__", stop)
    stopped = run(*words)
    assert stopped.exit_code == 130
    assert "Stopped, and saved. To go on:" in stopped.output
    there = json.loads((tmp_path / "out" / "measurement.json").read_text())
    assert "density" in there["networks"]["net0"]
    assert "density" not in there["networks"]["net1"]
    assert "not complete" in (tmp_path / "out" / "measure.html").read_text()
    page = tmp_path / "out" / "measure.html"
    shown = page.read_text()
    page.write_text("old")
    assert "add --resume" in run(*words).output
    assert page.read_text() == "old"
    assert str(page) in run("report", str(tmp_path / "out")).output
    assert page.read_text() == shown
    gone_on = run(*words, "--resume")
    assert gone_on.exit_code == 0, gone_on.output
    assert "density of net0: there already" in gone_on.output
    assert "not complete" not in (tmp_path / "out" / "measure.html").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--what", "densty"], "There is no part 'densty'. Did you mean density? Parts: spectrum, density"),
        (["--what", ","], "--what names nothing"),
        (["--gammas", "0.1,x"], "--gammas '0.1,x' is no list of numbers"),
        (["--gammas", "0"], "every scope must be above 0"),
        (["--task", "digits"], "--task and --objective both say what is measured"),
    ],
)
def test_words_that_are_wrong(nets: list[str], words: list[str], said: str, tmp_path: Path) -> None:
    result = run("measure", *nets, *OWN, *words, "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    result = run("measure", str(tmp_path / "gone.safetensors"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "give a file of weights, or a folder of widevalley train" in result.output
    named = run("measure", str(quick.save_tiny(tmp_path / "net.pt")), "--out", str(tmp_path / "out"))
    assert "Which task is" in named.output
    assert "give --task" in named.output


def test_a_part_asked_for_in_vain_is_an_error_and_the_rest_is_there(
    nets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise ValueError("no second derivative here")

    monkeypatch.setattr(parts, "spectral_density", refused)
    words = ["measure", nets[0], *OWN, "--out", str(tmp_path / "out")]
    result = run(*words, "--what", "density,sharpness")
    assert result.exit_code == 2
    assert "density of net0 cannot be had: no second derivative here" in result.output
    assert "worst" in (tmp_path / "out" / "measure.html").read_text().lower()
    assert "holds a measurement already: add --resume" in run(*words).output
