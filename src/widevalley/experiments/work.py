"""One unit worked off in a folder that several processes share: its records, its checkpoints, its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from widevalley.experiments import train
from widevalley.experiments.data import Data
from widevalley.experiments.folder import Folder
from widevalley.experiments.recording import Progress, Recorder, configuration
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.tasks import Task
from widevalley.experiments.train import Unit


@dataclass(frozen=True)
class Worker:
    """What runs the units of one task.

    Args:
        data: on the device; asked for only when a unit is run.
        changes: what was altered of the task, for the record.
    """

    task: Task
    data: Callable[[], Data]
    folder: Folder
    progress: Progress
    changes: Record = field(default_factory=dict)
    device: str = "cpu"
    tensorboard: bool = False

    def ended(self, unit: Unit) -> Record | None:
        """The result of a unit that has ended; what a process killed after its last write left of it is cleared."""
        result = self.folder.result(unit, self._configuration(unit))
        checkpoints = self.folder.checkpoints(unit, self.progress.warn)
        if result and checkpoints.folder.exists():
            with self.folder.try_lock(unit) as ours:
                if ours:
                    checkpoints.clear()
        return result

    def work(self, unit: Unit) -> Record:
        """Runs it, from its newest checkpoint, and returns its result. The network of a final run is kept."""
        folder = self.folder
        self.progress.unit(unit)
        checkpoints = folder.checkpoints(unit, self.progress.warn)
        header = self._configuration(unit)
        events = folder.board(unit) if self.tensorboard else None
        recorder = Recorder(unit, header, folder.records(unit), self.progress, folder.weights(unit), board=events)
        with recorder:
            records, network = train.run(unit, self.task, self.data(), recorder, checkpoints, self.device)
            if network is not None and unit.phase == "final":
                recorder.save(network)
            # The result last: a unit that has one is complete.
            recorder.write(records)
        checkpoints.clear()
        # As the file holds it, rounded: the choice of a rate is the same in every process.
        result: Record = rounded(records[-1])
        return result

    def _configuration(self, unit: Unit) -> Record:
        return configuration(unit, self.task, self.changes, self.device)
