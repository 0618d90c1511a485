"""Checkpoints and whole files: what a kill, a full disk or a damaged file leaves."""

import errno
import os
from pathlib import Path

import pytest
import quick
import torch
from test_train import StopsAt

from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.records import rounded
from widevalley.experiments.train import Quiet, Stopped, run
from widevalley.writing import write


def test_the_newest_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for gradients in (9, 10, 11):
        path = checkpoints.save(gradients, {"tensor": torch.arange(gradients), "plain": [1.5, None, (2, "a")]})
    assert len(list(tmp_path.iterdir())) == 2
    found = checkpoints.load()
    assert torch.equal(found["tensor"], torch.arange(11))
    assert found["plain"] == [1.5, None, (2, "a")]
    assert torch.equal(torch.load(path, weights_only=True)["tensor"], torch.arange(11))
    checkpoints.clear()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["cut off", "one bit", "empty"])
def test_the_one_before_a_damaged_state_is_used_and_it_is_said(tmp_path: Path, damage: str) -> None:
    warned: list[str] = []
    checkpoints = Checkpoints(tmp_path, warn=warned.append)
    checkpoints.save(1, {"gradients": 1})
    newest = checkpoints.save(2, {"gradients": 2})
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut off": content[:-7], "one bit": content, "empty": b""}[damage])
    assert checkpoints.load() == {"gradients": 1}
    assert not newest.exists()
    assert len(warned) == 1
    assert f"{newest} is damaged" in warned[0]


def test_with_all_states_damaged_it_is_from_the_start_and_new_ones_are_kept(tmp_path: Path) -> None:
    warned: list[str] = []
    checkpoints = Checkpoints(tmp_path, warn=warned.append)
    for gradients in (20, 21):
        checkpoints.save(gradients, {}).write_bytes(b"garbage")
    assert checkpoints.load() is None
    assert "going on from the one before it" in warned[0]
    assert "going on from the start" in warned[1]
    path = checkpoints.save(5, {"gradients": 5})
    assert path.exists()
    assert checkpoints.load() == {"gradients": 5}


def test_half_written_states_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / "state-000000003-0123456789abcdef.pt.partial").write_bytes(b"half")
    Checkpoints(tmp_path).save(5, {})
    assert len(list(tmp_path.iterdir())) == 1


def test_a_run_goes_on_from_the_state_before_a_damaged_one(tmp_path: Path) -> None:
    whole = run(quick.unit("entropy-sgd"), quick.TASK, quick.digits(), Quiet())[0]
    warned: list[str] = []
    for gradients in (13, 29):
        with pytest.raises(Stopped):
            run(quick.unit("entropy-sgd"), quick.TASK, quick.digits(), StopsAt(gradients), Checkpoints(tmp_path))
    (tmp_path / next(path.name for path in tmp_path.iterdir() if "029" in path.name)).write_bytes(b"garbage")
    checkpoints = Checkpoints(tmp_path, warn=warned.append)
    found = run(quick.unit("entropy-sgd"), quick.TASK, quick.digits(), Quiet(), checkpoints)[0]
    assert quick.without_timings(found) == quick.without_timings(whole)
    assert len(warned) == 1


def test_states_are_written_when_they_are_due(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, every=0.0)
    run(quick.unit("sgd", gradients=7), quick.TASK, quick.digits(), Quiet(), checkpoints)
    assert sorted(path.name.split("-")[1] for path in tmp_path.iterdir()) == ["000000006", "000000007"]
    assert not Checkpoints(tmp_path, every=1000.0).due


def test_a_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_are_rounded_to_six_digits_and_nothing_else() -> None:
    record = {"a": 1 / 3, "b": [2 / 3, {"c": 123456789}], "d": "0.123456789", "e": True, "f": None}
    assert rounded(record) == {
        "a": 0.333333,
        "b": [0.666667, {"c": 123456789}],
        "d": "0.123456789",
        "e": True,
        "f": None,
    }
