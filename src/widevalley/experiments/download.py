"""Fetching data sets: checked before a file stands under its name, and never half there."""

from __future__ import annotations

import contextlib
import logging
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from widevalley.experiments.files import DATASETS, DataError, Download, File, contents

# Seconds without a byte after which a server counts as stalled, and further attempts.
TIMEOUT = 30.0
RETRIES = 2
CHUNK = 1 << 16

Progress = Callable[[int, int], None]  # bytes done, bytes in all


def fetch(
    name: str, folder: Path, progress: Progress | None = None, *, timeout: float = TIMEOUT, retries: int = RETRIES
) -> list[str]:
    """Downloads what is missing or damaged of the data set ``name`` under ``folder``; returns the places written.

    A file that is there and right is left alone. Whatever goes wrong, no wrong and no partial file is left.

    Raises:
        DataError: it could not be fetched; says the URL, what happened and where to put the file by hand.
    """
    dataset = DATASETS[name]
    files = {file.place: file for file in dataset.files}
    right = {place for place, file in files.items() if _is_right(file, folder)}
    wanted = [download for download in dataset.downloads if not right.issuperset(download.members)]
    total, before = sum(download.size for download in wanted), 0
    written: list[str] = []
    for download in wanted:
        meter = _Meter(download.size, before, total, progress)
        lacking = [files[place] for place in download.members if place not in right]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Beside the final places, so that a rename puts a file there all at once.
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
                brought = _request(download, Path(temporary), meter, timeout, retries)
                _install(download, lacking, brought, Path(temporary), folder)
        except Exception as error:
            raise _refusal(download, lacking, folder, error, timeout) from error
        written += [file.place for file in lacking]
        before += download.size
    return written


class _Meter:
    """What pooch takes for a progress bar: one download of several."""

    def __init__(self, size: int, before: int, all_bytes: int, progress: Progress | None) -> None:
        self.size, self.before, self.all_bytes, self.progress = size, before, all_bytes, progress
        self.done = 0

    @property
    def total(self) -> int:
        return self.size

    @total.setter
    def total(self, announced: int) -> None:
        # Set when an attempt starts. Servers need not announce a length, so that the registered size stands.
        self.done = 0

    def update(self, arrived: int) -> None:
        self.done = min(self.done + arrived, self.size)
        if self.progress is not None:
            self.progress(self.before + self.done, self.all_bytes)

    def reset(self) -> None:
        # Before the end pooch counts the announced length once more: with no effect, as nothing exceeds the size.
        pass

    def close(self) -> None:
        pass


def _is_right(file: File, folder: Path) -> bool:
    try:
        contents(file, folder)
    except DataError:
        return False
    return True


def _request(download: Download, temporary: Path, meter: _Meter, timeout: float, retries: int) -> Path:
    """The download under its own name in the temporary folder, its sum checked by pooch."""
    import pooch

    name = download.url.rsplit("/", 1)[-1]
    courier = pooch.create(
        path=temporary,
        base_url="",
        registry={name: f"sha256:{download.sha256}"},
        urls={name: download.url},
        retry_if_failed=retries,
    )
    logger = pooch.get_logger()
    level = logger.level
    with contextlib.ExitStack() as ending:
        # The command says what is fetched, and how far it is.
        ending.callback(logger.setLevel, level)
        logger.setLevel(logging.WARNING)

        # pooch leaves the connection open where an answer is refused or breaks off.
        def close_at_the_end(response: Any, **_: Any) -> None:
            ending.callback(response.close)

        downloader = pooch.HTTPDownloader(
            progressbar=meter,
            chunk_size=CHUNK,
            timeout=timeout,
            # Else a server may pack the bytes once more, and the length that it announces is another.
            headers={"Accept-Encoding": "identity"},
            hooks={"response": close_at_the_end},
        )
        return Path(courier.fetch(name, downloader=downloader))


def _install(download: Download, lacking: list[File], brought: Path, temporary: Path, folder: Path) -> None:
    """Puts each file in its place after its own sum was checked in the temporary folder."""
    for file in lacking:
        staged = temporary / file.place
        staged.parent.mkdir(parents=True, exist_ok=True)
        if member := download.members[file.place]:
            _unpack(brought, member, staged)
        else:
            brought.replace(staged)
        contents(file, temporary)
    for file in lacking:
        (folder / file.place).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary / file.place, folder / file.place)


def _unpack(archive: Path, member: str, staged: Path) -> None:
    """One expected file of the archive, and nothing else that may be in it."""
    with tarfile.open(archive) as tar:
        found = tar.getmember(member)
        if not found.isfile():
            raise ValueError(f"{member} is no plain file in {archive.name}")
        tar.extract(found.replace(name=staged.name), staged.parent, filter="data")


def _refusal(download: Download, lacking: list[File], folder: Path, error: Exception, timeout: float) -> DataError:
    by_hand = f"put it at {folder / lacking[0].place}"
    if download.members[lacking[0].place]:
        by_hand = "unpack it so that there is " + ", ".join(str(folder / file.place) for file in lacking)
    return DataError(
        f"{download.url} could not be fetched: {_what_happened(error, timeout)}. Nothing of it was kept. Try again "
        f"later, or fetch it by other means ({download.size:,} bytes, SHA-256 {download.sha256}) and {by_hand}."
    )


def _what_happened(error: Exception, timeout: float) -> str:
    import requests
    from urllib3.exceptions import ReadTimeoutError

    response: Any = getattr(error, "response", None)
    inner = error.args[0] if error.args else None
    if isinstance(error, requests.HTTPError) and response is not None:
        return f"the server answered {response.status_code} {response.reason}"
    if isinstance(error, requests.Timeout) or isinstance(inner, ReadTimeoutError):
        return f"the server sent nothing for {timeout:g} seconds"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off half way"
    if isinstance(error, requests.ConnectionError):
        # The reason alone: around it urllib3 says the address and the path again.
        return f"no connection ({str(getattr(inner, 'reason', inner)).partition(': ')[2] or inner})"
    if isinstance(error, ValueError) and "hash" in str(error):
        return "what came is damaged, its SHA-256 is another"
    return f"{type(error).__name__}: {error}"
