"""A run that is saved and resumed is the unbroken run, to the bit, from every position in the cycle."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
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
    entropy_adam,
    entropy_sgd,
    snapshot,
    train,
)
from resume_worker import CASES, Case, build, outcome

from widevalley import EntropySGD, NestedOptimizer

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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("position", range(INNER_STEPS))
def test_loading_keeps_float32_centers_under_half_precision_parameters(
    dtype: torch.dtype, rho: float, position: int
) -> None:
    model, fresh = Network(0, dtype), Network(1, dtype)
    optimizer = entropy_sgd(model.parameters(), rho=rho)
    train(model, optimizer, range(optimizer.cycle_length + position))
    saved = snapshot(model, optimizer)
    centers = [state["center"] for state in saved["optimizer"]["state"].values()]
    assert {center.dtype for center in centers} == {torch.float32}
    # The case is only worth something where rounding to the parameters' type would lose digits.
    assert not torch.equal(centers[0], centers[0].to(dtype).float())

    fresh_optimizer = entropy_sgd(fresh.parameters(), rho=rho)
    fresh.load_state_dict(saved["model"])
    fresh_optimizer.load_state_dict(saved["optimizer"])
    assert_same(snapshot(fresh, fresh_optimizer), saved)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [value]


@pytest.mark.parametrize("place", ["construction", "mid-cycle", "center"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_dict_has_two_keys_and_no_function(name: str, place: str) -> None:
    model = Network()
    optimizer = OPTIMIZERS[name](model.parameters(), rho=0.1)
    if place != "construction":
        train(model, optimizer, range(6))
    if place == "center":
        optimizer.eval()
    state_dict = optimizer.state_dict()
    assert set(state_dict) == {"state", "param_groups"}
    assert sorted(state_dict["state"]) == [0, 1, 2, 3]
    for state in state_dict["state"].values():
        assert {"center", "average"} <= state.keys()
        assert ("sample" in state) == (place == "center")
    for leaf in leaves(state_dict):
        assert isinstance(leaf, torch.Tensor | bool | int | float | str | None), leaf


def test_loading_keeps_the_functions_of_the_constructor() -> None:
    """As LambdaLR does: what γ and η are is code, and the code that runs now has the last word."""
    model = Network()
    optimizer = entropy_sgd(model.parameters(), gamma=lambda t: 0.2 + t, outer_lr=lambda t: 0.5)
    train(model, optimizer, range(7))
    saved = snapshot(model, optimizer)

    seen = []

    def gamma(t: int) -> float:
        seen.append(t)
        return 0.4

    other = Network(1)
    other_optimizer = entropy_sgd(other.parameters(), gamma=gamma, outer_lr=lambda t: 0.25)
    other.load_state_dict(saved["model"])
    other_optimizer.load_state_dict(saved["optimizer"])
    seen.clear()
    train(other, other_optimizer, range(7, 14))
    assert seen
    assert min(seen) >= 2
    assert other_optimizer.outer_updates == 4


def test_a_function_that_was_a_number_when_saved_is_used_after_loading() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters(), gamma=0.3, outer_lr=1.0)
    train(model, optimizer, range(4))
    functions = Network(1)
    functions_optimizer = entropy_sgd(functions.parameters(), gamma=lambda t: 9.0, outer_lr=lambda t: 1.0)
    functions.load_state_dict(model.state_dict())
    functions_optimizer.load_state_dict(optimizer.state_dict())
    for run in ((model, optimizer), (functions, functions_optimizer)):
        train(*run, range(4, 6))
    # γ of 9 instead of 0.3 in two more inner steps.
    assert not torch.allclose(model.first, functions.first)


def test_numbers_come_from_the_checkpoint() -> None:
    model, other = Network(0), Network(1)
    optimizer = entropy_sgd(model.parameters(), gamma=0.3, alpha=0.7, temperature=1e-3, outer_lr=0.5, momentum=0.8)
    train(model, optimizer, range(4))
    other_optimizer = entropy_sgd(other.parameters(), gamma=0.2, alpha=0.4, temperature=0.0, outer_lr=1.0, seed=99)
    other.load_state_dict(model.state_dict())
    other_optimizer.load_state_dict(optimizer.state_dict())
    for run in ((model, optimizer), (other, other_optimizer)):
        train(*run, range(4, 11))
    assert_same(snapshot(other, other_optimizer), snapshot(model, optimizer))


@pytest.mark.parametrize("plain", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("ours", [entropy_sgd, entropy_adam])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_plain_optimizers_checkpoint_is_refused(plain: Any, ours: Callable[..., Any], steps: int) -> None:
    model = Network()
    plain_optimizer = plain(model.parameters(), lr=0.1)
    train(model, plain_optimizer, range(steps))
    optimizer = ours(model.parameters())
    train(model, optimizer, range(4))
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=r"(?i)center|entropy|nested"):
        optimizer.load_state_dict(plain_optimizer.state_dict())
    assert_same(snapshot(model, optimizer), before)


def test_a_checkpoint_of_other_groups_is_refused() -> None:
    model = Network()
    optimizer = entropy_sgd(model.parameters())
    train(model, optimizer, range(4))
    fewer = entropy_sgd(list(model.parameters())[:2])
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match="parameter group"):
        optimizer.load_state_dict(fewer.state_dict())
    assert_same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_loading_does_not_alias_the_loaded_dictionary(name: str, dtype: torch.dtype) -> None:
    model, other = Network(0, dtype), Network(1, dtype)
    optimizer, other_optimizer = (OPTIMIZERS[name](m.parameters()) for m in (model, other))
    train(model, optimizer, range(4))
    loaded = optimizer.state_dict()
    before = snapshot(model, optimizer)
    other_optimizer.load_state_dict(loaded)
    assert_same(loaded, before["optimizer"])
    train(other, other_optimizer, range(4, 11))
    assert_same(loaded, before["optimizer"])
    assert_same(snapshot(model, optimizer), before)


@pytest.mark.parametrize("cycles", [0, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_loaded_at_position_0_are_the_new_center(cycles: int, dtype: torch.dtype) -> None:
    model, pretrained = Network(0, dtype), Network(7, dtype)
    optimizer = EntropySGD(model.parameters(), 0.05, inner_steps=3, gamma=0.3)
    train(model, optimizer, range(3 * cycles))
    model.load_state_dict(pretrained.state_dict())
    pretrained_optimizer = EntropySGD(pretrained.parameters(), 0.05, inner_steps=3, gamma=0.3)
    for run in ((model, optimizer), (pretrained, pretrained_optimizer)):
        train(*run, range(7))
    assert_same(model.state_dict(), pretrained.state_dict())
    for p, q in zip(model.parameters(), pretrained.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["center"], pretrained_optimizer.state[q]["center"])


def test_a_checkpoint_survives_a_second_save_before_any_step() -> None:
    """A run that is resumed and at once interrupted again loses nothing."""
    model = Network()
    optimizer = entropy_adam(model.parameters())
    train(model, optimizer, range(5))
    saved = snapshot(model, optimizer)
    for seed in (1, 2):
        model = Network(seed)
        optimizer = entropy_adam(model.parameters())
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(copy.deepcopy(saved["optimizer"]))
        assert_same(snapshot(model, optimizer), saved)


def test_groups_are_the_inner_optimizers_after_loading() -> None:
    model = Network()
    inner = torch.optim.AdamW(model.parameters(), lr=0.01)
    optimizer = NestedOptimizer(inner, inner_steps=3)
    train(model, optimizer, range(4))
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.param_groups is inner.param_groups
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    train(model, optimizer, [4], scheduler)
    assert inner.param_groups[0]["lr"] == pytest.approx(0.001)
