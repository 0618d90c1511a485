"""The one-line swap: a learning rate, momentum and schedule tuned for SGD serve Entropy-SGD as they are."""

import statistics

import pytest

from widevalley.experiments import train
from widevalley.experiments.methods import METHODS
from widevalley.experiments.tasks import TASKS
from widevalley.experiments.train import Unit

SEEDS = range(3000, 3008)


def test_entropy_sgd_at_the_rate_tuned_for_sgd_is_within_noise_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation errors on the digits over eight seeds: the paired differences' mean within four standard "
    "errors of 0."""
    monkeypatch.setattr(train, "EVALUATIONS", 1)
    task = TASKS["digits"]
    data = task.data(None)
    gradients = task.gradients(len(data.train), 20)
    errors = {
        name: [
            train.run(Unit("tune", METHODS[name], 0.1, s, gradients), task, data, train.Quiet())[0][-1][
                "validation_error"
            ]
            for s in SEEDS
        ]
        for name in ("sgd", "entropy-sgd")
    }
    differences = [ours - theirs for ours, theirs in zip(errors["entropy-sgd"], errors["sgd"], strict=True)]
    assert abs(statistics.fmean(differences)) < 4 * statistics.stdev(differences) / len(differences) ** 0.5
    # And the noise is small: a tenth of the error of guessing would be 9.
    assert max(errors["entropy-sgd"]) < 6.0
    assert statistics.stdev(differences) < 2.0
