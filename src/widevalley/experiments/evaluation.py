"""Evaluation that changes nothing in training: at the optimizer's centre, on a copy of the model."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from widevalley import update_batchnorm
from widevalley.experiments.data import Data, Split
from widevalley.experiments.learner import Learner

# At these sizes the twenty evaluations cost about a tenth of the gradients of ten MNIST epochs.
TRAINING_IMAGES = 5_000
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
        self.training = subset(data.train, TRAINING_IMAGES)
        images = subset(data.train, max(BATCHNORM_IMAGES, batch_size), SUBSET_SEED + 1).inputs
        self.batchnorm_batches: list[Tensor] = [batch for batch in images.split(batch_size) if len(batch) == batch_size]

    def network(self) -> nn.Module:
        """A copy of the model at the centre, in eval mode."""
        with self.learner.evaluated() as model:
            network = copy.deepcopy(model)
        update_batchnorm(network, self.batchnorm_batches)
        return network.eval()

    def __call__(self, network: nn.Module) -> dict[str, float]:
        train, watched = score(network, self.training), score(network, getattr(self.data, self.watched))
        return {
            "train_loss": train.loss,
            "train_error": train.error,
            f"{self.watched}_loss": watched.loss,
            f"{self.watched}_error": watched.error,
        }
