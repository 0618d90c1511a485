"""Downloads from a server on this machine that serves, breaks off, corrupts, refuses and stalls."""

import gzip
import hashlib
import io
import os
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from experiments.small_sets import register

from widevalley.experiments import files
from widevalley.experiments.download import CHUNK, fetch

CONTENT = os.urandom(300_000)


class Server(ThreadingHTTPServer):
    """Answers every path with ``bodies[path]``, in the ``manner`` set; "" is as it should be."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.manners: list[str] = []
        self.manner = ""
        self.requests = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def close(self) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        manner = self.server.manners.pop(0) if self.server.manners else self.server.manner
        body = self.server.bodies[self.path]
        if manner.isdigit():
            self.send_error(int(manner))
            return
        if manner == "stalls at once":
            self.server.over.wait()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = body[: len(body) // 2]
        if manner == "breaks off":
            self.wfile.write(half)
        elif manner == "stalls half way":
            self.wfile.write(half)
            self.wfile.flush()
            self.server.over.wait()
        elif manner == "corrupts":
            self.wfile.write(half + bytes(len(body) - len(half)))
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def single(server: Server, monkeypatch: pytest.MonkeyPatch) -> files.Dataset:
    """A set of two files, each a download of its own, one with the sum of its contents."""
    packed = gzip.compress(b"labels" * 50, mtime=0)
    server.bodies = {"/source.bin": CONTENT, "/labels.gz": packed}
    dataset = files.Dataset(
        "single",
        (
            files.File("single/content.bin", len(CONTENT), sha256(CONTENT)),
            files.File("single/labels.gz", 300, sha256(b"labels" * 50), of_contents=True),
        ),
        (
            files.Download(server.url("/source.bin"), len(CONTENT), sha256(CONTENT), {"single/content.bin": ""}),
            files.Download(server.url("/labels.gz"), len(packed), sha256(packed), {"single/labels.gz": ""}),
        ),
    )
    register(monkeypatch, dataset)
    return dataset


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


BOTH = [os.path.join("single", "content.bin"), os.path.join("single", "labels.gz")]


def test_what_is_missing_is_fetched_and_told(tmp_path: Path, server: Server, single: files.Dataset) -> None:
    told: list[tuple[int, int]] = []
    folder = tmp_path / "not yet there"
    written = fetch("single", folder, lambda done, total: told.append((done, total)))
    assert written == ["single/content.bin", "single/labels.gz"]
    assert below(folder) == BOTH
    assert (folder / "single" / "content.bin").read_bytes() == CONTENT
    total = sum(download.size for download in single.downloads)
    assert {of for _, of in told} == {total}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == total
    assert len(told) > 4
    # No leftover of the temporary folders.
    assert [path.name for path in folder.iterdir()] == ["single"]


def test_what_is_right_is_left_alone_and_what_is_damaged_replaced(
    tmp_path: Path, server: Server, single: files.Dataset
) -> None:
    fetch("single", tmp_path)
    before = server.requests
    assert fetch("single", tmp_path) == []
    assert server.requests == before
    (tmp_path / "single" / "content.bin").write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert fetch("single", tmp_path) == ["single/content.bin"]
    assert (tmp_path / "single" / "content.bin").read_bytes() == CONTENT
    assert server.requests == before + 1


@pytest.mark.parametrize(
    ("manner", "said"),
    [
        ("breaks off", "the connection broke off half way"),
        ("corrupts", "what came is damaged"),
        ("404", "the server answered 404 Not Found"),
        ("500", "the server answered 500 Internal Server Error"),
        ("stalls at once", "the server sent nothing for 0.3 seconds"),
        ("stalls half way", "the server sent nothing for 0.3 seconds"),
    ],
)
def test_a_failure_is_named_and_leaves_nothing_and_the_next_attempt_succeeds(
    tmp_path: Path, server: Server, single: files.Dataset, manner: str, said: str
) -> None:
    server.manner = manner
    began = time.monotonic()
    with pytest.raises(files.DataError) as error:
        fetch("single", tmp_path, timeout=0.3, retries=0)
    # The stalling server would wait for ever.
    assert time.monotonic() - began < 4
    assert f"{server.url('/source.bin')} could not be fetched: {said}" in str(error.value)
    assert f"{len(CONTENT):,} bytes, SHA-256 {sha256(CONTENT)}" in str(error.value)
    assert f"put it at {tmp_path / 'single' / 'content.bin'}" in str(error.value)
    assert list(tmp_path.iterdir()) == []
    server.manner = ""
    fetch("single", tmp_path)
    assert below(tmp_path) == BOTH


def test_a_refused_connection_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/content.bin"
    file = files.File("gone/content.bin", 9, "0" * 64)
    register(monkeypatch, files.Dataset("gone", (file,), (files.Download(url, 9, "0" * 64, {file.place: ""}),)))
    with pytest.raises(files.DataError, match=f"{url} could not be fetched: no connection .*refused"):
        fetch("gone", tmp_path, retries=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("manner", ["500", "breaks off", "corrupts"])
def test_a_passing_failure_is_tried_again(tmp_path: Path, server: Server, single: files.Dataset, manner: str) -> None:
    server.manners = [manner]
    told: list[int] = []
    fetch("single", tmp_path, lambda done, total: told.append(done), retries=1)
    assert below(tmp_path) == BOTH
    assert told[-1] == sum(download.size for download in single.downloads)
    # A second attempt counts from the start; an answer of 500 brought nothing the first time.
    assert told.count(CHUNK) == (1 if manner == "500" else 2)


def test_a_failure_keeps_the_files_that_came_before(tmp_path: Path, server: Server, single: files.Dataset) -> None:
    server.manners = ["", "404"]
    with pytest.raises(files.DataError, match=r"labels\.gz could not be fetched"):
        fetch("single", tmp_path, retries=0)
    assert below(tmp_path) == BOTH[:1]


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path: Path, single: files.Dataset) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(files.DataError, match=r"could not be fetched: .*Error"):
        fetch("single", tmp_path / "file" / "below", retries=0)


PARTS = {"bin/a.bin": CONTENT[:5000], "bin/b.bin": CONTENT[5000:9000]}


def archive(parts: dict[str, bytes], link: str | None = None) -> bytes:
    stored = io.BytesIO()
    with tarfile.open(fileobj=stored, mode="w:gz") as tar:
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(member)
    return stored.getvalue()


def packed_set(server: Server, content: bytes) -> files.Dataset:
    server.bodies = {"/all.tar.gz": content}
    written = tuple(files.File(f"packed/{name}", len(part), sha256(part)) for name, part in PARTS.items())
    members = {file.place: file.place.removeprefix("packed/") for file in written}
    download = files.Download(server.url("/all.tar.gz"), len(content), sha256(content), members)
    return files.Dataset("packed", written, (download,))


def test_of_an_archive_only_the_expected_files_are_unpacked(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    content = archive({**PARTS, "../outside.txt": b"?", "/tmp/outside.txt": b"?", "bin/more.txt": b"?"})
    register(monkeypatch, packed_set(server, content))
    assert fetch("packed", folder) == ["packed/bin/a.bin", "packed/bin/b.bin"]
    assert below(tmp_path) == [os.path.join("data", "packed", "bin", name) for name in ("a.bin", "b.bin")]
    assert (folder / "packed" / "bin" / "b.bin").read_bytes() == PARTS["bin/b.bin"]
    # One file gone: the archive is fetched again, and the right one left alone.
    untouched = (folder / "packed" / "bin" / "a.bin").stat()
    (folder / "packed" / "bin" / "b.bin").unlink()
    assert fetch("packed", folder) == ["packed/bin/b.bin"]
    assert (folder / "packed" / "bin" / "a.bin").stat().st_ino == untouched.st_ino


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive({"bin/a.bin": PARTS["bin/a.bin"]}), "bin/b.bin"),
        (archive({"bin/a.bin": PARTS["bin/a.bin"]}, link="bin/b.bin"), "bin/b.bin is no plain file"),
        (archive({**PARTS, "bin/b.bin": b"another"}), "is damaged"),
        (b"no archive at all", "ReadError"),
    ],
    ids=["lacks a file", "link", "other contents", "no archive"],
)
def test_an_archive_that_does_not_hold_the_right_files_leaves_nothing(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    register(monkeypatch, packed_set(server, content))
    with pytest.raises(files.DataError, match=f"could not be fetched: .*{said}") as error:
        fetch("packed", tmp_path, retries=0)
    assert f"unpack it so that there is {tmp_path / 'packed' / 'bin' / 'a.bin'}" in str(error.value)
    assert list(tmp_path.iterdir()) == []
