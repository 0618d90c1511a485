"""Every eigenvalue: against LAPACK on a dense Hessian in float64, within the stated floor, and after a stop."""

import copy
from pathlib import Path

import models
import pytest
import torch
from torch import nn

from widevalley.landscape import Objective, exact_hessian, hessian_eigenvalues, store
from widevalley.landscape.deflation import deflate
from widevalley.landscape.gram import dense_layer
from widevalley.landscape.rounding import in_float64, norm_bound


def of_rank(rank, samples=90, features=24, classes=4, dtype=torch.float64):
    """Data whose inputs with a one appended span ``rank`` dimensions, exactly also in float32."""
    generator = torch.Generator().manual_seed(4)
    inputs = torch.zeros(samples, features, dtype=dtype)
    inputs[:, : rank - 1] = torch.randn(samples, rank - 1, generator=generator, dtype=torch.float32).to(dtype)
    # A constant pixel, and two equal ones.
    inputs[:, rank - 1] = -1
    inputs[:, rank] = inputs[:, 0]
    targets = torch.randint(0, classes, (samples,), generator=generator)
    return list(zip(inputs.split([50, 40]), targets.split([50, 40]), strict=True))


def trained(data, model, steps=60):
    """Some way down, so that eigenvalues are spread over orders of magnitude."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for _ in range(steps):
        for inputs, targets in data:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    model.zero_grad()
    return model


def network(activation=nn.ReLU, width=16, features=24, classes=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(features, width), activation(), nn.Linear(width, classes))


def lapack(objective):
    """Eigenvalues of the dense Hessian of autograd, in float64."""
    return torch.linalg.eigvalsh(models.dense(in_float64(objective)))


# The accuracy that is promised, as a part of the largest eigenvalue.
PROMISED = {torch.float32: 2e-6, torch.float64: 1e-11}


@pytest.mark.parametrize("dtype", PROMISED)
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_within_the_promised_accuracy_and_the_floor(dtype: torch.dtype, activation: type[nn.Module]) -> None:
    data = of_rank(15, dtype=dtype)
    objective = Objective(trained(data, network(activation).to(dtype)), data=data)
    expected = lapack(objective)
    spectrum = hessian_eigenvalues(objective)
    error = float((spectrum.eigenvalues - expected).abs().max())
    assert error < PROMISED[dtype] * float(expected.abs().max())
    assert error < spectrum.noise_floor < 10 * PROMISED[dtype] * float(expected.abs().max())
    assert spectrum.structural_zeros == 16 * (25 - 15)
    assert int((spectrum.eigenvalues == 0).sum()) >= spectrum.structural_zeros
    assert spectrum.eigenvalues.dtype == torch.float64
    assert torch.equal(spectrum.eigenvalues, spectrum.eigenvalues.sort().values)
    assert set(spectrum.seconds) == {"plan", "hessian", "symmetrize", "reduction", "band", "noise_floor"}


@pytest.mark.slow
@pytest.mark.parametrize("dtype", PROMISED)
def test_a_network_of_1500_parameters(dtype: torch.dtype) -> None:
    data = of_rank(40, samples=90, features=50, dtype=dtype)
    objective = Objective(trained(data, network(width=27, features=50).to(dtype)), data=data)
    expected = torch.linalg.eigvalsh(exact_hessian(in_float64(objective)).matrix)
    spectrum = hessian_eigenvalues(objective)
    error = float((spectrum.eigenvalues - expected).abs().max())
    assert error < min(spectrum.noise_floor, PROMISED[dtype] * float(expected.abs().max()))


def test_the_floor_sees_what_is_wrong_with_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of 1e-3 in one entry of H."""
    objective = Objective(network().double(), data=of_rank(20))
    right = hessian_eigenvalues(objective).noise_floor

    def spoiled(store, progress):
        store.whole()[3, 3] += 1e-3
        return 0.0

    monkeypatch.setattr("widevalley.landscape.eigenvalues.symmetrize", spoiled)
    assert right < 1e-12
    assert 1e-3 <= hessian_eigenvalues(objective).noise_floor < 2e-3


def test_a_saddle_has_its_negative_eigenvalues_and_a_quadratic_its_own() -> None:
    values = torch.tensor([-3.0, -1e-3, 0.0, 2.0, 7.0, 7.0], dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    found = hessian_eigenvalues(models.quadratic((q * values) @ q.T))
    torch.testing.assert_close(found.eigenvalues, values, rtol=0, atol=1e-13)
    assert found.structural_zeros == 0


class Tokens(nn.Module):
    """The layer of the data sees each sample at several positions, beside a convolution of the same data."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.side, self.first, self.last = nn.Conv1d(4, 2, 1), nn.Linear(6, 5), nn.Linear(5, 4)

    def forward(self, x):
        x = x.unflatten(1, (4, 6))
        return self.last(torch.tanh(self.first(x))).mean(1) + self.side(x).mean()


class Between(nn.Module):
    """Bias and weight with other parameters between them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        first = nn.Linear(24, 5)
        self.shift, self.first, self.last = first.bias, first, nn.Linear(5, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


@pytest.mark.parametrize(
    ("model", "zeros"),
    [
        (network(), 16 * 10),
        (nn.Linear(24, 4), 4 * 10),
        (nn.Sequential(nn.Linear(24, 6, bias=False), nn.Tanh(), nn.Linear(6, 4)), 6 * 9),
        (Tokens(), 5),
        (Between(), 5 * 10),
    ],
)
def test_deflation_is_exact(model: nn.Module, zeros: int) -> None:
    data = of_rank(15)
    if isinstance(model, Tokens):
        for inputs, _ in data:
            inputs.unflatten(1, (4, 6))[..., 2] = 5.0
    objective = Objective(model.double(), data=data)
    deflation = deflate(objective)
    assert deflation.zeros == zeros == objective.n - deflation.objective.n
    first = "0.1" if isinstance(model, nn.Sequential) else "1" if isinstance(model, nn.Linear) else None
    assert first is None or dense_layer(deflation.objective).name == first
    assert deflation.objective.value() == pytest.approx(objective.value(), rel=1e-13)
    whole = models.dense(objective)
    rows = torch.eye(deflation.objective.n, dtype=torch.float64)
    lift = deflation.lifted(rows)
    torch.testing.assert_close(lift @ lift.T, rows, rtol=0, atol=1e-13)
    torch.testing.assert_close(deflation.restricted(torch.eye(objective.n, dtype=torch.float64)), lift.T)
    reduced = exact_hessian(deflation.objective).matrix
    torch.testing.assert_close(lift.T @ reduced @ lift, whole, rtol=0, atol=1e-13)
    found = hessian_eigenvalues(objective).eigenvalues
    torch.testing.assert_close(found, torch.linalg.eigvalsh(whole), rtol=0, atol=1e-13)


def test_parts_of_a_layer_are_deflated_alone() -> None:
    model, data = network().double(), of_rank(15)
    frozen = Objective(model, data=data, parameters=[p for p in model.parameters() if p is not model[0].bias])
    # Without the bias the constant pixel is a dimension: 15 of 24.
    assert deflate(frozen).zeros == 16 * 9
    torch.testing.assert_close(hessian_eigenvalues(frozen).eigenvalues, lapack(frozen), rtol=0, atol=1e-13)
    assert deflate(Objective(model, data=data, parameters=[model[2].weight])) is None


def test_nothing_is_deflated_where_it_does_not_hold() -> None:
    assert deflate(Objective(network().double(), data=of_rank(15))) is not None
    assert deflate(Objective(network(features=5, classes=3).double(), data=models.data())) is None

    class Elsewhere(nn.Module):
        """The weight is also used on something else than the data."""

        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) + self.inner[0].weight.square().sum() * torch.arange(4)

    objective = Objective(Elsewhere().double(), data=of_rank(15))
    assert deflate(objective) is None
    torch.testing.assert_close(hessian_eigenvalues(objective).eigenvalues, lapack(objective), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_on_disk_a_stopped_one_goes_on_from_any_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK_BYTES", 8 * 300 * 30)
    monkeypatch.setattr("widevalley.landscape.hessian.SIDE", 100)
    monkeypatch.setattr("widevalley.landscape.eigenvalues.SECONDS_BETWEEN_CHECKPOINTS", 0)
    # Or a trial chooses, and another number of blocks the next time.
    monkeypatch.setattr("widevalley.landscape.cost.CHUNKS", (16,))
    objective = Objective(network(width=20).double(), data=of_rank(15))
    expected = hessian_eigenvalues(objective)
    parts: list[str] = []
    hessian_eigenvalues(objective, folder=tmp_path / "whole", progress=lambda what, done: parts.append(what))
    for part in ("Hessian", "symmetrising", "reduction to a band", "noise floor"):
        stop_at = parts.index(part) + 2 if parts.count(part) > 1 else parts.index(part) + 1
        seen: list[str] = []

        def stop(what, done, seen=seen, stop_at=stop_at):
            seen.append(what)
            if len(seen) == stop_at:
                raise KeyboardInterrupt

        folder = tmp_path / part
        with pytest.raises(KeyboardInterrupt):
            hessian_eigenvalues(objective, folder=folder, progress=stop)
        again: list[str] = []
        found = hessian_eigenvalues(copy.deepcopy(objective), folder=folder, progress=lambda w, d, a=again: a.append(w))
        torch.testing.assert_close(found.eigenvalues, expected.eigenvalues, rtol=0, atol=1e-14)
        assert found.structural_zeros == expected.structural_zeros
        assert found.asymmetry == pytest.approx(expected.asymmetry, abs=1e-16)
        assert again.count(part) < parts.count(part) or part == "noise floor"
        assert again[1] == part or part == "noise floor"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_it_is_the_same(tmp_path: Path) -> None:
    objective = Objective(network().double(), data=of_rank(15))
    expected = hessian_eigenvalues(objective).eigenvalues
    objective = Objective(network().double().cuda(), data=of_rank(15))
    for folder in (None, tmp_path, tmp_path):
        found = hessian_eigenvalues(objective, folder=folder).eigenvalues
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_the_norm_is_bounded() -> None:
    values = torch.linspace(-1, 0.9, 400, dtype=torch.float64)
    bound = norm_bound(lambda v: values * v, 400, torch.device("cpu"))
    assert 1 <= bound < 1.15
    few = torch.tensor([-3.0, 2.0, 0.0], dtype=torch.float64)
    assert norm_bound(lambda v: few * v, 3, torch.device("cpu")) == pytest.approx(3.0)
    assert norm_bound(lambda v: 0 * v, 100, torch.device("cpu")) == 0


def test_model_and_random_state_are_given_back_as_they_were() -> None:
    objective = Objective(network().double(), data=of_rank(15))
    before = {name: t.clone() for name, t in objective.model.state_dict().items()}
    random = torch.get_rng_state()
    hessian_eigenvalues(objective)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(t, before[name]) for name, t in objective.model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in objective.model.modules())
    assert all(p.grad is None for p in objective.parameters)


def test_what_does_not_fit_is_refused() -> None:
    objective = Objective(network().double(), data=of_rank(20))
    with pytest.raises(ValueError, match=r"the memory has 0\.0 MiB free"):
        hessian_eigenvalues(objective, memory=1000)
