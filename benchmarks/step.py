"""Time of one gradient with its step, against the same gradient with torch's fused SGD.

    python benchmarks/step.py [--pairs 25] [--batch 128]

mnistfc (784-1024-1024-10 with batch-norm, 1,867,786 parameters) on random inputs; each contender is timed beside SGD in
interleaved pairs, and the median of the pairs' ratios is printed with its quartiles.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer

Make = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

CONTENDERS: dict[str, Make] = {
    "SGD(fused=True), again": lambda params: torch.optim.SGD(params, 0.01, fused=True),
    "EntropySGD": lambda params: EntropySGD(params, 0.01, temperature=0.0),
    "EntropySGD, momentum 0.9": lambda params: EntropySGD(params, 0.01, momentum=0.9, nesterov=True, temperature=0.0),
    "EntropySGD, momentum 0.9, T = 1e-8": lambda params: EntropySGD(params, 0.01, momentum=0.9, temperature=1e-8),
    "NestedOptimizer(SGD(fused=True))": lambda params: NestedOptimizer(
        torch.optim.SGD(params, 0.01, momentum=0.9, fused=True), temperature=0.0
    ),
    "EntropyAdam": lambda params: EntropyAdam(params, 1e-3, temperature=0.0),
    "Adam(fused=True)": lambda params: torch.optim.Adam(params, 1e-3, fused=True),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(784, 1024), nn.ReLU(), nn.BatchNorm1d(1024),
        nn.Linear(1024, 1024), nn.ReLU(), nn.BatchNorm1d(1024),
        nn.Linear(1024, 10),
    )  # fmt: skip


class Contender:
    """A network with an optimizer, timed one gradient at a time on the same batch."""

    def __init__(self, make: Make, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.model, self.inputs, self.targets = network(), inputs, targets
        self.optimizer = make(list(self.model.parameters()))

    def seconds(self) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.inputs), self.targets).backward()
        self.optimizer.step()
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    inputs, targets = torch.randn(arguments.batch, 784), torch.randint(0, 10, (arguments.batch,))
    threads, batch, count = torch.get_num_threads(), arguments.batch, arguments.pairs
    print(f"torch {torch.__version__}, {threads} threads, batch {batch}, {count} pairs each")
    print(f"{'':36}  ms (SGD)  ms      ratio  (quartiles)")
    for name, make in CONTENDERS.items():
        rival, contender = (Contender(each, inputs, targets) for each in (CONTENDERS["SGD(fused=True), again"], make))
        for _ in range(5):
            rival.seconds(), contender.seconds()
        pairs = [(rival.seconds(), contender.seconds()) for _ in range(arguments.pairs)]
        low, median, high = statistics.quantiles([own / theirs for theirs, own in pairs], n=4)
        theirs, own = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
        print(f"{name:36}  {theirs:8.2f}  {own:6.2f}  {median:5.3f}  ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
