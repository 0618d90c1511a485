"""Every number of the presets, against the paper's text and what is known of the authors' runs."""

import pytest
import torch
from reference import Block, algorithm_1, network, network_gradient, take_gradient
from torch import nn

from widevalley import EntropySGD, presets
from widevalley.optim import noise as library_noise
from widevalley.scoping import Geometric


def built(preset) -> EntropySGD:
    return EntropySGD([nn.Parameter(w) for w in network()], **preset)


def test_paper():
    """Sec. 4.3: L = 20, α = 0.9, η′ = 0.1 η; line 5: 2√η′ is √(2η′T) at T = 2; Sec. 5.2, LeNet: γ, ρ."""
    optimizer = built(presets.paper)
    assert optimizer.cycle_length == 21
    (group,) = optimizer.param_groups
    assert group["inner_steps"] == 20
    assert group["gamma"] == 0.1
    assert group["rho"] == 1e-4
    assert group["alpha"] == 0.9
    assert group["pull"] is None
    assert group["temperature"] == 2.0
    assert group["lr"] == pytest.approx(0.1 * group["outer_lr"], rel=1e-12)
    assert group["decoupled_pull"] is False  # line 4: γ is part of the gradient
    assert group["restart"] is True


def test_authors():
    optimizer = built(presets.authors)
    assert optimizer.cycle_length == 20
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.1
    assert group["momentum"] == 0.9
    assert group["nesterov"] is True
    assert group["outer_momentum"] == 0.0
    assert group["outer_lr"] == 1.0
    assert group["inner_steps"] == 20
    assert group["rho"] == 0.0
    assert group["alpha"] == 0.25
    assert group["pull"] == 1.0
    assert group["temperature"] == 1e-8  # ε² with ε = 1e-4
    assert group["restart"] is True
    assert group["decoupled_pull"] is True
    assert presets.authors["gamma"] == Geometric(1e-4, 1e-3)


def test_weight_that_the_authors_average_leaves_on_the_start():
    """0.75^20 is 0.3 %, 0.75^5 is 24 %: alpha is the weight of the new sample, not of the old average."""
    for steps, percent in ((20, 0.3), (5, 24)):
        p = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        settings = presets.authors | {"inner_steps": steps, "gamma": 0.0, "temperature": 0.0, "momentum": 0.0}
        optimizer = EntropySGD([p], **settings | {"nesterov": False, "lr": 1.0})
        for _ in range(steps):
            p.grad = p.detach().clone()  # f = x²/2 and η′ = 1: x′ is 0 from the first step on
            optimizer.step()
        assert p.item() == pytest.approx(0.75**steps, rel=1e-12)
        assert round(100 * p.item(), 0 if steps == 5 else 1) == percent


@pytest.mark.parametrize("name", ["paper", "authors"])
def test_each_preset_runs_as_algorithm_1_with_these_numbers(name):
    written_out = {
        "paper": {"gamma": 0.1, "alpha": 0.9, "pull": None, "temperature": 2.0, "restart": True}
        | {k: presets.paper[k] for k in ("lr", "outer_lr", "momentum", "nesterov", "outer_momentum")},
        "authors": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "outer_lr": 1.0, "outer_momentum": 0.0}
        | {"gamma": lambda t: 1e-4 * 1.001**t, "alpha": 0.25, "pull": 1.0, "temperature": 1e-8}
        | {"restart": True, "decoupled_pull": True},
    }[name]
    optimizer = built(getattr(presets, name))
    parameters = optimizer.param_groups[0]["params"]
    seen = algorithm_1(
        [Block(x=w, **written_out) for w in network()],
        network_gradient,
        L=20,
        rho=1e-4 if name == "paper" else 0.0,
        noise=lambda s, i: library_noise.gaussian(parameters[i], seed=0, step=s, index=i),
    )
    for k in range(3 * optimizer.cycle_length):
        take_gradient(optimizer, network_gradient, k)
        torch.testing.assert_close([p.detach() for p in parameters], next(seen).parameters, rtol=1e-11, atol=1e-13)
