"""Closed forms that an implementation of the chain cannot share a mistake with.

On f = h x²/2 the inner step is linear, u ← A u + √(2η′T) ξ with u = x′ − x*, so mean, variance and memory of the
chain are known exactly at every step size. Many independent coordinates serve as parallel chains: standard
errors over them need no autocorrelation time. Bounds are four standard errors.
"""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import minimize_scalar
from torch import nn

from widevalley import EntropySGD, NestedOptimizer
from widevalley.experiments import two_valleys

CHAINS = 20_000


def run(optimizer, p: nn.Parameter, gradient, steps: int) -> None:
    for _ in range(steps):
        p.grad = gradient(p.detach())
        optimizer.step()


def chains(start: float, n: int = CHAINS) -> nn.Parameter:
    return nn.Parameter(torch.full((n,), start, dtype=torch.float64))


def assert_mean(samples: torch.Tensor, mean: float, variance: float) -> None:
    assert abs(samples.mean().item() - mean) < 4 * math.sqrt(variance / samples.numel())


def assert_variance(samples: torch.Tensor, variance: float) -> None:
    """The variance of a Gaussian's sample variance is 2σ⁴/(n − 1)."""
    assert abs(samples.var().item() / variance - 1) < 4 * math.sqrt(2 / (samples.numel() - 1))


@pytest.mark.parametrize(("h", "gamma", "lr"), [(1.0, 0.5, 0.1), (-0.3, 0.8, 0.4), (4.0, 1.0, 0.3)])
@pytest.mark.parametrize("L", [1, 3, 20])
def test_inner_chain_without_noise(h, gamma, lr, L):
    """
    x′_ℓ = x* + a^ℓ (x − x*),  x* = γx/(h + γ),  a = 1 − η′(h + γ)
    μ_L  = (1 − q^L) x* + q^L x + (1 − q)(x − x*) a (a^L − q^L)/(a − q),  q = 1 − α
    """
    x, alpha, eta = 3.0, 0.3, 0.6
    p = chains(x, 1)
    optimizer = EntropySGD([p], lr, gamma=gamma, alpha=alpha, inner_steps=L, outer_lr=eta, temperature=0.0)
    a, q = 1 - lr * (h + gamma), 1 - alpha
    fixed = gamma * x / (h + gamma)
    for ell in range(1, L):
        run(optimizer, p, lambda w: h * w, 1)
        assert p.item() == pytest.approx(fixed + a**ell * (x - fixed), rel=1e-12)
    run(optimizer, p, lambda w: h * w, 1)
    mu = (1 - q**L) * fixed + q**L * x + alpha * (x - fixed) * a * (a**L - q**L) / (a - q)
    assert p.item() == pytest.approx(x - eta * (x - mu), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
@pytest.mark.parametrize(("h", "gamma", "lr"), [(1.0, 0.5, 0.1), (3.0, 1.0, 0.4), (-0.5, 2.0, 0.2)])
def test_langevin_chain_is_stationary_where_the_design_says(h, gamma, lr, temperature):
    """⟨x′⟩ = γx/(h + γ), variance 2η′T/(1 − a²), covariance of neighbours a times that."""
    x = 2.0
    p = chains(x)
    steps = 120  # a is at most 0.85: a^120 < 4e-9
    optimizer = EntropySGD([p], lr, gamma=gamma, inner_steps=steps + 2, temperature=temperature, seed=1)
    run(optimizer, p, lambda w: h * w, steps)
    a = 1 - lr * (h + gamma)
    variance = 2 * lr * temperature / (1 - a**2)
    mean = gamma * x / (h + gamma)
    earlier = p.detach().clone()
    assert_mean(earlier, mean, variance)
    assert_variance(earlier, variance)

    run(optimizer, p, lambda w: h * w, 1)
    covariance = ((p.detach() - mean) * (earlier - mean)).mean().item()
    # Var(uv) = σ⁴(1 + a²) for Gaussians of correlation a.
    assert abs(covariance - a * variance) < 4 * variance * math.sqrt((1 + a**2) / CHAINS)


def test_first_step_has_the_variance_of_one_displacement():
    """Line 5 alone, from the second cycle on as well: 2η′T, fresh at each step, independent of the element."""
    p = chains(0.0)
    optimizer = EntropySGD([p], 0.25, gamma=0.0, inner_steps=3, temperature=0.7, alpha=1.0, seed=3)
    drift = torch.zeros(CHAINS, dtype=torch.float64)
    moves = []
    for _ in range(9):
        before = p.detach().clone()
        run(optimizer, p, lambda w: drift, 1)
        moves.append(p.detach() - before)
    for move in moves:
        assert_mean(move, 0.0, 2 * 0.25 * 0.7)
        assert_variance(move, 2 * 0.25 * 0.7)
        shape = (move**4).mean().item() / (2 * 0.25 * 0.7) ** 2
        assert abs(shape - 3) < 4 * math.sqrt(96 / CHAINS)  # Var(z⁴) = 105 − 9
        neighbours = (move[1:] * move[:-1]).mean().item() / (2 * 0.25 * 0.7)
        assert abs(neighbours) < 4 / math.sqrt(CHAINS)
        halves = torch.corrcoef(move.view(2, -1))[0, 1].item()
        assert abs(halves) < 4 / math.sqrt(CHAINS / 2)
    correlations = torch.corrcoef(torch.stack(moves)) - torch.eye(9, dtype=torch.float64)
    assert correlations.abs().max().item() < 4.5 / math.sqrt(CHAINS)  # the largest of 36


@pytest.mark.parametrize(("h", "gamma", "lr", "alpha"), [(1.0, 0.5, 0.1, 0.1), (-0.5, 2.0, 0.2, 0.75)])
def test_outer_step_follows_the_gradient_of_local_entropy(h, gamma, lr, alpha):
    """pull=None: x moves by η∇F, in the mean −ηγhx/(h + γ).

    μ is an exponential average of a chain of memory a: Var μ = σ² α(1 + qa)/((1 + q)(1 − qa)), q = 1 − α.
    """
    x, eta = 2.0, 0.8
    p = chains(x)
    optimizer = EntropySGD(
        [p], lr, gamma=gamma, pull=None, alpha=alpha, outer_lr=eta, inner_steps=200, temperature=1.0, seed=2
    )
    run(optimizer, p, lambda w: h * w, 200)
    a, q = 1 - lr * (h + gamma), 1 - alpha
    variance = 2 * lr / (1 - a**2) * alpha * (1 + q * a) / ((1 + q) * (1 - q * a))
    move = p.detach() - x
    assert_mean(move, -eta * gamma * h * x / (h + gamma), (eta * gamma) ** 2 * variance)
    assert_variance(move, (eta * gamma) ** 2 * variance)


def transition(h: float, gamma: float, lr: float, m: float, nesterov: bool, decoupled: bool) -> np.ndarray:
    """(u, b) ← A (u, b) for x′ = x* + u and the momentum b less its mean."""
    inside, beside = (h, gamma) if decoupled else (h + gamma, 0.0)
    b = np.array([inside, m])
    move = np.array([inside, 0.0]) + m * b if nesterov else b
    return np.array([[1 - lr * beside, 0.0] - lr * move, b])


@pytest.mark.parametrize("nested", [False, True], ids=["EntropySGD", "NestedOptimizer"])
@pytest.mark.parametrize("decoupled", [False, True], ids=["coupled", "decoupled"])
@pytest.mark.parametrize("nesterov", [False, True], ids=["heavy ball", "Nesterov"])
@pytest.mark.parametrize("m", [0.5, 0.9])
def test_stationary_variance_with_momentum(m, nesterov, decoupled, nested):
    """By the discrete Lyapunov equation. Beside the momentum the pull is 1/(1 − m) times weaker than h."""
    h, gamma, lr, x, temperature = 1.5, 0.5, 0.15, 2.0, 0.4
    p = chains(x)
    steps = 400  # the spectral radius is at most 0.95
    settings = {
        "restart": False,
        "decoupled_pull": decoupled,
        "gamma": gamma,
        "inner_steps": steps + 1,
        "temperature": temperature,
        "seed": 4,
    }
    if nested:
        inner = torch.optim.SGD([p], lr=lr, momentum=m, nesterov=nesterov)
        optimizer = NestedOptimizer(inner, **settings)
    else:
        optimizer = EntropySGD([p], lr, momentum=m, nesterov=nesterov, **settings)
    a = transition(h, gamma, lr, m, nesterov, decoupled)
    assert np.abs(np.linalg.eigvals(a)).max() ** steps < 1e-8
    run(optimizer, p, lambda w: h * w, steps)
    variance = solve_discrete_lyapunov(a, np.diag([2 * lr * temperature, 0.0]))[0, 0]
    strength = h / (1 - m) if decoupled else h
    assert_mean(p.detach(), gamma * x / (gamma + strength), variance)
    assert_variance(p.detach(), variance)


def test_lyapunov_equation_of_these_tests_agrees_with_the_small_steps_of_the_documentation():
    """(1 − m)T/k, k = h + γ; T/k only for plain SGD."""
    for m in (0.0, 0.5, 0.9):
        a = transition(1.5, 0.5, 1e-6, m, False, False)
        variance = solve_discrete_lyapunov(a, np.diag([2e-6, 0.0]))[0, 0]
        assert variance == pytest.approx((1 - m) / 2.0, rel=1e-3)


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("pull", [None, 1.0])
def test_smoothed_hessian(pull, rho):
    """With a converged chain at T = 0, x ← (1 − η(ρH + (c/γ) S))x where S has the eigenvalues γλ/(γ + λ)."""
    eigenvalues = torch.tensor([-0.3, 0.0, 0.05, 0.5, 3.0, 40.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    hessian = q @ torch.diag(eigenvalues) @ q.T
    gamma, eta = 0.7, 0.4
    p = nn.Parameter(torch.eye(6, dtype=torch.float64))  # column j is a start of its own
    optimizer = EntropySGD(
        [p], 0.03, gamma=gamma, pull=pull, rho=rho, alpha=0.9, outer_lr=eta, inner_steps=3000, temperature=0.0
    )
    run(optimizer, p, lambda w: hessian @ w, optimizer.cycle_length)
    smoothed = (torch.eye(6, dtype=torch.float64) - p.detach()) / eta - rho * hessian
    scale = 1.0 if pull is None else 1 / gamma
    expected = (gamma * eigenvalues / (gamma + eigenvalues)).sort().values
    torch.testing.assert_close(torch.linalg.eigvalsh(smoothed), scale * expected, rtol=1e-9, atol=1e-9)


def test_wide_valley_wins_in_the_papers_figure_2():
    """f is lowest in the sharp well, −F in the wide one; gradient descent stays in one, Entropy-SGD leaves it."""
    gamma, points = 1.0, two_valleys.places()
    sharp, wide = points["non-robust"], points["robust"]
    minus_entropy = np.array([two_valleys.minus_local_entropy(x, gamma) for x in np.linspace(-3, 2, 51)])
    valleys = np.flatnonzero((minus_entropy[1:-1] < minus_entropy[:-2]) & (minus_entropy[1:-1] < minus_entropy[2:]))
    assert len(valleys) == 1
    lowest = minimize_scalar(two_valleys.minus_local_entropy, args=(gamma,), bounds=(-3, 2), method="bounded").x
    assert abs(lowest - wide) < 0.25

    start, lr = 0.8, 0.004  # the sharp well's curvature is about 100
    descent = chains(start, 1)
    run(torch.optim.SGD([descent], lr=lr), descent, two_valleys.slope, 2000)
    assert descent.item() == pytest.approx(sharp, abs=1e-4)

    # From the sharp side all the way to the wide valley, then with smaller outer steps to fluctuate less.
    runs, length = 256, 1500
    p = chains(start, runs)
    optimizer = EntropySGD(
        [p],
        lr,
        gamma=gamma,
        pull=None,
        alpha=0.0015,
        outer_lr=lambda t: 1.0 if t < 6 else 0.3,
        inner_steps=length,
        temperature=1.0,
        seed=0,
    )
    run(optimizer, p, two_valleys.slope, 10 * length)
    _, barrier = two_valleys.basins(points)
    ends = p.detach()
    assert (ends < barrier).all()
    # 0.03: −F is not symmetric about its minimum, so the mean of fluctuations is not quite there.
    assert abs(ends.mean().item() - lowest) < 4 * ends.std().item() / math.sqrt(runs) + 0.03
