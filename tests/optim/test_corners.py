"""Corners of the one loop, each against somebody else's implementation on the same gradients."""

import pytest
import torch
from pytorch_optimizer import Lookahead
from reference import network, network_gradient, take_gradient
from torch import nn

from widevalley import EntropySGD, NestedOptimizer

SGD, Adam, AdamW, RMSprop = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop

inner_optimizers = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD, momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "SGD, dampened": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.3),
    "SGD, Nesterov, decay": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.05),
    "Adam": lambda p: Adam(p, lr=0.02),
    "Adam, decay, amsgrad": lambda p: Adam(p, lr=0.02, weight_decay=0.05, amsgrad=True),
    "AdamW": lambda p: AdamW(p, lr=0.02, weight_decay=0.3),
    "RMSprop": lambda p: RMSprop(p, lr=0.01),
    "RMSprop, centred, momentum": lambda p: RMSprop(p, lr=0.01, centered=True, momentum=0.8),
    # Those with settings of their own that are called alpha, as RMSprop's is, or rho.
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.05),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
}
corner = {"restart": False, "decoupled_pull": False, "gamma": 0.0, "alpha": 1.0, "temperature": 0.0}


def leaves() -> list[nn.Parameter]:
    return [nn.Parameter(w) for w in network()]


def assert_same_path(one, other, gradients: int, **tolerance) -> None:
    """Equal weights after each of so many gradients, each taken where the optimizer itself stands."""
    tolerance = tolerance or {"rtol": 1e-12, "atol": 1e-14}
    for k in range(gradients):
        take_gradient(one, network_gradient, k)
        take_gradient(other, network_gradient, k)
        for p, q in zip(one.param_groups, other.param_groups, strict=True):
            for a, b in zip(p["params"], q["params"], strict=True):
                torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("decoupled_pull", [False, True])
@pytest.mark.parametrize("L", [1, 3])
@pytest.mark.parametrize("name", inner_optimizers)
def test_inner_optimizer_alone(name, L, decoupled_pull):
    """γ = 0, α = 1, η = 1: x ← μ = x′, so at every L the outer loop does nothing."""
    build = inner_optimizers[name]
    nested = NestedOptimizer(
        build(leaves()), inner_steps=L, outer_lr=1.0, **corner | {"decoupled_pull": decoupled_pull}
    )
    assert_same_path(nested, build(leaves()), 12)


@pytest.mark.parametrize("L", [1, 3])
@pytest.mark.parametrize("nesterov", [False, True])
def test_entropy_sgd_is_sgd_with_its_momentum_and_decay(nesterov, L):
    settings = {"lr": 0.1, "momentum": 0.9, "nesterov": nesterov, "weight_decay": 0.05}
    entropy = EntropySGD(leaves(), inner_steps=L, outer_lr=1.0, **settings, **corner)
    assert_same_path(entropy, SGD(leaves(), **settings), 12)


@pytest.mark.parametrize(("L", "eta"), [(3, 0.5), (5, 0.8), (1, 0.3)])
@pytest.mark.parametrize("name", inner_optimizers)
def test_lookahead(name, L, eta):
    """γ = 0, α = 1, any η: Zhang et al. 2019, as published in pytorch_optimizer. Its alpha is η, its k is L."""
    build = inner_optimizers[name]
    nested = NestedOptimizer(build(leaves()), inner_steps=L, outer_lr=eta, **corner)
    assert_same_path(nested, Lookahead(build(leaves()), k=L, alpha=eta, pullback_momentum="none"), 4 * L + 2)


def test_restart_is_lookahead_with_its_momentum_reset():
    nested = NestedOptimizer(
        SGD(leaves(), lr=0.1, momentum=0.9), inner_steps=4, outer_lr=0.5, **corner | {"restart": True}
    )
    rival = Lookahead(SGD(leaves(), lr=0.1, momentum=0.9), k=4, alpha=0.5, pullback_momentum="reset")
    assert_same_path(nested, rival, 18)


def test_diloco_with_one_replica():
    """AdamW inside, Nesterov SGD outside on the difference x − x′_L (Douillard et al. 2023)."""
    steps = 4
    nested = NestedOptimizer(
        AdamW(leaves(), lr=0.02),
        lambda centers: SGD(centers, lr=0.7, momentum=0.9, nesterov=True),
        inner_steps=steps,
        **corner,
    )
    workers = leaves()
    globals_ = leaves()
    inner = AdamW(workers, lr=0.02)
    outer = SGD(globals_, lr=0.7, momentum=0.9, nesterov=True)
    for k in range(4 * steps):
        take_gradient(nested, network_gradient, k)
        take_gradient(inner, network_gradient, k)
        if (k + 1) % steps == 0:
            for x, x_prime in zip(globals_, workers, strict=True):
                x.grad = x.detach() - x_prime.detach()
            outer.step()
            for x, x_prime in zip(globals_, workers, strict=True):
                x_prime.data.copy_(x.data)
        for p, q in zip(nested.param_groups[0]["params"], workers, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)
