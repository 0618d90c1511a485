"""PerturbedSGD: a literal reference, closed forms, and what it gives back."""

import copy
import math

import pytest
import torch
from reference import network, network_gradient
from scipy.integrate import quad
from torch import nn

from widevalley import NestedOptimizer, PerturbedSGD
from widevalley.optim import noise


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def closure_of(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


def network_closure(parameters, k):
    """A closure that writes the gradients of the reference network, and accumulates as backward() does."""

    def closure():
        for p, g in zip(parameters, network_gradient([p.detach() for p in parameters], k), strict=True):
            p.grad = g if p.grad is None else p.grad + g

    return closure


@pytest.mark.parametrize("nesterov", [False, True])
def test_each_step_is_the_formula(nesterov) -> None:
    """Also with a closure that forgets to clear the gradients."""
    sigma, m, decay, seed = 0.3, 0.8, 0.05, 4
    found = [nn.Parameter(w.clone()) for w in network()]
    groups = [{"params": found[:1], "lr": 0.2}, {"params": found[1:]}]
    optimizer = PerturbedSGD(
        groups, 0.1, perturbation=sigma, samples=3, momentum=m, nesterov=nesterov, weight_decay=decay, seed=seed
    )
    x = [p.detach().clone() for p in found]
    v = [torch.zeros_like(p) for p in found]
    gradients = 0
    for step in range(5):
        d = [decay * each for each in x]
        for _ in range(3):
            moved = [w + sigma * noise.gaussian(w, seed=seed, step=gradients, index=i) for i, w in enumerate(x)]
            d = [each + g / 3 for each, g in zip(d, network_gradient(moved, step), strict=True)]
            gradients += 1
        for i, lr in enumerate([0.2, 0.1, 0.1, 0.1]):
            v[i] = m * v[i] + d[i]
            x[i] = x[i] - lr * (d[i] + m * v[i] if nesterov else v[i])
        optimizer.step(network_closure(found, step))
        assert optimizer.gradients == gradients
        torch.testing.assert_close([p.detach() for p in found], x, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_without_perturbation_it_is_sgd(settings) -> None:
    ours, torchs = parameter(1.0, -2.0), parameter(1.0, -2.0)
    optimizer = PerturbedSGD([ours], 0.1, perturbation=0.0, samples=4, **settings)
    sgd = torch.optim.SGD([torchs], 0.1, **settings)
    for _ in range(5):
        loss = optimizer.step(closure_of(optimizer, lambda: ours.pow(4).sum()))
        expected = sgd.step(closure_of(sgd, lambda: torchs.pow(4).sum()))
        assert loss.item() == pytest.approx(expected.item())
        torch.testing.assert_close(ours, torchs)


def test_on_a_quadratic_the_mean_gradient_is_the_gradient() -> None:
    """Elements are independent: the mean of h(x + σ ε̄) over 20,000 of them is h x within four standard errors."""
    h, sigma, samples, n = 3.0, 0.5, 4, 20_000
    p = nn.Parameter(torch.full((n,), 2.0, dtype=torch.float64))
    optimizer = PerturbedSGD([p], 0.0, perturbation=sigma, samples=samples)
    loss = optimizer.step(closure_of(optimizer, lambda: h / 2 * p.square().sum())) / n
    assert abs(p.grad.mean().item() - h * 2.0) < 4 * h * sigma / math.sqrt(samples * n)
    assert p.grad.var().item() == pytest.approx(h**2 * sigma**2 / samples, rel=4 * math.sqrt(2 / n))
    # The loss it returns is that of the perturbed weights: h/2 (x² + σ²).
    spread = h / 2 * math.sqrt(4 * 2.0**2 * sigma**2 + 2 * sigma**4)
    assert abs(loss.item() - h / 2 * (4.0 + sigma**2)) < 4 * spread / math.sqrt(samples * n)
    assert torch.equal(p.detach(), torch.full((n,), 2.0, dtype=torch.float64))


def test_a_double_well_is_smoothed_as_by_quadrature() -> None:
    """f = (x² − 1)²: at x = 0.3 the smoothed slope 4x³ − 4x + 12σ²x has another sign than f's."""
    x, sigma, samples, n = 0.3, 0.8, 2, 20_000

    def slope(y: float) -> float:
        return 4 * y**3 - 4 * y

    def moment(power: int) -> float:
        def density(e: float) -> float:
            return math.exp(-(e**2) / 2) / math.sqrt(2 * math.pi)

        return quad(lambda e: slope(x + sigma * e) ** power * density(e), -9, 9)[0]

    expected, spread = moment(1), math.sqrt(moment(2) - moment(1) ** 2)
    assert slope(x) < 0 < expected
    p = nn.Parameter(torch.full((n,), x, dtype=torch.float64))
    optimizer = PerturbedSGD([p], 0.0, perturbation=sigma, samples=samples, seed=2)
    optimizer.step(closure_of(optimizer, lambda: (p.square() - 1).square().sum()))
    assert abs(p.grad.mean().item() - expected) < 4 * spread / math.sqrt(samples * n)


def test_it_resumes_bit_for_bit_and_leaves_the_global_random_state() -> None:
    def run(optimizer, p, steps):
        for _ in range(steps):
            optimizer.step(closure_of(optimizer, lambda: p.pow(4).sum()))

    p, q = parameter(1.0, -2.0), parameter(0.0, 0.0)
    optimizer, resumed = (PerturbedSGD([each], 0.01, perturbation=0.1, momentum=0.9) for each in (p, q))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    run(optimizer, p, 4)
    assert torch.equal(torch.get_rng_state(), state)
    q.data.copy_(p)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert resumed.gradients == 20
    run(optimizer, p, 4)
    run(resumed, q, 4)
    assert torch.equal(p, q)


def test_the_weights_come_back_when_the_closure_fails() -> None:
    p = parameter(1.0, 2.0)
    optimizer = PerturbedSGD([p], 0.1)

    def closure():
        if not torch.equal(p.detach(), torch.tensor([1.0, 2.0], dtype=torch.float64)):
            raise KeyError

    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert p.tolist() == [1.0, 2.0]
    assert optimizer.gradients == 0


def test_a_closure_may_reuse_the_memory_of_its_gradients() -> None:
    """As distributed wrappers do with their buckets."""
    buffer = torch.zeros(1, dtype=torch.float64)
    p = parameter(0.0)
    optimizer = PerturbedSGD([p], 1.0, perturbation=0.0, samples=4)
    values = iter([1.0, 2.0, 3.0, 10.0])

    def closure():
        p.grad = buffer.fill_(next(values))

    optimizer.step(closure)
    assert p.item() == -4.0


def test_frozen_weights_are_neither_perturbed_nor_moved() -> None:
    p, frozen = parameter(1.0), parameter(5.0)
    frozen.requires_grad_(False)
    optimizer = PerturbedSGD([p, frozen], 0.1, perturbation=1.0)
    optimizer.step(closure_of(optimizer, lambda: (p * frozen).square().sum()))
    # Only p's own noise is in the gradient: 2 · 25 · (1 + ε̄).
    draws = [noise.gaussian(p, seed=0, step=k, index=0).item() for k in range(5)]
    assert p.grad.item() == pytest.approx(50 * (1 + sum(draws) / 5))
    assert frozen.item() == 5.0
    assert p.item() != 1.0


def test_a_missing_closure_is_refused_also_by_the_nested_optimizer() -> None:
    optimizer = PerturbedSGD([parameter(1.0)], 0.1)
    with pytest.raises(TypeError, match="closure"):
        optimizer.step()
    with pytest.raises(TypeError, match="one minibatch"):
        optimizer.step(None)
    with pytest.raises(ValueError, match="closure"):
        NestedOptimizer(optimizer)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("perturbation", -0.1),
        ("samples", 0),
        ("momentum", 1.0),
        ("nesterov", True),
        ("lr", -1.0),
        ("weight_decay", math.nan),
        ("seed", -1),
    ],
)
def test_bad_arguments_are_refused_by_name(argument, value) -> None:
    with pytest.raises(ValueError, match=argument):
        PerturbedSGD([parameter(1.0)], **({"lr": 0.1} | {argument: value}))


def test_groups_may_differ_in_perturbation_but_not_in_samples() -> None:
    p, q = parameter(1.0), parameter(1.0)
    optimizer = PerturbedSGD([{"params": [p]}, {"params": [q], "perturbation": 0.0}], 0.1, perturbation=0.5)
    optimizer.step(closure_of(optimizer, lambda: (p.square() + q.square()).sum()))
    assert q.grad.item() == pytest.approx(2.0)
    assert abs(p.grad.item() - 2.0) > 1e-3
    with pytest.raises(ValueError, match="samples"):
        PerturbedSGD([{"params": [p], "samples": 2}, {"params": [q]}], 0.1)
    with pytest.raises(ValueError, match="perturbation"):
        optimizer.add_param_group({"params": [parameter(0.0)], "perturbation": -1.0})
    assert len(optimizer.param_groups) == 2


def test_sparse_gradients_are_refused_and_the_weights_come_back() -> None:
    table = nn.Embedding(4, 2, sparse=True)
    before = table.weight.detach().clone()
    optimizer = PerturbedSGD(table.parameters(), 0.1)
    with pytest.raises(ValueError, match="sparse=False"):
        optimizer.step(closure_of(optimizer, lambda: table(torch.tensor([1])).square().sum()))
    assert torch.equal(table.weight, before)
