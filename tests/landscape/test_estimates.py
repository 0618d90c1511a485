"""Trace and log-determinant: closed forms, coverage of their errors, and the refusals."""

import math

import models
import pytest
import torch
from test_lanczos import start, symmetric

from widevalley.landscape import Objective, log_determinant, trace
from widevalley.landscape.density import gauss
from widevalley.landscape.estimates import _radau
from widevalley.landscape.lanczos import lanczos

# As of a trained network: a few large ones, many near 0, some below.
VALUES = torch.cat(
    [torch.linspace(5, 40, 6), torch.logspace(-3, 0, 90), torch.tensor([-0.1, -0.05, 0.0, 0.0])]
).double()


def counted(monkeypatch, objective):
    """Products taken since, as a list of one number."""
    from widevalley.landscape import density, lanczos
    from widevalley.landscape.products import hessian_vector_product

    total = [0]

    def counting(objective, v):
        total[0] += 1 if v.ndim == 1 else len(v)
        return hessian_vector_product(objective, v)

    monkeypatch.setattr(lanczos, "hessian_vector_product", counting)
    monkeypatch.setattr(density, "hessian_vector_product", counting)
    return total


def scores(estimate, truth, seeds):
    found = [estimate(seed) for seed in range(seeds)]
    return torch.tensor([(e.value - truth) / e.standard_error for e in found], dtype=torch.float64)


@pytest.mark.slow
def test_the_trace_and_the_coverage_of_its_error() -> None:
    """Over 200 seeds; forty residual probes have Student's t with 39 degrees of freedom: 94.3 % within 1.96."""
    objective = models.quadratic(symmetric(VALUES))
    found = scores(lambda seed: trace(objective, products=80, seed=seed), float(VALUES.sum()), 200)
    # 189 expected, standard deviation 3.3.
    assert 176 <= (found.abs() < 1.96).sum() <= 200
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(200)
    assert found.abs().max() < 6


@pytest.mark.slow
@pytest.mark.parametrize(("gamma", "steps"), [(0.3, 12), (0.102, 6)])
def test_the_log_determinant_and_the_coverage_of_its_error(gamma, steps) -> None:
    """Over 40 seeds; at six steps the bracket of the quadrature is part of the error."""
    objective = models.quadratic(symmetric(VALUES))
    truth = float(torch.log(VALUES + gamma).sum())
    found = scores(lambda seed: log_determinant(objective, gamma, steps=steps, probes=8, seed=seed), truth, 40)
    # Eight probes: Student's t with 7 degrees of freedom, 91 % within 1.96: 36 expected, standard deviation 1.8.
    assert 29 <= (found.abs() < 1.96).sum() <= 40
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(40)
    assert found.abs().max() < 6


def test_gauss_and_radau_bracket_the_log_determinant() -> None:
    """The half width falls to rounding as the steps grow, and the estimates of the same probes come together."""
    objective = models.quadratic(symmetric(VALUES))
    found = {steps: log_determinant(objective, 0.11, probes=2, steps=steps) for steps in (2, 4, 8, 16, 49)}
    best = found[49]
    assert best.standard_error is not None
    assert best.diagnostics["quadrature"] < 1e-8
    widths = [found[steps].diagnostics["quadrature"] for steps in (2, 4, 8, 16)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.01
    for steps in (2, 4, 8, 16):
        assert abs(found[steps].value - best.value) <= found[steps].diagnostics["quadrature"] + 1e-8
    assert best.diagnostics["lambda_min"] == pytest.approx(-0.1, rel=1e-6)


def test_the_radau_matrix_has_the_node_and_the_moments() -> None:
    """Exact for polynomials of degree 2m, one more than Gauss."""
    a, first = symmetric(VALUES), start(100) / start(100).norm()
    krylov = lanczos(lambda v: a @ v, first, 4)
    nodes, weights = gauss(_radau(krylov, -0.3))
    assert float(nodes[0]) == pytest.approx(-0.3, abs=1e-12)
    power = first
    for degree in range(9):
        assert float(weights @ nodes**degree) == pytest.approx(float(first @ power), rel=1e-9)
        power = a @ power


def test_products_are_counted(monkeypatch) -> None:
    objective = models.quadratic(symmetric(VALUES))
    total = counted(monkeypatch, objective)
    assert trace(objective, products=20).diagnostics["products"] == total[0] == 20
    total[0] = 0
    found = log_determinant(objective, 1.0, probes=3, steps=7)
    assert found.diagnostics["products"] == total[0]
    total[0] = 0
    assert trace(models.objective(), products=160).diagnostics["products"] == total[0] == 39


def test_small_networks_are_exact() -> None:
    objective = models.objective()
    dense = models.dense(objective)
    exact = trace(objective, products=39)
    assert exact.standard_error is None
    assert exact.value == pytest.approx(float(dense.trace()), rel=1e-12)
    assert trace(objective, products=38).standard_error > 0
    values = torch.linspace(-0.4, 3, 15, dtype=torch.float64)
    small = models.quadratic(symmetric(values))
    found = log_determinant(small, 0.5)
    assert found.standard_error is None
    expected = torch.log(values + 0.5).sum()
    assert found.value == pytest.approx(float(expected), rel=1e-12)
    gamma = 0.05 - float(torch.linalg.eigvalsh(dense)[0])
    within = log_determinant(objective, gamma, probes=3, steps=13)
    assert within.standard_error is None
    assert within.diagnostics["products"] == 39
    assert within.value == pytest.approx(
        float(torch.logdet(dense + gamma * torch.eye(39, dtype=dense.dtype))), rel=1e-10
    )
    assert log_determinant(objective, gamma, probes=2, steps=19).standard_error > 0


def test_a_network_against_its_dense_hessian() -> None:
    objective = models.objective(width=12)
    values = torch.linalg.eigvalsh(models.dense(objective))
    found = trace(objective, products=60)
    assert abs(found.value - float(values.sum())) < 4 * found.standard_error
    gamma = 0.05 - float(values[0])
    told = []
    found = log_determinant(objective, gamma, probes=8, steps=12, progress=lambda what, done: told.append((what, done)))
    assert abs(found.value - float(torch.log(values + gamma).sum())) < 4 * found.standard_error
    assert found.diagnostics["lambda_min"] == pytest.approx(float(values[0]), rel=1e-9)
    assert all(0 < done <= 1 for _, done in told)
    assert {what.split(":")[0] for what, _ in told} == {"Lanczos quadrature", "top eigenpairs"}


def test_a_hutchpp_sketch_leaves_little_of_a_low_rank() -> None:
    values = torch.cat([torch.full((10,), 3.0), torch.full((190,), 1e-6)])
    found = trace(models.quadratic(symmetric(values)), products=60)
    assert found.standard_error < 1e-4
    assert found.value == pytest.approx(30.00019, abs=4 * found.standard_error)
    assert found.diagnostics["captured"] == pytest.approx(30, abs=1e-3)


@pytest.mark.parametrize("n", [10, 60])
def test_an_indefinite_matrix_is_refused_with_the_gamma_that_would_do(n) -> None:
    objective = models.quadratic(symmetric(torch.linspace(-0.4, 3, n)))
    with pytest.raises(ValueError, match=r"not positive definite: λ_min = -0.4.*Give a gamma above 0.4"):
        log_determinant(objective, 0.3, probes=2, steps=20)
    assert math.isfinite(log_determinant(objective, 0.41, probes=2, steps=20).value)


def test_flat_directions_in_float32_need_a_gamma_above_rounding() -> None:
    values = torch.cat([torch.full((30,), 50.0), torch.zeros(30)])
    with pytest.raises(ValueError, match="float64 has the smaller error"):
        log_determinant(models.quadratic(symmetric(values, torch.float32)), 1e-7, probes=2, steps=20)
    found = log_determinant(models.quadratic(symmetric(values)), 1e-7, probes=2, steps=20)
    truth = float(torch.log(values.double() + 1e-7).sum())
    assert abs(found.value - truth) < 4 * found.standard_error


def test_what_cannot_be_had_is_refused() -> None:
    for gamma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="gamma="):
            log_determinant(models.objective(), gamma)
    with pytest.raises(ValueError, match="products=7"):
        trace(models.objective(), products=7)
    nan = Objective(models.network(), lambda m, b: m(b[0]).sum() * math.nan, models.data())
    for estimate in (trace, lambda o: log_determinant(o, 1.0)):
        with pytest.raises(ValueError, match="the loss is nan"):
            estimate(nan)
