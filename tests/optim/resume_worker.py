"""What a fresh process does with the checkpoints of a run: continue each to the end and save where it got to.

    python resume_worker.py FOLDER

FOLDER holds NAME.pt for every checkpoint; ``finals.pt`` is written beside them.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, snapshot, train


class Case(NamedTuple):
    optimizer: str
    rho: float
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.optimizer}, rho {self.rho}, {self.dtype}"

    @property
    def cycle_length(self) -> int:
        return INNER_STEPS + (self.rho > 0)

    @property
    def calls(self) -> int:
        return 5 * self.cycle_length


CASES = [
    *(Case(optimizer, 0.0, "float32") for optimizer in OPTIMIZERS),
    *(Case(optimizer, 0.1, "float32") for optimizer in ("sgd, outer momentum", "adam", "nested adamw, adam outside")),
    *(Case(optimizer, 0.1, "bfloat16") for optimizer in ("sgd", "sgd, outer momentum", "adam", "nested adamw")),
]
BY_NAME = {case.name: case for case in CASES}


def build(case: Case, seed: int = 0) -> tuple[Network, Any, Any]:
    model = Network(seed, getattr(torch, case.dtype))
    optimizer = OPTIMIZERS[case.optimizer](model.parameters(), rho=case.rho)
    return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=30)


def outcome(model: Network, optimizer: Any, scheduler: Any) -> dict[str, Any]:
    return snapshot(model, optimizer) | {"scheduler": scheduler.state_dict()}


def resume(path: Path) -> dict[str, Any]:
    checkpoint = torch.load(path, weights_only=True)
    case = BY_NAME[checkpoint["case"]]
    model, optimizer, scheduler = build(case, seed=1)
    for part, saved in ((model, "model"), (optimizer, "optimizer"), (scheduler, "scheduler")):
        part.load_state_dict(checkpoint[saved])
    assert optimizer.cycle_position == checkpoint["calls"] % case.cycle_length
    train(model, optimizer, range(checkpoint["calls"], case.calls), scheduler)
    return outcome(model, optimizer, scheduler)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.save({path.stem: resume(path) for path in sorted(folder.glob("*.pt"))}, folder / "finals.pt")
