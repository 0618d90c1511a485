"""SGHMC: a literal reference, its corners, its law on a quadratic, and its noise."""

import copy
import math

import numpy as np
import pytest
import torch
from reference import network, network_gradient, take_gradient
from scipy.linalg import solve_discrete_lyapunov
from torch import nn

from widevalley import SGHMC, NestedOptimizer
from widevalley.optim import noise

CHAINS = 20_000


def parameters():
    return [nn.Parameter(w.clone()) for w in network()]


def test_each_step_is_equation_15_of_chen_et_al() -> None:
    found = parameters()
    groups = [
        {"params": found[:2], "lr": 0.2, "friction": 0.3, "weight_decay": 0.02},
        {"params": found[2:], "temperature": 0.5},
    ]
    optimizer = SGHMC(groups, 0.1, friction=0.6, temperature=0.01, seed=7)
    settings = [(0.2, 0.3, 0.01, 0.02)] * 2 + [(0.1, 0.6, 0.5, 0.0)] * 2
    theta = [p.detach().clone() for p in found]
    v = [torch.zeros_like(p) for p in found]
    for k in range(12):
        gradients = network_gradient(theta, k)
        for i, (eta, a, temperature, decay) in enumerate(settings):
            draw = noise.gaussian(theta[i], seed=7, step=k, index=i)
            force = gradients[i] + decay * theta[i]
            v[i] = v[i] - eta * force - a * v[i] + math.sqrt(2 * a * eta * temperature) * draw
            theta[i] = theta[i] + v[i]
        take_gradient(optimizer, network_gradient, k)
        for p, expected in zip(found, theta, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-11, atol=1e-13)


def trajectory(make):
    found = parameters()
    optimizer = make(found)
    for k in range(14):
        take_gradient(optimizer, network_gradient, k)
    return [p.detach() for p in found]


@pytest.mark.parametrize("restart", [False, True])
def test_without_noise_it_is_sgd_with_momentum(restart) -> None:
    settings = {"inner_steps": 3, "gamma": 0.3, "alpha": 0.4, "rho": 0.1, "restart": restart}
    ours = trajectory(lambda p: NestedOptimizer(SGHMC(p, 0.1, friction=0.2), **settings))
    torchs = trajectory(lambda p: NestedOptimizer(torch.optim.SGD(p, 0.1, momentum=0.8), **settings))
    torch.testing.assert_close(ours, torchs, rtol=1e-11, atol=1e-13)


def test_with_full_friction_it_is_langevin_dynamics() -> None:
    """SGLD is line 5, and the same seed gives the same noise in both."""
    settings = {"inner_steps": 3, "gamma": 0.3, "alpha": 0.4}
    ours = trajectory(lambda p: NestedOptimizer(SGHMC(p, 0.1, friction=1.0, temperature=0.02, seed=4), **settings))
    line_5 = trajectory(lambda p: NestedOptimizer(torch.optim.SGD(p, 0.1), temperature=0.02, seed=4, **settings))
    torch.testing.assert_close(ours, line_5, rtol=1e-11, atol=1e-13)


def law(k: float, lr: float, a: float, temperature: float) -> np.ndarray:
    """Covariance of (u, v) under v ← (1 − a)v − ηku + s ξ, u ← u + v."""
    move = np.array([[1 - lr * k, 1 - a], [-lr * k, 1 - a]])
    return solve_discrete_lyapunov(move, np.full((2, 2), 2 * a * lr * temperature))


@pytest.mark.parametrize("nested", [False, True], ids=["alone", "in the inner loop"])
@pytest.mark.parametrize(("h", "lr", "a", "temperature"), [(1.5, 0.05, 0.1, 1.0), (4.0, 0.2, 0.5, 0.3)])
def test_the_stationary_law_on_a_quadratic(nested, h, lr, a, temperature) -> None:
    """Mean γx/(h + γ), and the covariance of the discrete Lyapunov equation, within four standard errors."""
    x, gamma, steps = 2.0, 0.5, 400
    p = nn.Parameter(torch.full((CHAINS,), x, dtype=torch.float64))
    optimizer = inner = SGHMC([p], lr, friction=a, temperature=temperature, seed=1)
    if nested:
        optimizer = NestedOptimizer(inner, gamma=gamma, inner_steps=steps + 1)
    else:
        gamma = 0.0
    for _ in range(steps):
        p.grad = h * p.detach()
        optimizer.step()
    covariance = law(h + gamma, lr, a, temperature)
    mean = gamma * x / (h + gamma)
    u, v = p.detach() - mean, inner.state[p]["velocity"]
    assert abs(u.mean().item()) < 4 * math.sqrt(covariance[0, 0] / CHAINS)
    for left, right, expected in ((u, u, covariance[0, 0]), (v, v, covariance[1, 1]), (u, v, covariance[0, 1])):
        # Var(uv) = σ_u² σ_v² + cov² for Gaussians.
        spread = math.sqrt((left.var() * right.var()).item() + expected**2)
        assert abs((left * right).mean().item() - expected) < 4 * spread / math.sqrt(CHAINS)


def test_at_small_steps_the_law_is_the_gibbs_measure() -> None:
    for a in (0.1, 0.5):
        covariance = law(2.0, 1e-6, a, 0.7)
        assert covariance[0, 0] == pytest.approx(0.7 / 2.0, rel=1e-3)
        assert covariance[1, 1] == pytest.approx(1e-6 * 0.7, rel=0.5)


def test_restarts_draw_new_noise_in_each_cycle() -> None:
    """What a restart clears must not hold the count that the noise hangs on."""
    p = nn.Parameter(torch.zeros(50, dtype=torch.float64))
    optimizer = NestedOptimizer(SGHMC([p], 0.1, temperature=1.0), restart=True, inner_steps=2, gamma=0.0, alpha=1.0)
    firsts = []
    for k in range(6):
        before = p.detach().clone()
        p.grad = torch.zeros_like(p)
        optimizer.step()
        if k % 2 == 0:
            firsts.append(p.detach() - before)
    correlations = torch.corrcoef(torch.stack(firsts)) - torch.eye(3, dtype=torch.float64)
    assert correlations.abs().max() < 4 / math.sqrt(50)
    assert all(move.std() > 0.5 * math.sqrt(2 * 0.1 * 0.1) for move in firsts)


def test_alone_it_resumes_bit_for_bit_and_leaves_the_global_random_state() -> None:
    first, second = parameters(), parameters()
    optimizer, resumed = (SGHMC(each, 0.1, temperature=0.1) for each in (first, second))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for k in range(5):
        take_gradient(optimizer, network_gradient, k)
    assert torch.equal(torch.get_rng_state(), state)
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for k in range(5, 9):
        take_gradient(optimizer, network_gradient, k)
        take_gradient(resumed, network_gradient, k)
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("argument", "value"),
    [("friction", 0.0), ("friction", 1.5), ("temperature", -1.0), ("lr", -0.1), ("weight_decay", -1), ("seed", -1)],
)
def test_bad_arguments_are_refused_by_name_also_in_groups(argument, value) -> None:
    p = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=argument):
        SGHMC([p], **({"lr": 0.1} | {argument: value}))
    with pytest.raises(ValueError, match=argument):
        SGHMC([{"params": [p], argument: value}], lr=0.1)


def test_sparse_gradients_are_refused_before_anything_moves() -> None:
    dense, table = nn.Parameter(torch.zeros(3)), nn.Embedding(4, 2, sparse=True)
    optimizer = SGHMC([dense, table.weight], 0.1)
    (table(torch.tensor([1])).sum() + (dense - 1).square().sum()).backward()
    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step()
    assert not dense.detach().any()
