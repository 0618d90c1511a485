"""The command: what it prints, what it refuses, where it leaves its results."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from widevalley import __version__
from widevalley.commands import app

run = CliRunner().invoke


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("command") / "digits"
    result = run(app, ["compare", "digits", "--methods", "sgd,entropy-sgd", "--seeds", "2", "--epochs", "1",
                       "--out", str(folder)])  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_compare_says_how_far_it_is_in_plain_lines_and_ends_with_a_table(compared: tuple[Path, str]) -> None:
    folder, said = compared
    assert "34 runs, 578 gradients in all" in said
    assert "run 34 of 34: final entropy-sgd" in said
    assert "\x1b" not in said
    table = re.findall(r"^(sgd|entropy-sgd) +\S+ +\S+ ± \S+ +\S+ ± \S+ +\S+ ± \S+$", said, flags=re.MULTILINE)
    assert sorted(table) == ["entropy-sgd", "sgd"]
    assert f"Report: {folder / 'report.html'}" in said
    assert "entropy-sgd" in (folder / "report.html").read_text()


def test_report_draws_the_same_page_again(compared: tuple[Path, str]) -> None:
    folder, _ = compared
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    result = run(app, ["report", str(folder)])
    assert result.exit_code == 0
    assert (folder / "report.html").read_bytes() == page


def test_a_folder_with_results_needs_resume(compared: tuple[Path, str]) -> None:
    folder, _ = compared
    again = ["compare", "digits", "--methods", "sgd,entropy-sgd", "--seeds", "2", "--epochs", "1", "--out", str(folder)]
    refused = run(app, again)
    assert refused.exit_code == 2
    assert "add --resume" in refused.output
    assert run(app, [*again, "--resume"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "digit"], "no task 'digit'. Tasks: digits, mnist-fc, mnist-lenet"),
        (
            ["compare", "digits", "--methods", "sgd,smd"],
            "no method 'smd'. Methods: entropy-sgd, entropy-adam, sgd, adam",
        ),
        (["compare", "digits", "--methods", ","], "no method named"),
        (["compare", "digits", "--seeds", "0"], "--seeds"),
        (["report", "nowhere"], "holds no comparison"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(arguments: list[str], said: str) -> None:
    result = run(app, arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_missing_data_are_named_with_their_place(tmp_path: Path) -> None:
    result = run(app, ["compare", "mnist-fc", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz") in result.output
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_is_named(compared: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = compared
    (tmp_path / "units").mkdir()
    (tmp_path / "comparison.json").write_bytes((folder / "comparison.json").read_bytes())
    (tmp_path / "units" / "final-sgd-lr0.1-seed0.jsonl").write_text('{"kind": "configuration", "ph')
    result = run(app, ["report", str(tmp_path)])
    assert result.exit_code == 2
    assert "final-sgd-lr0.1-seed0.jsonl" in result.output


def test_an_unwritable_place_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(app, ["compare", "digits", "--epochs", "1", "--out", str(tmp_path / "file" / "below")])
    assert result.exit_code == 2
    assert "Cannot write the results" in result.output


def test_version_help_and_module() -> None:
    assert run(app, ["--version"]).output == f"widevalley {__version__}\n"
    assert "compare" in run(app, ["--help"]).output
    done = subprocess.run([sys.executable, "-m", "widevalley", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"widevalley {__version__}\n"
