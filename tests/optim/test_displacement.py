"""How far the centre moves on a constant gradient g: what carries over from a tuned SGD or Adam.

With q = 1 − α, plain SGD inside, γ = 0: η·η′·g·(L − q(1 − q^L)/α) a cycle. Momentum m, once stationary,
multiplies it by 1/(1 − m) as it does SGD's own step; EntropyAdam moves as far as Adam.
"""

import pytest
import torch
from torch import nn

from widevalley import EntropyAdam, EntropySGD

GRADIENT = 0.7
LR = 0.05
# Adam's moments carried over from the first cycle, whose start they did not yet know, make the later ones'
# outer gradients differ a little where γ > 0: by 4e-4 of x − μ at L = 20, of which Adam's step, with outer
# momentum 0 the newest x − μ over its root mean square, shows about half.
CONSTANT = 3e-4


def moved(optimizer, gradients: int) -> float:
    """The way of the one parameter in so many gradients."""
    (p,) = optimizer.param_groups[0]["params"]
    start = p.item()
    for _ in range(gradients):
        p.grad = torch.full_like(p, GRADIENT)
        optimizer.step()
    return p.item() - start


def entropy_sgd(inner_steps: int, **settings) -> EntropySGD:
    p = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    return EntropySGD([p], LR, inner_steps=inner_steps, **{"temperature": 0.0, "gamma": 0.0} | settings)


@pytest.mark.parametrize("pull", [1.0, 0.5])
@pytest.mark.parametrize("alpha", [0.1, 0.75, 1.0])
@pytest.mark.parametrize("L", [1, 3, 20])
def test_plain_sgd(L, alpha, pull):
    q = 1 - alpha
    steps = L - q * (1 - q**L) / alpha
    optimizer = entropy_sgd(L, alpha=alpha, pull=pull, outer_lr=0.8)
    assert moved(optimizer, L) == pytest.approx(-0.8 * pull * LR * GRADIENT * steps, rel=1e-12)
    assert moved(optimizer, L) == pytest.approx(-0.8 * pull * LR * GRADIENT * steps, rel=1e-12)


@pytest.mark.parametrize("L", [1, 3, 20])
def test_plain_sgd_within_the_scope(L):
    """x′ settles at g/γ from x: x − μ = (g/γ)(1 − q^L − α b (b^L − q^L)/(b − q)), b = 1 − η′γ."""
    gamma, alpha = 2.0, 0.3
    b, q = 1 - LR * gamma, 1 - alpha
    behind = GRADIENT / gamma * (1 - q**L - alpha * b * (b**L - q**L) / (b - q))
    assert moved(entropy_sgd(L, alpha=alpha, gamma=gamma), L) == pytest.approx(-behind, rel=1e-12)
    as_printed = entropy_sgd(L, alpha=alpha, gamma=gamma, pull=None)
    assert moved(as_printed, L) == pytest.approx(-gamma * behind, rel=1e-12)


def test_rho_adds_one_gradient_at_the_centre():
    optimizer = entropy_sgd(3, alpha=1.0, rho=0.2, outer_lr=0.5)
    assert moved(optimizer, 4) == pytest.approx(-0.5 * (0.2 * GRADIENT + 3 * LR * GRADIENT), rel=1e-12)


@pytest.mark.parametrize("decoupled_pull", [False, True])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("L", [3, 20])
def test_momentum_kept_over_cycles_moves_as_sgd_with_momentum_does(L, nesterov, decoupled_pull):
    """α = 1 and γ = 0 keep SGD's step; an average over the cycle lags behind by q(1 − q^L)/α steps of L."""
    m = 0.8
    settings = {"momentum": m, "nesterov": nesterov, "restart": False, "decoupled_pull": decoupled_pull}
    for alpha in (1.0, 0.3):
        optimizer = entropy_sgd(L, alpha=alpha, **settings)
        moved(optimizer, 200 // L * L)  # m^200 < 1e-19
        q = 1 - alpha
        step = LR * GRADIENT / (1 - m)
        assert moved(optimizer, L) == pytest.approx(-step * (L - q * (1 - q**L) / alpha), rel=1e-12)
    p = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    sgd = torch.optim.SGD([p], lr=LR, momentum=m, nesterov=nesterov)
    moved(sgd, 200)
    assert moved(sgd, L) == pytest.approx(-step * L, rel=1e-12)


@pytest.mark.parametrize("L", [1, 3, 20])
def test_restarted_momentum_moves_less(L):
    """Step ℓ of a cycle is η′g(1 − m^ℓ)/(1 − m): in all L − m(1 − m^L)/(1 − m) times η′g/(1 − m)."""
    m = 0.8
    optimizer = entropy_sgd(L, alpha=1.0, momentum=m, restart=True)
    way = -LR * GRADIENT / (1 - m) * (L - m * (1 - m**L) / (1 - m))
    assert moved(optimizer, L) == pytest.approx(way, rel=1e-12)
    assert moved(optimizer, L) == pytest.approx(way, rel=1e-12)


@pytest.mark.parametrize("outer_momentum", [0.5, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_outer_momentum_moves_further_by_its_own_factor(nesterov, outer_momentum):
    optimizer = entropy_sgd(3, alpha=1.0, outer_momentum=outer_momentum, nesterov=nesterov)
    moved(optimizer, 3 * 400)
    assert moved(optimizer, 3) == pytest.approx(-3 * LR * GRADIENT / (1 - outer_momentum), rel=1e-12)


def entropy_adam(**settings) -> EntropyAdam:
    p = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    return EntropyAdam([p], LR, eps=1e-12, temperature=0.0, **settings)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("settings", [{}, {"gamma": 0.0, "alpha": 1.0}, {"pull": 0.3, "alpha": 0.2}])
@pytest.mark.parametrize("L", [1, 3, 20])
def test_entropy_adam_moves_as_adam_does(L, settings, restart):
    """Adam's step on a constant gradient is lr whatever the gradient, and so is the outer one, at lr·L."""
    p = nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    adam = torch.optim.Adam([p], lr=LR, eps=1e-12)
    optimizer = entropy_adam(inner_steps=L, restart=restart, **settings)
    for _ in range(4):
        assert moved(optimizer, L) == pytest.approx(moved(adam, L), rel=CONSTANT)
    assert moved(optimizer, 5 * L) == pytest.approx(-5 * L * LR, rel=CONSTANT)


def test_entropy_adam_closed_early_moves_by_the_steps_it_took():
    optimizer = entropy_adam(inner_steps=5)
    (p,) = optimizer.param_groups[0]["params"]
    for _ in range(3):
        start = p.item()
        moved(optimizer, 2)
        optimizer.close_cycle()
        assert p.item() - start == pytest.approx(-2 * LR, rel=CONSTANT)


def test_rho_gradient_takes_no_step_of_entropy_adams_own():
    """L + 1 gradients a cycle, a way of L steps."""
    assert moved(entropy_adam(inner_steps=4, rho=0.1), 10) == pytest.approx(-2 * 4 * LR, rel=CONSTANT)


def test_entropy_adam_with_an_outer_step_of_its_own():
    assert moved(entropy_adam(inner_steps=4, outer_lr=0.3), 8) == pytest.approx(-2 * 0.3, rel=CONSTANT)
