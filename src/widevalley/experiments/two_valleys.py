"""The paper's Fig. 2 in one dimension: local entropy, classical entropy, and where optimizers end from many starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from widevalley import EntropySGD
from widevalley.experiments.records import Record, rounded
from widevalley.scoping import Steps

Array = NDArray[np.float64]

# The wide valley, the sharp one, the wide region of high loss. Ours: the paper gives no formula.
POINTS = ("robust", "non-robust", "candidate")
WEIGHTS, MEANS, DEVIATIONS = (0.78, 0.2, 0.02), (-1.0, 0.5, -6.0), (0.6, 0.1, 1.5)
_MEANS, _VARIANCES = torch.tensor(MEANS, dtype=torch.float64), torch.tensor(DEVIATIONS, dtype=torch.float64).square()

GAMMAS = (0.3, 1.0, 3.0, 10.0, 100.0)
# −F and the entropy are told at these; the integrals are sums over nodes 0.01 apart, a seventh of the narrowest
# measure's deviation, which for integrands that are smooth and vanish at both ends leaves rounding alone.
GRID = np.linspace(-10.0, 2.0, 241)
NODES = np.linspace(-20.0, 13.0, 3301)

STARTS, CYCLES, INNER_STEPS = 400, 40, 1000
# A fifth of 1/curvature of the sharp valley; the noise of minibatch gradients is like a temperature of ησ²/2 = 0.004.
LR, NOISE = 0.002, 2.0
# η falls once the valley is found, as in the authors' runs: fluctuations of μ count less.
OUTER_LR = Steps((1.0, 0.1), (30,))

CLASSICAL = (
    "S = −∫ P log P of the tilted measure is, of the three points, largest at x_candidate and smallest in the sharp "
    "valley, at every γ here. The paper's 'classical entropy is smallest in the neighbourhood of x_candidate' holds "
    "for −S = ∫ P log P, not for its formula −∫ log P dP. Over all x, S is largest where the measure reaches from "
    "a high place into lower ones: in the region of high loss or on its edge for small γ, on a shoulder of a valley "
    "for large γ."
)


def logarithms(x: Tensor, variance: float = 0.0) -> Tensor:
    """log of each Gaussian of exp(−f), convolved with one of this variance, shape (*x.shape, 3)."""
    wider = _VARIANCES + variance
    constants = torch.tensor(WEIGHTS, dtype=torch.float64).log() - (2 * math.pi * wider).log() / 2
    return constants - (x[..., None] - _MEANS).square() / (2 * wider)


def loss(x: Tensor) -> Tensor:
    """f = −log Σ_k w_k N(x; m_k, s_k²), float64 of the shape of x."""
    return -logarithms(x).logsumexp(-1)


def slope(x: Tensor) -> Tensor:
    """f′, of the shape of x."""
    return (logarithms(x).softmax(-1) * (x[..., None] - _MEANS) / _VARIANCES).sum(-1)


def minus_local_entropy(x: float, gamma: float) -> float:
    """−F(x, γ) in closed form: exp(−f) convolved with N(0, 1/γ) is three Gaussians again, F its log and ½ log(2π/γ)."""
    convolved = logarithms(torch.tensor(x, dtype=torch.float64), 1 / gamma).logsumexp(-1)
    return -float(convolved) - math.log(2 * math.pi / gamma) / 2


def entropies(x: Array, gamma: float) -> tuple[Array, Array]:
    """By quadrature −F(x, γ), F = log ∫ exp(−f(x′) − γ/2 (x − x′)²) dx′, and S = −∫ P log P of that measure."""
    f = loss(torch.from_numpy(NODES)).numpy()
    exponent = -f - gamma / 2 * (x[:, None] - NODES) ** 2
    largest = exponent.max(axis=1)
    spacing = NODES[1] - NODES[0]
    z = np.exp(exponent - largest[:, None]).sum(axis=1) * spacing
    local = np.log(z) + largest
    p = np.exp(exponent - local[:, None])
    return -local, local - (p * exponent).sum(axis=1) * spacing


def two_valleys() -> Record:
    """The landscape, −F and the classical entropy S over it, and the ends of optimizers, at β = 1 as in Definition 1.

    f = −log of three Gaussians: a wide valley (x_robust), a sharp and deeper one (x_non-robust), a wide region of high
    loss (x_candidate). Of S the paper says that it is smallest near x_candidate (Sec. 3); which sign makes that true,
    ``classical_entropy`` says.

    Returns:
        ``x`` (241,), ``f``; ``points``, the three places with their losses; ``scopes``, for each γ ``minus_f`` and
        ``entropy`` over x, where −F and S are least and S largest, S at the points. ``equal_depth_gamma``: below it −F
        is lowest in the wide valley, above it in the sharp one. ``ends``: for each walk its ``settings``, ``x`` of
        every chain at the end, and the share of them in the basin of f of each point, beside ``gibbs``, the share of
        ∫ exp(−f) there, which a walk at temperature 1 would have in the long run. Six significant digits.
    """
    points = places()
    edges = basins(points)
    record = {
        "x": GRID.tolist(),
        "f": loss(torch.from_numpy(GRID)).tolist(),
        "beta": 1.0,
        "gaussians": {"weights": list(WEIGHTS), "means": list(MEANS), "deviations": list(DEVIATIONS)},
        "points": {name: {"x": x, "f": float(loss(torch.tensor(x)))} for name, x in points.items()},
        "scopes": [_scope(gamma, points) for gamma in GAMMAS],
        "equal_depth_gamma": equal_depth_gamma(edges),
        "classical_entropy": CLASSICAL,
        "gibbs": _gibbs(edges),
        "starts": {"first": float(GRID[0]), "last": float(GRID[-1]), "count": STARTS},
        "gradients": CYCLES * INNER_STEPS,
        "ends": [_ends(walk, edges) for walk in walks()],
    }
    return dict(rounded(record))


def places() -> dict[str, float]:
    """Minima of f, each within a deviation of its Gaussian's mean."""
    found = {}
    for name, mean, deviation in zip(POINTS, MEANS, DEVIATIONS, strict=True):
        bounds = (mean - deviation, mean + deviation)
        found[name] = float(minimize_scalar(_f, bounds=bounds, method="bounded", options={"xatol": 1e-9}).x)
    return found


def basins(points: dict[str, float]) -> tuple[float, float]:
    """Where f is largest between the high region and the wide valley, and between that and the sharp one."""

    def top(low: float, high: float) -> float:
        return float(minimize_scalar(lambda x: -_f(x), bounds=(low, high), method="bounded").x)

    return top(points["candidate"], points["robust"]), top(points["robust"], points["non-robust"])


def _f(x: float) -> float:
    return float(loss(torch.tensor(x, dtype=torch.float64)))


def equal_depth_gamma(edges: tuple[float, float]) -> float:
    """γ at which −F is as low in the wide valley as in the sharp one."""

    def advantage(gamma: float) -> float:
        wide, sharp = (
            minimize_scalar(minus_local_entropy, args=(gamma,), bounds=bounds, method="bounded").fun
            for bounds in (edges, (edges[1], float(GRID[-1])))
        )
        return float(sharp - wide)

    return float(brentq(advantage, 1.0, 1e4, xtol=1e-6))


def _scope(gamma: float, points: dict[str, float]) -> Record:
    minus_f, entropy = entropies(GRID, gamma)
    _, there = entropies(np.array(list(points.values())), gamma)
    return {
        "gamma": gamma,
        "minus_f": minus_f.tolist(),
        "entropy": entropy.tolist(),
        "minus_f_least_at": float(GRID[minus_f.argmin()]),
        "entropy_least_at": float(GRID[entropy.argmin()]),
        "entropy_largest_at": float(GRID[entropy.argmax()]),
        "entropy_at": dict(zip(points, there.tolist(), strict=True)),
    }


def _gibbs(edges: tuple[float, float]) -> Record:
    """Shares of ∫ exp(−f) in the basins."""
    density = np.exp(-loss(torch.from_numpy(NODES)).numpy())
    return _shares(NODES, density / density.sum(), edges)


def _shares(x: Array, weights: Array, edges: tuple[float, float]) -> Record:
    basin = np.digitize(x, edges)
    return {name: float(weights[basin == k].sum()) for k, name in ((1, "robust"), (2, "non-robust"), (0, "candidate"))}


@dataclass(frozen=True)
class Walk:
    """An optimizer of all chains at once, each a coordinate, and the standard deviation of its gradients' noise."""

    name: str
    description: str
    noise: float
    settings: dict[str, Any]
    build: Callable[..., Optimizer]


def walks() -> list[Walk]:
    """Gradient descent, SGD, Langevin dynamics, and Entropy-SGD with two scopes and two temperatures."""
    langevin = math.hypot(NOISE, math.sqrt(2 / LR))

    def entropy_sgd(name: str, description: str, gamma: float, temperature: float) -> Walk:
        # μ looks back over half a chain.
        settings: dict[str, Any] = {
            "gamma": gamma,
            "temperature": temperature,
            "inner_steps": INNER_STEPS,
            "alpha": 2 / INNER_STEPS,
        }
        return Walk(
            name, description, NOISE, settings, lambda p: EntropySGD([p], LR, outer_lr=OUTER_LR, seed=0, **settings)
        )

    def sgd(p: nn.Parameter) -> Optimizer:
        return SGD([p], LR)

    return [
        Walk("gd", "gradient descent", 0.0, {}, sgd),
        Walk("sgd", "SGD", NOISE, {}, sgd),
        Walk("langevin", "SGD with the noise of temperature 1", langevin, {}, sgd),
        entropy_sgd("entropy-sgd", "Entropy-SGD, γ = 0.3, T = 1", 0.3, 1.0),
        entropy_sgd("entropy-sgd-narrow", "Entropy-SGD, γ = 10, T = 1", 10.0, 1.0),
        entropy_sgd("entropy-sgd-cold", "Entropy-SGD, γ = 0.3, T = 1e-8", 0.3, 1e-8),
    ]


def _ends(walk: Walk, edges: tuple[float, float]) -> Record:
    p = nn.Parameter(torch.linspace(float(GRID[0]), float(GRID[-1]), STARTS, dtype=torch.float64))
    optimizer = walk.build(p)
    generator = torch.Generator().manual_seed(0)
    for _ in range(CYCLES * INNER_STEPS):
        p.grad = slope(p.detach())
        if walk.noise:
            p.grad += walk.noise * torch.randn(STARTS, generator=generator, dtype=torch.float64)
        optimizer.step()
    # The last cycle has just ended: the parameters are the centre.
    x = p.detach().numpy()
    outer = {"outer_lr": repr(OUTER_LR)} if isinstance(optimizer, EntropySGD) else {}
    return {
        "name": walk.name,
        "description": walk.description,
        "settings": {"lr": LR, "noise": walk.noise, **walk.settings, **outer},
        "shares": _shares(x, np.full(STARTS, 1 / STARTS), edges),
        "x": x.tolist(),
    }
