"""Small files in the forms of the data sets, and a registry of them."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from widevalley.experiments import files


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, place: str, content: bytes) -> files.File:
    """The file under its place (packed if its name ends in .gz), and its record."""
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    stored = path.read_bytes()
    return files.File(place, len(stored), hashlib.sha256(stored).hexdigest())


def register(monkeypatch: pytest.MonkeyPatch, *datasets: files.Dataset) -> None:
    """Makes these the only data sets."""
    for name in list(files.DATASETS):
        monkeypatch.delitem(files.DATASETS, name)
    for dataset in datasets:
        monkeypatch.setitem(files.DATASETS, dataset.name, dataset)


def images(folder: Path, name: str, train: int = 60, test: int = 20) -> files.Dataset:
    """A data set of four IDX files: labels go round the classes, each image is full of its number in the file."""
    written = []
    for which, n in (("train", train), ("t10k", test)):
        numbers = np.arange(n, dtype=np.uint8)
        pixels = np.broadcast_to(numbers[:, None, None], (n, 28, 28)).copy()
        written.append(write(folder, f"{name}/{which}-images-idx3-ubyte.gz", idx(pixels)))
        written.append(write(folder, f"{name}/{which}-labels-idx1-ubyte.gz", idx(numbers % 10)))
    return files.Dataset(name, tuple(written), ())


def cifar_batches(folder: Path, seed: int = 0) -> files.Dataset:
    """Five training batches of 20 random pictures and one of test pictures, in CIFAR-10's binary form."""
    random = np.random.default_rng(seed)
    written = []
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        labels = np.arange(20, dtype=np.uint8)[:, None] % 10
        pixels = random.integers(0, 256, (20, 3 * 32 * 32), dtype=np.uint8)
        records = np.concatenate([labels, pixels], axis=1)
        written.append(write(folder, f"cifar10/cifar-10-batches-bin/{name}.bin", records.tobytes()))
    return files.Dataset("cifar10", tuple(written), ())
