"""A square matrix in memory or on disk, written block of rows by block of rows, so that a killed run continues."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from widevalley.writing import write

STATE = "done.json"
# As large as a block may be that is held beside the matrix.
BLOCK_BYTES = 2**28
# The same loss again, on other threads or another machine.
SAME_LOSS = 1e-5


class MatrixStore:
    """Rows of a matrix (n, n), in memory on ``device``, or with ``folder`` in ``folder``/hessian.npy.

    ``state`` is what is done, kept in ``folder``/done.json, replaced whole by ``commit`` after what it speaks of is on
    the disk. With ``identity``, what the matrix is of, a folder that holds another one is refused.
    """

    def __init__(
        self,
        n: int,
        dtype: torch.dtype,
        device: torch.device,
        folder: str | os.PathLike[str] | None,
        identity: dict[str, Any],
    ) -> None:
        self.n, self.dtype, self.device = n, dtype, device
        self.state: dict[str, Any] = {}
        self._tensor: Tensor | None = None
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            self._tensor = torch.empty(n, n, dtype=dtype, device=device)
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open(self.folder, identity)

    @property
    def block(self) -> int:
        """Rows of a block."""
        return max(1, min(self.n, BLOCK_BYTES // (self.n * self.dtype.itemsize)))

    def read(self, rows: slice, columns: slice = slice(None)) -> Tensor:
        """A copy, or a view where the matrix is in memory."""
        if self._tensor is not None:
            return self._tensor[rows, columns]
        return torch.from_numpy(np.array(self._map("r")[rows, columns])).to(self.device)

    def write(self, rows: slice, values: Tensor, columns: slice = slice(None)) -> None:
        if self._tensor is not None:
            self._tensor[rows, columns] = values
            return
        self._map("r+")[rows, columns] = values.cpu().numpy()

    def commit(self, **done: Any) -> None:
        self.state |= done
        if self.folder is not None:
            with (self.folder / "hessian.npy").open("r+b") as file:
                os.fsync(file.fileno())
            write(self.folder / STATE, json.dumps(self.state))

    def whole(self) -> Tensor:
        """The matrix: the one in memory, or the file mapped into memory."""
        return torch.from_numpy(self._map("r+")) if self._tensor is None else self._tensor

    def loaded(self) -> Tensor:
        """The matrix in memory; with ``folder`` a copy of what is on disk."""
        if self._tensor is not None:
            return self._tensor
        matrix = torch.empty(self.n, self.n, dtype=self.dtype, device=self.device)
        for start in range(0, self.n, self.block):
            rows = slice(start, start + self.block)
            matrix[rows] = self.read(rows)
        return matrix

    def _open(self, folder: Path, identity: dict[str, Any]) -> None:
        place = folder / STATE
        if place.exists():
            self.state = json.loads(place.read_text(encoding="utf-8"))
            found = self.state["identity"]
            if not _same(found, identity):
                raise ValueError(
                    f"{folder} holds another matrix, {found}, while this is {identity}: give another folder, or "
                    "delete it"
                )
            return
        _create(folder / "hessian.npy", self.n, self.dtype)
        self.commit(identity=identity)

    def _map(self, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
        assert self.folder is not None
        return _map(self.folder / "hessian.npy", mode)


class Checkpoints:
    """The reduction to band form, saved every ``seconds`` into ``folder``, which a ``MatrixStore`` has too."""

    def __init__(self, folder: Path, seconds: float = 300.0) -> None:
        self.folder, self.seconds = folder, seconds
        self._last = time.monotonic()

    def read(self) -> tuple[Path, int, Tensor, Tensor] | None:
        """File of the matrix, where to go on, diagonals, triangles; None if there are none."""
        place = self.folder / "band.json"
        if not place.exists():
            return None
        start = int(json.loads(place.read_text(encoding="utf-8"))["start"])
        with np.load(self.folder / f"band-{start}.npz") as saved:
            diagonals, triangles = (torch.from_numpy(saved[name]) for name in ("diagonals", "triangles"))
        return self.folder / f"band-{start}.npy", start, diagonals, triangles

    def load(self, file: Path, matrix: Tensor) -> None:
        """What lies below the tiles was not written, and is zero."""
        rows = max(1, BLOCK_BYTES // matrix[:1].nbytes)
        for first in range(0, len(matrix), rows):
            matrix[first : first + rows] = torch.from_numpy(np.array(_map(file, "r")[first : first + rows]))

    def write_if_due(self, matrix: Tensor, start: int, diagonals: Tensor, triangles: list[Tensor], tile: int) -> None:
        if time.monotonic() - self._last < self.seconds:
            return
        before = self.read()
        file = self.folder / f"band-{start}.npy"
        _create(file, len(matrix), matrix.dtype)
        for first in range(0, len(matrix), tile):
            saved = _map(file, "r+")
            saved[first : first + tile, first:] = matrix[first : first + tile, first:].cpu().numpy()
            saved.flush()
        with (self.folder / f"band-{start}.npz").open("wb") as stream:
            np.savez(stream, diagonals=diagonals.numpy(), triangles=torch.stack(triangles).numpy())
            os.fsync(stream.fileno())
        write(self.folder / "band.json", json.dumps({"start": start}))
        if before is not None:
            before[0].unlink(missing_ok=True)
            before[0].with_suffix(".npz").unlink(missing_ok=True)
        self._last = time.monotonic()


def _create(file: Path, n: int, dtype: torch.dtype) -> None:
    """Zeros (n, n), without writing them where the file system has sparse files."""
    np.lib.format.open_memmap(file, mode="w+", dtype=torch.empty(0, dtype=dtype).numpy().dtype, shape=(n, n))


def _map(file: Path, mode: Literal["r", "r+"]) -> np.memmap[Any, Any]:
    """To be let go of after each block, or its pages would count as this process' memory."""
    return cast("np.memmap[Any, Any]", np.load(file, mmap_mode=mode))


def _same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return found.keys() == wanted.keys() and all(
        math.isclose(found[key], value, rel_tol=SAME_LOSS, abs_tol=SAME_LOSS)
        if isinstance(value, float)
        else found[key] == value
        for key, value in wanted.items()
    )
