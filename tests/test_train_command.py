"""``widevalley train``: one run, its files, and going on with it."""

import json
import shutil
from pathlib import Path

import pytest
import quick
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_cli import run

from widevalley.experiments import networks
from widevalley.experiments.data import digits
from widevalley.experiments.evaluation import score
from widevalley.experiments.methods import METHODS
from widevalley.stopping import Stopping

QUICK = ["train", "digits", "--epochs", "3", "--set", "inner_steps=5"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("train") / "run"
    result = run(*QUICK, "--out", str(folder))
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_metrics_are_json_lines_with_what_the_run_was(trained: tuple[Path, str]) -> None:
    folder, said = trained
    first, *evaluations, last = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert (first["phase"], first["method"], first["lr"], first["gradients"]) == ("train", "entropy-sgd", 0.1, 51)
    assert first["optimizer"]["inner_steps"] == 5
    assert [e["gradients"] for e in evaluations] == sorted({round(51 * k / 20) for k in range(21)})
    assert last["kind"] == "result"
    assert last["outer_updates"] == 11
    assert "test_error" not in last
    assert f"Validation error {last['validation_error']:.2f} %" in said


def test_the_weights_are_those_of_the_centre_and_load_without_code(trained: tuple[Path, str]) -> None:
    folder, _ = trained
    network = networks.digits_fc()
    network.load_state_dict(load_file(folder / "center.safetensors"))
    found = score(network.eval(), digits().validation)
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert found.error == pytest.approx(last["validation_error"], rel=1e-5)
    with safe_open(folder / "center.safetensors", "pt") as file:
        assert json.loads(file.metadata()["widevalley"])["method"] == "entropy-sgd"


def test_what_is_there_is_gone_on_with_only_if_it_is_the_same_run(trained: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = trained
    before = (folder / "metrics.jsonl").read_bytes()
    assert "add --resume" in run(*QUICK, "--out", str(folder)).output
    other = run(*QUICK, "--seed", "1", "--out", str(folder), "--resume")
    assert other.exit_code == 2
    assert "another run (seed: 0 there, 1 now)" in other.output
    same = run(*QUICK, "--out", str(folder), "--resume")
    assert same.exit_code == 0
    assert "there already" in same.output
    assert (folder / "metrics.jsonl").read_bytes() == before
    (tmp_path / "thesis.tex").write_text("…")
    assert "is not empty and holds no run" in run(*QUICK, "--out", str(tmp_path), "--resume").output


@pytest.mark.parametrize("method", METHODS)
def test_the_same_words_with_resume_are_the_same_run(method: str, tmp_path: Path) -> None:
    """Also where settings are no short decimals: rates, the decay of an average."""
    words = ["train", "--task", "quick:task", "--method", method, "--lr", "0.0123456789", "--out", str(tmp_path)]
    assert run(*words).exit_code == 0
    again = run(*words, "--resume")
    assert again.exit_code == 0, again.output
    assert "run 1 of 1" in again.output


def test_a_stopped_run_goes_on_and_its_weights_are_of_its_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "--task", "quick:task", "--epochs", "3", "--method", "swa"]
    assert run(*words, "--out", str(tmp_path / "whole")).exit_code == 0
    steps = 0

    def stop(self: Stopping) -> bool:
        nonlocal steps
        steps += 1
        return steps == 20

    monkeypatch.setattr(Stopping, "__call__", stop)
    stopped = run(*words, "--out", str(tmp_path / "stopped"))
    assert stopped.exit_code == 130
    assert "Stopped, and saved" in stopped.output
    with safe_open(tmp_path / "stopped" / "center.safetensors", "pt") as file:
        now = file.get_tensor("0.weight")
    state = torch.load(next((tmp_path / "stopped" / "state").iterdir()), weights_only=True)
    assert torch.equal(now, state["learner"]["model"]["0.weight"])
    assert run(*words, "--out", str(tmp_path / "stopped"), "--resume").exit_code == 0
    whole, gone_on = (
        quick.without_timings(
            [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        )
        for name in ("whole", "stopped")
    )
    assert gone_on == whole


def test_a_damaged_file_of_metrics_is_named_and_what_is_said_works(trained: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(whole[:-9])
    refused = run(*QUICK, "--out", str(tmp_path / "run"), "--resume")
    assert refused.exit_code == 2
    assert "metrics.jsonl is damaged" in refused.output
    metrics.unlink()
    assert run(*QUICK, "--out", str(tmp_path / "run"), "--resume").exit_code == 0
    assert len(metrics.read_text().splitlines()) == len(whole.splitlines())


def test_a_run_whose_folder_is_in_use_is_refused(tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / "lock"):
        result = run(*QUICK, "--out", str(tmp_path))
    assert result.exit_code == 2
    assert "Another process is at work" in result.output


def test_a_run_that_diverges_says_so_and_leaves_what_there_was(tmp_path: Path) -> None:
    result = run("train", "digits", "--method", "sgd", "--lr", "1e30", "--out", str(tmp_path))
    assert result.exit_code == 3
    assert "Try a lower --lr than 1e+30" in result.output
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["diverged"] is True
    assert json.loads(lines[1])["gradients"] == 0


def test_event_files_and_states_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from widevalley.experiments import checkpoints

    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    assert run(*QUICK, "--tensorboard", "--out", str(tmp_path)).exit_code == 0
    states = sorted((tmp_path / "state").iterdir())
    assert [path.name.split("-")[1] for path in states] == ["000000050", "000000051"]
    assert torch.load(states[-1], weights_only=True)["learner"]["steps_taken"] == 51
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"train_loss", "validation_error", "displacement", "seconds"} <= set(events.Tags()["scalars"])
