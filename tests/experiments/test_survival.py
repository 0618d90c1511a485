"""Processes that are killed at any moment, and processes that share a folder, leave the records of one that was not."""

import json
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import quick
import survival_worker

KILLS = 50
if "forkserver" not in multiprocessing.get_all_start_methods():
    pytest.skip("there is no forkserver: each process would take seconds to start", allow_module_level=True)
PROCESSES = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def preloaded() -> Iterator[None]:
    """Each process is a copy of one that has imported everything, so that it starts in milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 does not tell that one where to find modules.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        PROCESSES.set_forkserver_preload(["survival_worker"])
        yield


def start(folder: Path, log: Path | None = None) -> Any:
    process = PROCESSES.Process(target=survival_worker.work, args=(folder, log))
    process.start()
    return process


def finish(process: Any) -> None:
    process.join(120)
    assert process.exitcode == 0


def records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Of every unit, without timings; and the plan with the chosen rates."""
    found = {
        path.name: quick.without_timings([json.loads(line) for line in path.read_text().splitlines()])
        for path in sorted((folder / "units").glob("*.jsonl"))
    }
    return {**found, "plan": [json.loads((folder / "comparison.json").read_text())]}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], float]:
    """Its records, and the seconds that it took."""
    folder = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start(folder.with_name("warm")))
    began = time.monotonic()
    finish(start(folder))
    return records(folder), time.monotonic() - began


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_records(
    undisturbed: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    moments = random.Random(0)
    inside, states = 0, 0
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        process = start(folder)
        process.join(moments.uniform(0, seconds))
        inside += process.is_alive()
        process.kill()
        process.join()
        states += any(folder.glob("units/*.state/*.pt"))
        finish(start(folder))
        assert records(folder) == expected
        assert not list(folder.glob("units/*.state"))
        assert not list(folder.rglob("*.partial"))
    # The kills hit what they are meant to: processes at work, and runs that had begun.
    assert inside > KILLS / 5
    assert states > KILLS / 10


@pytest.mark.slow
def test_three_processes_share_the_runs_and_do_none_twice(
    undisturbed: tuple[dict[str, Any], float], tmp_path: Path
) -> None:
    logs = [tmp_path / f"log{k}" for k in range(3)]
    processes = [start(tmp_path / "out", log) for log in logs]
    for process in processes:
        finish(process)
    ran = [name for log in logs for name in log.read_text().splitlines()]
    # 2 methods x 2 rates x 2 seeds, and 2 methods x 1 seed.
    assert len(ran) == len(set(ran)) == 10
    assert records(tmp_path / "out") == undisturbed[0]
