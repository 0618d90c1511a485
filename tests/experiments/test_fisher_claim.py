"""Hessian, Fisher information and Adam's moments side by side: exact small matrices, and the record."""

import json

import pytest
import torch
from landscape.models import data, dense, network
from torch import nn

from widevalley.experiments import fisher_claim as module
from widevalley.experiments.data import Data, Split
from widevalley.experiments.fisher_claim import beside, difference_from_fisher, fisher_and_hessian, hessian_diagonal
from widevalley.landscape import Objective, gauss_newton_vector_product


@pytest.fixture
def objective():
    return Objective(network(), data=data())


def test_the_diagonal_is_the_hessians(objective, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 3)
    places, told = torch.tensor([30, 2, 7, 0, 11, 12, 38]), []
    found = hessian_diagonal(objective, places, told.append)
    torch.testing.assert_close(found, dense(objective).diagonal()[places])
    assert told == [0, 3 / 7, 6 / 7]


def test_the_difference_is_that_of_the_matrices(objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """E‖Az‖² = ‖A‖² in the Frobenius norm; with so many z within a few per cent."""
    monkeypatch.setattr(module, "PROBES", 2000)
    h = dense(objective)
    fisher = gauss_newton_vector_product(objective, torch.eye(objective.n, dtype=torch.float64))
    assert difference_from_fisher(objective) == pytest.approx(float((h - fisher).norm() / h.norm()), rel=0.06)


def test_beside_itself_and_scaled() -> None:
    curvature = torch.tensor([1.0, 4.0, 0.0, 2.0], dtype=torch.float64)
    found = beside(3 * curvature, curvature)
    assert found == pytest.approx({"ratio": 3, "median_ratio": 3, "correlation": 1, "rank_correlation": 1})
    assert beside(curvature.flip(0), curvature)["rank_correlation"] < 0.5


@pytest.fixture(scope="module")
def record():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(300, 1, 4, 4, generator=generator)
    split = Split(images, (images[:, 0, 0, :3]).argmax(1))

    def build(activation):
        return lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 6), activation(), nn.Linear(6, 3))

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("IMAGES", 90), ("BATCH", 10), ("EPOCHS", 2), ("RATE", 0.01), ("COORDINATES", 60),
            ("TOLERANCE", 1e-8), ("PRODUCTS", 40),
            ("NETWORKS", {"relu": build(nn.ReLU), "tanh": build(nn.Tanh)}),
            ("whole_mnist", lambda folder: Data(split, split, split)),
        ):  # fmt: skip
            patch.setattr(module, name, value)
        told = []
        found = fisher_and_hessian(None, lambda what, done: told.append(done))
    assert told == sorted(told)
    return found


def test_record_is_small_json(record) -> None:
    assert len(json.dumps(record, allow_nan=False)) < 20_000
    for each in record["networks"]:
        assert each["hessian"]["coordinates"] == 60
        assert each["diagonals"]["adam_per_sample"]["trace"] == pytest.approx(
            10 * each["diagonals"]["adam"]["trace"], rel=1e-4
        )


def test_the_models_fisher_has_the_hessians_diagonal_only_where_the_network_is_piecewise_linear(record) -> None:
    relu, tanh = record["networks"]
    fisher = relu["diagonals"]["model"]
    assert fisher["ratio"] == pytest.approx(1, abs=1e-5)
    assert fisher["correlation"] == pytest.approx(1, abs=1e-6)
    assert abs(fisher["trace"] - relu["hessian"]["trace"]) < 4 * relu["hessian"]["trace_error"]
    assert abs(tanh["diagonals"]["model"]["ratio"] - 1) > 1e-3
    # Off the diagonal it is another matrix in both, with an eigenvalue that no Fisher information has.
    for each in (relu, tanh):
        assert each["hessian"]["difference"] > 0.05
        assert each["hessian"]["lowest_eigenvalue"] < -100 * each["hessian"]["residual"]
    assert relu["diagonals"]["empirical"]["ratio"] != pytest.approx(1, abs=0.01)
