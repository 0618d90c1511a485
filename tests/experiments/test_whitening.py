"""Contrast normalisation and ZCA against their definitions, and the kept transform."""

from pathlib import Path

import numpy as np
import pytest
import torch

from widevalley.experiments import whitening


def pictures(n: int = 200, seed: int = 0) -> torch.Tensor:
    """Correlated bytes, (n, 3, 2, 2)."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    return (128 + 20 * mixed).clamp(0, 255).to(torch.uint8).view(n, 3, 2, 2)


def test_each_image_has_mean_zero_and_deviation_one() -> None:
    g = whitening.contrast_normalised(pictures())
    assert g.shape == (200, 12)
    torch.testing.assert_close(g.mean(1), torch.zeros(200, dtype=torch.float64), atol=1e-14, rtol=0)
    torch.testing.assert_close(g.norm(dim=1), torch.full((200,), 12**0.5, dtype=torch.float64))
    # Brightness and contrast are gone.
    half = pictures().double() / 2 + 17
    torch.testing.assert_close(whitening.contrast_normalised(half), g)


def test_a_constant_image_becomes_zeros() -> None:
    assert not whitening.contrast_normalised(torch.full((2, 3, 2, 2), 17, dtype=torch.uint8)).any()


def test_the_covariance_is_whitened_up_to_the_regulariser(monkeypatch: pytest.MonkeyPatch) -> None:
    # Several chunks, the last one ragged.
    monkeypatch.setattr(whitening, "CHUNK", 64)
    images = pictures()
    epsilon = 0.1
    white = whitening.fit(images, epsilon)(images)
    assert white.shape == images.shape
    z = white.flatten(1).double().numpy()
    g = whitening.contrast_normalised(images).numpy()
    eigenvalues, u = np.linalg.eigh(np.cov(g.T, bias=True))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-6)
    expected = (u * (eigenvalues / (eigenvalues + epsilon))) @ u.T
    np.testing.assert_allclose(np.cov(z.T, bias=True), expected, atol=1e-5)
    # ZCA: of all whitenings the symmetric one.
    np.testing.assert_allclose(z, (g - g.mean(0)) @ (u / np.sqrt(eigenvalues + epsilon)) @ u.T, atol=1e-5)


def test_the_transform_is_kept_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = whitening.fitted(pictures(), tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    assert path.name.startswith("whitening-")
    monkeypatch.setattr(whitening, "fit", None)
    again = whitening.fitted(pictures(), tmp_path / "cache")
    assert torch.equal(first.matrix, again.matrix)
    assert torch.equal(first.mean, again.mean)


def test_other_images_have_another_transform(tmp_path: Path) -> None:
    first, other = (whitening.fitted(pictures(seed=seed), tmp_path) for seed in (0, 1))
    assert not torch.equal(first.matrix, other.matrix)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "other shape"])
def test_a_damaged_file_is_computed_anew(tmp_path: Path, damage: str) -> None:
    right = whitening.fitted(pictures(), tmp_path)
    (path,) = tmp_path.iterdir()
    stored = bytearray(path.read_bytes())
    flipped = stored.copy()
    flipped[stored.index(right.matrix.numpy().tobytes()) + 5] ^= 0x10
    if damage == "other shape":
        np.savez(path, mean=np.zeros(3), matrix=np.zeros((3, 3), np.float32))
    else:
        path.write_bytes({"cut": stored[:-40], "flipped": flipped, "empty": b"", "text": b"no zip"}[damage])
    again = whitening.fitted(pictures(), tmp_path)
    assert torch.equal(right.matrix, again.matrix)
    assert path.read_bytes() == stored


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    found = whitening.fitted(pictures(), tmp_path / "file" / "below")
    assert torch.equal(found.matrix, whitening.fit(pictures()).matrix)
    assert "is not kept" in caplog.text


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(whitening.np, "savez", full)
    whitening.fitted(pictures(), tmp_path)
    assert not list(tmp_path.iterdir())
