"""How sharp char-lstm is where Adam, at several rates, has the loss of Fig. 3b's networks.

    python benchmarks/lstm.py --lr 0.005 --gradients 46875 --loss 0.0867 --out results/char-lstm/adam.jsonl

Adam along a cosine of so many gradients on the 256 lines, seed 0, until the loss is no higher, looked at every 20
gradients as at Entropy-SGD's centres; without --loss to the end. Then the largest eigenvalues and the trace, by
products in float32. The record's "entropy" is the least loss that a function of the characters before can have, the
lines' own conditional entropy.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter, defaultdict
from pathlib import Path

import torch
from telling import append, made, progress

from widevalley.experiments.data import Split
from widevalley.experiments.evaluation import score
from widevalley.experiments.minima import MINIMA, regenerated
from widevalley.experiments.train import Training, Unit
from widevalley.landscape import Objective, top_eigenpairs, trace

LOOKS, LARGEST = 20, 5


def entropy(text: Split) -> float:
    """Of a character given those before it in its line, nats."""
    following: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for line in torch.cat([text.inputs[:, :1], text.targets], dim=1).tolist():
        for end in range(1, len(line)):
            following[tuple(line[:end])][line[end]] += 1
    whole = sum(n * math.log(n / counts.total()) for counts in following.values() for n in counts.values())
    return -whole / text.targets.numel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--gradients", type=int, required=True)
    parser.add_argument("--loss", type=float, default=-math.inf)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    (minimum,) = (each for each in MINIMA if each.name == "fig3b-adam")
    data = minimum.task.data(arguments.data_dir)
    torch.manual_seed(minimum.seed)
    unit = Unit("curve", minimum.method, arguments.lr, minimum.seed, arguments.gradients, evaluations=1)
    training = Training(unit, minimum.task, data)
    began, loss, lowest = time.perf_counter(), math.inf, math.inf
    while loss > arguments.loss and training.taken < arguments.gradients:
        training.step()
        if training.taken % LOOKS == 0 or training.taken == arguments.gradients:
            network = training.evaluate.network()
            loss = score(network, data.train).loss
            lowest = min(loss, lowest)
            progress(f"loss {loss:.4f}, lowest {lowest:.4f}", training.taken / arguments.gradients)
    seconds = time.perf_counter() - began

    objective = Objective(network, data=[(data.train.inputs, data.train.targets)])
    pairs = top_eigenpairs(objective, LARGEST, progress=progress)
    whole = trace(objective, progress=progress)
    record = {
        "network": "char-lstm",
        "method": minimum.method.description,
        "lr": arguments.lr,
        "seed": minimum.seed,
        "cosine_over": arguments.gradients,
        "until_loss": arguments.loss if math.isfinite(arguments.loss) else None,
        "gradients": training.taken,
        "loss": loss,
        "lowest_loss_seen": lowest,
        "entropy": entropy(data.train),
        "error": score(network, data.train).error,
        "regenerated": regenerated(network, data.train),
        "weight_norm": float(objective.vector().norm()),
        "gradient_norm": float(objective.gradient().norm()),
        "largest": pairs.values.flip(0)[:LARGEST].tolist(),
        "largest_residual": float(pairs.residuals.max()),
        "trace": whole.value,
        "trace_standard_error": whole.standard_error,
        "training_seconds": seconds,
        **made(),
    }
    print(json.dumps(record))
    if arguments.out is not None:
        append(arguments.out, record)


if __name__ == "__main__":
    main()
