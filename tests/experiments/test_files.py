"""The registry of files: a file is used only if it is the registered one, and what is wrong with it is said."""

import gzip
import hashlib
from pathlib import Path

import pytest

from widevalley.experiments import files

CONTENT = b"one plain line\n" * 20
SUM = hashlib.sha256(CONTENT).hexdigest()
PLAIN = files.File("set/plain.txt", len(CONTENT), SUM)
OF_CONTENTS = files.File("set/packed.gz", len(CONTENT), SUM, of_contents=True)
PACKED = gzip.compress(CONTENT, mtime=0)
OF_FILE = files.File("set/packed.gz", len(PACKED), hashlib.sha256(PACKED).hexdigest())


def put(folder: Path, file: files.File, content: bytes) -> None:
    path = folder / file.place
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "stored"),
    [
        (PLAIN, CONTENT),
        (OF_FILE, PACKED),
        (OF_CONTENTS, PACKED),
        # Compressed again by other means, the contents are the same.
        (OF_CONTENTS, gzip.compress(CONTENT, compresslevel=1, mtime=7)),
    ],
    ids=["plain", "sum of the .gz", "sum of the contents", "packed anew"],
)
def test_a_right_file_is_read(tmp_path: Path, file: files.File, stored: bytes) -> None:
    put(tmp_path, file, stored)
    assert files.contents(file, tmp_path) == CONTENT
    assert files.state(file, tmp_path) == "present"


@pytest.mark.parametrize(
    ("file", "stored", "what", "state"),
    [
        (PLAIN, None, "is missing", "missing"),
        (PLAIN, CONTENT[:-1], "is damaged: it has 299 bytes", "damaged"),
        # The size is right: only reading tells.
        (PLAIN, CONTENT.replace(b"line", b"lime"), "is damaged: its SHA-256 is", "present"),
        (OF_FILE, gzip.compress(CONTENT, compresslevel=0, mtime=0), "is damaged: it has", "damaged"),
        (OF_CONTENTS, PACKED[:-9], "cannot be read", "damaged"),
        (OF_CONTENTS, b"no gzip", "cannot be read", "damaged"),
        (OF_CONTENTS, b"", "damaged: it has 0 bytes uncompressed", "damaged"),
        (
            OF_CONTENTS,
            gzip.compress(CONTENT.replace(b"line", b"lime")),
            "is damaged: its SHA-256 uncompressed is",
            "present",
        ),
    ],
    ids=["missing", "cut", "changed", "other .gz", "cut .gz", "no gzip", "empty", "changed contents"],
)
def test_a_wrong_file_is_named_with_what_it_should_be_and_what_to_type(
    tmp_path: Path, file: files.File, stored: bytes | None, what: str, state: str
) -> None:
    if stored is not None:
        put(tmp_path, file, stored)
    assert files.state(file, tmp_path) == state
    with pytest.raises(files.DataError) as error:
        files.contents(file, tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / file.place} ")
    assert what in said
    assert f"{file.size:,} bytes, SHA-256 {file.sha256}" in said
    assert f'widevalley data fetch set --data-dir "{tmp_path}"' in said
    assert "--data-dir or WIDEVALLEY_DATA" in said


def test_a_folder_where_a_file_belongs_is_damaged(tmp_path: Path) -> None:
    (tmp_path / PLAIN.place).mkdir(parents=True)
    assert files.state(PLAIN, tmp_path) == "damaged"
    with pytest.raises(files.DataError, match="cannot be read"):
        files.contents(PLAIN, tmp_path)


def test_every_file_of_the_registry_comes_with_a_download_and_lies_in_its_sets_folder() -> None:
    for name, dataset in files.DATASETS.items():
        places = [file.place for file in dataset.files]
        brought = [place for download in dataset.downloads for place in download.members]
        assert sorted(places) == sorted(brought)
        assert {place.split("/")[0] for place in places} == {name}
        sums = [file.sha256 for file in dataset.files] + [download.sha256 for download in dataset.downloads]
        assert all(len(bytes.fromhex(found)) == 32 for found in sums)


def test_the_folder_is_the_argument_then_the_environment_then_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WIDEVALLEY_DATA", str(tmp_path / "named"))
    assert files.data_folder(tmp_path) == tmp_path
    assert files.data_folder() == tmp_path / "named"
    monkeypatch.delenv("WIDEVALLEY_DATA")
    assert files.data_folder() == files.cache_folder()
    assert files.cache_folder().name == "widevalley"
