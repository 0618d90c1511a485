"""A run: what it records, and that looking changes nothing."""

from dataclasses import replace

import pytest
import torch

from widevalley.experiments import train
from widevalley.experiments.data import Data
from widevalley.experiments.methods import METHODS
from widevalley.experiments.tasks import TASKS
from widevalley.experiments.train import Unit, run

DIGITS = TASKS["digits"]


@pytest.fixture(scope="module")
def digits() -> Data:
    return DIGITS.data(None)


def unit(method: str, gradients: int = 50, phase: str = "final", lr: float = 0.01) -> Unit:
    return Unit(phase, METHODS[method], lr, 0, gradients)


@pytest.mark.parametrize("method", METHODS)
def test_evaluating_changes_nothing_in_training(method: str, digits: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit-equal losses at the end whether a run was looked at 25 times or twice; with dropout, which reads the "
    "global state."""

    def network() -> torch.nn.Module:
        return torch.nn.Sequential(DIGITS.network(), torch.nn.Dropout(0.2))

    task = replace(DIGITS, network=network)
    ends = []
    for evaluations in (25, 1):
        monkeypatch.setattr(train, "EVALUATIONS", evaluations)
        records = list(run(unit(method), task, digits))
        assert sum(record["kind"] == "evaluation" for record in records) == evaluations + 1
        ends.append({k: v for k, v in records[-1].items() if not k.startswith("seconds")})
    assert ends[0] == ends[1]


def test_every_method_takes_the_same_gradients_and_learns(digits: Data) -> None:
    for method in METHODS:
        *evaluations, result = run(unit(method, gradients=85), DIGITS, digits)
        assert [e["gradients"] for e in evaluations] == [round(k * 85 / 20) for k in range(21)]
        assert result["gradients"] == 85
        assert result["epochs"] == 5.0
        # 85 gradients are four cycles of 20 and one that the end closes early.
        updates = 5 if method.startswith("entropy") else 85
        assert result["outer_updates"] == updates
        assert result["paper_epochs"] == updates / 17
        assert result["test_error"] < 15.0 < evaluations[0]["validation_error"]
        assert len(result["rise"]) == 7


def test_tuning_does_not_touch_the_test_set(digits: Data) -> None:
    blind = replace(digits, test=None)
    *_, result = run(unit("sgd", gradients=20, phase="tune"), DIGITS, blind)
    assert "test_error" not in result
    assert "rise" not in result


def test_a_diverging_run_says_so_and_stops(digits: Data) -> None:
    *_, result = run(unit("sgd", lr=1e30), DIGITS, digits)
    assert result["diverged"] is True
    assert result["gradients"] < 50


def test_the_same_seed_is_the_same_run(digits: Data) -> None:
    first, second, other = (
        [e["train_loss"] for e in run(replace(unit("entropy-sgd"), seed=seed), DIGITS, digits)] for seed in (1, 1, 2)
    )
    assert first == second != other
