"""Reading and splitting data."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments.small_sets import cifar_batches, idx, images, register, write

from widevalley.experiments import data, files


def needs(name: str) -> pytest.MarkDecorator:
    lacking = any(files.state(file, files.data_folder()) == "missing" for file in files.DATASETS[name].files)
    return pytest.mark.skipif(lacking, reason=f"{name} is not in {files.data_folder()}: set WIDEVALLEY_DATA")


def sizes(of: data.Data) -> list[int]:
    return [len(of.train), len(of.validation), len(of.test)]


def test_idx_is_parsed() -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    found = data.parse_idx(idx(array), "images")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (idx(np.zeros((2, 3), np.uint8))[:-1], "5 bytes for shape (2, 3)"),
        (b"\0\0\x0d\1" + b"\0" * 8, "of unsigned bytes"),
        (b"\0", "of unsigned bytes"),
    ],
    ids=["too short", "floats", "no header"],
)
def test_what_is_not_idx_is_refused(content: bytes, what: str) -> None:
    with pytest.raises(data.DataError, match=rf"images is no IDX file.*{re.escape(what)}"):
        data.parse_idx(content, "images")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "text"])
def test_missing_files_are_named_with_their_place(tmp_path: Path, name: str) -> None:
    first = tmp_path / files.DATASETS[name].files[0].place
    with pytest.raises(data.DataError, match=re.escape(f"{first} is missing") + f".*widevalley data fetch {name}"):
        getattr(data, name)(tmp_path)


def test_a_split_is_disjoint_complete_balanced_and_made_by_its_seed() -> None:
    targets = torch.arange(10).repeat(50)
    kept, held = data.stratified(targets, 100, seed=3)
    assert sorted(kept.tolist() + held.tolist()) == list(range(500))
    assert torch.bincount(targets[held]).tolist() == [10] * 10
    again, other = data.stratified(targets, 100, seed=3)[1], data.stratified(targets, 100, seed=4)[1]
    assert torch.equal(held, again)
    assert not torch.equal(held, other)


def test_every_first_part_of_a_proportional_order_is_balanced() -> None:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    order = data.proportional_order(targets, seed=0)
    assert sorted(order.tolist()) == list(range(100))
    for n in range(1, 101):
        counts = torch.bincount(targets[order[:n]], minlength=3)
        assert (counts - n * torch.tensor([0.6, 0.3, 0.1])).abs().max() <= 1
    assert torch.equal(order, data.proportional_order(targets, seed=0))
    assert not torch.equal(order, data.proportional_order(targets, seed=1))


@pytest.mark.parametrize(
    "targets", [torch.arange(100) % 4, torch.arange(200).view(100, 2)], ids=["classes", "positions"]
)
def test_own_tensors_are_cut_without_overlap_and_the_test_split_stays(targets: torch.Tensor) -> None:
    inputs = torch.arange(100).unsqueeze(1)
    first, second = (data.split(inputs, targets, validation=12, test=20, seed=seed) for seed in (0, 1))
    assert sizes(first) == [68, 12, 20]
    assert sorted(torch.cat([first.train.inputs, first.validation.inputs, first.test.inputs]).flatten().tolist()) == [
        *range(100)
    ]
    for part in (first.train, first.validation, first.test):
        assert torch.equal(part.targets, targets[part.inputs.flatten()])
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert not torch.equal(first.validation.inputs, second.validation.inputs)
    if targets.ndim == 1:
        assert torch.bincount(first.validation.targets).tolist() == [3] * 4


@pytest.mark.parametrize(
    ("targets", "validation", "test", "said"),
    [
        (torch.arange(9), 1, 1, "10 examples and targets 9"),
        (torch.arange(10).float(), 1, 1, "as int64, got torch.float32"),
        (torch.arange(10) - 1, 1, 1, "got torch.int64 from -1"),
        (torch.arange(10), 5, 5, "leave some of the 10 examples"),
        (torch.arange(10), 0, 5, "at least 1 each"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(targets: torch.Tensor, validation: int, test: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        data.split(torch.zeros(10, 2), targets, validation=validation, test=test)


def test_the_digits_are_split_without_overlap() -> None:
    digits = data.digits()
    assert sizes(digits) == [1150, 287, 360]
    everything = torch.cat([digits.train.inputs, digits.validation.inputs, digits.test.inputs])
    assert everything.shape == (1797, 64)
    # No two digits of the set are equal, so equal rows would be one sample in two splits.
    assert len(torch.unique(everything, dim=0)) == 1797
    assert (everything.min().item(), everything.max().item()) == (0.0, 1.0)
    for part in (digits.train, digits.validation, digits.test):
        assert len(torch.unique(part.targets)) == 10


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_images_keep_their_labels_and_their_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    register(monkeypatch, images(tmp_path, name))
    monkeypatch.setattr(data, "MNIST_VALIDATION", 20)
    read = getattr(data, name)(tmp_path)
    assert sizes(read) == [40, 20, 20]
    assert read.train.inputs.shape == (40, 1, 28, 28)
    for part in (read.train, read.validation, read.test):
        numbers = part.inputs[:, 0, 14, 14] * 126 + 126
        assert torch.equal(numbers.round().long() % 10, part.targets)
    assert torch.bincount(read.validation.targets).tolist() == [2] * 10


@needs("mnist")
def test_mnist_is_read_scaled_and_split() -> None:
    mnist = data.mnist()
    assert sizes(mnist) == [54000, 6000, 10000]
    assert mnist.train.inputs.shape == (54000, 1, 28, 28)
    # Pixels 0 and 255 under (p − 126)/126.
    assert mnist.test.inputs.min().item() == -1.0
    assert mnist.test.inputs.max().item() == pytest.approx(129 / 126)
    # Of the published test labels, the first ten.
    assert mnist.test.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]

    whole = data.whole_mnist()
    assert sizes(whole) == [60000, 0, 10000]
    assert torch.equal(whole.test.inputs, mnist.test.inputs)
    # Nothing of it but what the two other splits have.
    together = torch.cat([mnist.train.inputs, mnist.validation.inputs]).flatten(1).sum(1)
    assert torch.equal(whole.train.inputs.flatten(1).sum(1).sort().values, together.sort().values)


@pytest.fixture
def small_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, cifar_batches(tmp_path))
    monkeypatch.setattr(data, "CIFAR_VALIDATION", 20)
    # The covariance of 3,072 pixels takes half a minute: eight by eight of each plane are enough here.
    whole = data._cifar_batch
    monkeypatch.setattr(data, "_cifar_batch", lambda payload: (whole(payload)[0][..., :8, :8], whole(payload)[1]))
    return tmp_path


def test_cifar_is_read_plane_by_plane(tmp_path: Path) -> None:
    dataset = cifar_batches(tmp_path)
    payload = files.contents(dataset.files[0], tmp_path)
    pixels, labels = data._cifar_batch(payload)
    assert pixels.shape == (20, 3, 32, 32)
    assert labels.tolist() == [k % 10 for k in range(20)]
    # The record of picture 7: a label, then 1,024 bytes a plane, row by row.
    assert pixels[7, 2, 5, 9].item() == payload[7 * 3073 + 1 + 2 * 1024 + 5 * 32 + 9]


def test_cifar_is_whitened_by_its_training_images_alone(small_cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar = data.cifar10(small_cifar, cache=small_cifar / "cache")
    assert sizes(cifar) == [80, 20, 20]
    assert cifar.train.inputs.shape == (80, 3, 8, 8)
    assert cifar.train.inputs.mean(0).abs().max() < 1e-4
    # Other test pictures change nothing but the test split.
    other = small_cifar / "other"
    changed = cifar_batches(other, seed=1)
    for file in changed.files[:-1]:
        (other / file.place).write_bytes((small_cifar / file.place).read_bytes())
    mixed = files.Dataset("cifar10", (*files.DATASETS["cifar10"].files[:-1], changed.files[-1]), ())
    register(monkeypatch, mixed)
    again = data.cifar10(other, cache=other / "cache")
    assert torch.equal(again.train.inputs, cifar.train.inputs)
    assert torch.equal(again.validation.inputs, cifar.validation.inputs)
    assert not torch.equal(again.test.inputs, cifar.test.inputs)


@needs("cifar10")
@pytest.mark.slow
def test_cifar_as_published(tmp_path: Path) -> None:
    (file,) = (file for file in files.DATASETS["cifar10"].files if "test_batch" in file.place)
    _, labels = data._cifar_batch(files.contents(file, files.data_folder()))
    # cat, ship, ship, airplane, frog: the first of the published test labels.
    assert labels[:5].tolist() == [3, 8, 8, 0, 6]


@needs("text")
def test_text_is_cut_into_windows_that_share_no_character_across_splits() -> None:
    text = data.text()
    assert sizes(text) == [27885, 3485, 3485]
    assert len(data.CHARACTERS) == 96
    for part in (text.train, text.validation, text.test):
        assert part.inputs.shape == part.targets.shape == (len(part), 32)
        assert torch.equal(part.inputs[:, 1:], part.targets[:, :-1])

    def string(part: data.Split) -> str:
        return "".join(data.CHARACTERS[k] for k in part.inputs.flatten().tolist())

    whole = (files.data_folder() / "text" / "tinyshakespeare.txt").read_text(encoding="ascii")
    held_out = 3485 * 32
    assert whole.endswith(string(text.test) + data.CHARACTERS[int(text.test.targets[-1, -1])])
    place = whole.index(string(text.validation))
    # What is before and what is after it trains: the stretch itself, with its last target, does not.
    train = string(text.train)
    before = (place - 1) // 32 * 32
    assert train[:before] == whole[:before]
    after = place + held_out + 1
    assert train[before:] == whole[after : after + len(train) - before]
    assert after + len(train) - before < len(whole) - held_out - 1


def test_every_character_of_the_text_is_in_one_stretch_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(data.CHARACTERS[k] for k in np.random.default_rng(0).integers(0, 96, 1000))
    register(monkeypatch, files.Dataset("text", (write(tmp_path, "text/made.txt", content.encode("ascii")),), ()))
    monkeypatch.setattr(data, "TEXT_HELD_OUT", 4)
    monkeypatch.setattr(data, "_windows", lambda stretch: data.Split(stretch, stretch))
    stretches = set()
    for seed in range(5):
        text = data.text(tmp_path, seed=seed)
        train, validation, test = (
            "".join(data.CHARACTERS[k] for k in part.inputs.tolist())
            for part in (text.train, text.validation, text.test)
        )
        assert (len(validation), len(test), len(train)) == (129, 129, 1000 - 2 * 129)
        assert content.endswith(test)
        place = content.index(validation)
        assert content == train[:place] + validation + train[place:] + test
        stretches.add(place)
    assert len(stretches) == 5


@needs("text")
def test_the_seed_moves_only_the_validation_stretch_of_the_text() -> None:
    first, second = data.text(seed=0), data.text(seed=1)
    assert torch.equal(first.test.inputs, second.test.inputs)
    assert not torch.equal(first.validation.inputs, second.validation.inputs)
