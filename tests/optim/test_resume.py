"""A run that is saved and resumed is the unbroken run, to the bit, from every position in the cycle."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lifecycle import (
    INNER_STEPS,
    LATE,
    OPTIMIZERS,
    Network,
    assert_same,
    entropy_sgd,
    snapshot,
    train,
)
from resume_worker import CASES, Case, build, outcome

from widevalley import NestedOptimizer

PLACES = ("at x'", "in at_center", "after eval")
# "late" has no state yet at these, and gets its first gradient after them.
SAVED = {case: range(case.cycle_length, 2 * case.cycle_length) for case in CASES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[Case, Any], dict[Case, Any], dict[str, Any]]:
    """Where each case ends: unbroken, with checkpoints taken on the way, and resumed from each of them."""
    folder = tmp_path_factory.mktemp("checkpoints")
    unbroken, saving = {}, {}
    for number, case in enumerate(CASES):
        parts = build(case)
        train(*parts[:2], range(case.calls), parts[2])
        unbroken[case] = outcome(*parts)

        model, optimizer, scheduler = build(case)

        def save(calls: int, place: str, case=case, number=number, parts=(model, optimizer, scheduler)) -> None:
            names = ("model", "optimizer", "scheduler")
            states = {name: part.state_dict() for name, part in zip(names, parts, strict=True)}
            path = folder / f"{number}-{calls}-{PLACES.index(place)}.pt"
            torch.save(states | {"case": case.name, "calls": calls}, path)

        for call in range(case.calls):
            if call in SAVED[case]:
                save(call, "at x'")
                with optimizer.at_center():
                    save(call, "in at_center")
                optimizer.eval()
                save(call, "after eval")
                optimizer.train()
            train(model, optimizer, [call], scheduler)
        saving[case] = outcome(model, optimizer, scheduler)

    worker = Path(__file__).with_name("resume_worker.py")
    path = os.pathsep.join([str(worker.parents[1]), os.environ.get("PYTHONPATH", "")])
    finished = subprocess.run(
        [sys.executable, str(worker), str(folder)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return unbroken, saving, torch.load(folder / "finals.pt", weights_only=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_taking_checkpoints_does_not_change_the_run(runs: Any, case: Case) -> None:
    unbroken, saving, _ = runs
    assert case.calls > LATE > SAVED[case][-1]
    assert_same(saving[case], unbroken[case])


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_resuming_in_a_fresh_process_is_the_unbroken_run(runs: Any, case: Case, place: str) -> None:
    unbroken, _, finals = runs
    for calls in SAVED[case]:
        resumed = finals[f"{CASES.index(case)}-{calls}-{PLACES.index(place)}"]
        assert_same(resumed, unbroken[case])


TORCH_OPTIMIZERS = [
    name
    for name in torch.optim.__all__
    if isinstance(kind := getattr(torch.optim, name), type)
    and issubclass(kind, torch.optim.Optimizer)
    and name not in ("Optimizer", "LBFGS", "SparseAdam", "Muon")
]


@pytest.mark.parametrize("name", TORCH_OPTIMIZERS)
def test_any_torch_optimizer_resumes_in_either_loop(name: str) -> None:
    kind = getattr(torch.optim, name)

    def start(seed: int) -> tuple[Network, NestedOptimizer]:
        model = Network(seed)
        inner = kind(model.parameters(), lr=0.01)
        return model, NestedOptimizer(
            inner,
            outer=lambda groups: kind(groups, lr=0.5),
            inner_steps=INNER_STEPS,
            temperature=1e-4,
            restart=False,
        )

    unbroken, resumed = start(0), start(1)
    train(*unbroken, range(2 * INNER_STEPS - 1))
    for part, state in zip(resumed, snapshot(*unbroken).values(), strict=True):
        part.load_state_dict(state)
    for run in (unbroken, resumed):
        train(*run, range(2 * INNER_STEPS - 1, 12))
    assert unbroken[1].outer_updates == 4
    assert_same(snapshot(*resumed), snapshot(*unbroken))


@pytest.mark.parametrize("position", range(INNER_STEPS))
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_order_of_loading_is_free_for_a_checkpoint_at_x_prime(name: str, position: int) -> None:
    ends = []
    for order in (("model", "optimizer"), ("optimizer", "model")):
        model = Network(0)
        optimizer = OPTIMIZERS[name](model.parameters())
        train(model, optimizer, range(INNER_STEPS + position))
        saved = snapshot(model, optimizer)
        fresh = Network(1)
        fresh_optimizer = OPTIMIZERS[name](fresh.parameters())
        for part in order:
            {"model": fresh, "optimizer": fresh_optimizer}[part].load_state_dict(saved[part])
        train(fresh, fresh_optimizer, range(INNER_STEPS + position, 15))
        ends.append(snapshot(fresh, fresh_optimizer))
    assert_same(*ends)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loading_a_checkpoint_at_the_center_puts_the_sample_back(name: str) -> None:
    model, fresh = Network(0), Network(1)
    optimizer, fresh_optimizer = (OPTIMIZERS[name](m.parameters()) for m in (model, fresh))
    train(model, optimizer, range(5))
    at_sample = snapshot(model, optimizer)
    with optimizer.at_center():
        at_center = snapshot(model, optimizer)
    assert not torch.equal(at_center["model"]["first"], at_sample["model"]["first"])
    fresh.load_state_dict(at_center["model"])
    fresh_optimizer.load_state_dict(at_center["optimizer"])
    assert_same(snapshot(fresh, fresh_optimizer), at_sample)


@pytest.mark.parametrize("position", range(1, INNER_STEPS))
def test_a_model_loaded_after_a_checkpoint_at_the_center_needs_train(position: int) -> None:
    model, fresh = Network(0), Network(1)
    optimizer, fresh_optimizer = entropy_sgd(model.parameters()), entropy_sgd(fresh.parameters())
    train(model, optimizer, range(INNER_STEPS + position))
    optimizer.eval()
    saved = snapshot(model, optimizer)
    optimizer.train()
    fresh_optimizer.load_state_dict(saved["optimizer"])
    fresh.load_state_dict(saved["model"])
    with pytest.raises(RuntimeError, match=r"train\(\)"):
        train(fresh, fresh_optimizer, [INNER_STEPS + position])
    assert_same(fresh.state_dict(), saved["model"])

    fresh_optimizer.train()
    assert_same(snapshot(fresh, fresh_optimizer), snapshot(model, optimizer))
    for run in ((model, optimizer), (fresh, fresh_optimizer)):
        train(*run, range(INNER_STEPS + position, 15))
    assert_same(snapshot(fresh, fresh_optimizer), snapshot(model, optimizer))
