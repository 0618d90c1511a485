"""Lanczos: its identity, orthogonality, and eigenpairs against dense matrices, repeated eigenvalues among them."""

import models
import pytest
import torch

from widevalley.landscape import hessian_vector_product, top_eigenpairs
from widevalley.landscape import lanczos as module
from widevalley.landscape.lanczos import lanczos, orthogonalise


def symmetric(values, dtype=torch.float64):
    """A matrix with these eigenvalues in a random basis."""
    values = torch.as_tensor(values, dtype=torch.float64)
    drawn = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    q = torch.linalg.qr(drawn).Q
    return ((q * values) @ q.T).to(dtype)


def start(n, dtype=torch.float64):
    return torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-13), (torch.float32, 5e-5)])
@pytest.mark.parametrize("steps", [1, 2, 25, 60])
def test_a_q_less_q_t_is_the_residual_in_the_last_column(dtype, rounding, steps) -> None:
    a = symmetric(torch.linspace(-3, 40, 60), dtype)
    krylov = lanczos(lambda v: a @ v, start(60, dtype), steps)
    q, t = krylov.basis, krylov.tridiagonal
    assert q.shape == (60, steps)
    assert t.shape == (steps, steps)
    left = a @ q - q @ t.to(dtype)
    left[:, -1] -= krylov.residual
    assert left.abs().max() < rounding
    assert (q.T @ q - torch.eye(steps)).abs().max() < rounding
    assert torch.equal(t, t.T)
    assert not t.triu(2).any()


def plain_lanczos(a, v, steps):
    """Without reorthogonalisation, as in textbooks and in several packages."""
    q, before, beta, t = v / v.norm(), torch.zeros_like(v), 0.0, torch.zeros(steps, steps, dtype=torch.float64)
    for j in range(steps):
        r = a @ q - beta * before
        t[j, j] = q @ r
        r = r - t[j, j] * q
        beta = r.norm()
        if j + 1 < steps:
            t[j, j + 1] = t[j + 1, j] = beta
        before, q = q, r / beta
    return t


def test_no_copies_of_the_top_eigenvalue_where_plain_lanczos_has_them() -> None:
    a = symmetric(torch.cat([torch.tensor([40.0]), torch.linspace(0, 1, 299)]), torch.float32)
    copies = torch.linalg.eigvalsh(plain_lanczos(a, start(300, torch.float32), 100)) > 20
    assert copies.sum() > 3
    krylov = lanczos(lambda v: a @ v, start(300, torch.float32), 100)
    assert (torch.linalg.eigvalsh(krylov.tridiagonal) > 20).sum() == 1


def test_it_stays_orthonormal_past_a_subspace_that_is_nearly_invariant() -> None:
    a = torch.block_diag(symmetric(torch.linspace(1, 5, 5)), symmetric(torch.linspace(-1, 8, 55)))
    a[4, 5] = a[5, 4] = 1e-11
    first = torch.zeros(60, dtype=torch.float64)
    first[:5] = start(5)
    krylov = lanczos(lambda v: a @ v, first, 40)
    assert krylov.tridiagonal.shape == (40, 40)
    assert krylov.tridiagonal[4, 5] < 1e-8
    assert (krylov.basis.T @ krylov.basis - torch.eye(40)).abs().max() < 1e-13


def test_gram_schmidt_twice_cleans_a_vector_that_lies_nearly_in_the_span() -> None:
    basis = torch.linalg.qr(start(60 * 10).reshape(60, 10)).Q.T
    vector = basis.sum(0) + 1e-9 * start(60)
    rest, coefficients = orthogonalise(vector[None], basis)
    assert (basis @ rest[0]).abs().max() < 1e-14 * rest.norm()
    torch.testing.assert_close(coefficients @ basis + rest, vector[None])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_stops_at_an_invariant_subspace(dtype) -> None:
    a = symmetric([5.0] * 10 + [2.0] * 10 + [-1.0] * 10, dtype)
    krylov = lanczos(lambda v: a @ v, start(30, dtype), 20)
    assert krylov.tridiagonal.shape == (3, 3)
    assert not krylov.residual.any()
    expected = torch.tensor([-1.0, 2.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.eigvalsh(krylov.tridiagonal), expected, rtol=1e-5, atol=1e-5)
    zero = lanczos(torch.zeros_like, start(30, dtype), 20)
    assert torch.equal(zero.tridiagonal, torch.zeros(1, 1, dtype=torch.float64))


def test_lanczos_refuses_what_has_no_direction() -> None:
    with pytest.raises(ValueError, match="length 0"):
        lanczos(lambda v: v, torch.zeros(3), 2)
    with pytest.raises(ValueError, match="length nan"):
        lanczos(lambda v: v, torch.tensor([1.0, float("nan")]), 2)
    with pytest.raises(ValueError, match="not finite"):
        lanczos(lambda v: v * float("inf"), torch.ones(3), 2)
    with pytest.raises(ValueError, match="steps=0"):
        lanczos(lambda v: v, torch.ones(3), 0)


REPEATED = torch.cat(
    [torch.tensor([9.0, 9, 9, 9, 7, 7]), torch.linspace(0, 1, 690), torch.tensor([-3.0, -3, -3, -2])]
).double()


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 5e-6)])
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_eigenpairs_at_both_ends_repeated_as_often_as_they_are(dtype, error, k) -> None:
    matrix = symmetric(REPEATED, dtype)
    objective = models.quadratic(matrix)
    found = top_eigenpairs(objective, k)
    ordered = REPEATED.sort().values
    torch.testing.assert_close(found.values, torch.cat([ordered[:k], ordered[-k:]]), rtol=0, atol=error)
    v = found.vectors
    assert v.shape == (2 * k, 700)
    torch.testing.assert_close(v @ v.T, torch.eye(2 * k, dtype=dtype), rtol=0, atol=10 * error)
    residuals = (v @ matrix - found.values.to(dtype)[:, None] * v).norm(dim=1)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-3, atol=error)
    assert found.residuals.max() < 1.5 * found.diagnostics["tolerance"]
    assert 4 * k < found.diagnostics["products"] < 700


def test_a_restarted_basis_finds_the_same(monkeypatch) -> None:
    monkeypatch.setattr(module, "MEMORY", 1)
    found = top_eigenpairs(models.quadratic(symmetric(REPEATED)), 6)
    ordered = REPEATED.sort().values
    assert found.diagnostics["products"] > 60
    torch.testing.assert_close(found.values, torch.cat([ordered[:6], ordered[-6:]]), rtol=0, atol=1e-12)


def test_eigenpairs_of_a_network_are_those_of_its_dense_hessian_and_products_are_counted(monkeypatch) -> None:
    objective = models.objective()
    count = 0

    def counting(objective, rows):
        nonlocal count
        count += len(rows)
        return hessian_vector_product(objective, rows)

    monkeypatch.setattr(module, "hessian_vector_product", counting)
    expected = torch.linalg.eigvalsh(models.dense(objective))
    told = []
    for k in (1, 3, 19):
        count = 0
        found = top_eigenpairs(objective, k, progress=lambda what, done: told.append((what, done)))
        torch.testing.assert_close(found.values, torch.cat([expected[:k], expected[-k:]]), rtol=0, atol=1e-12)
        assert count == found.diagnostics["products"]
    assert all("residual" in what and 0 < done < 1 for what, done in told)
    assert told


def test_no_curvature_at_all() -> None:
    found = top_eigenpairs(models.quadratic(torch.zeros(9, 9).double()), 2)
    assert not found.values.any()
    assert not found.residuals.any()


def test_eigenpairs_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ValueError, match="k=20 at each end of 39 eigenvalues is too large: give at most 19"):
        top_eigenpairs(models.objective(), 20)
    with pytest.raises(ValueError, match="k=0"):
        top_eigenpairs(models.objective(), 0)
    with pytest.raises(RuntimeError, match=r"after 20 products the largest residual .* more products="):
        top_eigenpairs(models.quadratic(symmetric(REPEATED)), 2, products=20, tolerance=1e-12)
    infinite = models.quadratic(torch.full((4, 4), float("nan")).double())
    with pytest.raises(ValueError, match="the loss is nan"):
        top_eigenpairs(infinite, 1)
