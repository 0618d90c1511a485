"""``widevalley train``: one run, its files, and going on with it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from test_cli import run

from widevalley.experiments import networks
from widevalley.experiments.data import digits
from widevalley.experiments.evaluation import score

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
