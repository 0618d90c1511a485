"""The reduction to band form: against LAPACK on the whole matrix, its own identity, and after a stop."""

import pytest
import torch

from widevalley.landscape import band
from widevalley.landscape.band import reduce_to_band
from widevalley.landscape.store import Checkpoints


def symmetric(n, dtype=torch.float64, rank=None):
    """Few large eigenvalues and many small ones of both signs, as Hessians have."""
    generator = torch.Generator().manual_seed(n)
    vectors = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0][:, : rank or n]
    values = 40 * torch.arange(1, (rank or n) + 1, dtype=torch.float64) ** -1.5
    values[1::3] *= -0.01
    return ((vectors * values) @ vectors.T).to(dtype)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(band, "TILE", 32)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 10, 15, 16, 17, 100, 131])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_eigenvalues_are_those_of_the_whole_matrix(n: int, dtype: torch.dtype, tolerance: float) -> None:
    matrix = symmetric(n, dtype)
    expected = torch.linalg.eigvalsh(matrix.double())
    found = reduce_to_band(matrix.clone(), 8).eigenvalues()
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_zero_rows_and_low_rank_are_no_obstacle() -> None:
    matrix = symmetric(90, rank=5)
    matrix[20:40], matrix[:, 20:40] = 0, 0
    found = reduce_to_band(matrix.clone(), 8).eigenvalues()
    torch.testing.assert_close(found, torch.linalg.eigvalsh(matrix), rtol=0, atol=1e-12)
    assert torch.equal(reduce_to_band(torch.zeros(30, 30), 8).eigenvalues(), torch.zeros(30, dtype=torch.float64))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_the_band_is_the_matrix_in_another_orthonormal_basis(dtype: torch.dtype, tolerance: float) -> None:
    """B = Qᵀ A Q, and Q is orthogonal to float64 in either type."""
    matrix = symmetric(75, dtype)
    form = reduce_to_band(matrix.clone(), 8)
    identity = torch.eye(75, dtype=torch.float64)
    q = torch.stack([form.rotated(row) for row in identity], dim=1)
    back = torch.stack([form.rotated_back(row) for row in identity], dim=1)
    dense = torch.stack([form.times(row) for row in identity], dim=1)
    torch.testing.assert_close(back, q.T, rtol=0, atol=1e-13)
    torch.testing.assert_close(q.T @ q, identity, rtol=0, atol=1e-13)
    torch.testing.assert_close(dense, q.T @ matrix.double() @ q, rtol=0, atol=40 * tolerance)
    assert float(dense.triu(9).abs().max()) == 0


def test_a_stopped_reduction_goes_on_from_its_last_checkpoint(tmp_path) -> None:
    matrix = symmetric(131)
    whole = reduce_to_band(matrix.clone(), 8)

    class Stop(Exception):
        pass

    def stop(done):
        seen.append(done)
        if len(seen) == 7:
            raise Stop

    seen: list[float] = []
    with pytest.raises(Stop):
        reduce_to_band(matrix.clone(), 8, checkpoints=Checkpoints(tmp_path, seconds=0), progress=stop)
    seen = [0.0] * 7
    # What the matrix holds is taken from the disk.
    again = reduce_to_band(
        torch.zeros_like(matrix), 8, checkpoints=Checkpoints(tmp_path), progress=lambda done: seen.append(done)
    )
    assert len(seen) == 7 + 17 - 7
    torch.testing.assert_close(again.diagonals, whole.diagonals, rtol=0, atol=1e-13)
    v = torch.ones(131, dtype=torch.float64)
    torch.testing.assert_close(again.rotated(v), whole.rotated(v), rtol=0, atol=1e-13)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["band-56.npy", "band-56.npz", "band.json"]
