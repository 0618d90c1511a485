"""Every eigenvalue at one of the paper's minima, as an ordinary measurement in a folder of its own."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from widevalley.experiments import measure
from widevalley.experiments.checkpoints import Checkpoints
from widevalley.experiments.data import Split
from widevalley.experiments.evaluation import score
from widevalley.experiments.folder import Folder, read_json
from widevalley.experiments.minima import Minimum, MinimumError, Samples, reach, samples
from widevalley.experiments.recording import Progress
from widevalley.experiments.records import Record
from widevalley.experiments.subjects import Subject
from widevalley.experiments.weights import save_weights
from widevalley.landscape import Objective
from widevalley.writing import write

# Of the products: one with several vectors keeps a batch's graph in memory, and in a cache if it is small.
BATCH = 128
# About what a spectrum takes on two cores of the machine of our results.
HOURS = {"fig1": 2.4, "fig3a": 0.9, "fig3b": 1.0}
# Held while a spectrum is taken: two would not fit into the memory of one machine.
ALONE = "spectrum"


@dataclass(frozen=True)
class _Told:
    """A ``measure.Progress``, and ``minima.Stages``, that passes on what the reproduction's progress can tell."""

    name: str
    progress: Progress

    def start(self, total: int) -> None: ...
    def part(self, title: str) -> None: ...
    def ended(self, title: str, said: str) -> None: ...
    def stage(self, what: str, done: float) -> None:
        self.progress.measuring(f"{self.name}: {what}", done, 1)

    def stop(self) -> bool:
        return self.progress.stop()


class Spectrum:
    """A job of the reproduction."""

    def __init__(self, minimum: Minimum, folder: Folder, progress: Progress, data: Path | None, command: str) -> None:
        self.minimum, self.folder, self.progress, self.data, self.command = minimum, folder, progress, data, command
        self.path = folder.path / "spectra" / minimum.name
        self.weights = folder.path / "networks" / f"{minimum.name}.safetensors"

    @property
    def name(self) -> str:
        return f"spectrum-{self.minimum.name}"

    @property
    def gradients(self) -> int:
        return self.minimum.gradients

    @property
    def hours(self) -> float:
        return HOURS.get(self.minimum.figure, 0.0)

    def ready(self) -> bool:
        """Whether no other process is at a spectrum."""
        with self.folder.try_lock(_Alone()) as free:
            return free

    def ended(self) -> Record | None:
        path = self.path / measure.FILE
        if not path.exists():
            return None
        network = read_json(path)["networks"].get(self.minimum.name, {})
        found: Record = network.get("spectrum", {})
        # The rest is of other samples: without the network's weights it cannot be had any more.
        ended = "eigenvalues" in found and ("unfinished" not in found or not self.weights.exists())
        return found if ended else None

    def work(self) -> Record:
        """Raises MinimumError where it cannot be had, with what to do."""
        with self.folder.lock(ALONE):
            given = samples(self.minimum, self.data)
            network, about = self._network(given)
            plan = measure.Plan(
                (self._subject(network, about, given),), _said(given), self.command, ("spectrum",), asked=True,
                task=self.minimum.task.name,
            )  # fmt: skip
            record = measure.measure(plan, self.path, _Told(self.name, self.progress), resume=True)
        found: Record = record["networks"][self.minimum.name]["spectrum"]
        if "skipped" in found:
            raise MinimumError(f"{self.name}: {found['skipped']}")
        return found

    def tell(self, result: Record, skipped: bool) -> None:
        values = result["eigenvalues"]
        said = f"{len(values):,} eigenvalues from {values[0]:.4g} to {values[-1]:.4g}"
        self.progress.job(self.name, said, skipped)

    def _network(self, given: Samples) -> tuple[nn.Module, Record]:
        """From its file, where an earlier call trained it; else from where an earlier call was stopped in training."""
        beside = self.weights.with_suffix(".json")
        if self.weights.exists() and beside.exists():
            with torch.random.fork_rng(devices=[]):
                network = self.minimum.task.network()
            network.load_state_dict(load_file(self.weights))
            return network.eval(), read_json(beside)
        states = self.weights.with_suffix(".state")
        network, about = reach(
            self.minimum, given, _Told(self.name, self.progress),
            lambda name: Checkpoints(states / name, warn=self.progress.warn),
        )  # fmt: skip
        # What was begun there is of weights that are lost; another training ends at others, to the last digit.
        shutil.rmtree(self.path, ignore_errors=True)
        save_weights(network, self.weights, about)
        write(beside, json.dumps(about))
        shutil.rmtree(states, ignore_errors=True)
        return network, about

    def _subject(self, network: nn.Module, about: Record, given: Samples) -> Subject:
        dtype = torch.float64 if self.minimum.double else torch.float32
        exact = copy.deepcopy(network).to(dtype)
        measured = given.measured
        with torch.no_grad():
            classes = network(measured.inputs[:1]).shape[1]
        return Subject(
            self.minimum.name,
            self.weights.name,
            hashlib.sha256(self.weights.read_bytes()).hexdigest(),
            about,
            _objective(exact, measured, dtype),
            score(network, measured).error,
            measured.targets.numel() * (classes - 1),
            # By products alone, to five digits: float32 does.
            {name: _objective(network, split, torch.float32) for name, split in given.elsewhere.items()},
        )


class _Alone:
    name = ALONE


def _objective(network: nn.Module, split: Split, dtype: torch.dtype) -> Objective:
    inputs = split.inputs.to(dtype) if split.inputs.is_floating_point() else split.inputs
    return Objective(network, data=list(zip(inputs.split(BATCH), split.targets.split(BATCH), strict=True)))


def _said(given: Samples) -> str:
    if given.elsewhere:
        return f"{len(given.measured):,} training images, equally many of each class, drawn with seed 0"
    return f"{len(given.measured)} lines of text"
