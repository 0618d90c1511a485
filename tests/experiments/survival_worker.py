"""A process that works on a comparison: what test_survival starts, kills, and starts again."""

from dataclasses import replace
from pathlib import Path

import quick
import torch
from test_compare import Progress

from widevalley.experiments import checkpoints, sharing, train
from widevalley.experiments.compare import compare

# Read before any process is copied from this one.
quick.digits()


def work(folder: Path, log: Path | None = None) -> None:
    """Goes on with the comparison, with a checkpoint after every step; ``log`` gets the names of the runs done here."""
    torch.set_num_threads(1)
    checkpoints.EVERY = 0.0
    train.EVALUATIONS = 4
    sharing.PATIENCE = 0.02
    progress = Progress()
    plan = quick.plan("sgd", "entropy-sgd", seeds=1, rates=2)
    # Several seeds a rate, so that the choice is between means.
    plan = replace(plan, task=replace(plan.task, tuning_seeds=2))
    compare(plan, quick.digits(), folder, resume=True, progress=progress)
    if log:
        log.write_text("\n".join(progress.ran))
