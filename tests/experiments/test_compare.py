"""A comparison: the plan, the choice of the learning rate, going on after a kill."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from widevalley.experiments import compare as module
from widevalley.experiments.compare import FolderError, Plan, choose, compare
from widevalley.experiments.data import Data
from widevalley.experiments.methods import METHODS
from widevalley.experiments.tasks import TASKS
from widevalley.experiments.train import Unit

TASK = replace(TASKS["digits"], tuning_epochs=1, tuning_seeds=2)
PLAN = Plan(TASK, (METHODS["sgd"], METHODS["entropy-sgd"]), seeds=2, epochs=2.0)


class Silent:
    def __init__(self) -> None:
        self.skipped = 0

    def start(self, units: int, gradients: int) -> None:
        # 2 methods x 5 rates x 2 seeds of 17 gradients, and 2 x 2 finals of 34.
        assert (units, gradients) == (24, 20 * 17 + 4 * 34)

    def unit(self, unit: Unit, skipped: bool) -> None:
        self.skipped += skipped

    def gradient(self, done: int) -> None:
        pass

    def result(self, unit: Unit, result: dict[str, Any]) -> None:
        pass


@pytest.fixture(scope="module")
def digits() -> Data:
    return TASK.data(None)


@pytest.fixture(scope="module")
def finished(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    compare(PLAN, digits, folder, resume=False, progress=Silent())
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    """Without timings, the only thing in which two runs of a unit may differ."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines]


def test_every_unit_has_its_file_with_configuration_and_result(finished: Path) -> None:
    files = sorted((finished / "units").iterdir())
    assert len(files) == 24
    for path in files:
        configuration, *evaluations, result = records(path)
        assert configuration["kind"] == "configuration"
        assert result["kind"] == "result"
        assert {e["kind"] for e in evaluations} == {"evaluation"}
        assert result["gradients"] == configuration["gradients"] == (34 if path.name.startswith("final") else 17)
        assert configuration["optimizer"]["lr"] == configuration["lr"]
        assert set(configuration["versions"]) == {"python", "torch", "numpy", "widevalley"}
    header = json.loads((finished / "comparison.json").read_text())
    assert header["chosen"].keys() == {"sgd", "entropy-sgd"}
    assert header["parameters"] == 26_634


def test_a_killed_comparison_goes_on_with_what_is_missing(finished: Path, digits: Data, tmp_path: Path) -> None:
    """As after a kill in tuning: some files, no choice yet, and a half-written one."""
    header = json.loads((finished / "comparison.json").read_text())
    del header["chosen"]
    (tmp_path / "comparison.json").write_text(json.dumps(header))
    (tmp_path / "units").mkdir()
    kept = sorted((finished / "units").glob("tune-*"))[:7]
    for path in kept:
        (tmp_path / "units" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "units" / "tune-sgd-lr1-seed1000.jsonl.partial").write_text('{"kind": "conf')
    progress = Silent()
    compare(PLAN, digits, tmp_path, resume=True, progress=progress)
    assert progress.skipped == 7
    for path in sorted((finished / "units").iterdir()):
        assert records(tmp_path / "units" / path.name) == records(path)
    assert (tmp_path / "comparison.json").read_text() == (finished / "comparison.json").read_text()


def test_a_folder_with_results_is_not_written_over(finished: Path, digits: Data) -> None:
    with pytest.raises(FolderError, match="add --resume"):
        compare(PLAN, digits, finished, resume=False, progress=Silent())
    with pytest.raises(FolderError, match="seeds"):
        compare(replace(PLAN, seeds=3), digits, finished, resume=True, progress=Silent())


def test_a_folder_with_other_things_is_left_alone(digits: Data, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(FolderError, match="not empty"):
        compare(PLAN, digits, tmp_path, resume=True, progress=Silent())


def test_the_choice_is_by_mean_validation_error_then_loss_and_never_a_diverged_run() -> None:
    method = METHODS["sgd"]

    def runs(lr: float, *ends: tuple[float, float, bool]) -> list[tuple[Unit, dict[str, Any]]]:
        return [
            (
                Unit("tune", method, lr, seed, 1),
                {"diverged": diverged, "validation_error": error, "validation_loss": loss},
            )
            for seed, (error, loss, diverged) in enumerate(ends)
        ]

    results = [
        *runs(0.01, (3.0, 0.1, False), (3.0, 0.1, False)),
        *runs(0.03, (1.0, 0.3, False), (3.0, 0.3, False)),
        *runs(0.1, (2.0, 0.2, False), (2.0, 0.2, False)),
        *runs(0.3, (0.1, 0.1, False), (0.1, 0.1, True)),
        *runs(1.0, (2.0, 0.4, False), (2.5, 0.1, False)),
    ]
    assert choose(method, results) == 0.1


def test_tuning_seeds_are_no_final_seeds() -> None:
    assert not set(PLAN.tuning_seeds) & set(range(1000))
    assert module.FIRST_TUNING_SEED == 1000


@pytest.mark.parametrize("content", ["", '{"kind": "res', "\udcff"])
def test_a_damaged_unit_is_named(finished: Path, digits: Data, tmp_path: Path, content: str) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "comparison.json").write_bytes((finished / "comparison.json").read_bytes())
    damaged = tmp_path / "units" / "tune-sgd-lr0.01-seed1000.jsonl"
    damaged.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(FolderError, match=rf"{damaged.name} is damaged.*delete it"):
        compare(PLAN, digits, tmp_path, resume=True, progress=Silent())
