"""Evaluation that changes nothing in training: at the optimizer's centre, on a copy of the model."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from widevalley import update_batchnorm
from widevalley.experiments.data import Data, Split

# At these sizes the twenty evaluations cost about a tenth of the gradients of ten MNIST epochs.
TRAINING_IMAGES = 5_000
BATCHNORM_IMAGES = 2_500
# The seed of the fixed subsets: the same images in every run of every method.
SUBSET_SEED = 0


@torch.no_grad()
def mean_loss_and_error(model: nn.Module, split: Split, batch_size: int = 1_000) -> tuple[float, float]:
    """Mean cross-entropy over the split, and the percentage classified wrongly. ``model`` is in eval mode."""
    loss = wrong = 0.0
    for inputs, targets in zip(split.inputs.split(batch_size), split.targets.split(batch_size), strict=True):
        logits = model(inputs)
        loss += cross_entropy(logits.double(), targets, reduction="sum").item()
        wrong += float((logits.argmax(-1) != targets).sum())
    return loss / len(split), 100 * wrong / len(split)


def subset(split: Split, images: int, seed: int = SUBSET_SEED) -> Split:
    """That many images (all, if there are fewer), drawn by a generator of their own."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return split.take(order[:images])


class Evaluator:
    """Evaluates one run.

    The model is copied at the centre and the copy's batch-norm statistics are re-estimated on training images, for
    optimizers without a centre alike, so that the methods differ in nothing but their weights.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, data: Data, batch_size: int) -> None:
        self.model, self.optimizer, self.data = model, optimizer, data
        self.training = subset(data.train, TRAINING_IMAGES)
        images = subset(data.train, BATCHNORM_IMAGES, SUBSET_SEED + 1).inputs
        self.batchnorm_batches: list[Tensor] = [batch for batch in images.split(batch_size) if len(batch) == batch_size]

    def network(self) -> nn.Module:
        """A copy of the model at the centre, in eval mode."""
        at_center: Any = getattr(self.optimizer, "at_center", nullcontext)
        with at_center():
            network = copy.deepcopy(self.model)
        update_batchnorm(network, self.batchnorm_batches)
        return network.eval()

    def __call__(self) -> dict[str, float]:
        network = self.network()
        train_loss, train_error = mean_loss_and_error(network, self.training)
        validation_loss, validation_error = mean_loss_and_error(network, self.data.validation)
        return {
            "train_loss": train_loss,
            "train_error": train_error,
            "validation_loss": validation_loss,
            "validation_error": validation_error,
        }
