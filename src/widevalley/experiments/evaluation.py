"""Evaluation that changes nothing in training: at the optimizer's centre, on a copy of the model."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from widevalley import update_batchnorm
from widevalley.experiments.data import Data, Split
from widevalley.experiments.learner import Learner

# At these sizes the twenty evaluations cost about a tenth of the gradients of ten MNIST epochs.
TRAINING_IMAGES = 5_000
# Enough to see how training goes, not for a result: on so many images units of mnistfc that few make active had a
# variance of 0, and the training loss was 5.6 times that by the statistics of all (results/batchnorm/mnistfc.jsonl).
BATCHNORM_IMAGES = 2_500
# The seed of the fixed subsets: the same images in every run of every method.
SUBSET_SEED = 0


@dataclass(frozen=True)
class Score:
    """A network on a split; it has one target an example, or a row of them."""

    loss: float  # mean cross-entropy over targets, in nats
    error: float  # percentage of targets predicted wrongly
    wrong: tuple[int, ...]  # of each example's targets


@torch.no_grad()
def score(model: nn.Module, split: Split, batch_size: int = 1_000) -> Score:
    """``model``, in eval mode, gives logits (n, classes, …) for targets (n, …)."""
    loss, wrong = 0.0, []
    for inputs, targets in zip(split.inputs.split(batch_size), split.targets.split(batch_size), strict=True):
        logits = model(inputs)
        loss += cross_entropy(logits.double(), targets, reduction="sum").item()
        wrong.append((logits.argmax(1) != targets).flatten(1 if targets.ndim > 1 else 0))
    counts = torch.cat([part.sum(1) if part.ndim > 1 else part.long() for part in wrong])
    number = split.targets.numel()
    return Score(loss / number, 100 * int(counts.sum()) / number, tuple(counts.tolist()))


def subset(split: Split, images: int, seed: int = SUBSET_SEED) -> Split:
    """That many images (all, if there are fewer), drawn by a generator of their own."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.take(order[:images])


class Evaluator:
    """Evaluates one run.

    The model is copied at the centre and the copy's batch-norm statistics are re-estimated on training images, for
    optimizers without a centre alike, so that the methods differ in nothing but their weights.

    Args:
        watched: the split that is evaluated beside training images, "validation" or "test".
    """

    def __init__(self, learner: Learner, data: Data, batch_size: int, watched: str = "validation") -> None:
        self.learner, self.data, self.watched = learner, data, watched
        self.batch_size = batch_size
        self.training = subset(data.train, TRAINING_IMAGES)
        self.order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(SUBSET_SEED + 1))

    def network(self, whole: bool = False) -> nn.Module:
        """A copy of the model at the centre, in eval mode; batch-norm statistics of all training images if ``whole``.

        Else of ``BATCHNORM_IMAGES``. Only whole batches, of training's size, count.
        """
        with self.learner.evaluated() as model:
            network = copy.deepcopy(model)
        images = len(self.order) if whole else max(BATCHNORM_IMAGES, self.batch_size)
        update_batchnorm(network, self._batches(self.order[:images]))
        return network.eval()

    def _batches(self, order: Tensor) -> Iterator[Tensor]:
        inputs = self.data.train.inputs
        for indices in order.split(self.batch_size):
            if len(indices) == self.batch_size:
                yield inputs[indices.to(inputs.device)]

    def __call__(self, network: nn.Module) -> dict[str, float]:
        train, watched = score(network, self.training), score(network, getattr(self.data, self.watched))
        return {
            "train_loss": train.loss,
            "train_error": train.error,
            f"{self.watched}_loss": watched.loss,
            f"{self.watched}_error": watched.error,
        }
