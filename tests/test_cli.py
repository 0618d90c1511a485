"""The command as a whole: help, version, completion, words that are wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from widevalley import __version__, options
from widevalley.commands import app
from widevalley.experiments import Task, split
from widevalley.experiments.measured import PARTS
from widevalley.experiments.methods import METHODS
from widevalley.experiments.tasks import TASKS


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments), env={"TERM": "dumb", "COLUMNS": "200"})


def test_version_help_and_module() -> None:
    assert run("--version").output == f"widevalley {__version__}\n"
    said = run("--help").output
    for command in ("compare", "train", "measure", "reproduce", "report", "data"):
        assert command in said
    assert "Begin with: widevalley compare digits" in said
    done = subprocess.run([sys.executable, "-m", "widevalley", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"widevalley {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["compare", "--help"],
        ["data", "--help"],
        ["train", "--help"],
        ["measure", "--help"],
        ["reproduce", "--help"],
    ],
)
def test_help_does_not_load_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['widevalley', *sys.argv[1:]]\n"
        "from widevalley.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_names_in_help_are_those_of_the_library() -> None:
    assert list(options.TASK_NAMES) == list(TASKS)
    assert list(options.METHOD_NAMES) == list(METHODS)
    assert options.PART_NAMES == PARTS
    assert set(options.DEFAULT_METHODS.split(",")) <= set(METHODS)


def complete(words: str) -> str:
    """What the shell's completion is answered, as bash asks for it."""
    count = len(words.split()) - (not words.endswith(" "))
    env = {**os.environ, "_WIDEVALLEY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": f"{count}"}
    widevalley = Path(sys.executable).with_name("widevalley")
    return subprocess.run([widevalley], env=env, capture_output=True, text=True, check=True).stdout


def test_the_shell_completes_commands_tasks_and_the_last_of_several_methods() -> None:
    assert complete("widevalley comp").split() == ["compare"]
    assert complete("widevalley compare mnist").split() == ["mnist-fc", "mnist-lenet"]
    assert complete("widevalley compare digits --methods sgd,ada").split() == ["sgd,adam", "sgd,adamw"]


def mistaken(data: Callable[[Path | None], object]) -> Callable[[], Task]:
    return lambda: Task("mistaken", "", data, nn.Identity, batch_size=8, epochs=1)


OWN_MISTAKES = SimpleNamespace(
    floats=mistaken(lambda folder: split(torch.zeros(50, 3), torch.zeros(50), validation=10, test=10)),
    nothing=mistaken(lambda folder: None),
)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "digit"], "no task 'digit'. Did you mean digits? Tasks: digits, mnist-fc, mnist-lenet"),
        (["compare"], "Name one task: digits"),
        (["compare", "digits", "--task", "a:b"], "digits and --task a:b are two tasks: give one"),
        (["compare", "--task", "own_mistakes:floats"], "ValueError: targets must be classes from 0 as int64"),
        (["compare", "--task", "own_mistakes:nothing"], "returned NoneType: it must return a widevalley.experiments"),
        (["compare", "--task", "nowhere:function"], "no module 'nowhere'"),
        (
            ["compare", "digits", "--methods", "sgd,smd"],
            "no method 'smd'. Did you mean sgd? Methods: entropy-sgd, entropy-adam, sgd",
        ),
        (["compare", "digits", "--methods", ","], "no method named"),
        (["compare", "digits", "--seeds", "0"], "--seeds"),
        (["compare", "digits", "--label-noise", "1.5"], "label_noise=1.5"),
        (["compare", "digits", "--train-size", "5000"], "train_size=5000 is more than the 1150"),
        (["compare", "digits", "--batch-size", "5000"], "fewer than a minibatch of 5000"),
        (["compare", "digits", "--device", "abacus"], "--device abacus is not supported"),
        (["compare", "digits", "--device", "cuda:77"], "no device 'cuda:77' here"),
        (["compare", "digits", "--epochs", "inf"], "--epochs"),
        (["compare", "digits", "--epochs", "nan"], "--epochs"),
        (["compare", "digits", "--batch-size", "1"], "cannot be trained on a minibatch of its data"),
        (["train", "digits", "--method", "smd"], "no method 'smd'"),
        (["train", "digits", "--set", "gama=1"], "--set does not fit entropy-sgd"),
        (["train", "digits", "--set", "gama=1"], "Did you mean gamma?"),
        (["train", "digits", "--set", "gamma=1", "--set", "gamma=2"], "gamma=… is given twice"),
        (["train", "digits", "--lr", "inf"], "--lr"),
        (["train", "digits", "--set", "gamma"], "not NAME=VALUE"),
        (["train", "digits", "--set", "gamma=x+1"], "not a number"),
        (["train", "digits", "--set", "gamma=-1"], "gamma=-1"),
        (["train", "digits", "--set", "lr=1"], "an option of its own, --lr"),
        (["report", "nowhere"], "holds no results"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "own_mistakes", OWN_MISTAKES)
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_missing_data_are_named_with_their_place_and_the_command_that_fetches_them(tmp_path: Path) -> None:
    result = run("compare", "mnist-fc", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz") in result.output
    assert "widevalley data fetch mnist" in result.output
    assert not (tmp_path / "out").exists()


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    result = run("compare", "digits", "--methods", "schedule-free", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert 'pip install "widevalley[rivals]"' in result.output
