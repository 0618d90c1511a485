"""Data sets as tensors in memory, each with a training, a validation and a test split.

MNIST is read from the four IDX ``.gz`` files; nothing is unpickled, and the SHA-256 of every uncompressed
payload is checked. The digits come with scikit-learn.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SPLIT_SEED = 0
DIGITS_TEST, DIGITS_VALIDATION = 360, 287
MNIST_VALIDATION = 6_000


class DataError(Exception):
    """A file of a data set is missing or damaged; the message says which, where it belongs and the remedy."""


@dataclass(frozen=True)
class Split:
    inputs: Tensor  # (n, ...), float32
    targets: Tensor  # (n,), int64

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor) -> Split:
        return Split(self.inputs[indices], self.targets[indices])


@dataclass(frozen=True)
class Data:
    train: Split
    validation: Split
    test: Split


@dataclass(frozen=True)
class IdxFile:
    """An expected file: its place under the data folder, and its uncompressed payload."""

    place: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Bytes of the payload: magic number, one 32-bit length a dimension, one byte an element."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)


# The sums are those of the uncompressed files as Y. LeCun, C. Cortes and C. Burges published them.
MNIST = {
    "train images": IdxFile(
        "mnist/train-images-idx3-ubyte.gz",
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    "train labels": IdxFile(
        "mnist/train-labels-idx1-ubyte.gz",
        (60_000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    "test images": IdxFile(
        "mnist/t10k-images-idx3-ubyte.gz",
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    "test labels": IdxFile(
        "mnist/t10k-labels-idx1-ubyte.gz",
        (10_000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
}


def data_folder(given: Path | None = None) -> Path:
    """Where data are looked for: ``given``, else ``$WIDEVALLEY_DATA``, else the user's cache folder."""
    if given is not None:
        return given
    if named := os.environ.get("WIDEVALLEY_DATA"):
        return Path(named)
    from platformdirs import user_cache_path

    return user_cache_path("widevalley", appauthor=False)


def read_idx(path: Path, sha256: str | None = None, size: int | None = None) -> NDArray[np.uint8]:
    """The array of unsigned bytes in a gzipped IDX file, of the shape in its header.

    ``sha256`` and ``size`` are those of the uncompressed file; the sum is checked, the size is only told in errors.

    Raises:
        DataError: the file is missing, cannot be decompressed, is not IDX, or is not the expected one.
    """

    def refusal(what: str) -> DataError:
        expected = [f"uncompressed {size:,} bytes" if size else "", f"SHA-256 {sha256}" if sha256 else ""]
        says = " and ".join(filter(None, expected))
        return DataError(
            f"{path} {what}; expected there: a gzipped IDX file{f', {says}' if says else ''}. Put it in place, or give "
            f"the data folder that holds {path.parent.name}/{path.name} with --data-dir or WIDEVALLEY_DATA."
        )

    try:
        payload = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise refusal("is missing") from None
    except (OSError, EOFError, zlib.error) as error:
        raise refusal(f"cannot be read ({error})") from error
    # Two zero bytes, 8 for unsigned bytes, the number of dimensions; then each length as 32 bits, big-endian.
    if len(payload) < 4 or payload[:3] != b"\0\0\x08" or len(payload) < 4 + 4 * payload[3]:
        raise refusal("is no IDX file of unsigned bytes")
    start = 4 + 4 * payload[3]
    shape = tuple(int(n) for n in np.frombuffer(payload, dtype=">u4", count=payload[3], offset=4))
    if len(payload) - start != math.prod(shape):
        raise refusal(f"is truncated: {len(payload) - start} bytes for shape {shape}")
    found = hashlib.sha256(payload).hexdigest()
    if sha256 is not None and found != sha256:
        raise refusal(f"is damaged: its uncompressed SHA-256 is {found}")
    # A copy: torch warns about arrays that cannot be written to.
    return np.frombuffer(payload, dtype=np.uint8, offset=start).reshape(shape).copy()


def stratified(targets: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out), disjoint, each class in proportion, a function of the seed alone."""
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(
        np.arange(len(targets)), test_size=held_out, stratify=targets.numpy(), random_state=seed
    )
    return torch.from_numpy(kept), torch.from_numpy(held)


def _with_validation(rest: Split, test: Split, held_out: int, seed: int) -> Data:
    kept, held = stratified(rest.targets, held_out, seed)
    return Data(rest.take(kept), rest.take(held), test)


def digits(folder: Path | None = None, *, seed: int = SPLIT_SEED) -> Data:
    """scikit-learn's 1,797 digits, 64 pixels scaled to [0, 1]: 1,150 to train, 287 to validate, 360 to test.

    The test split is the same for every ``seed``; ``seed`` moves the validation split. ``folder`` is not used.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    everything = Split(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels))
    rest, held = stratified(everything.targets, DIGITS_TEST, SPLIT_SEED)
    return _with_validation(everything.take(rest), everything.take(held), DIGITS_VALIDATION, seed)


def mnist(folder: Path | None = None, *, seed: int = SPLIT_SEED) -> Data:
    """MNIST, images (n, 1, 28, 28) with pixels (p - 126)/126: 54,000 to train, 6,000 to validate, 10,000 to test.

    Raises:
        DataError: a file is missing or damaged.
    """
    place = data_folder(folder)
    arrays = {
        name: torch.from_numpy(read_idx(place / file.place, file.sha256, file.size)) for name, file in MNIST.items()
    }

    def split(which: str) -> Split:
        images = arrays[f"{which} images"].unsqueeze(1).float()
        return Split(images.sub_(126).div_(126), arrays[f"{which} labels"].long())

    return _with_validation(split("train"), split("test"), MNIST_VALIDATION, seed)
