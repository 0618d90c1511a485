"""A comparison: the plan, the choice of the learning rate, going on after a kill, several processes on one folder."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import quick
from safetensors.torch import load_file
from torch import nn

from widevalley.experiments import compare as module
from widevalley.experiments import sharing
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.compare import choose, compare
from widevalley.experiments.folder import Folder, FolderError
from widevalley.experiments.methods import METHODS
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.tasks import TASKS, TaskError
from widevalley.experiments.train import Quiet, Stopped, Unit

PLAN = quick.plan("sgd", "entropy-sgd")


class Progress(Quiet):
    def __init__(self) -> None:
        self.total = (0, 0)
        self.ran: list[str] = []
        self.skipped: list[str] = []
        self.warned: list[str] = []
        self.widths: list[tuple[int, bool]] = []
        self.waited = 0

    def start(self, units: int, gradients: int) -> None:
        self.total = (units, gradients)

    def unit(self, unit: Unit) -> None:
        self.ran.append(unit.name)

    def evaluation(self, unit: Unit, records: list[Record]) -> None: ...
    def result(self, unit: Unit, result: Record, skipped: bool) -> None:
        if skipped:
            self.skipped.append(unit.name)

    def waiting(self, units: Sequence[Unit]) -> None:
        self.waited += 1

    def measuring(self, what: str, done: float, total: int) -> None: ...
    def measured(self, seed: int, said: str, skipped: bool) -> None:
        self.widths.append((seed, skipped))

    def warn(self, message: str) -> None:
        self.warned.append(message)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison")
    progress = Progress()
    compare(PLAN, quick.digits(), folder, resume=False, progress=progress)
    # 2 methods x 5 rates of 17 gradients, and 2 x 2 finals of 34.
    assert progress.total == (14, 10 * 17 + 4 * 34)
    assert len(progress.ran) == 14
    return folder


def records(path: Path) -> list[dict[str, Any]]:
    return quick.without_timings([json.loads(line) for line in path.read_text().splitlines()])


def test_every_unit_has_its_file_with_configuration_and_result(finished: Path) -> None:
    files = sorted((finished / "units").iterdir())
    assert len(files) == 14
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
    assert header["parameters"] == 64 * 16 + 16 + 2 * 16 + 16 * 10 + 10


def test_final_networks_are_kept_and_give_the_errors_that_were_recorded(finished: Path) -> None:
    from widevalley.experiments.evaluation import score

    files = sorted((finished / "networks").iterdir())
    assert [path.stem for path in files] == [path.stem for path in sorted((finished / "units").glob("final-*"))]
    for path in files:
        network = quick.network()
        network.load_state_dict(load_file(path))
        found = score(network.eval(), quick.digits().test)
        result = records(finished / "units" / f"{path.stem}.jsonl")[-1]
        assert rounded(found.error) == result["test_error"]
        assert [[i, n] for i, n in enumerate(found.wrong) if n] == result["test_wrong"]


def test_a_killed_comparison_goes_on_with_what_is_missing(finished: Path, tmp_path: Path) -> None:
    """As after a kill in tuning: some files, no choice yet, one without its result, and a half-written one."""
    header = json.loads((finished / "comparison.json").read_text())
    del header["chosen"]
    (tmp_path / "comparison.json").write_text(json.dumps(header))
    (tmp_path / "units").mkdir()
    kept = sorted((finished / "units").glob("tune-*"))[:7]
    for path in kept:
        (tmp_path / "units" / path.name).write_bytes(path.read_bytes())
    cut = sorted((finished / "units").glob("tune-*"))[7]
    (tmp_path / "units" / cut.name).write_text("".join(cut.read_text().splitlines(keepends=True)[:-3]))
    (tmp_path / "units" / "tune-sgd-lr1-seed1000.jsonl.partial").write_text('{"kind": "conf')
    progress = Progress()
    compare(PLAN, quick.digits(), tmp_path, resume=True, progress=progress)
    assert sorted(progress.skipped) == [path.stem for path in kept]
    for path in sorted((finished / "units").iterdir()):
        assert records(tmp_path / "units" / path.name) == records(path)
    assert (tmp_path / "comparison.json").read_text() == (finished / "comparison.json").read_text()


def test_a_unit_of_another_process_is_left_to_it(finished: Path, tmp_path: Path, monkeypatch) -> None:
    """Another has two units: it ends one and dies at the other, which is run here then."""
    monkeypatch.setattr(sharing, "PATIENCE", 0.01)
    shutil.copytree(finished, tmp_path / "shared")
    other = Folder(tmp_path / "shared")
    units = PLAN.final(len(quick.digits().train), json.loads(other.plan.read_text())["chosen"])[:2]
    ended = other.records(units[0]).read_text()
    locks = [other.try_lock(unit) for unit in units]
    for unit, lock in zip(units, locks, strict=True):
        assert lock.__enter__()
        other.records(unit).unlink()

    class Waiting(Progress):
        def waiting(self, left: Sequence[Unit]) -> None:
            super().waiting(left)
            assert len(left) == (2 if self.waited == 1 else 1)
            if self.waited == 1:
                other.records(units[0]).write_text(ended)
                locks[0].__exit__(None, None, None)
            else:
                locks[1].__exit__(None, None, None)

    progress = Waiting()
    compare(PLAN, quick.digits(), tmp_path / "shared", resume=True, progress=progress)
    assert progress.waited == 2
    assert progress.ran == [units[1].name]
    assert units[0].name in progress.skipped


def test_a_stopped_comparison_goes_on_inside_the_run(finished: Path, tmp_path: Path) -> None:
    class Stopping(Progress):
        done = 0

        def gradient(self, done: int) -> None:
            self.done = done

        def stop(self) -> bool:
            return len(self.ran) == 12 and self.done == 25

    progress = Stopping()
    with pytest.raises(Stopped):
        compare(PLAN, quick.digits(), tmp_path, resume=False, progress=progress)
    name = progress.ran[-1]
    assert name.startswith("final")
    assert [path.name.split("-")[1] for path in (tmp_path / "units" / f"{name}.state").iterdir()] == ["000000025"]
    after = Progress()
    compare(PLAN, quick.digits(), tmp_path, resume=True, progress=after)
    assert after.ran[0] == name
    for path in sorted((finished / "units").iterdir()):
        assert records(tmp_path / "units" / path.name) == records(path)
    assert not list((tmp_path / "units").glob("*.state"))


def test_the_choice_of_a_rate_is_the_same_whoever_ran_the_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results that are chosen from are those in the files, whether the runs were made here or before."""
    seen: list[list[Record]] = []

    def noting(method: Any, results: Sequence[tuple[Unit, Record]]) -> float:
        seen.append([quick.without_timings([result])[0] for _, result in results])
        return choose(method, results)

    monkeypatch.setattr(module, "choose", noting)
    plan = quick.plan("sgd", rates=2, seeds=1)
    for resume in (False, True):
        compare(plan, quick.digits(), tmp_path, resume=resume, progress=Progress())
    assert seen[0] == seen[1]
    assert all(result == rounded(result) for result in seen[0])


def test_equal_errors_are_equal_however_their_mean_is_rounded() -> None:
    """Three runs with 9, 10 and 11 of 287 wrong in two orders, rounded as files are; the loss decides."""
    method = METHODS["sgd"]
    errors = [100 * wrong / 287 for wrong in (9, 10, 11)]
    results = [
        (
            Unit("tune", method, lr, seed, 1),
            rounded({"diverged": False, "validation_error": e, "validation_loss": loss}),
        )
        for lr, order, loss in ((0.01, (0, 1, 2), 0.2), (0.03, (2, 0, 1), 0.1))
        for seed, e in enumerate(errors[k] for k in order)
    ]
    results += [(Unit("tune", method, lr, 0, 1), {"diverged": True}) for lr in (0.1, 0.3, 1.0)]
    assert choose(method, results) == 0.03


def test_a_run_of_another_configuration_in_the_folder_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    path = tmp_path / "copy" / "units" / "tune-sgd-lr0.1-seed1000.jsonl"
    path.write_text(path.read_text().replace('"gradients": 17, "batch_size"', '"gradients": 18, "batch_size"'))
    with pytest.raises(FolderError, match=r"is of another run \(gradients: 18 there, 17 now"):
        compare(PLAN, quick.digits(), tmp_path / "copy", resume=True, progress=Progress())


def test_a_lost_plan_is_written_anew_and_the_runs_are_kept(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "comparison.json").unlink()
    progress = Progress()
    with pytest.raises(FolderError, match="not empty"):
        compare(PLAN, quick.digits(), tmp_path / "copy", resume=False, progress=progress)
    compare(PLAN, quick.digits(), tmp_path / "copy", resume=True, progress=progress)
    assert progress.ran == []
    assert (tmp_path / "copy" / "comparison.json").read_text() == (finished / "comparison.json").read_text()


def test_what_a_kill_after_the_last_write_left_is_cleared(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    left = tmp_path / "copy" / "units" / "tune-sgd-lr0.1-seed1000.state"
    Checkpoints(left).save(17, {})
    compare(PLAN, quick.digits(), tmp_path / "copy", resume=True, progress=Progress())
    assert not left.exists()


def test_what_does_not_fit_is_found_before_the_folder_is_touched(tmp_path: Path) -> None:
    def broken() -> nn.Module:
        return nn.Linear(64, 5)

    with pytest.raises(TaskError, match=r"cannot be trained on a minibatch.*targets of shape \(64,\)"):
        compare(
            replace(PLAN, task=replace(PLAN.task, network=broken)), quick.digits(), tmp_path / "out", False, Progress()
        )
    assert not (tmp_path / "out").exists()


def test_tuning_is_as_long_as_the_final_runs() -> None:
    plan = replace(quick.plan("sgd", epochs=60.0), task=TASKS["digits"])
    assert {unit.gradients for unit in plan.tuning(1150)} == {unit.gradients for unit in plan.final(1150, {"sgd": 1.0})}


def test_a_folder_with_results_is_not_written_over(finished: Path) -> None:
    with pytest.raises(FolderError, match="add --resume"):
        compare(PLAN, quick.digits(), finished, resume=False, progress=Progress())
    with pytest.raises(FolderError, match=r"seeds: 1 there, not now.*begun by: widevalley compare digits"):
        compare(replace(PLAN, seeds=1), quick.digits(), finished, resume=True, progress=Progress())
    with pytest.raises(FolderError, match=r"epochs: 2\.0 there, 3\.0 now"):
        compare(replace(PLAN, epochs=3.0), quick.digits(), finished, resume=True, progress=Progress())


def test_a_comparison_may_grow_by_seeds_and_methods(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "copy")
    plan = quick.plan("sgd", "entropy-sgd", "adam", seeds=3)
    progress = Progress()
    compare(plan, quick.digits(), tmp_path / "copy", resume=True, progress=progress)
    assert len(progress.skipped) == 14
    # Five rates and three seeds of adam, and one seed more of the others.
    assert len(progress.ran) == 5 + 3 + 2
    # A process that had begun with the smaller plan does not take the larger one back.
    larger = json.loads((tmp_path / "copy" / "comparison.json").read_text())
    Folder(tmp_path / "copy").choose(json.loads((finished / "comparison.json").read_text()), {"sgd": 0.5})
    assert json.loads((tmp_path / "copy" / "comparison.json").read_text()) == larger
    assert larger["chosen"].keys() == {"sgd", "entropy-sgd", "adam"}


def test_going_on_where_there_is_nothing_is_said(tmp_path: Path) -> None:
    progress = Progress()
    compare(quick.plan("sgd", rates=1, seeds=1), quick.digits(), tmp_path / "new", resume=True, progress=progress)
    assert progress.warned == [f"{tmp_path / 'new'} holds nothing yet: beginning anew"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(FolderError, match="not empty"):
        compare(PLAN, quick.digits(), tmp_path, resume=True, progress=Progress())


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
def test_a_damaged_unit_is_named(finished: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "comparison.json").write_bytes((finished / "comparison.json").read_bytes())
    damaged = tmp_path / "units" / "tune-sgd-lr0.01-seed1000.jsonl"
    damaged.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(FolderError, match=rf"{damaged.name} is damaged.*move it away"):
        compare(PLAN, quick.digits(), tmp_path, resume=True, progress=Progress())
