"""``widevalley reproduce``: what it lists, refuses and estimates."""

from pathlib import Path

import pytest
from test_cli import run

from widevalley import options
from widevalley.experiments import reproduce


def test_names_are_those_of_the_library() -> None:
    assert tuple(options.REPRODUCED) == reproduce.WHAT


def test_the_list_says_what_there_is() -> None:
    lines = run("reproduce", "list").output.splitlines()
    assert [line.split()[0] for line in lines] == list(options.REPRODUCED)


def test_unknown_names_are_refused() -> None:
    result = run("reproduce", "fig9")
    assert result.exit_code == 2
    assert "There is no 'fig9' to reproduce: fig1, " in result.output


@pytest.mark.parametrize("name", ["fig3c", "fig5"])
def test_what_is_not_there_yet_says_so(name: str) -> None:
    result = run("reproduce", "fig2", name)
    assert result.exit_code == 2
    assert f"{name} is not there yet: " in result.output


def test_a_dry_run_counts_and_runs_nothing(tmp_path: Path) -> None:
    result = run("reproduce", "all", "--dry-run", "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()[1:-1]}
    assert list(rows) == [*options.REPRODUCED, "all"]
    # Three candidates; two curves of five seeds, two of three, one of one; four readings of the printed noise.
    assert rows["fig4a"][:2] == ["24", "24"]
    assert rows["table"][:2] == ["122", "122"]
    assert int(rows["all"][0]) == sum(int(rows[name][0]) for name in options.REPRODUCED)
    assert float(rows["all"][3]) == pytest.approx(sum(float(rows[name][3]) for name in options.REPRODUCED), abs=0.4)
    assert not (tmp_path / "out" / "units").exists()


def test_missing_data_are_named(tmp_path: Path) -> None:
    result = run("reproduce", "fig4a", "--out", str(tmp_path / "out"), "--data-dir", str(tmp_path / "nothing"))
    assert result.exit_code == 2
    assert "widevalley data fetch mnist" in " ".join(result.output.split())
