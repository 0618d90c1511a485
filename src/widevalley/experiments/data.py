"""Data sets as tensors in memory, each with a training, a validation and a test split.

The test split is the same for every ``seed``; ``seed`` moves the validation split alone. MNIST, Fashion-MNIST, CIFAR-10
and the text are read from checked files (``files.DATASETS``); the digits come with scikit-learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from widevalley.experiments import files, whitening
from widevalley.experiments.files import DataError, data_folder

__all__ = [
    "Data",
    "DataError",
    "Split",
    "cifar10",
    "data_folder",
    "digits",
    "fashion_mnist",
    "mnist",
    "split",
    "text",
    "whole_mnist",
]

SPLIT_SEED = 0
DIGITS_TEST, DIGITS_VALIDATION = 360, 287
MNIST_VALIDATION = 6_000
CIFAR_VALIDATION = 5_000
WINDOW = 32
# Windows to validate and to test each, a tenth of the text.
TEXT_HELD_OUT = 3_485
CHARACTERS = "".join(map(chr, range(ord(" "), ord("~") + 1))) + "\n"


@dataclass(frozen=True)
class Split:
    inputs: Tensor  # (n, ...)
    targets: Tensor  # (n,) or (n, positions): classes, int64

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, indices: Tensor) -> Split:
        return Split(self.inputs[indices], self.targets[indices])


@dataclass(frozen=True)
class Data:
    train: Split
    validation: Split
    test: Split


def stratified(targets: Tensor, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out), disjoint, each class in proportion, a function of the seed alone."""
    from sklearn.model_selection import train_test_split

    kept, held = train_test_split(
        np.arange(len(targets)), test_size=held_out, stratify=targets.numpy(), random_state=seed
    )
    return torch.from_numpy(kept), torch.from_numpy(held)


def proportional_order(targets: Tensor, seed: int) -> Tensor:
    """A random order of the examples, of which every first part holds each class in proportion, within one example.

    Of targets with positions, (n, positions), any random order.
    """
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))
    if targets.ndim > 1:
        return order
    place = torch.empty(len(targets), dtype=torch.float64)
    for label in targets.unique():
        of_class = order[targets[order] == label]
        place[of_class] = (torch.arange(len(of_class), dtype=torch.float64) + 0.5) / len(of_class)
    return order[place[order].argsort(stable=True)]


def split(inputs: Tensor, targets: Tensor, *, validation: int, test: int, seed: int = SPLIT_SEED) -> Data:
    """Your own tensors as ``Data``: that many examples to validate and to test, the rest to train.

    Args:
        inputs: (n, ...), what the network takes.
        targets: (n,) or (n, positions), classes from 0 as int64. Those of one class are spread over the splits in
            proportion.
        validation, test: numbers of examples.
        seed: moves the validation split; the test split is the same for every seed.

    Raises:
        ValueError: the tensors do not fit together, or nothing is left for a split.
    """
    if len(inputs) != len(targets):
        raise ValueError(f"inputs has {len(inputs)} examples and targets {len(targets)}: give one target an example")
    if targets.dtype != torch.int64 or bool((targets < 0).any()):
        raise ValueError(f"targets must be classes from 0 as int64, got {targets.dtype} from {targets.min()}")
    if validation < 1 or test < 1 or validation + test >= len(targets):
        raise ValueError(
            f"validation={validation} and test={test} must be at least 1 each and leave some of the {len(targets)} "
            "examples to train"
        )
    everything = Split(inputs, targets)
    order = proportional_order(targets, SPLIT_SEED)
    rest = everything.take(order[test:])
    second = proportional_order(rest.targets, seed)
    return Data(rest.take(second[validation:]), rest.take(second[:validation]), everything.take(order[:test]))


def _with_validation(rest: Split, test: Split, held_out: int, seed: int) -> Data:
    kept, held = stratified(rest.targets, held_out, seed)
    return Data(rest.take(kept), rest.take(held), test)


def digits(folder: Path | None = None, *, seed: int = SPLIT_SEED) -> Data:
    """scikit-learn's 1,797 digits, 64 pixels scaled to [0, 1]: 1,150 to train, 287 to validate, 360 to test.

    ``folder`` is not used.
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
    return _idx_images("mnist", folder, seed)


def whole_mnist(folder: Path | None = None) -> Data:
    """MNIST as ``mnist``, but with all 60,000 to train and none to validate: for what was chosen before.

    Raises:
        DataError: a file is missing or damaged.
    """
    train, test = _idx_splits("mnist", folder)
    return Data(train, train.take(torch.arange(0)), test)


def fashion_mnist(folder: Path | None = None, *, seed: int = SPLIT_SEED) -> Data:
    """Fashion-MNIST, in the form, scale and split of ``mnist``.

    Raises:
        DataError: a file is missing or damaged.
    """
    return _idx_images("fashion_mnist", folder, seed)


def _idx_images(name: str, folder: Path | None, seed: int) -> Data:
    return _with_validation(*_idx_splits(name, folder), MNIST_VALIDATION, seed)


def _idx_splits(name: str, folder: Path | None) -> tuple[Split, Split]:
    """To train, and to test."""
    place = data_folder(folder)
    arrays = [
        torch.from_numpy(parse_idx(files.contents(file, place), file.place)) for file in files.DATASETS[name].files
    ]

    def scaled(images: Tensor, labels: Tensor) -> Split:
        return Split(images.unsqueeze(1).float().sub_(126).div_(126), labels.long())

    train_images, train_labels, test_images, test_labels = arrays
    return scaled(train_images, train_labels), scaled(test_images, test_labels)


def parse_idx(payload: bytes, name: str) -> NDArray[np.uint8]:
    """The array of unsigned bytes in the contents of an IDX file, of the shape in its header.

    Raises:
        DataError: it is not IDX.
    """
    # Two zero bytes, 8 for unsigned bytes, the number of dimensions; then each length as 32 bits, big-endian.
    if len(payload) < 4 or payload[:3] != b"\0\0\x08" or len(payload) < 4 + 4 * payload[3]:
        raise DataError(f"{name} is no IDX file of unsigned bytes")
    start = 4 + 4 * payload[3]
    shape = tuple(int(n) for n in np.frombuffer(payload, dtype=">u4", count=payload[3], offset=4))
    if len(payload) - start != math.prod(shape):
        raise DataError(f"{name} is no IDX file: {len(payload) - start} bytes for shape {shape}")
    # A copy: torch warns about arrays that cannot be written to.
    return np.frombuffer(payload, dtype=np.uint8, offset=start).reshape(shape).copy()


def cifar10(folder: Path | None = None, *, seed: int = SPLIT_SEED, cache: Path | None = None) -> Data:
    """CIFAR-10, images (n, 3, 32, 32): 45,000 to train, 5,000 to validate, 10,000 to test. No augmentation.

    Contrast is normalised image by image; then the images are ZCA-whitened (``whitening``) by a transform fitted on the
    45,000 training images alone: neither validation nor test images enter it. It is kept under ``cache``, by default in
    the user's cache folder.

    Raises:
        DataError: a file is missing or damaged.
    """
    place = data_folder(folder)
    batches = [_cifar_batch(files.contents(file, place)) for file in files.DATASETS["cifar10"].files]
    rest = Split(*map(torch.cat, zip(*batches[:-1], strict=True)))
    raw = _with_validation(rest, Split(*batches[-1]), CIFAR_VALIDATION, seed)
    white = whitening.fitted(raw.train.inputs, cache or files.cache_folder() / "whitening")
    return Data(*(Split(white(part.inputs), part.targets) for part in (raw.train, raw.validation, raw.test)))


def _cifar_batch(payload: bytes) -> tuple[Tensor, Tensor]:
    """Records of a label byte and 3,072 pixel bytes: red, green and blue planes of 32 x 32."""
    records = torch.from_numpy(np.frombuffer(payload, dtype=np.uint8).reshape(-1, 1 + 3 * 32 * 32).copy())
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0].long()


def text(folder: Path | None = None, *, seed: int = SPLIT_SEED) -> Data:
    """tinyshakespeare in windows of 32 characters: inputs (n, 32), targets (n, 32), each the character that follows.

    Characters are classes of ``CHARACTERS``, printable ASCII and newline, 96 in all; inputs are int64 too. The last
    tenth of the text is the test split; a stretch as long, at a place that ``seed`` draws, validates; the rest, before
    and after it, trains. No character is in two splits.

    Raises:
        DataError: the file is missing or damaged.
    """
    (file,) = files.DATASETS["text"].files
    codes = torch.tensor(list(files.contents(file, data_folder(folder))))
    lookup = torch.full((256,), -1)
    lookup[torch.tensor(list(CHARACTERS.encode("ascii")))] = torch.arange(len(CHARACTERS))
    classes = lookup[codes]
    # The target of a window's last position is one character beyond it.
    held_out = TEXT_HELD_OUT * WINDOW + 1
    rest, test = classes[:-held_out], classes[-held_out:]
    places = len(rest) - held_out
    start = int(torch.randint(places + 1, (), generator=torch.Generator().manual_seed(seed)))
    before, validation, after = rest[:start], rest[start : start + held_out], rest[start + held_out :]
    around = [_windows(before), _windows(after)]
    train = Split(torch.cat([part.inputs for part in around]), torch.cat([part.targets for part in around]))
    return Data(train, _windows(validation), _windows(test))


def _windows(stretch: Tensor) -> Split:
    n = max(0, len(stretch) - 1) // WINDOW
    inputs, targets = stretch[: n * WINDOW], stretch[1 : n * WINDOW + 1]
    return Split(inputs.view(n, WINDOW), targets.reshape(n, WINDOW))
