"""Mixed precision, accumulation, clipping, compiled models and averages of the centres."""

from typing import Any

import pytest
import torch
from lifecycle import INNER_STEPS, OPTIMIZERS, Network, assert_same, entropy_sgd, loss, snapshot, train
from reference import Block, algorithm_1
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from widevalley import EntropySGD, NestedOptimizer, center_state_dict


@pytest.mark.parametrize(
    ("dtype", "center"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_centers_are_at_least_float32(dtype: torch.dtype, center: torch.dtype) -> None:
    model = Network(0, dtype)
    optimizer = entropy_sgd(model.parameters())
    for _ in range(2):
        for p in model.parameters():
            assert p.dtype == dtype
            assert optimizer.state[p]["center"].dtype == optimizer.state[p]["average"].dtype == center
        train(model, optimizer, range(7))


def test_half_precision_parameters_do_not_stall_the_center() -> None:
    """Steps of the centre far below bfloat16's spacing add up: 400 of them move it by 1."""
    p = nn.Parameter(torch.full((3,), 8.0, dtype=torch.bfloat16))
    optimizer = EntropySGD([p], 0.25, inner_steps=1, gamma=0.0, alpha=1.0, outer_lr=0.01, temperature=0.0)
    for _ in range(400):
        p.grad = torch.ones_like(p)
        optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["center"], torch.full((3,), 7.0), rtol=1e-3, atol=0)
    torch.testing.assert_close(p.detach(), torch.full((3,), 7.0, dtype=torch.bfloat16))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bfloat16_autocast(name: str) -> None:
    """The weights and all state stay float32, and the steps are those of the gradients that autocast left."""
    model, twin = Network(), Network()
    optimizer, twin_optimizer = (OPTIMIZERS[name](m.parameters(), rho=0.1) for m in (model, twin))
    for call in range(10):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(model, call)
            assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.bfloat16
        value.backward()
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            q.grad = None if p.grad is None else p.grad.clone()
        optimizer.step()
        twin_optimizer.step()
    state = [v for s in optimizer.state_dict()["state"].values() for v in s.values() if torch.is_tensor(v)]
    assert {v.dtype for v in state} == {torch.float32}
    assert_same(snapshot(model, optimizer), snapshot(twin, twin_optimizer))
    exact = Network()
    train(exact, OPTIMIZERS[name](exact.parameters(), rho=0.1), range(10))
    assert not torch.equal(exact.first, model.first)
    torch.testing.assert_close(exact.first, model.first, rtol=0.05, atol=0.05)


def fused_adamw(parameters: Any, **changes: Any) -> NestedOptimizer:
    return NestedOptimizer(torch.optim.AdamW(parameters, lr=0.01, fused=True), **changes)


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("name", [*OPTIMIZERS, "nested fused adamw"])
def test_a_step_that_the_scaler_skips_leaves_the_cycle_where_it_was(name: str, rho: float) -> None:
    """Scales are powers of two, so what is not skipped is bit for bit the run without a scaler."""
    build = OPTIMIZERS.get(name) or (lambda p, rho: fused_adamw(p, inner_steps=3, rho=rho))
    model, unscaled = Network(), Network()
    optimizer, unscaled_optimizer = (build(m.parameters(), rho=rho) for m in (model, unscaled))
    train(unscaled, unscaled_optimizer, range(12))

    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=5)
    for call in range(12):
        # At every position, and twice in a row.
        for _ in range(call % 3):
            before = snapshot(model, optimizer)
            position, updates = optimizer.cycle_position, optimizer.outer_updates
            optimizer.zero_grad()
            scaler.scale(loss(model, call)).backward()
            model.bias.grad[0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
            assert_same(snapshot(model, optimizer), before)
            assert (optimizer.cycle_position, optimizer.outer_updates) == (position, updates)
        optimizer.zero_grad()
        scaler.scale(loss(model, call)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert_same(snapshot(model, optimizer), snapshot(unscaled, unscaled_optimizer))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_backwards_are_not_counted(name: str) -> None:
    """Four backwards a step are the step of the four minibatches at once."""
    models = [Network(0, torch.float64) for _ in range(2)]
    optimizers = [OPTIMIZERS[name](m.parameters()) for m in models]
    for step in range(7):
        assert optimizers[0].cycle_position == step % INNER_STEPS
        for optimizer in optimizers:
            optimizer.zero_grad()
        for part in range(4):
            (loss(models[0], 10 + 4 * step + part) / 4).backward()
        (sum(loss(models[1], 10 + 4 * step + part) for part in range(4)) / 4).backward()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(*(m.state_dict() for m in models), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_clipping_acts_on_the_loss_gradient_alone(rho: float) -> None:
    """Equal to Algorithm 1 with the clipped gradient in its line 3; γ's pull and the decay come after."""
    p = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    hessian = torch.tensor([4.0, 1.0], dtype=torch.float64)
    settings: dict[str, Any] = {
        "momentum": 0.5,
        "weight_decay": 0.1,
        "gamma": 0.7,
        "alpha": 0.3,
        "outer_lr": 0.8,
    }
    optimizer = EntropySGD([p], 0.2, inner_steps=3, rho=rho, temperature=0.0, restart=False, **settings)

    norms = []

    def clipped(weights: Any, _: int) -> list[torch.Tensor]:
        gradient = hessian * weights[0]
        norms.append(gradient.norm().item())
        return [gradient * min(1.0, 6.0 / norms[-1])]

    oracle = algorithm_1([Block(p.detach().clone(), 0.2, **settings)], clipped, L=3, rho=rho)
    for seen, _ in zip(oracle, range(20), strict=False):
        optimizer.zero_grad()
        (0.5 * hessian * p.square()).sum().backward()
        nn.utils.clip_grad_norm_([p], 6.0)
        optimizer.step()
        torch.testing.assert_close(p.detach(), seen.parameters[0], rtol=1e-5, atol=1e-6)
    assert min(norms) < 6.0 < max(norms)


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_a_compiled_model(backend: str) -> None:
    model, plain = Network(), Network()
    compiled = torch.compile(model, backend=backend)
    optimizer, plain_optimizer = entropy_sgd(compiled.parameters()), entropy_sgd(plain.parameters())
    for call in range(10, 18):
        for m, o in ((compiled, optimizer), (plain, plain_optimizer)):
            train(m, o, [call])
        with optimizer.at_center(), plain_optimizer.at_center():
            torch.testing.assert_close(loss(compiled, 9), loss(plain, 9))
        torch.testing.assert_close(loss(compiled, 9), loss(plain, 9))
    torch.testing.assert_close(model.state_dict(), plain.state_dict())
    centers = center_state_dict(compiled, optimizer)
    assert centers.keys() == compiled.state_dict().keys()
    torch.testing.assert_close(list(centers.values()), list(center_state_dict(plain, plain_optimizer).values()))


@pytest.mark.parametrize("decay", [None, 0.8])
def test_an_average_taken_at_position_0_averages_the_centers(decay: float | None) -> None:
    model = Network(0, torch.float64)
    optimizer = entropy_sgd(model.parameters())
    averaged = AveragedModel(model, multi_avg_fn=None if decay is None else get_ema_multi_avg_fn(decay))
    centers: list[torch.Tensor] = []
    for call in range(10, 10 + 4 * INNER_STEPS):
        train(model, optimizer, [call])
        if optimizer.cycle_position == 0:
            averaged.update_parameters(model)
            centers.append(optimizer.state[model.first]["center"].clone())
    assert len(centers) == 4
    expected = centers[0]
    for n, center in enumerate(centers[1:], start=1):
        kept = n / (n + 1) if decay is None else decay
        expected = kept * expected + (1 - kept) * center
    torch.testing.assert_close(averaged.module.first.detach(), expected, rtol=1e-12, atol=1e-12)
