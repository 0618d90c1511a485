"""The probe: right on quadratics, at the centre, honest about its cost, and training as if it were not there."""

import copy

import models
import numpy as np
import pytest
import torch
from torch import nn

from widevalley import EntropySGD
from widevalley.landscape import Objective, Probe
from widevalley.landscape.probe import _best_of_span
from widevalley.optim.chain import Chain

START = torch.tensor([1.0, -2.0, 0.5, 1.0], dtype=torch.float64)


def probed(matrix, **settings):
    """One look at ½wᵀAw at START."""
    objective = models.quadratic(matrix, start=START)
    probe = Probe(objective, **settings)
    probe(torch.optim.SGD(objective.model.parameters(), 0.1))
    return probe.records[0]


def rotated(eigenvalues):
    q, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.T


@pytest.mark.parametrize("eigenvalues", [[0.0, 0.5, 1.0, 6.0], [-5.0, 1.0, 2.0, 4.0], [-9.0, -5.0, -3.0, -1.0]])
def test_a_look_at_a_quadratic(eigenvalues) -> None:
    matrix = rotated(eigenvalues)
    record = probed(matrix, products=20, signs=400)
    assert record.largest_eigenvalue == pytest.approx(max(eigenvalues), rel=1e-4)
    assert abs(record.trace.value - sum(eigenvalues)) < 4 * record.trace.standard_error
    # Var vᵀAv = 2 Σ_{i≠j} a_ij² for random signs.
    off = (matrix - torch.diag(matrix.diagonal())).square().sum().item()
    assert record.trace.standard_error == pytest.approx(np.sqrt(2 * off / 400), rel=0.15)
    assert record.loss == pytest.approx((START @ matrix @ START / 2).item())
    assert record.gradient_norm == pytest.approx((matrix @ START).norm().item())
    assert record.displacement is None


def test_the_residual_bounds_the_error_of_an_unfinished_iteration() -> None:
    eigenvalues = [1.0, 4.0, 4.5, 5.0]
    record = probed(rotated(eigenvalues), products=3)
    assert record.own_products == 3 + 8
    assert record.residual > 1e-2
    assert min(abs(record.largest_eigenvalue - e) for e in eigenvalues) <= record.residual
    assert record.largest_eigenvalue <= 5.0 + 1e-12


@pytest.mark.parametrize("eigenvalues", [[0.0], [2.0], [-3.0, 0.0], [-3.0, -2.0], [0.0, 0.0, 0.0]])
def test_the_largest_eigenvalue_in_few_dimensions(eigenvalues) -> None:
    matrix = torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))
    objective = models.quadratic(matrix, start=torch.ones(len(eigenvalues), dtype=torch.float64))
    probe = Probe(objective)
    probe(torch.optim.SGD(objective.model.parameters(), 0.1))
    assert probe.records[0].largest_eigenvalue == pytest.approx(max(eigenvalues), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_eigenvalue_of_a_network_is_that_of_its_dense_hessian(dtype) -> None:
    objective = models.objective(dtype=dtype)
    probe = Probe(objective)
    probe(torch.optim.SGD(objective.model.parameters(), 0.1))
    record = probe.records[0]
    exact = [(inputs.double(), targets) for inputs, targets in objective.data]
    dense = models.dense(Objective(copy.deepcopy(objective.model).double(), data=exact))
    expected = torch.linalg.eigvalsh(dense)[-1].item()
    assert record.largest_eigenvalue == pytest.approx(expected, rel=2e-6 if dtype == torch.float64 else 1e-5)
    assert record.own_products < 8 + 20


def test_the_search_has_the_speed_of_conjugate_gradients() -> None:
    """A gap of 2 % of the spectrum: steepest ascent takes several times as many products."""
    matrix = torch.diag(torch.linspace(0, 1, 50, dtype=torch.float64))
    objective = models.quadratic(matrix, start=torch.ones(50, dtype=torch.float64))
    probe = Probe(objective, products=1000)
    probe(torch.optim.SGD(objective.model.parameters(), 0.1))
    assert probe.records[0].largest_eigenvalue == pytest.approx(1.0, abs=1e-4)
    assert probe.own_products - 8 < 30


def test_a_step_within_the_span_of_the_two_other_vectors_is_left_out() -> None:
    """Its image would be the rounding of theirs, divided by the little that lies outside."""
    a = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    v, w, other = torch.eye(4, dtype=torch.float64)[:3]
    p = (v + w + 1e-7 * other) / 2**0.5
    rounding = 1e-6 * torch.ones(4, dtype=torch.float64)
    best, image, _ = _best_of_span([(v, a @ v), (w, a @ w), (p, a @ p + rounding)])
    torch.testing.assert_close(image, a @ best)
    assert (best @ image).item() == pytest.approx(2.0)


class Training:
    """A network with batch-norm and dropout, and an optimizer with noise: all that a look could disturb."""

    def __init__(self, kind):
        torch.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 3))
        self.data = models.data(dtype=torch.float32)
        settings = {"inner_steps": 3, "gamma": 0.5, "temperature": 1e-3, "momentum": 0.9}
        self.optimizer = {
            "nested": lambda p: EntropySGD(p, 0.1, **settings),
            "nested, rho": lambda p: EntropySGD(p, 0.1, rho=0.1, **settings),
            "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        }[kind](self.model.parameters())
        self.objective = Objective(self.model, data=torch.utils.data.DataLoader(torch.utils.data.TensorDataset(
            torch.cat([x for x, _ in self.data]), torch.cat([y for _, y in self.data])), batch_size=8, shuffle=True
        ))  # fmt: skip

    def run(self, steps, look=None):
        for k in range(steps):
            inputs, targets = self.data[k % 3]
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(inputs), targets).backward()
            if look:
                look(self.optimizer)
            self.optimizer.step()

    def everything(self):
        state = copy.deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()})
        return state | {"random": torch.get_rng_state(), "gradients": [p.grad for p in self.model.parameters()]}


@pytest.mark.parametrize("way", ["called", "hook"])
@pytest.mark.parametrize("kind", ["nested", "nested, rho", "sgd"])
def test_training_is_bit_equal_with_a_probe(kind, way) -> None:
    plain, watched = Training(kind), Training(kind)
    torch.manual_seed(7)
    plain.run(11)
    expected = plain.everything()
    probe = Probe(watched.objective, every=2)
    if way == "hook":
        watched.optimizer.register_step_pre_hook(probe)
    torch.manual_seed(7)
    watched.run(11, probe if way == "called" else None)
    torch.testing.assert_close(watched.everything(), expected, rtol=0, atol=0)
    assert watched.model.training
    assert [record.step for record in probe.records] == [0, 2, 4, 6, 8, 10]


def test_nested_optimizers_are_measured_at_the_centre() -> None:
    training = Training("nested")
    probe = Probe(training.objective, every=5)
    losses = []

    def look(optimizer):
        probe(optimizer)
        with optimizer.at_center():
            losses.append((training.objective.value(), training.objective.gradient().norm().item()))
        losses.append(training.objective.value())

    training.run(6, look)
    record = probe.records[1]
    at_center, at_sample = losses[10], losses[11]
    assert record.step == 5
    assert (record.loss, record.gradient_norm) == pytest.approx(at_center, rel=1e-5)
    assert abs(at_sample - record.loss) > 1e-4


def test_the_chain_is_as_the_comparison_sees_it() -> None:
    training = Training("nested")
    probe, chain = Probe(training.objective, every=2), Chain(training.optimizer)
    seen = []

    def look(optimizer):
        probe(optimizer)
        seen.append(dict(chain.latest))
        chain.look()

    training.run(8, look)
    for record in probe.records:
        for name, value in seen[record.step].items():
            assert getattr(record, name) == value
    assert probe.records[0].displacement is None
    assert probe.records[-1].displacement > 0


def test_its_own_cost_is_counted_apart() -> None:
    """Every gradient and product is one forward pass over the one batch; two more are the objective's own check."""
    objective = models.quadratic(rotated([0.1, 1.0, 2.0, 5.0]), start=START)
    passes = []
    objective.model.register_forward_pre_hook(lambda *_: passes.append(1))
    optimizer = torch.optim.SGD(objective.model.parameters(), 0.0)
    probe = Probe(objective, every=3)
    for _ in range(7):
        probe(optimizer)
    assert probe.own_gradients == 3
    assert len(passes) == 2 + probe.own_gradients + probe.own_products
    # The same point again: the vector of the look before is still good.
    costs = [record.own_products for record in probe.records]
    assert costs[0] > 8 + 3
    assert [costs[1] - costs[0], costs[2] - costs[1]] == [8 + 1, 8 + 1]


def test_bad_arguments_and_another_model_are_refused() -> None:
    objective = models.objective()
    for name in ("every", "products", "signs"):
        with pytest.raises(ValueError, match=name):
            Probe(objective, **{name: 0})
    with pytest.raises(ValueError, match="trains none"):
        Probe(objective)(torch.optim.SGD(models.network().parameters(), 0.1))
