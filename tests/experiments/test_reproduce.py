"""The jobs of a reproduction: left out where they are done, shared, in the right order."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
import quick
import torch
from torch import nn

from widevalley.experiments import data as datasets
from widevalley.experiments import measure, paper, reproduce
from widevalley.experiments.ablations import ABLATIONS
from widevalley.experiments.batches import Minibatches
from widevalley.experiments.data import Data, Split
from widevalley.experiments.folder import Folder, read_json
from widevalley.experiments.methods import METHODS
from widevalley.experiments.minima import Minimum
from widevalley.experiments.networks import char_lstm
from widevalley.experiments.paper import EPOCH, FIG4A, FIG4B, Candidate, Curve
from widevalley.experiments.records import Record
from widevalley.experiments.reproduce import ChosenRun, Reproduction, choose
from widevalley.experiments.sharing import share
from widevalley.experiments.spectra import Spectrum
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Stopped, Unit
from widevalley.progress import Narrator


class Telling(Narrator):
    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        super().__init__(stop)
        self.results: list[tuple[str, bool]] = []
        self.lines: list[str] = []

    def result(self, unit: Unit, result: Record, skipped: bool) -> None:
        self.results.append((unit.name, skipped))

    def measuring(self, what: str, done: float, total: int) -> None:
        self.lines.append(f"{what}: {done / total:.0%}")

    def _say(self, line: str) -> None:
        self.lines.append(line)


def curve(name: str, *rates: float, seeds: tuple[int, ...] = (0, 1)) -> Curve:
    method = replace(METHODS["sgd"], name=name, learning_rates=())
    return Curve(name, name, quick.TASK, tuple(Candidate(method, rate) for rate in rates), 2, seeds)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of five gradients, choices after one epoch."""
    monkeypatch.setattr(paper, "EPOCH", 5)
    monkeypatch.setattr(paper, "CHOOSING", 5 * paper.BATCH)
    monkeypatch.setattr(paper, "CHOOSING_EPOCHS", 1)
    monkeypatch.setattr(Curve, "choosing_task", property(lambda self: self.task))
    curves = {"fixed": (curve("one", 0.1),), "chosen": (curve("two", 1e-6, 0.1, seeds=(0,)),)}
    monkeypatch.setattr(reproduce, "CURVES", curves)


def test_the_runs_and_the_choice(small: None, tmp_path: Path) -> None:
    first = Telling()
    Reproduction(["fixed", "chosen"], tmp_path, first).run()
    names = [name for name, _ in first.results]
    # What others wait for, then a seed of each, then the next.
    assert set(names[:2]) == {"tune-two-lr0.1-seed1000", "tune-two-lr1e-06-seed1000"}
    assert set(names[2:4]) == {"curve-one-lr0.1-seed0", "curve-two-lr0.1-seed0"}
    assert names[4:] == ["curve-one-lr0.1-seed1"]
    records = (tmp_path / "units" / "curve-one-lr0.1-seed0.jsonl").read_text()
    assert '"test_error"' in records
    assert '"validation_error"' not in records
    result = read_json(tmp_path / "units" / "curve-one-lr0.1-seed0.jsonl", -1)
    assert result["gradients"] == 10
    assert result["whole_train_loss"] > 0
    assert '"test_error"' not in (tmp_path / "units" / "tune-two-lr0.1-seed1000.jsonl").read_text()

    again = Telling()
    Reproduction(["fixed", "chosen"], tmp_path, again).run()
    assert sorted(again.results) == sorted((name, True) for name in names)


def test_a_chosen_run_waits_for_all_candidates(small: None, tmp_path: Path) -> None:
    work = Reproduction(["chosen"], tmp_path, Telling())
    jobs = work.jobs()
    (chosen,) = (job for job in jobs if isinstance(job, ChosenRun))
    tuning = [job for job in jobs if job is not chosen]
    for job in tuning:
        assert not chosen.ready()
        assert chosen.ended() is None
        job.work()
    assert chosen.ready()
    assert chosen.work()["gradients"] == 10
    assert chosen.ended() is not None


@dataclass(frozen=True)
class Named:
    name: str


def test_what_is_not_ready_is_left_until_it_is(tmp_path: Path) -> None:
    done: list[str] = []

    def work(item: Named) -> str:
        done.append(item.name)
        return item.name

    share(
        [Named("second"), Named("first")], Folder(tmp_path), Telling(),
        ended=lambda item: item.name if item.name in done else None, work=work, tell=lambda *_: None,
        ready=lambda item: item.name == "first" or "first" in done,
    )  # fmt: skip
    assert done == ["first", "second"]


@pytest.mark.parametrize(
    ("results", "best"),
    [
        ([(2.0, 0.1), (1.0, 0.2), (3.0, 0.0)], 1),
        ([(1.0001, 0.1), (1.0, 0.2), (3.0, 0.0)], 0),
        ([None, None, (90.0, 5.0)], 2),
        ([(1.0, 0.1), "missing", (3.0, 0.0)], None),
    ],
)
def test_the_choice_is_by_validation_error_then_loss(results: list[object], best: int | None) -> None:
    several = curve("three", 0.1, 0.2, 0.3)

    def result(unit: Unit) -> Record | None:
        found = results[[0.1, 0.2, 0.3].index(unit.lr)]
        if found == "missing":
            return None
        if found is None:
            return {"diverged": True}
        error, loss = found
        return {"diverged": False, "validation_error": error, "validation_loss": loss}

    chosen = choose(several, result)
    assert chosen == (None if best is None else several.candidates[best])


def test_stopping_is_passed_on(small: None, tmp_path: Path) -> None:
    progress = Telling()
    progress.stop = lambda: True
    with pytest.raises(Stopped):
        Reproduction(["fixed"], tmp_path, progress).run()


@pytest.mark.parametrize("each", [*FIG4A, *FIG4B, *ABLATIONS], ids=lambda each: each.name)
def test_every_curve_can_be_built_and_its_settings_are_the_same_in_every_process(each: Curve) -> None:
    assert each.epochs > 0
    for candidate in each.candidates:
        settings = candidate.method.settings(candidate.lr, 1_000)
        assert settings["lr"] == candidate.lr
        assert " at 0x" not in str(settings)
        # One cycle of every method on a small network.
        model = nn.Linear(3, 2)
        optimizer = candidate.method.build(model.parameters(), candidate.lr, 0, 1_000)

        def closure(model: nn.Module = model, optimizer: torch.optim.Optimizer = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss: torch.Tensor = model(torch.ones(4, 3)).square().mean()
            loss.backward()
            return loss

        for _ in range(21):
            closure()
            optimizer.step(closure if candidate.method.gradients_per_step > 1 else None)
        assert all(p.isfinite().all() for p in model.parameters())


def moved(each: Curve, lr: float, gradients: int) -> float:
    """How far the weight has gone after so many gradients, all of 1."""
    weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
    candidate = each.candidates[0]
    optimizer = candidate.method.build([weight], lr, 0, 10_000)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        weight.backward()
        return weight.detach()

    several = candidate.method.gradients_per_step
    for _ in range(gradients // several):
        if several > 1:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    return -float(weight.detach())


def test_the_rates_of_the_ablations_make_equal_steps() -> None:
    """A gradient of the base, L = 5, L = 1, SGD and K = 5 moves the weights alike, within a fifth."""
    curves = {each.name: each for each in ABLATIONS}
    steps = {
        name: (moved(each, each.candidates[0].lr, 400) - moved(each, each.candidates[0].lr, 200)) / 200
        for name, each in curves.items()
        if name in {"base", "L5", "L1", "sgd-constant", "perturbed"}
    }
    assert steps.pop("base") == pytest.approx(5.187 * 0.01, rel=1e-3)
    assert list(steps.values()) == pytest.approx([0.052] * 4, rel=0.2)


def test_one_inner_step_is_plain_sgd() -> None:
    """x − μ = α(1 + m)η′∇f(x): SGD without momentum at αη(1 + 0.9)η′ = 0.475 ηη′, through the fall of η."""
    (one,) = (each for each in ABLATIONS if each.name == "L1")
    start = torch.randn(5, dtype=torch.float64)
    weights, plain = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = one.candidates[1].method.build([weights], 0.3, 0, 20 * EPOCH)
    sgd = torch.optim.SGD([plain], 0.1425)
    for step in range(20 * EPOCH // 3 + 20):
        sgd.param_groups[0]["lr"] = 0.1425 if step < 20 * EPOCH // 3 else 0.01425
        weights.grad = plain.grad = torch.randn(5, dtype=torch.float64)
        optimizer.step()
        sgd.step()
    torch.testing.assert_close(weights, plain, rtol=0, atol=1e-10)


@pytest.mark.parametrize("each", [each for each in (*FIG4A, *FIG4B) if each.name.endswith("-text")])
def test_the_texts_inner_rate_is_a_tenth_of_the_outer_one(each: Curve) -> None:
    """Before and after both fall, at the same outer update."""
    assert len(each.candidates) == 3
    for candidate in each.candidates:
        optimizer = candidate.method.build(nn.Linear(2, 1).parameters(), candidate.lr, 0, 1_000)
        assert candidate.method.schedule is not None
        schedule = candidate.method.schedule(optimizer, 1_000)
        group = optimizer.param_groups[0]
        cycle = group["inner_steps"] + (group["rho"] > 0)
        for update in (0, 30 * EPOCH - 1, 30 * EPOCH, 60 * EPOCH):
            inner = candidate.lr * schedule.lr_lambdas[0](update * cycle)  # type: ignore[attr-defined]
            assert inner == pytest.approx(0.1 * optimizer._schedules[0]["outer_lr"](update))  # type: ignore[attr-defined]


def test_candidates_are_chosen_without_the_images_that_curves_are_watched_on() -> None:
    for each in [*FIG4A, *FIG4B, *ABLATIONS]:
        assert each.task.data is datasets.whole_mnist
        assert each.choosing_task.data is datasets.mnist
        assert each.choosing_task.batches is each.task.batches
        assert {unit.phase for unit in each.choosing()} <= {"tune"}


def test_names_of_curves_and_units_are_distinct() -> None:
    curves = [*FIG4A, *FIG4B, *ABLATIONS]
    names = [unit.name for each in curves for unit in [*each.choosing(), *each.units(each.candidates[0])]]
    assert len(set(names)) == len(names)


def text() -> Data:
    codes = torch.randint(8, (6, 5), generator=torch.Generator().manual_seed(0))
    lines = Split(codes[:, :-1], codes[:, 1:])
    return Data(lines, lines.take(torch.arange(0)), lines)


def tiny_text_network() -> nn.Module:
    return type(char_lstm())(classes=8, width=3)


def tiny(folder: Path, progress: Telling, rate: float = 0.01) -> Spectrum:
    task = Task("tiny", "", lambda folder: text(), tiny_text_network, 6, 1, batches=Minibatches)
    minimum = Minimum("tiny-adam", "fig3b", task, METHODS["adam"], rate, 20)
    return Spectrum(minimum, Folder(folder), progress, None, "widevalley reproduce fig3b")


def test_a_spectrum_is_a_measurement_and_goes_on_with_its_network(tmp_path: Path) -> None:
    progress = Telling()
    job = tiny(tmp_path, progress)
    assert job.ready()
    assert job.ended() is None
    found = job.work()
    n = sum(p.numel() for p in tiny_text_network().parameters())
    assert len(found["eigenvalues"]) == n
    assert found["dtype"] == "float64"
    record = read_json(tmp_path / "spectra" / "tiny-adam" / measure.FILE)
    about = record["networks"]["tiny-adam"]["configuration"]
    assert (about["gradients"], about["regenerated"] <= 6) == (20, True)
    assert job.ended() == found

    # One whose other samples lack is taken up again, unless its weights are lost.
    path = tmp_path / "spectra" / "tiny-adam" / measure.FILE
    record["networks"]["tiny-adam"]["spectrum"]["unfinished"] = True
    path.write_text(json.dumps(record))
    assert job.ended() is None
    job.weights.rename(tmp_path / "away")
    assert job.ended() == {**found, "unfinished": True}
    (tmp_path / "away").rename(job.weights)
    assert job.work() == found

    job.tell(found, skipped=True)
    assert progress.lines[-1].startswith(f"run 1 of 0: spectrum-tiny-adam: {n} eigenvalues from ")
    assert progress.lines[-1].endswith(" (there already)")
    # The network is read again, not trained again.
    (tmp_path / "spectra" / "tiny-adam" / measure.FILE).unlink()
    weights = (tmp_path / "networks" / "tiny-adam.safetensors").read_bytes()
    assert job.work()["eigenvalues"] == pytest.approx(found["eigenvalues"], abs=1e-9)
    assert (tmp_path / "networks" / "tiny-adam.safetensors").read_bytes() == weights


def test_a_spectrum_that_is_stopped_in_training_goes_on_there(tmp_path: Path) -> None:
    whole = tiny(tmp_path / "whole", Telling()).work()
    asked = count()
    with pytest.raises(Stopped):
        tiny(tmp_path / "stopped", Telling(lambda: next(asked) == 12)).work()
    states = tmp_path / "stopped" / "networks" / "tiny-adam.state"
    (state,) = states.glob("*/*")
    assert "-000000013-" in state.name
    progress = Telling()
    assert tiny(tmp_path / "stopped", progress).work()["eigenvalues"] == whole["eigenvalues"]
    assert progress.lines[0] == "spectrum-tiny-adam: training of tiny-adam: 70%"
    assert not states.exists()


def test_a_stopped_spectrum_whose_network_is_lost_begins_anew(tmp_path: Path) -> None:
    begun = tmp_path / "spectra" / "tiny-adam" / measure.FILE
    with pytest.raises(Stopped):
        tiny(tmp_path, Telling(begun.exists)).work()
    (tmp_path / "networks" / "tiny-adam.safetensors").unlink()
    # Another rate in place of another machine.
    job = tiny(tmp_path, Telling(), rate=0.02)
    assert job.ended() is None
    found = job.work()
    assert job.ended() == found
    record = read_json(begun)["networks"]["tiny-adam"]
    assert record["configuration"]["lr"] == 0.02


def test_one_spectrum_at_a_time(tmp_path: Path) -> None:
    job = tiny(tmp_path, Telling())
    with Folder(tmp_path).lock("spectrum"):
        assert not job.ready()
    assert job.ready()
