"""A ``measurement.json`` with real measures of networks small enough to measure in a test."""

import copy
import functools
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
import quick

from widevalley.experiments.measure import Plan, measure
from widevalley.experiments.measured import PARTS
from widevalley.experiments.subjects import Subject
from widevalley.landscape import Objective


class Quiet:
    def start(self, total): ...
    def part(self, title): ...
    def stage(self, what, done): ...
    def ended(self, title, said): ...
    def stop(self):
        return False


def objective(seed=0):
    """Of a network of 30 parameters."""
    return Objective(quick.trained_tiny(seed), data=[quick.clouds()])


def _subject(seed):
    of, name = objective(seed), f"net-{seed}"
    elsewhere = {} if seed else {"subset 1": Objective(of.model, data=[quick.clouds(seed=2)])}
    configuration = {"method": "sgd", "lr": 0.2, "seed": seed, "gradients": 200}
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    return Subject(name, f"runs/{name}.safetensors", sha256, configuration, of, 2.5, 30, elsewhere)


@functools.cache
def _measured():
    plan = Plan(
        tuple(_subject(seed) for seed in range(3)),
        "60 samples of two clouds, equally many of each class",
        "widevalley measure runs/net-0.safetensors runs/net-1.safetensors runs/net-2.safetensors",
        PARTS,
        asked=True,
        gammas=(10.0, 100.0),
        objective="small_measurement:objective",
    )
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        quick.few_chains(patch)
        return measure(plan, Path(folder) / "out", Quiet())


def three():
    """Three networks, all parts of each; the first on another subset too."""
    return copy.deepcopy(_measured())


def one(**changes):
    """The first of them alone."""
    record = three()
    record["networks"] = {"net-0": record["networks"]["net-0"] | changes}
    record["networks"]["net-0"]["surface"].get("to", {}).clear()
    return record | {"widths": None}


def write(folder, record):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measurement.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
