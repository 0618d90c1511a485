"""Through torch.distributed.checkpoint, into a fresh model and a fresh optimizer that never stepped."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, assert_same, growing, snapshot, train
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from widevalley import EntropyAdam, EntropySGD

# One process, no process group: torch says so at each call.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")


def save(path: Path, model: Network, optimizer: Any, options: StateDictOptions | None = None) -> None:
    model_state, optimizer_state = get_state_dict(model, optimizer, options=options)
    dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=path, no_dist=True)


def load(path: Path, model: Network, optimizer: Any, options: StateDictOptions | None = None) -> None:
    """As torch's own recipe has it: the present state is the template that is filled from the files."""
    model_state, optimizer_state = get_state_dict(model, optimizer, options=options)
    dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=path, no_dist=True)
    set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state, options=options)


def start(name: str, seed: int, rho: float, dtype: str = "float32") -> tuple[Network, Any]:
    model = Network(seed, getattr(torch, dtype))
    return model, OPTIMIZERS[name](model.parameters(), rho=rho)


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resuming_is_the_unbroken_run(tmp_path: Path, name: str, rho: float) -> None:
    unbroken = start(name, 0, rho)
    train(*unbroken, range(20))
    for position in range(INNER_STEPS + (rho > 0)):
        calls = INNER_STEPS + (rho > 0) + position
        saved, resumed = start(name, 0, rho), start(name, 1, rho)
        train(*saved, range(calls))
        save(tmp_path / str(position), *saved)
        load(tmp_path / str(position), *resumed)
        assert resumed[1].cycle_position == position
        # Saving, too, must leave the run as it was.
        for run in (saved, resumed):
            train(*run, range(calls, 20))
            assert_same(snapshot(*run), snapshot(*unbroken))


@pytest.mark.parametrize("name", ["sgd", "sgd, outer momentum", "adam"])
def test_resuming_bfloat16_is_the_unbroken_run(tmp_path: Path, name: str) -> None:
    unbroken, resumed = start(name, 0, 0.1, "bfloat16"), start(name, 1, 0.1, "bfloat16")
    train(*unbroken, range(6))
    save(tmp_path, *unbroken)
    load(tmp_path, *resumed)
    for run in (unbroken, resumed):
        train(*run, range(6, 20))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resuming_after_all_parameters_had_a_gradient(tmp_path: Path, name: str) -> None:
    unbroken, resumed = start(name, 0, 0.0), start(name, 1, 0.0)
    train(*unbroken, range(11))
    save(tmp_path, *unbroken)
    load(tmp_path, *resumed)
    assert_same(snapshot(*resumed), snapshot(*unbroken))
    for run in (unbroken, resumed):
        train(*run, range(11, 20))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_from_before_the_first_step(tmp_path: Path, name: str) -> None:
    unbroken, resumed = start(name, 0, 0.0), start(name, 1, 0.0)
    save(tmp_path, *unbroken)
    load(tmp_path, *resumed)
    for run in (unbroken, resumed):
        train(*run, range(8))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


@pytest.mark.parametrize("option", ["flatten_optimizer_state_dict", "full_state_dict", "cpu_offload"])
@pytest.mark.parametrize("name", ["sgd", "adam", "nested adamw, adam outside"])
def test_the_options_of_torchs_recipe(tmp_path: Path, name: str, option: str) -> None:
    options = StateDictOptions(**{option: True})
    unbroken, resumed = start(name, 0, 0.0), start(name, 1, 0.0)
    train(*unbroken, range(11))
    save(tmp_path, *unbroken, options)
    load(tmp_path, *resumed, options)
    for run in (unbroken, resumed):
        train(*run, range(11, 20))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


def test_in_a_process_group(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        unbroken, resumed = start("adam", 0, 0.1), start("adam", 1, 0.1)
        train(*unbroken, range(6))
        save(tmp_path / "checkpoint", *unbroken)
        load(tmp_path / "checkpoint", *resumed)
    finally:
        dist.destroy_process_group()
    for run in (unbroken, resumed):
        train(*run, range(6, 20))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


@pytest.mark.parametrize("kind", [EntropySGD, EntropyAdam])
def test_groups_and_a_frozen_parameter(tmp_path: Path, kind: Any) -> None:
    """torch leaves what is frozen out of the checkpoint."""

    def build(seed: int) -> tuple[Network, Any]:
        model = Network(seed)
        model.bias.requires_grad_(False)
        groups = [{"params": [model.first, model.bias], "lr": 0.02}, {"params": [model.last, model.late], "alpha": 0.7}]
        return model, kind(groups, 0.05, inner_steps=3, gamma=growing, temperature=1e-4)

    unbroken, resumed = build(0), build(1)
    train(*unbroken, range(10, 15))
    save(tmp_path, *unbroken)
    load(tmp_path, *resumed)
    for run in (unbroken, resumed):
        train(*run, range(15, 20))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("position", range(INNER_STEPS))
def test_a_checkpoint_taken_at_the_center(tmp_path: Path, name: str, position: int) -> None:
    calls = INNER_STEPS + position
    unbroken, resumed = start(name, 0, 0.0), start(name, 1, 0.0)
    train(*unbroken, range(calls))
    with unbroken[1].at_center():
        save(tmp_path, *unbroken)
    resumed[1].eval()
    load(tmp_path, *resumed)
    assert_same(snapshot(*resumed), snapshot(*unbroken))
    for run in (unbroken, resumed):
        train(*run, range(calls, 15))
    assert_same(snapshot(*resumed), snapshot(*unbroken))


def test_a_checkpoint_taken_at_the_center_needs_eval_first(tmp_path: Path) -> None:
    saved, resumed = start("sgd", 0, 0.0), start("sgd", 1, 0.0)
    train(*saved, range(5))
    with saved[1].at_center():
        save(tmp_path, *saved)
    with pytest.raises(ValueError, match=r"eval\(\)"):
        load(tmp_path, *resumed)
