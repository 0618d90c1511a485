"""``widevalley compare`` and ``report``: what they print and leave, and how they end when something is in the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import run

QUICK = ["compare", "--task", "quick:task", "--methods", "sgd,entropy-sgd", "--seeds", "2"]
UNITS = 14  # 2 methods x 5 rates, and 2 methods x 2 seeds
SEEDS = 2  # whose widths are measured


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("command") / "digits"
    result = run(*QUICK, "--out", str(folder))
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_it_says_how_far_it_is_in_plain_lines_and_ends_with_a_table(compared: tuple[Path, str]) -> None:
    folder, said = compared
    assert "14 runs, 306 gradients in all" in said
    assert "run 14 of 14: final entropy-sgd" in said
    assert "\x1b" not in said
    table = re.findall(r"^(sgd|entropy-sgd) +\S+ +\S+ ± \S+ +\S+ ± \S+ +\S+ ± \S+$", said, flags=re.MULTILINE)
    assert sorted(table) == ["entropy-sgd", "sgd"]
    assert f"Report: {folder / 'report.html'}" in said
    assert "entropy-sgd" in (folder / "report.html").read_text()


def test_report_draws_the_same_page_again(compared: tuple[Path, str]) -> None:
    folder, _ = compared
    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert run("report", str(folder)).exit_code == 0
    assert (folder / "report.html").read_bytes() == page


def test_a_folder_with_results_needs_resume(compared: tuple[Path, str]) -> None:
    folder, _ = compared
    refused = run(*QUICK, "--out", str(folder))
    assert refused.exit_code == 2
    assert "add --resume" in refused.output
    again = run(*QUICK, "--out", str(folder), "--resume")
    assert again.exit_code == 0
    assert again.output.count("(there already)") == UNITS + SEEDS


def test_alterations_are_done_recorded_and_part_of_the_command(tmp_path: Path) -> None:
    changed = ["--label-noise", "0.2", "--train-size", "400", "--batch-size", "32"]
    result = run(*QUICK, *changed, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert plan["changes"] == {"label_noise": 0.2, "train_size": 400, "batch_size": 32}
    assert (plan["train_size"], plan["batch_size"], plan["gradients"]) == (400, 32, 24)
    assert plan["command"].endswith("--label-noise 0.2 --train-size 400 --batch-size 32")
    first = next((tmp_path / "out" / "units").iterdir()).read_text().splitlines()[0]
    assert json.loads(first)["changes"] == plan["changes"]
    other = run(*QUICK, "--out", str(tmp_path / "out"), "--resume")
    assert other.exit_code == 2
    assert "label_noise: 0.2 there, None now" in other.output


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("compare", "digits", "--methods", "sgd,sam", "--seeds", "2", "--epochs", "3", "--dry-run")
    assert result.exit_code == 0, result.output
    # 15 tuning runs and 2 finals, of 3 epochs of 17 gradients each.
    rows = re.findall(r"^(sgd|sam|all) +(\S+) +(\S+)", result.output, flags=re.MULTILINE)
    assert rows == [("sgd", "17", "867"), ("sam", "17", "867"), ("all", "34", "1,734")]
    assert "Nothing was run or written" in result.output
    assert not list(tmp_path.iterdir())


def test_event_files_on_request(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(*QUICK, "--tensorboard", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    name = next(path.stem for path in (tmp_path / "units").glob("final-entropy-sgd-*-seed1.jsonl"))
    records = [json.loads(line) for line in (tmp_path / "units" / f"{name}.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard" / name)).Reload()
    drawn = {event.step: event.value for event in events.Scalars("validation_loss")}
    expected = {record["gradients"]: record["validation_loss"] for record in records[1:]}
    assert drawn == pytest.approx(expected, rel=1e-5)


def test_a_task_of_ones_own_as_the_documentation_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "comparing.md").read_text()
    example = re.search(
        r"In `(\w+)\.py`:\n\n```python\n(.*?)```\n\n    widevalley (compare --task .*?)\n", page, re.DOTALL
    )
    module, code, command = example.groups()
    assert len(code.strip().splitlines()) < 20
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{module}.py").write_text(code)
    result = run(*command.split(), "--seeds", "1", "--epochs", "2")
    assert result.exit_code == 0, result.output
    plan = json.loads((tmp_path / "runs" / "moons" / "comparison.json").read_text())
    assert plan["command"].startswith(f"widevalley {command}")
    assert (plan["train_size"], plan["validation_size"], plan["test_size"]) == (1200, 400, 400)


def test_a_damaged_result_is_named(compared: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = compared
    (tmp_path / "units").mkdir()
    (tmp_path / "comparison.json").write_bytes((folder / "comparison.json").read_bytes())
    (tmp_path / "units" / "final-sgd-lr0.1-seed0.jsonl").write_text('{"kind": "configuration", "ph')
    result = run("report", str(tmp_path))
    assert result.exit_code == 2
    assert "final-sgd-lr0.1-seed0.jsonl" in result.output


def test_an_unwritable_place_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(*QUICK, "--out", str(tmp_path / "file" / "below"))
    assert result.exit_code == 2
    assert "below cannot be made a folder (Not a directory): give another --out" in result.output


def process(*arguments: str, small_files: bool = False) -> subprocess.Popen[str]:
    """The command as a process; with ``small_files`` none may exceed 6 kB, as on a disk that is full then."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000))\n" if small_files else ""
    code = f"{limit}import sys; sys.argv = ['widevalley', *sys.argv[1:]]\nfrom widevalley.cli import main\nmain()"
    command = [sys.executable, "-c", code, *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on the size of files to set there")
def test_a_disk_that_is_full_is_a_message_and_loses_nothing(compared: tuple[Path, str], tmp_path: Path) -> None:
    """From the first file on that is longer than the limit; what is smaller is written."""
    full = process(*QUICK, "--out", str(tmp_path), small_files=True)
    _, said = full.communicate(timeout=120)
    assert full.returncode == 4
    assert "Cannot write the results: [Errno 27] File too large" in said
    assert f"widevalley {' '.join(QUICK)} --out {tmp_path} --resume" in said
    assert "Traceback" not in said
    assert not list(tmp_path.rglob("*.partial"))
    assert run(*QUICK, "--out", str(tmp_path), "--resume").exit_code == 0
    assert_same_records(compared[0], tmp_path)


def assert_same_records(one: Path, other: Path) -> None:
    def records(folder: Path) -> dict[str, list[str]]:
        return {
            path.name: [re.sub(r'"seconds\w*": [^,}]+', "", line) for line in path.read_text().splitlines()]
            for path in sorted((folder / "units").glob("*.jsonl"))
        }

    assert records(one) == records(other)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals cannot be sent to a process there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(number: int, tmp_path: Path) -> None:
    """In the middle of a run; what goes on from there ends as a run without a signal does."""
    arguments = ["compare", "--task", "quick:task", "--methods", "sgd", "--seeds", "1", "--epochs", "40"]
    stopped = process(*arguments, "--out", str(tmp_path / "out"))
    units = tmp_path / "out" / "units"
    until = time.monotonic() + 120
    while not list(units.glob("*.jsonl")) and time.monotonic() < until:
        time.sleep(0.02)
    stopped.send_signal(number)
    _, said = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + number
    assert "Stopping after this step" in said
    assert (
        f"Stopped, and saved. To go on:\n  widevalley {' '.join(arguments)} --out {tmp_path / 'out'} --resume" in said
    )
    assert len(list(units.glob("*.state/*.pt"))) == 1
    again = run(*arguments, "--out", str(tmp_path / "out"), "--resume")
    assert again.exit_code == 0, again.output
    assert run(*arguments, "--out", str(tmp_path / "whole")).exit_code == 0
    assert_same_records(tmp_path / "whole", tmp_path / "out")
