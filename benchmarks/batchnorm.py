"""How many images the batch-norm statistics of a network should be re-estimated on.

    python benchmarks/batchnorm.py mnist [--curves mnistfc-authors,mnistfc-adam] [--gradients 28080] [--out …]

Runs of Fig. 4 (``widevalley reproduce``), seed 0, stopped after so many gradients. The weights at the centre, with
statistics of so many training images: losses and errors, how much of the training loss five images make, and how many
channels have a variance of 0.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from telling import append, made
from torch import nn
from torch.nn.functional import cross_entropy

from widevalley import update_batchnorm
from widevalley.experiments.data import Split
from widevalley.experiments.paper import FIG4A, FIG4B
from widevalley.experiments.records import Record, rounded
from widevalley.experiments.train import Training

CURVES = {curve.name: curve for curve in (*FIG4A, *FIG4B)}
WORST = 5


@torch.no_grad()
def losses(network: nn.Module, split: Split) -> tuple[torch.Tensor, float]:
    """Of each image, and the error in percent."""
    logits = torch.cat([network(inputs) for inputs in split.inputs.split(1000)]).double()
    error = 100 * float((logits.argmax(1) != split.targets).double().mean())
    return cross_entropy(logits, split.targets, reduction="none"), error


def evaluated(training: Training, images: int) -> Record:
    with training.learner.evaluated() as model:
        network = copy.deepcopy(model)
    inputs, size = training.data.train.inputs, training.evaluate.batch_size
    update_batchnorm(
        network, [inputs[some] for some in training.evaluate.order[:images].split(size) if len(some) == size]
    )
    network.eval()
    each, error = losses(network, training.data.train)
    others, test_error = losses(network, training.data.test)
    variances = [buffer for name, buffer in network.named_buffers() if name.endswith("running_var")]
    return {
        "images": images,
        "train_loss": float(each.mean()),
        "train_error": error,
        "test_loss": float(others.mean()),
        "test_error": test_error,
        f"share_of_worst_{WORST}": float(each.topk(WORST).values.sum() / each.sum()),
        "channels": sum(len(variance) for variance in variances),
        "channels_without_variance": sum(int((variance == 0).sum()) for variance in variances),
    }


def mnist(arguments: argparse.Namespace) -> None:
    for name in arguments.curves:
        curve = CURVES[name]
        data = curve.task.data(arguments.data_dir)
        unit = curve.units(curve.candidates[0])[0]
        with torch.random.fork_rng(devices=[]):
            training = Training(unit, curve.task, data)
            while training.taken < arguments.gradients:
                training.step()
        record = {
            "curve": name,
            "seed": unit.seed,
            "gradients": training.taken,
            "statistics": [evaluated(training, images) for images in arguments.images],
            **made(),
        }
        print(json.dumps(rounded(record)))
        if arguments.out is not None:
            append(arguments.out, rounded(record))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    real = parser.add_subparsers(dest="mode", required=True).add_parser("mnist")
    real.add_argument("--curves", type=lambda text: text.split(","), default="mnistfc-authors,mnistfc-adam")
    real.add_argument("--gradients", type=int, default=28_080)
    real.add_argument("--images", type=lambda text: [int(part) for part in text.split(",")], default="2500,10000,60000")
    real.add_argument("--data-dir", type=Path)
    real.add_argument("--out", type=Path)
    mnist(parser.parse_args())


if __name__ == "__main__":
    main()
