"""The command's tasks, and tasks of one's own."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from widevalley.experiments import Task
from widevalley.experiments.compare import Plan
from widevalley.experiments.methods import METHODS
from widevalley.experiments.tasks import TASKS, TaskError, find_task

OWN = """
from torch import nn, rand, arange
from widevalley.experiments import Task, split

def data(folder):
    return split(rand(60, 4), arange(60) % 3, validation=10, test=10)

def mine():
    return Task("mine", "three classes", data, lambda: nn.Linear(4, 3), batch_size=8, epochs=2)

def needs_argument(x):
    return mine()

def number():
    return 7

task = mine()
constant = 7
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    (tmp_path / "owntasks.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit('usage: leaves')\n")
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n")
    return tmp_path


def test_a_task_of_ones_own_is_found_in_the_current_folder(folder: Path) -> None:
    task = find_task("owntasks:mine")
    assert task.name == "mine"
    assert len(task.data(None).train) == 40
    assert (task.tuning_epochs, task.tuning_seeds) == (math.inf, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("digit", "no task 'digit'. Did you mean digits. Tasks: digits, mnist-fc.*module:function"),
        (":mine", "':mine' names no function"),
        ("owntasks:", "'owntasks:' names no function"),
        ("owntask:mine", "no module 'owntask' in .*mytasks:mytask"),
        ("owntasks.py:mine", r"no module 'owntasks.py'.*Try owntasks:mine\."),
        ("sub/owntasks.py:mine", r"no module 'sub/owntasks.py'.*Try sub\.owntasks:mine\."),
        ("owntasks:yours", "module owntasks has no 'yours'"),
        ("owntasks:constant", "owntasks:constant is of type int and cannot be called"),
        ("owntasks:task", "owntasks:task is of type Task and cannot be called"),
        ("owntasks:number", r"owntasks:number\(\) returned int: it must return a widevalley.experiments.Task"),
        ("owntasks:needs_argument", r"owntasks:needs_argument\(\) failed with TypeError"),
        ("broken:mine", "module broken failed with ZeroDivisionError"),
        ("leaves:mine", "module leaves failed with SystemExit: usage: leaves"),
        ("needy:mine", "module needy needs the module not_installed_anywhere"),
        (".:mine", "module . failed with|no module '.'"),
    ],
)
def test_whatever_is_wrong_with_a_name_is_said(folder: Path, name: str, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        find_task(name)


@pytest.mark.parametrize("name", list(TASKS))
def test_the_commands_tasks_are_found_by_name(name: str) -> None:
    assert find_task(name).name == name


def test_a_tuning_run_is_as_long_as_a_final_one_or_as_short_as_its_task_says() -> None:
    task = Task("a", "", TASKS["digits"].data, nn.Identity, 8, epochs=3)
    for tuning, found in ((math.inf, 4), (2, 2), (5, 4)):
        plan = Plan(replace(task, tuning_epochs=tuning), (METHODS["sgd"],), seeds=1, epochs=4)
        assert {unit.gradients for unit in plan.tuning(80)} == {found * 10}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "a/b"}, "cannot name a folder"),
        ({"name": ".."}, "cannot name a folder"),
        ({"batch_size": 0}, "batch_size=0 must be positive"),
        ({"epochs": float("nan")}, "epochs=nan must be positive"),
    ],
)
def test_a_task_that_cannot_run_is_refused(changed: dict[str, object], said: str) -> None:
    right = {"name": "a", "description": "", "data": None, "network": None, "batch_size": 8, "epochs": 1}
    with pytest.raises(ValueError, match=said):
        Task(**{**right, **changed})  # type: ignore[arg-type]


def test_an_epoch_counts_full_batches() -> None:
    assert TASKS["digits"].gradients(1150, 2) == 2 * 17
    assert TASKS["mnist-fc"].gradients(54_000, 10) == 4210
