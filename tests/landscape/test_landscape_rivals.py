"""The same numbers as curvlinops where it is installed, and what trips rival packages."""

import math

import models
import pytest
import torch
from test_lanczos import start, symmetric
from torch import nn

from widevalley.landscape import Objective, fisher_diagonal, spectral_density, top_eigenpairs, trace
from widevalley.landscape.lanczos import lanczos

# Its use of torch.jit is deprecated.
THEIRS = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@pytest.fixture
def curvlinops():
    # It requires backpack-for-pytorch, and that torchvision, which brings a torch of its own: so it is in no extra, and
    # is installed by hand, with --no-deps.
    pytest.importorskip(
        "curvlinops", reason="curvlinops is not installed: it would bring torchvision, and with it another torch"
    )
    import curvlinops

    return curvlinops


def hessian(curvlinops, objective):
    return curvlinops.HessianLinearOperator(
        objective.model, nn.CrossEntropyLoss(), objective.parameters, list(objective.data), check_deterministic=False
    )


@THEIRS
def test_the_same_top_eigenvalues(curvlinops) -> None:
    from scipy.sparse.linalg import eigsh

    objective = models.objective(width=20)
    rival = hessian(curvlinops, objective).to_scipy()
    found = top_eigenpairs(objective, 2)
    torch.testing.assert_close(found.values[-2:], torch.tensor(eigsh(rival, 2, which="LA")[0]), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.values[:2], torch.tensor(eigsh(rival, 2, which="SA")[0]), rtol=0, atol=1e-9)


@THEIRS
def test_the_same_trace_and_fisher_diagonal(curvlinops) -> None:
    objective = models.objective(width=20)
    torch.manual_seed(0)
    runs = torch.stack([curvlinops.hutchpp_trace(hessian(curvlinops, objective), 60) for _ in range(8)])
    found = trace(objective, products=120)
    error = math.hypot(found.standard_error, float(runs.std()) / math.sqrt(8))
    assert abs(found.value - float(runs.mean())) < 4 * error
    assert error < 0.1 * found.value
    rival = curvlinops.EFLinearOperator(
        objective.model, nn.CrossEntropyLoss(), objective.parameters, list(objective.data), check_deterministic=False
    )
    diagonal = (rival @ torch.eye(objective.n, dtype=torch.float64)).diagonal()
    torch.testing.assert_close(fisher_diagonal(objective), diagonal)


@THEIRS
def test_the_same_density(curvlinops) -> None:
    objective = models.objective(width=20)
    found = spectral_density(objective, probes=12, steps=20)
    ends = found.nodes.min().item(), found.nodes.max().item()
    torch.manual_seed(0)
    grid, rival = curvlinops.lanczos_approximate_spectrum(
        hessian(curvlinops, objective), 20, num_points=25, num_repeats=12, boundaries=ends
    )
    # Its width, of a spectrum scaled to [−1, 1] with a margin of 5 % at each side.
    width = 2 / 19 / math.sqrt(8 * math.log(3)) * (ends[1] - ends[0]) * 1.1 / 2
    values, errors = found.smoothed(grid, width)
    assert ((values - rival).abs() < 5 * math.sqrt(2) * errors + 1e-9).all()
    assert errors.max() < 0.2 * values.max()


def test_their_copies_of_the_top_eigenvalue(curvlinops) -> None:
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    values = torch.cat([torch.tensor([40.0]), torch.linspace(0, 1, 299)])
    matrix = symmetric(values, torch.float32)

    torch.manual_seed(0)
    assert (fast_lanczos(matrix, 100)[0] > 20).sum() > 1
    krylov = lanczos(lambda v: matrix @ v, start(300, torch.float32), 100)
    assert (torch.linalg.eigvalsh(krylov.tridiagonal) > 20).sum() == 1


# What follows needs no rival: their reported failures, not shared.


def assert_eigenpairs(objective) -> None:
    """Against differences of the gradient, which know nothing of second derivatives."""
    found = top_eigenpairs(objective, 2)
    x, step = objective.vector(), 1e-5
    for value, v in zip(found.values, found.vectors, strict=True):
        with objective.at(x + step * v):
            up = objective.gradient()
        with objective.at(x - step * v):
            down = objective.gradient()
        torch.testing.assert_close((up - down) / (2 * step), value * v, rtol=1e-4, atol=1e-7)
    assert found.values[-1] > 1e-3


def test_losses_that_are_plain_functions_of_model_and_batch() -> None:
    def loss(model, batch):
        return model(batch["x"]).tanh().square().mean() + model(-batch["x"]).mean() ** 2

    data = [{"x": x} for x, _ in models.data(sizes=(30,))]
    objective = Objective(models.network(), loss, data)
    assert_eigenpairs(objective)
    assert trace(objective, products=160).standard_error is None
    assert fisher_diagonal(Objective(models.network(), lambda m, b: m(b[0]).square().mean(), models.data())).min() >= 0


def test_ragged_batches_weigh_by_their_size() -> None:
    ragged, full = (Objective(models.network(), data=models.data(sizes=sizes)) for sizes in ((1, 27, 2), (30,)))
    torch.testing.assert_close(top_eigenpairs(ragged, 3).values, top_eigenpairs(full, 3).values)
    assert trace(ragged, products=60).value == pytest.approx(trace(full, products=60).value, rel=1e-9)
    one, other = (spectral_density(o, probes=2, steps=8) for o in (ragged, full))
    torch.testing.assert_close(one.nodes, other.nodes)
    torch.testing.assert_close(fisher_diagonal(ragged, "model"), fisher_diagonal(full, "model"))


def test_batch_norm_in_training_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    assert_eigenpairs(Objective(model, data=models.data(), training=True))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_an_lstm_on_a_cpu() -> None:
    torch.manual_seed(0)
    objective = Objective(models.Recurrent().double(), data=[(torch.randn(6, 7, 4).double(), torch.arange(6) % 3)])
    assert_eigenpairs(objective)
    density = spectral_density(objective, probes=2, steps=10)
    assert density.nodes.max() <= top_eigenpairs(objective, 1).values[-1] + 1e-9
