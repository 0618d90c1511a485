"""The optimizers equal Algorithm 1 of reference.py, gradient by gradient, in float64."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import Block, algorithm_1, network, network_gradient, take_gradient
from torch import Tensor, nn

from widevalley import EntropyAdam, EntropySGD, NestedOptimizer, scoping
from widevalley.optim import noise as library_noise

# What the two sides may differ by: sums of up to 80 steps, each rounded once or twice.
TOLERANCE = {"rtol": 1e-11, "atol": 1e-13}
SEED = 5


def growing(initial: float, rate: float) -> dict[str, Any]:
    """One schedule twice: as the library has it, and written out for the oracle."""
    return {"library": scoping.Geometric(initial, rate), "oracle": lambda t: initial * (1 + rate) ** t}


def side(settings: dict[str, Any], which: str) -> dict[str, Any]:
    return {k: v[which] if isinstance(v, dict) else v for k, v in settings.items()}


def the_same_noise(parameters: list[nn.Parameter]):
    return lambda s, i: library_noise.gaussian(parameters[i], seed=SEED, step=s, index=i)


def two_groups(first: dict[str, Any], second: dict[str, Any]) -> tuple[list[dict], list[Block]]:
    """The network's layers as two groups, for the library and for the oracle."""
    weights = network()
    groups, blocks = [], []
    for settings, layer in ((first, weights[:2]), (second, weights[2:])):
        groups.append({"params": [nn.Parameter(w.clone()) for w in layer], **side(settings, "library")})
        blocks += [Block(x=w, **side(settings, "oracle")) for w in layer]
    return groups, blocks


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def flat(tensors: list[Tensor]) -> Tensor:
    """A copy of all numbers in one vector: one comparison in place of four."""
    return torch.cat([t.detach().reshape(-1) for t in tensors])


def assert_equal_to_algorithm_1(
    optimizer: NestedOptimizer,
    blocks: list[Block],
    *,
    L: int,
    rho: float,
    cycles: int,
) -> None:
    parameters = parameters_of(optimizer)
    seen = algorithm_1(blocks, network_gradient, L=L, rho=rho, noise=the_same_noise(parameters))
    assert optimizer.cycle_length == (L + 1 if rho > 0 else L)
    for k in range(cycles * optimizer.cycle_length):
        take_gradient(optimizer, network_gradient, k)
        expected = next(seen)
        torch.testing.assert_close(flat(parameters), flat(expected.parameters), **TOLERANCE)
        before = flat(parameters)
        with optimizer.at_center():
            torch.testing.assert_close(flat(parameters), flat(expected.x), **TOLERANCE)
        assert torch.equal(flat(parameters), before)
        assert optimizer.cycle_position == (k + 1) % optimizer.cycle_length
        if optimizer.cycle_position > 0:
            mu = flat([optimizer.state[p]["average"] for p in parameters])
            torch.testing.assert_close(mu, flat(expected.mu), **TOLERANCE)
    assert optimizer.outer_updates == cycles


def drawn(rng: random.Random, family: str) -> dict[str, Any]:
    """The settings of one group, drawn from the grid."""
    settings: dict[str, Any] = {
        "lr": rng.choice([0.03, 0.2]),
        "gamma": rng.choice([0.0, 0.7, growing(0.4, 0.3)]),
        "alpha": rng.choice([0.15, 0.6, 0.9]),
        "pull": rng.choice([None, 1.0, 0.6]),
        "temperature": rng.choice([0.0, 1e-4, 0.3]),
        "weight_decay": rng.choice([0.0, 0.05]),
        "restart": rng.random() < 0.5,
        "decoupled_pull": rng.random() < 0.5,
        "outer_lr": rng.choice([1.0, 0.4, growing(0.3, 0.2)]),
    }
    if settings["gamma"] == 0.0 and settings["pull"] is None:
        settings["pull"] = 1.0  # x could never move: refused
    if family == "sgd":
        settings["momentum"] = rng.choice([0.0, 0.5, 0.9])
        settings["outer_momentum"] = rng.choice([0.0, 0.7])
        settings["nesterov"] = rng.random() < 0.5 and (settings["momentum"] > 0 or settings["outer_momentum"] > 0)
    else:
        settings["betas"] = rng.choice([(0.9, 0.999), (0.5, 0.8)])
        settings["outer_betas"] = rng.choice([(0.9, 0.999), (0.6, 0.7)])
        settings["eps"] = rng.choice([1e-8, 1e-3])
        # Adam's step is of the size lr whatever the gradient.
        settings["lr"] = rng.choice([0.01, 0.05])
        settings["outer_lr"] = rng.choice([0.1, growing(0.03, 0.2)])
    return settings


@pytest.mark.parametrize("draw", range(8))
@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize(("L", "cycles"), [(1, 6), (3, 5), (5, 4), (20, 3)])
@pytest.mark.parametrize("family", ["sgd", "adam"])
def test_two_groups_with_settings_drawn_from_the_grid(family, L, cycles, rho, draw):
    rng = random.Random(f"{family} {L} {rho} {draw}")
    groups, blocks = two_groups(drawn(rng, family), drawn(rng, family))
    optimizer_class = EntropySGD if family == "sgd" else EntropyAdam
    optimizer = optimizer_class(groups, lr=123.0, inner_steps=L, rho=rho, seed=SEED)
    assert_equal_to_algorithm_1(optimizer, blocks, L=L, rho=rho, cycles=cycles)


plain = {"lr": 0.2, "gamma": 0.7, "alpha": 0.3, "temperature": 0.0, "restart": False}
named = {
    "plain": {},
    "with noise": {"temperature": 0.5},
    "momentum": {"momentum": 0.9},
    "momentum, restarted": {"momentum": 0.9, "restart": True},
    "momentum, pull beside it": {"momentum": 0.9, "decoupled_pull": True},
    "Nesterov": {"momentum": 0.9, "nesterov": True},
    "the authors' inner loop": {"momentum": 0.9, "nesterov": True, "restart": True, "decoupled_pull": True},
    "momentum outside": {"outer_momentum": 0.8},
    "Nesterov outside": {"outer_momentum": 0.8, "nesterov": True},
    "Nesterov in both": {"momentum": 0.9, "outer_momentum": 0.8, "nesterov": True},
    "weight decay": {"weight_decay": 0.1},
    "line 9 as printed": {"pull": None},
    "gamma grows": {"gamma": growing(0.3, 0.5)},
    "gamma grows, in line 9 too": {"gamma": growing(0.3, 0.5), "pull": None},
    "eta grows": {"outer_lr": growing(0.2, 0.4)},
}


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("L", [1, 4])
@pytest.mark.parametrize("name", named)
def test_one_setting_at_a_time(name, L, rho):
    settings = plain | named[name]
    weights = network()
    parameters = [nn.Parameter(w.clone()) for w in weights]
    optimizer = EntropySGD(parameters, **side(settings, "library"), inner_steps=L, rho=rho, seed=SEED)
    blocks = [Block(x=w, **side(settings, "oracle")) for w in weights]
    assert_equal_to_algorithm_1(optimizer, blocks, L=L, rho=rho, cycles=5)


@pytest.mark.parametrize("setting", [{"outer_momentum": 0.8}, {"outer_lr": 0.3}, {"momentum": 0.9, "nesterov": True}])
def test_group_added_later_is_obeyed_as_one_given_at_once(setting):
    groups, blocks = two_groups(plain, plain | setting)
    optimizer = EntropySGD(groups[:1], lr=123.0, inner_steps=3, seed=SEED)
    optimizer.add_param_group(groups[1])
    assert_equal_to_algorithm_1(optimizer, blocks, L=3, rho=0.0, cycles=4)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_adam_with_its_own_outer_step_moves_lr_times_inner_steps(rho, restart):
    weights = network()
    parameters = [nn.Parameter(w.clone()) for w in weights]
    settings = {"lr": 0.02, "gamma": 0.7, "alpha": 0.3, "temperature": 1e-3, "restart": restart}
    settings |= {"betas": (0.9, 0.999), "outer_betas": (0.6, 0.9)}
    optimizer = EntropyAdam(parameters, **settings, inner_steps=4, rho=rho, seed=SEED)
    blocks = [Block(x=w, outer_lr=4 * 0.02, **settings) for w in weights]
    assert_equal_to_algorithm_1(optimizer, blocks, L=4, rho=rho, cycles=5)


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("family", ["sgd", "adam"])
def test_a_scheduler_that_moves_lr_at_every_gradient_is_obeyed(family, rho):
    def lr(k: int) -> float:
        return 0.05 / (1 + 0.3 * k)

    weights = network()
    parameters = [nn.Parameter(w.clone()) for w in weights]
    settings = {"gamma": 0.7, "alpha": 0.3, "temperature": 1e-2, "restart": False}
    if family == "sgd":
        settings |= {"momentum": 0.8, "decoupled_pull": True}
        block_settings = settings
        optimizer = EntropySGD(parameters, 0.05, **settings, inner_steps=3, rho=rho, seed=SEED)
    else:
        # The outer step of update t belongs to the last lr that its cycle saw.
        length = 4 if rho > 0 else 3
        settings |= {"betas": (0.9, 0.999), "outer_betas": (0.6, 0.9)}
        block_settings = settings | {"outer_lr": lambda t: 3 * lr(length * t + length - 1)}
        optimizer = EntropyAdam(parameters, 0.05, **settings, inner_steps=3, rho=rho, seed=SEED)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: lr(k) / 0.05)
    blocks = [Block(x=w, lr=lr, **block_settings) for w in weights]
    seen = algorithm_1(blocks, network_gradient, L=3, rho=rho, noise=the_same_noise(parameters))
    for k in range(4 * optimizer.cycle_length):
        take_gradient(optimizer, network_gradient, k)
        scheduler.step()
        torch.testing.assert_close(flat(parameters), flat(next(seen).parameters), **TOLERANCE)


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_a_cycle_closed_early_is_a_cycle_of_fewer_steps_without_rho(rho):
    """The second of four cycles is closed after two of its four steps; γ, η and the noise go on from there."""
    settings = {
        "lr": 0.2,
        "gamma": growing(0.3, 0.5),
        "alpha": 0.3,
        "outer_lr": growing(0.3, 0.2),
        "pull": None,
        "temperature": 0.01,
        "momentum": 0.8,
        "outer_momentum": 0.5,
        "restart": False,
    }
    weights = network()
    parameters = [nn.Parameter(w.clone()) for w in weights]
    optimizer = EntropySGD(parameters, **side(settings, "library"), inner_steps=4, rho=rho, seed=SEED)
    seen = algorithm_1(
        [Block(x=w, **side(settings, "oracle")) for w in weights],
        network_gradient,
        L=lambda t: 2 if t == 1 else 4,
        rho=lambda t: 0.0 if t == 1 else rho,
        noise=the_same_noise(parameters),
    )
    for k in range(3 * optimizer.cycle_length + 2):
        take_gradient(optimizer, network_gradient, k)
        if k + 1 == optimizer.cycle_length + 2:
            optimizer.close_cycle()
        torch.testing.assert_close(flat(parameters), flat(next(seen).parameters), **TOLERANCE)
    assert optimizer.outer_updates == 4


INNER = ("params", "lr", "momentum", "nesterov", "weight_decay", "betas", "eps")
NESTED = ("gamma", "alpha", "pull", "temperature", "restart", "decoupled_pull")


def nested_of(inner_class, outer_class, groups: list[dict], **settings) -> NestedOptimizer:
    """The same groups around two of torch's own optimizers."""
    if inner_class is torch.optim.SGD:
        # torch refuses nesterov without momentum; in either loop it does nothing then.
        inner_groups = [g | {"nesterov": g["nesterov"] and g["momentum"] > 0} for g in groups]
    else:
        inner_groups = groups
    inner_groups = [{k: g[k] for k in INNER + NESTED if k in g} for g in inner_groups]

    def outer(centers: list[dict]) -> torch.optim.Optimizer:
        outer_groups = []
        for center, g in zip(centers, groups, strict=True):
            own = {"params": center["params"], "lr": g["outer_lr"] if not callable(g["outer_lr"]) else 9.0}
            if outer_class is torch.optim.SGD:
                own["momentum"] = g["outer_momentum"]
                own["nesterov"] = g["nesterov"] and g["outer_momentum"] > 0
            else:
                own |= {"betas": g["outer_betas"], "eps": g["eps"]}
            outer_groups.append(own)
        return outer_class(outer_groups, lr=9.0)

    return NestedOptimizer(inner_class(inner_groups, lr=123.0), outer, **settings)


@pytest.mark.parametrize("draw", range(4))
@pytest.mark.parametrize(("L", "cycles"), [(1, 6), (3, 5), (20, 3)])
@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("family", ["sgd", "adam"])
def test_nested_optimizer_of_torchs_own_optimizers(family, L, cycles, rho, draw):
    """Equal to the oracle; and, unless weight decay meets ρ, to EntropySGD and EntropyAdam.

    NestedOptimizer knows nothing of the decay that its inner optimizer does, so line 8 is without it.
    """
    rng = random.Random(f"nested {family} {L} {rho} {draw}")
    first, second = drawn(rng, family), drawn(rng, family)
    torch_class = torch.optim.SGD if family == "sgd" else torch.optim.Adam
    settings = {"inner_steps": L, "rho": rho, "seed": SEED}

    # One outer_lr for all: a number stays with the outer optimizer, a function is the constructor's.
    second["outer_lr"] = first["outer_lr"]
    groups, blocks = two_groups(first, second)
    given = groups[0]["outer_lr"]
    outer_lr = given if callable(given) else None
    nested = nested_of(torch_class, torch_class, groups, outer_lr=outer_lr, **settings)
    blocks = [replace(block, decay_in_outer=False) for block in blocks]
    assert_equal_to_algorithm_1(nested, blocks, L=L, rho=rho, cycles=cycles)

    if rho > 0:
        first["weight_decay"] = second["weight_decay"] = 0.0
    groups, _ = two_groups(first, second)
    others, _ = two_groups(first, second)
    nested = nested_of(torch_class, torch_class, groups, outer_lr=outer_lr, **settings)
    entropy = (EntropySGD if family == "sgd" else EntropyAdam)(others, lr=123.0, **settings)
    for k in range(cycles * nested.cycle_length):
        take_gradient(nested, network_gradient, k)
        take_gradient(entropy, network_gradient, k)
        torch.testing.assert_close(flat(parameters_of(entropy)), flat(parameters_of(nested)), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rho", [0.0, 0.3])
@pytest.mark.parametrize("outer_lr", [None, 0.6, growing(0.3, 0.2)], ids=["1", "number", "function"])
def test_nested_optimizer_without_an_outer_optimizer(outer_lr, rho):
    """x ← x − η(ρ∇f + c(x − μ)); η is 1 where nothing is said."""
    weights = network()
    parameters = [nn.Parameter(w.clone()) for w in weights]
    settings = {"gamma": 0.7, "alpha": 0.3, "temperature": 0.01, "restart": False, "decoupled_pull": False}
    nested = NestedOptimizer(
        torch.optim.SGD(parameters, lr=0.2, momentum=0.9),
        outer_lr=side({"outer_lr": outer_lr}, "library")["outer_lr"],
        inner_steps=4,
        rho=rho,
        seed=SEED,
        **settings,
    )
    eta = 1.0 if outer_lr is None else side({"outer_lr": outer_lr}, "oracle")["outer_lr"]
    blocks = [Block(x=w, lr=0.2, momentum=0.9, outer_lr=eta, **settings) for w in weights]
    assert_equal_to_algorithm_1(nested, blocks, L=4, rho=rho, cycles=5)


def by_hand(**settings) -> tuple[list[float], list[float]]:
    """x and μ over one cycle of L = 3 on f(x) = x²/2 from x = 256, η′ = γ = ½, α = ¾, η = ½."""
    p = nn.Parameter(torch.tensor([256.0], dtype=torch.float64))
    optimizer = EntropySGD([p], 0.5, gamma=0.5, alpha=0.75, outer_lr=0.5, inner_steps=3, temperature=0.0, **settings)
    x_prime, mu = [], []
    for _ in range(optimizer.cycle_length):
        p.grad = p.detach().clone()
        optimizer.step()
        x_prime.append(p.item())
        mu.append(optimizer.state[p]["average"].item())
    return x_prime, mu[:2]


def test_three_steps_worked_by_hand():
    """
    ℓ   dx′ = x′ + (x′ − 256)/2      x′ ← x′ − dx′/2     μ ← μ/4 + 3x′/4
    1   256 +   0        =  256      256 − 128 = 128     64 + 96 = 160
    2   128 − 128/2      =   64      128 −  32 =  96     40 + 72 = 112
    3    96 − 160/2      =   16       96 −   8 =  88     28 + 66 =  94

    c = 1:                    x ← 256 − (256 − 94)/2             = 256 − 81   = 175
    c = γ:                    x ← 256 − ((256 − 94)/2)/2         = 256 − 40.5 = 215.5
    c = γ, ρ = ¼, dx = 256:   x ← 256 − (256/4 + (256 − 94)/2)/2 = 256 − 72.5 = 183.5
    """
    assert by_hand(pull=1.0) == ([128, 96, 175], [160, 112])
    assert by_hand(pull=None) == ([128, 96, 215.5], [160, 112])
    assert by_hand(pull=None, rho=0.25) == ([128, 96, 256, 183.5], [160, 112])


def test_three_steps_with_momentum_worked_by_hand():
    """
    Momentum ½, the pull in the gradient:
    ℓ   dx′                    b ← b/2 + dx′         x′ ← x′ − b/2        μ ← μ/4 + 3x′/4
    1   256                    256                   256 − 128 = 128      160
    2   128 − 128/2 =  64      128 + 64 = 192        128 −  96 =  32       40 + 24 = 64
    3    32 − 224/2 = −80       96 − 80 =  16         32 −   8 =  24       16 + 18 = 34
                                                          x ← 256 − (256 − 34)/2 = 145

    The pull beside it:
    ℓ   dx′     b ← b/2 + dx′      x′ ← x′ − b/2 − (x′ − 256)/4      μ
    1   256     256                256 − 128 +  0 = 128              160
    2   128     128 + 128 = 256    128 − 128 + 32 =  32               64
    3    32     128 +  32 = 160     32 −  80 + 56 =   8               16 + 6 = 22
                                                          x ← 256 − (256 − 22)/2 = 139

    Nesterov, the pull in the gradient, x′ ← x′ − (dx′ + b/2)/2:
    1   256                    256                   256 − 192 =  64       64 + 48 = 112
    2    64 − 192/2 = −32      128 − 32 =  96         64 −   8 =  56       28 + 42 =  70
    3    56 − 200/2 = −44       48 − 44 =   4         56 +  21 =  77       17.5 + 57.75 = 75.25
                                                          x ← 256 − (256 − 75.25)/2 = 165.625
    """
    assert by_hand(momentum=0.5) == ([128, 32, 145], [160, 64])
    assert by_hand(momentum=0.5, decoupled_pull=True) == ([128, 32, 139], [160, 64])
    assert by_hand(momentum=0.5, nesterov=True) == ([64, 56, 165.625], [112, 70])
