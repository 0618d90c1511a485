"""The files of every data set: their places, sums and sources, and the reading of checked bytes.

Nothing is unpickled, and no byte is used whose SHA-256 is not the registered one.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path


class DataError(Exception):
    """A file of a data set is missing or damaged, or a data set is too small for what is asked; says the remedy."""


@dataclass(frozen=True)
class File:
    """A file that a data set needs."""

    place: str  # under the data folder, with slashes; its first part names the set's folder
    size: int  # bytes of what the sum is taken over
    sha256: str
    of_contents: bool = False  # the sum and the size are those of the uncompressed contents of a .gz file


@dataclass(frozen=True)
class Download:
    """What one request brings: a file as it is, or an archive with several."""

    url: str
    size: int
    sha256: str
    members: dict[str, str]  # place of the file: its name in the archive, "" where the download is the file


@dataclass(frozen=True)
class Dataset:
    name: str
    files: tuple[File, ...]
    downloads: tuple[Download, ...]


def _mnist() -> Dataset:
    # The contents' sums, of the files as Y. LeCun, C. Cortes and C. Burges published them: copies that were compressed
    # again count too. The sums of the published .gz are those of tensorflow-datasets' url_checksums/mnist.txt.
    contents = (
        ("train-images-idx3", 47_040_016, "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        ("train-labels-idx1", 60_008, "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        ("t10k-images-idx3", 7_840_016, "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        ("t10k-labels-idx1", 10_008, "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    )
    published = (
        ("train-images-idx3", 9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        ("train-labels-idx1", 28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        ("t10k-images-idx3", 1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        ("t10k-labels-idx1", 4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    )
    source = "https://ossci-datasets.s3.amazonaws.com/mnist"
    return Dataset(
        "mnist",
        tuple(File(f"mnist/{name}-ubyte.gz", size, sha256, of_contents=True) for name, size, sha256 in contents),
        tuple(
            Download(f"{source}/{name}-ubyte.gz", size, sha256, {f"mnist/{name}-ubyte.gz": ""})
            for name, size, sha256 in published
        ),
    )


def _fashion_mnist() -> Dataset:
    # The sums of the .gz files, from tensorflow-datasets' url_checksums/fashion_mnist.txt. Their MD5s are the ones in
    # the README of zalandoresearch/fashion-mnist and in torchvision.
    published = (
        ("train-images-idx3", 26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        ("train-labels-idx1", 29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        ("t10k-images-idx3", 4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        ("t10k-labels-idx1", 5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    )
    source = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    return Dataset(
        "fashion_mnist",
        tuple(File(f"fashion_mnist/{name}-ubyte.gz", size, sha256) for name, size, sha256 in published),
        tuple(
            Download(f"{source}/{name}-ubyte.gz", size, sha256, {f"fashion_mnist/{name}-ubyte.gz": ""})
            for name, size, sha256 in published
        ),
    )


def _cifar10() -> Dataset:
    folder = "cifar-10-batches-bin"
    sums = (
        ("data_batch_1", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
        ("data_batch_2", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
        ("data_batch_3", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
        ("data_batch_4", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
        ("data_batch_5", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
        ("test_batch", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
    )
    files = tuple(File(f"cifar10/{folder}/{name}.bin", 10_000 * (1 + 3_072), sha256) for name, sha256 in sums)
    # Its published MD5 is c32a1d4ab5d03f1284b67883e8d87530; the sum is that of tensorflow-datasets'
    # url_checksums/cifar10.txt.
    archive = Download(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        {file.place: file.place.removeprefix("cifar10/") for file in files},
    )
    return Dataset("cifar10", files, (archive,))


def _text() -> Dataset:
    file = File(
        "text/tinyshakespeare.txt",
        1_115_394,
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
    source = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    return Dataset("text", (file,), (Download(source, file.size, file.sha256, {file.place: ""}),))


DATASETS = {dataset.name: dataset for dataset in (_mnist(), _fashion_mnist(), _cifar10(), _text())}


def cache_folder() -> Path:
    """The user's cache folder of this package."""
    from platformdirs import user_cache_path

    return user_cache_path("widevalley", appauthor=False)


def data_folder(given: Path | None = None) -> Path:
    """Where data are looked for: ``given``, else ``$WIDEVALLEY_DATA``, else the user's cache folder."""
    if given is not None:
        return given
    named = os.environ.get("WIDEVALLEY_DATA")
    return Path(named) if named else cache_folder()


def contents(file: File, folder: Path) -> bytes:
    """The file's bytes, uncompressed if its name ends in .gz, after its sum was checked.

    Raises:
        DataError: it is missing, cannot be read or is not the registered one.
    """
    path = folder / file.place
    try:
        raw = path.read_bytes()
        unpacked = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except FileNotFoundError:
        raise refusal(file, folder, "is missing") from None
    except (OSError, EOFError, zlib.error) as error:
        raise refusal(file, folder, f"cannot be read ({error})") from error
    summed = unpacked if file.of_contents else raw
    if len(summed) != file.size:
        raise refusal(file, folder, f"is damaged: it has {len(summed):,} bytes{_of(file)}")
    found = hashlib.sha256(summed).hexdigest()
    if found != file.sha256:
        raise refusal(file, folder, f"is damaged: its SHA-256{_of(file)} is {found}")
    return unpacked


def refusal(file: File, folder: Path, what: str) -> DataError:
    """The error for a file in the state ``what``: where it belongs, what it should be, and what to type."""
    name = file.place.split("/")[0]
    return DataError(
        f"{folder / file.place} {what}. Expected there{_of(file)}: {file.size:,} bytes, SHA-256 {file.sha256}. "
        f'Type: widevalley data fetch {name} --data-dir "{folder}". Or, if you have the files, name the folder that '
        f"holds {file.place} with --data-dir or WIDEVALLEY_DATA."
    )


def state(file: File, folder: Path) -> str:
    """ "present", "missing" or "damaged", from the size alone."""
    path = folder / file.place
    try:
        with path.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            if file.of_contents:
                # A .gz file ends with the size of its contents modulo 2³², little-endian.
                opened.seek(max(0, size - 4))
                size = int.from_bytes(opened.read(), "little")
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"
    return "present" if size == file.size else "damaged"


def _of(file: File) -> str:
    return " uncompressed" if file.of_contents else ""
