"""Reading, checking and splitting data."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from widevalley.experiments import data


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


def test_an_idx_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(IMAGES)))
    found = data.read_idx(path, hashlib.sha256(idx(IMAGES)).hexdigest())
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "is missing"),
        (gzip.compress(idx(IMAGES))[:-9], "cannot be read"),
        (b"plain text", "cannot be read"),
        (gzip.compress(idx(IMAGES)[:-1]), "is truncated: 23 bytes for shape"),
        (gzip.compress(b"\0\0\x0d\1" + b"\0" * 8), "no IDX file of unsigned bytes"),
        (gzip.compress(b"\0"), "no IDX file of unsigned bytes"),
    ],
    ids=["missing", "cut off", "plain text", "too short", "floats", "no header"],
)
def test_a_missing_or_broken_file_is_named(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "images.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(data.DataError) as error:
        data.read_idx(path)
    assert str(path) in str(error.value)
    assert what in str(error.value)
    assert "--data-dir or WIDEVALLEY_DATA" in str(error.value)


def test_a_damaged_file_is_named_with_the_sum_it_should_have(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(IMAGES + 1)))
    expected = hashlib.sha256(idx(IMAGES)).hexdigest()
    with pytest.raises(data.DataError, match=f"is damaged.*{expected}"):
        data.read_idx(path, expected)


def test_a_missing_mnist_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(data.DataError, match=str(tmp_path / "mnist" / "train-images-idx3-ubyte.gz")):
        data.mnist(tmp_path)


def test_the_folder_is_the_argument_then_the_environment_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIDEVALLEY_DATA", str(tmp_path / "named"))
    assert data.data_folder(tmp_path) == tmp_path
    assert data.data_folder() == tmp_path / "named"
    monkeypatch.delenv("WIDEVALLEY_DATA")
    assert data.data_folder().name == "widevalley"


def test_a_split_is_disjoint_complete_balanced_and_made_by_its_seed() -> None:
    targets = torch.arange(10).repeat(50)
    kept, held = data.stratified(targets, 100, seed=3)
    assert sorted(kept.tolist() + held.tolist()) == list(range(500))
    assert torch.bincount(targets[held]).tolist() == [10] * 10
    again, other = data.stratified(targets, 100, seed=3)[1], data.stratified(targets, 100, seed=4)[1]
    assert torch.equal(held, again)
    assert not torch.equal(held, other)


def test_the_digits_are_split_without_overlap() -> None:
    digits = data.digits()
    sizes = {"train": 1150, "validation": 287, "test": 360}
    assert {name: len(getattr(digits, name)) for name in sizes} == sizes
    everything = torch.cat([digits.train.inputs, digits.validation.inputs, digits.test.inputs])
    assert everything.shape == (1797, 64)
    # No two digits of the set are equal, so equal rows would be one sample in two splits.
    assert len(torch.unique(everything, dim=0)) == 1797
    assert (everything.min().item(), everything.max().item()) == (0.0, 1.0)
    for name in sizes:
        assert len(torch.unique(getattr(digits, name).targets)) == 10


@pytest.mark.skipif("WIDEVALLEY_DATA" not in os.environ, reason="WIDEVALLEY_DATA is unset: no folder with MNIST")
def test_mnist_is_read_scaled_and_split() -> None:
    mnist = data.mnist()
    assert [len(split) for split in (mnist.train, mnist.validation, mnist.test)] == [54000, 6000, 10000]
    assert mnist.train.inputs.shape == (54000, 1, 28, 28)
    # Pixels 0 and 255 under (p − 126)/126.
    assert mnist.test.inputs.min().item() == -1.0
    assert mnist.test.inputs.max().item() == pytest.approx(129 / 126)
    # Of the published test labels, the first ten.
    assert mnist.test.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
