"""The dense Hessian: against autograd's own, closed forms, and itself after a stop, by each of its ways."""

import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from torch import nn

from widevalley.landscape import Objective, cost, exact_hessian, gram, plan, store
from widevalley.landscape.gram import dense_layer
from widevalley.landscape.rounding import in_float64


class Twice(nn.Module):
    """A layer used twice, whose block is no sum of Gram matrices, between two that have that form."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.first, self.again, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.first(x))
        return self.last(torch.tanh(self.again(torch.tanh(self.again(x)))))


class Tied(nn.Module):
    """The largest layer's weight is used a second time, outside of it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.wide, self.last = nn.Linear(5, 9), nn.Linear(5, 3)

    def forward(self, x):
        return self.last(torch.tanh(self.wide(x)) @ self.wide.weight)


class Penalised(nn.Module):
    """No layer has the form: the only one's weight is used again."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.inner = nn.Linear(5, 3)

    def forward(self, x):
        return self.inner(x) + self.inner.weight.square().sum() * torch.arange(3)


def convolutional():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(12, 8), nn.ReLU(inplace=True), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3),
    )  # fmt: skip


def objective_of(model, features=5):
    return Objective(model.double(), data=models.data(features=features))


CASES = {
    "tanh": (lambda: models.objective(), "0"),
    "relu": (lambda: models.objective(activation=nn.ReLU), "0"),
    "convolutions before, batch-norm after": (lambda: objective_of(convolutional(), 36), "5"),
    "a layer twice": (lambda: objective_of(Twice()), "first"),
    "tied weights": (lambda: objective_of(Tied()), "last"),
    "a layer alone": (lambda: objective_of(nn.Linear(5, 3)), ""),
    "no bias": (lambda: objective_of(nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3))), "0"),
    "no layer of the form": (lambda: objective_of(Penalised()), None),
    "no dense layer": (lambda: models.quadratic(torch.eye(4).double()), None),
}


def expected(objective):
    """By torch.func, which knows nothing of what is tested."""
    objective.model.eval()
    return objective.model.matrix if isinstance(objective.model, models.Quadratic) else models.dense(objective)


@pytest.mark.parametrize("case", CASES)
def test_every_entry_is_that_of_autograd(case: str) -> None:
    make, layer = CASES[case]
    objective = make()
    found = dense_layer(objective)
    assert (None if found is None else found.name) == layer
    hessian = exact_hessian(objective)
    torch.testing.assert_close(hessian.matrix, expected(objective), rtol=1e-11, atol=1e-13)
    assert torch.equal(hessian.matrix, hessian.matrix.T)
    assert hessian.asymmetry < 1e-15


@pytest.mark.parametrize(("chunks", "way"), [((1,), "looped"), ((1, 8), "batched")])
def test_products_alone_give_the_same(chunks: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "CHUNKS", chunks)
    monkeypatch.setattr(cost, "dense_layer", lambda objective: None)
    objective = models.objective()
    assert plan(objective).way in (way, "looped")
    torch.testing.assert_close(exact_hessian(objective).matrix, models.dense(objective), rtol=1e-11, atol=1e-13)


def test_small_blocks_of_rows_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of(convolutional(), 36)
    monkeypatch.setattr(store, "BLOCK_BYTES", 8 * objective.n * 20)
    monkeypatch.setattr("widevalley.landscape.hessian.SIDE", 30)
    monkeypatch.setattr(gram, "SCALED_BYTES", 1)
    torch.testing.assert_close(exact_hessian(objective).matrix, expected(objective), rtol=1e-11, atol=1e-13)


def test_parts_of_the_parameters_and_frozen_ones() -> None:
    model = convolutional().double()
    chosen = [model[5].weight, model[1].bias, model[9].bias]
    objective = Objective(model, data=models.data(features=36), parameters=chosen)
    model.eval()
    torch.testing.assert_close(exact_hessian(objective).matrix, models.dense(objective), rtol=1e-11, atol=1e-13)
    model[1].requires_grad_(False)
    objective = Objective(model, data=models.data(features=36))
    torch.testing.assert_close(exact_hessian(objective).matrix, models.dense(objective), rtol=1e-11, atol=1e-13)


def test_in_training_mode_batch_norm_joins_the_samples() -> None:
    """No Gram matrices there: the Hessian of each batch is that of the batch as a whole."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double()
    objective = Objective(model, data=models.data(), training=True)
    assert dense_layer(objective).name == "2"
    assert plan(objective).layer is None
    # Against differences of the gradient: torch.func's own is not symmetric there in torch 2.13.
    x, step = objective.vector(), 1e-5

    def gradient(at):
        with objective.at(at):
            return objective.gradient()

    rows = [(gradient(x + e) - gradient(x - e)) / (2 * step) for e in step * torch.eye(len(x), dtype=x.dtype)]
    torch.testing.assert_close(exact_hessian(objective).matrix, torch.stack(rows), rtol=1e-5, atol=1e-7)


def test_in_float32_entries_are_right_to_rounding_and_so_is_the_asymmetry() -> None:
    double = models.dense(models.objective())
    data = [(inputs.float(), targets) for inputs, targets in models.data()]
    single = Objective(models.network(dtype=torch.float32), data=data)
    hessian = exact_hessian(single)
    assert hessian.matrix.dtype == torch.float32
    # The weights are rounded too.
    assert (hessian.matrix.double() - double).norm() < 3e-7 * double.norm()
    assert hessian.asymmetry < 1e-7
    at_the_same = models.dense(in_float64(single))
    assert (hessian.matrix.double() - at_the_same).norm() < 6e-8 * double.norm()


def test_the_asymmetry_is_that_of_the_products(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = torch.randn(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    objective = models.quadratic(torch.zeros(9, 9, dtype=torch.float64))
    monkeypatch.setattr("widevalley.landscape.hessian.hessian_rows", lambda _, rows, parameter, others: rows @ matrix)
    monkeypatch.setattr("widevalley.landscape.hessian.SIDE", 4)
    hessian = exact_hessian(objective)
    torch.testing.assert_close(hessian.matrix, (matrix + matrix.T) / 2)
    assert hessian.asymmetry == pytest.approx(float((matrix - matrix.T).norm() / matrix.norm()), rel=1e-12)


@pytest.mark.slow
def test_on_disk_it_is_the_same_and_a_stopped_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = objective_of(convolutional(), 36)
    monkeypatch.setattr(store, "BLOCK_BYTES", 8 * objective.n * 20)
    monkeypatch.setattr("widevalley.landscape.hessian.SIDE", 30)
    # Or a trial chooses, and another number of blocks the next time.
    monkeypatch.setattr(cost, "CHUNKS", (16,))
    whole = exact_hessian(objective).matrix
    total = []
    exact_hessian(objective, folder=tmp_path / "whole", progress=lambda what, done: total.append(what))

    for stop_at in (2, len(total) // 2, len(total) - 1):
        seen: list[str] = []

        def stop(what, done, seen=seen, stop_at=stop_at):
            seen.append(what)
            if len(seen) == stop_at:
                raise KeyboardInterrupt

        folder = tmp_path / str(stop_at)
        with pytest.raises(KeyboardInterrupt):
            exact_hessian(objective, folder=folder, progress=stop)
        again: list[str] = []
        matrix = exact_hessian(objective, folder=folder, progress=lambda what, done, again=again: again.append(what))
        torch.testing.assert_close(matrix.matrix, whole, rtol=0, atol=1e-15)
        assert len(again) == len(total) - stop_at + 1
        assert np.array_equal(np.load(folder / "hessian.npy"), matrix.matrix.numpy())


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from test_hessian import convolutional, cost, objective_of, store
cost.CHUNKS = (16,)
objective = objective_of(convolutional(), 36)
store.BLOCK_BYTES = 8 * objective.n * 20
from widevalley.landscape import exact_hessian

def progress(what, done):
    print(what, done, flush=True)
    if {kill} and what == "Hessian" and done > 0.5:
        os.kill(os.getpid(), signal.SIGKILL)

exact_hessian(objective, folder={folder!r}, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_process_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(kill):
        code = KILLED.format(paths=[str(Path(__file__).parent)], kill=kill, folder=str(tmp_path))
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    first, second = run(kill=True), run(kill=False)
    assert first.returncode == -9
    assert second.returncode == 0, second.stderr
    blocks = [sum(line.startswith("Hessian 0") for line in done.stdout.splitlines()) for done in (first, second)]
    whole: list[str] = []
    monkeypatch.setattr(cost, "CHUNKS", (16,))
    objective = objective_of(convolutional(), 36)
    monkeypatch.setattr(store, "BLOCK_BYTES", 8 * objective.n * 20)
    exact_hessian(objective, progress=lambda what, done: whole.append(what))
    # The last is "Hessian 1.0".
    assert sum(blocks) == whole.count("Hessian") - 1
    matrix = torch.from_numpy(np.load(tmp_path / "hessian.npy"))
    torch.testing.assert_close(matrix, expected(objective), rtol=1e-11, atol=1e-13)


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    exact_hessian(models.objective(), folder=tmp_path)
    other = models.objective()
    # The same function and loss, by other weights.
    with torch.no_grad():
        for p in (other.model[0].weight, other.model[0].bias):
            p.copy_(p.flip(0))
        other.model[2].weight.copy_(other.model[2].weight.flip(1))
    assert other.value() == pytest.approx(models.objective().value(), rel=1e-12)
    with pytest.raises(ValueError, match="holds another matrix"):
        exact_hessian(other, folder=tmp_path)


def test_what_it_costs_is_said_and_refused_beforehand() -> None:
    objective = models.objective()
    cost_of = plan(objective)
    assert (cost_of.n, cost_of.bytes, cost_of.way) == (39, 39 * 39 * 8, "gram")
    assert cost_of.seconds > 0
    said = []
    exact_hessian(objective, memory=39 * 39 * 8, progress=lambda what, done: said.append(what))
    assert "39 parameters" in said[0]
    with pytest.raises(ValueError, match="use float32, or take top_eigenpairs"):
        exact_hessian(objective, memory=39 * 39 * 8 - 1)
    with pytest.raises(ValueError, match=r"model\.float\(\)"):
        plan(models.objective(dtype=torch.bfloat16))


def test_constants_of_a_loss_may_be_in_float32() -> None:
    """Both of those that only promote and those that float64 is refused beside."""
    data = [(inputs.float(), targets) for inputs, targets in models.data()]
    model, weight, matrix = models.network(dtype=torch.float32), torch.tensor([1.0, 2.0, 0.5]), torch.randn(3, 3)

    def weighted(m, batch):
        logits = (m(batch[0]) @ matrix.to(weight.dtype)) * weight
        return nn.functional.cross_entropy(logits, batch[1], weight=weight, reduction="sum") / len(logits)

    found = exact_hessian(Objective(model, weighted, data)).matrix
    weight, matrix = weight.double(), matrix.double()
    doubled = [(inputs.double(), targets) for inputs, targets in data]
    expected = exact_hessian(Objective(model.double(), weighted, doubled)).matrix
    assert (found.double() - expected).norm() < 6e-8 * expected.norm()


def test_a_loss_that_cannot_be_in_float64_or_has_a_model_of_its_own_is_refused() -> None:
    data = [(inputs.float(), targets) for inputs, targets in models.data()]
    model = models.network(dtype=torch.float32)

    def single(m, batch):
        if next(m.parameters()).dtype == torch.float64:
            raise RuntimeError("not here")
        return m(batch[0]).square().mean()

    def changing(m, batch):
        return m(batch[0]).square().mean() * (1 if m is model else 2)

    with pytest.raises(ValueError, match=r"in float64 .not here.: make the tensors"):
        exact_hessian(Objective(model, single, data))
    with pytest.raises(ValueError, match="must use the model that it is given"):
        exact_hessian(Objective(model, changing, data))


def test_an_entry_that_is_not_finite_is_refused() -> None:
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return self.w.abs().sqrt().sum()

    with pytest.raises(ValueError, match="not finite"):
        exact_hessian(Objective(Root(), lambda m, x: m(x), [torch.zeros(1, 1)]))


def test_the_model_is_given_back_as_it_was() -> None:
    objective = objective_of(convolutional(), 36)
    before = {name: t.clone() for name, t in objective.model.state_dict().items()}
    exact_hessian(objective)
    assert all(torch.equal(t, before[name]) for name, t in objective.model.state_dict().items())
    assert all(p.grad is None for p in objective.model.parameters())
    assert all(module.training for module in objective.model.modules())
    assert not any(module._forward_hooks for module in objective.model.modules())
