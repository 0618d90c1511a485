"""A run: what it records, and that neither looking nor stopping changes anything."""

from dataclasses import replace
from pathlib import Path

import pytest
import quick
import torch

from widevalley.experiments import evaluation, train
from widevalley.experiments.batches import Minibatches
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.methods import METHODS
from widevalley.experiments.records import Record
from widevalley.experiments.tasks import TASKS
from widevalley.experiments.train import Quiet, Stopped, evaluation_steps, run

DIGITS = TASKS["digits"]


def records(unit: train.Unit, task=quick.TASK, data=None, **more) -> list[Record]:
    return run(unit, task, data or quick.digits(), Quiet(), **more)[0]


@pytest.mark.parametrize("method", METHODS)
def test_evaluating_changes_nothing_in_training(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit-equal at the end whether a run was looked at 25 times or twice."""
    ends = []
    for evaluations in (25, 1):
        monkeypatch.setattr(train, "EVALUATIONS", evaluations)
        found = records(quick.unit(method))
        assert sum(record["kind"] == "evaluation" for record in found) == evaluations + 1
        ends += quick.without_timings(found[-1:])
    assert ends[0] == ends[1]


class StopsAt(Quiet):
    def __init__(self, *gradients: int) -> None:
        self.at, self.done = gradients, 0

    def gradient(self, done: int) -> None:
        self.done = done

    def stop(self) -> bool:
        return self.done in self.at


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_is_stopped_goes_on_to_the_same_records(method: str, tmp_path: Path) -> None:
    """At an evaluation (6), inside a cycle (22), in another epoch (38), after the last gradient (50)."""
    whole, network = run(quick.unit(method), quick.TASK, quick.digits(), Quiet())
    for gradients in (6, 22, 38, 50):
        checkpoints = Checkpoints(tmp_path)
        with pytest.raises(Stopped):
            run(quick.unit(method), quick.TASK, quick.digits(), StopsAt(gradients), checkpoints)
    torch.manual_seed(99)
    found, again = run(quick.unit(method), quick.TASK, quick.digits(), Quiet(), Checkpoints(tmp_path))
    assert quick.without_timings(found) == quick.without_timings(whole)
    for ours, theirs in zip(again.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_keeps_the_state_of_the_world(tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    records(quick.unit("entropy-sgd"), checkpoints=Checkpoints(tmp_path, every=0.0))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_method_takes_the_same_gradients_and_learns() -> None:
    for name, method in METHODS.items():
        *evaluations, result = records(quick.unit(name, gradients=85, lr=method.learning_rates[2]), DIGITS)
        counts = [e["gradients"] for e in evaluations]
        if name == "sam":
            assert counts == sorted({round(k * 85 / 20) // 2 * 2 for k in range(20)} | {84})
            taken, updates = 84, 42
        else:
            assert counts == [round(k * 85 / 20) for k in range(21)]
            # 85 gradients are four cycles of 20 and one that the end closes early.
            taken, updates = 85, 5 if name.startswith("entropy") else 85
        assert result["gradients"] == taken
        assert result["epochs"] == taken / 17
        assert result["outer_updates"] == updates
        assert result["paper_epochs"] == updates / 17
        assert result["test_error"] < 15.0 < evaluations[0]["validation_error"]
        assert sum(count for _, count in result["test_wrong"]) == round(result["test_error"] * 360 / 100)
        assert len(result["rise"]) == 7
        # Parameters and, for batch-norm, 2 running vectors of 128 and a counter in each of two layers.
        weights = 26_634 * 4 + 2 * (2 * 128 * 4 + 8)
        assert result["state_bytes"] >= weights
        assert 26_634 * 4 < result["gradient_bytes"] < 20 * weights


def test_only_nested_methods_have_a_chain() -> None:
    for name in ("sgd", "entropy-sgd"):
        *evaluations, result = records(quick.unit(name, gradients=40))
        assert evaluations[0]["displacement"] is None
        assert (result["displacement"] is None) == (name == "sgd")
        assert (result["noise_to_gradient"] is None) == (name == "sgd")


def test_tuning_does_not_touch_the_test_set() -> None:
    blind = replace(quick.digits(), test=None)
    result = records(quick.unit("sgd", gradients=20, phase="tune"), data=blind)[-1]
    assert "test_error" not in result
    assert "rise" not in result


def test_the_task_says_how_minibatches_are_drawn() -> None:
    """All of one and the same example: what is learned is its class."""

    class One(Minibatches):
        def next(self) -> torch.Tensor:
            return torch.zeros(self.batch_size, dtype=torch.int64)

    unit = quick.unit("sgd", gradients=100, phase="tune")
    result = records(unit, task=replace(quick.TASK, batches=One))[-1]
    assert result["validation_error"] == pytest.approx(90, abs=3)


def test_a_curve_reads_the_test_set_alone() -> None:
    blind = replace(quick.digits(), validation=None)
    unit = replace(quick.unit("sgd", gradients=20, phase="curve"), evaluations=4)
    *looks, result = records(unit, data=blind)
    assert [look["gradients"] for look in looks] == [0, 5, 10, 15, 20]
    assert all("test_error" in look and "validation_error" not in look for look in looks)
    assert result["test_error"] == looks[-1]["test_error"]


@pytest.mark.parametrize("method", ["sgd", "sam"])
def test_a_diverging_run_says_so_and_stops(method: str) -> None:
    found, network = run(quick.unit(method, lr=1e30), DIGITS, quick.digits(), Quiet())
    assert found[-1]["diverged"] is True
    assert found[-1]["gradients"] < 50
    assert network is None


def test_the_same_seed_is_the_same_run() -> None:
    first, second, other = (
        [e["train_loss"] for e in records(quick.unit("entropy-sgd", seed=seed))] for seed in (1, 1, 2)
    )
    assert first == second != other


def test_a_run_shorter_than_a_step_of_sam_takes_one() -> None:
    assert evaluation_steps(quick.unit("sam", gradients=1)) == [0, 1]
    assert records(quick.unit("sam", gradients=1))[-1]["gradients"] == 2


def test_minibatches_are_whole_epochs_and_go_on_from_their_state() -> None:
    batches = Minibatches(10, 3, seed=1)
    epochs = [[batches.next() for _ in range(3)] for _ in range(4)]
    for epoch in epochs:
        assert len(set(torch.cat(epoch).tolist())) == 9
    assert not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))
    for position in range(1, 8):
        one, other = Minibatches(10, 3, seed=1), Minibatches(10, 3, seed=2)
        for _ in range(position):
            one.next()
        other.load_state_dict(one.state_dict())
        for _ in range(5):
            assert torch.equal(one.next(), other.next())


@pytest.mark.parametrize("size", [0, 11])
def test_a_minibatch_that_cannot_be_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="between 1 and the 10 training samples"):
        Minibatches(10, size, seed=1)


@pytest.mark.parametrize("phase", ["tune", "curve"])
def test_a_result_has_batch_norm_statistics_of_all_training_images(phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so has every point of a curve; looks on the way have those of a few, always the same ones."""
    data, size, seen = quick.digits(), quick.TASK.batch_size, []

    def spy(network, batches) -> None:
        seen.append(torch.cat(list(batches)))

    monkeypatch.setattr(evaluation, "update_batchnorm", spy)
    monkeypatch.setattr(evaluation, "BATCHNORM_IMAGES", 2 * size)
    records(replace(quick.unit("entropy-sgd"), phase=phase), data=data)
    whole = len(data.train) // size * size
    few = whole if phase == "curve" else 2 * size
    assert [len(images) for images in seen] == [few] * (len(seen) - 1) + [whole]
    assert len(seen) > 2
    for images in seen:
        assert torch.equal(images[:few], seen[0])
    # In an order of their own: a training set sorted by class would give batches of one class.
    assert not torch.equal(seen[-1], data.train.inputs[:whole])
    assert len(seen[-1].flatten(1).unique(dim=0)) > 0.99 * whole


def test_a_network_that_is_saved_on_the_way_has_statistics_of_all_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, size, seen = quick.digits(), quick.TASK.batch_size, []
    monkeypatch.setattr(evaluation, "BATCHNORM_IMAGES", 2 * size)

    class Saving(StopsAt):
        def saved(self, network) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(evaluation, "update_batchnorm", lambda _, batches: seen.extend(map(len, batches)))
                network()

    with pytest.raises(Stopped):
        run(quick.unit("entropy-sgd"), quick.TASK, data, Saving(22), Checkpoints(tmp_path))
    assert sum(seen) == len(data.train) // size * size
