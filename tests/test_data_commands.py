"""``widevalley data``: what it lists, checks, fetches and refuses."""

from pathlib import Path

import pytest
from experiments.small_sets import images, register
from typer.testing import CliRunner

from widevalley.data_commands import app
from widevalley.experiments import download, files

run = CliRunner().invoke


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sets, of which one is there."""
    register(monkeypatch, images(tmp_path, "here"), images(tmp_path / "elsewhere", "gone"))
    monkeypatch.setenv("WIDEVALLEY_DATA", str(tmp_path))
    return tmp_path


def test_list_says_where_and_what_is_there(folder: Path) -> None:
    (folder / "here" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"short")
    result = run(app, ["list"])
    assert result.exit_code == 0
    assert f"Data folder: {folder} " in result.stdout
    assert "here: 3 of 4 files present" in result.stdout
    assert "present   here/train-images-idx3-ubyte.gz" in result.stdout
    assert "damaged   here/t10k-labels-idx1-ubyte.gz" in result.stdout
    assert "gone: 0 of 4 files present" in result.stdout
    assert "missing   gone/t10k-labels-idx1-ubyte.gz" in result.stdout
    assert "widevalley data fetch gone" in result.stdout


def test_check_reads_the_files_named(folder: Path) -> None:
    right = run(app, ["check", "here"])
    assert right.exit_code == 0
    assert right.stdout.splitlines() == [f"right    {folder / file.place}" for file in files.DATASETS["here"].files]
    everything = run(app, ["check"])
    assert everything.exit_code == 0
    assert "none of gone is there" in everything.stdout
    gone = run(app, ["check", "gone"])
    assert gone.exit_code == 1
    assert f"missing  {folder / 'gone' / 'train-images-idx3-ubyte.gz'}" in gone.stdout
    assert "4 missing or damaged" in gone.stderr
    # The same size, another byte: only the sum tells.
    path = folder / "here" / "train-labels-idx1-ubyte.gz"
    stored = bytearray(path.read_bytes())
    stored[20] ^= 1
    path.write_bytes(stored)
    damaged = run(app, ["check", "here"])
    assert damaged.exit_code == 1
    assert f"damaged  {path} " in damaged.stdout


def test_fetch_says_what_it_wrote_and_how_far_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(name: str, where: Path, progress: download.Progress) -> list[str]:
        asked.append((name, where))
        for done in range(0, 2_000_001, 1000):
            progress(done, 2_000_000)
        return [f"{name}/file.gz"]

    monkeypatch.setattr(download, "fetch", fake)
    result = run(app, ["fetch", "gone", "--data-dir", str(folder / "other")])
    assert result.exit_code == 0, result.output
    assert asked == [("gone", folder / "other")]
    assert result.stdout == f"gone: wrote {folder / 'other' / 'gone' / 'file.gz'}\n"
    assert result.stderr.splitlines() == [f"gone: {0.2 * k:.1f} MB of 2.0 MB" for k in range(11)]


def test_fetch_leaves_right_files_alone(folder: Path) -> None:
    result = run(app, ["fetch", "here"])
    assert result.exit_code == 0
    assert "all files are there and right" in result.stdout


def test_a_failed_download_is_a_message(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str, where: Path, progress: download.Progress) -> list[str]:
        raise files.DataError("the server is away")

    monkeypatch.setattr(download, "fetch", fake)
    result = run(app, ["fetch", "gone"])
    assert result.exit_code == 2
    assert result.stderr == "the server is away\n"


@pytest.mark.parametrize("command", ["check", "fetch"])
def test_an_unknown_set_is_answered_with_the_known_ones(folder: Path, command: str) -> None:
    result = run(app, [command, "here", "their"])
    assert result.exit_code == 2
    assert "no data set 'their'" in result.stderr
    assert "Data sets: here, gone." in result.stderr


def test_fetch_needs_a_name(folder: Path) -> None:
    assert run(app, ["fetch"]).exit_code == 2
