"""γ(x − μ) beside −∇F: closed forms on quadratics, and the record of a network that is hardly trained."""

import json
import math

import pytest
import torch
from landscape.models import quadratic
from torch import nn

from widevalley.experiments import local_gradient as module
from widevalley.experiments.data import Data, Split
from widevalley.experiments.local_gradient import RATE, displacements, local_gradient
from widevalley.landscape import local_entropy_gradient


def walk(objective, gamma, lengths, **settings):
    def backward():
        objective.model.zero_grad()
        objective.model(torch.zeros(1)).backward()

    with objective.at(objective.vector()):
        return displacements(objective, backward, gamma, lengths, **settings)


def test_without_noise_it_is_the_closed_form_of_each_average() -> None:
    """x′ − x* = (x − x*) a^ℓ with x* = γx/(h + γ), a = 1 − η′(h + γ)."""
    h, gamma, lengths = torch.tensor([0.1, 2.0, 5.0], dtype=torch.float64), 0.5, (3, 30, 250)
    x = torch.tensor([1.0, -2.0, 0.3], dtype=torch.float64)
    found = walk(quadratic(torch.diag(h), start=x), gamma, lengths, temperature=0.0)
    a, target = 1 - RATE * (h + gamma), gamma * x / (h + gamma)
    for steps, each in zip(lengths, found, strict=True):
        powers = torch.stack([target + (x - target) * a**step for step in range(1, steps + 1)])
        torch.testing.assert_close(each["uniform"], x - powers.mean(0))
        mu = x
        for x_prime in powers:
            mu = 0.75 * mu + 0.25 * x_prime
        torch.testing.assert_close(each["authors"], x - mu)
    # −∇F/β = γhx/(h + γ), once the chain forgot where it began.
    torch.testing.assert_close(gamma * found[-1]["authors"], gamma * h * x / (h + gamma))


def test_a_long_langevin_chain_finds_what_the_reference_finds() -> None:
    h, gamma, beta, steps = 2.0, 0.5, 50.0, 1500
    objective = quadratic(h * torch.eye(40, dtype=torch.float64), start=torch.ones(40, dtype=torch.float64))
    reference = local_entropy_gradient(objective, gamma, beta, draws=100)
    (found,) = walk(objective, gamma, (steps,), temperature=1 / beta)
    exact = gamma * h / (h + gamma)
    assert abs(reference.vector.mean().item() + exact) < 4 * reference.standard_error.norm().item() / 40
    # The variance of its mean is 2T/(η′(h + γ)²) over the steps; the way from x counts for less than x/(η′(h + γ)).
    error = gamma / (h + gamma) * math.sqrt(2 / (beta * RATE * steps * 40))
    assert abs(gamma * found["uniform"].mean().item() - exact) < 4 * error + gamma / (steps * RATE * (h + gamma))


@pytest.fixture(scope="module")
def record():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(60, 1, 28, 28, generator=generator)
    train = Split(images, images.mean((1, 2, 3)).gt(0).long() + 3)
    state = torch.get_rng_state()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("IMAGES", 40),
            ("POOL", 14),
            ("HIDDEN", 3),
            ("BATCH", 10),
            ("STEPS", {"early": 2, "end": 20}),
            ("GAMMAS", (5.0,)),
            ("LENGTHS", (1, 10)),
            ("DRAWS", {"early": 64, "end": 64}),
            ("REPEATS", 2),
            ("mnist", lambda folder: Data(train, train, train)),
        ):
            patch.setattr(module, name, value)
        told = []
        found = local_gradient(None, lambda what, done: told.append((what, done)))
    assert torch.equal(torch.get_rng_state(), state)
    assert [done for _, done in told] == sorted(done for _, done in told)
    return found


def test_record_is_small_json_of_all_settings(record) -> None:
    assert len(json.dumps(record, allow_nan=False)) < 300_000
    assert record["parameters"] == sum(p.numel() for p in nn.Linear(4, 3).parameters()) + 40
    for point in record["points"]:
        for scope in point["scopes"]:
            keys = ("cycle", "gradients", "average", "inner_steps")
            rows = {tuple(row[key] for key in keys): row for row in scope["estimates"]}
            assert len(rows) == 3 * 2 * 2 * 2
            assert rows["descent", "all", "authors", 10]["repeats"] == 1
            assert rows["descent", "minibatch", "authors", 10]["cosine"][1] > 0
            assert all(-1 <= row["cosine"][0] <= 1 and row["ratio"][0] > 0 for row in rows.values())


def test_one_step_on_all_images_is_along_the_gradient(record) -> None:
    for point in record["points"]:
        for scope in point["scopes"]:
            first = next(row for row in scope["estimates"] if (row["cycle"], row["gradients"]) == ("descent", "all"))
            assert first["inner_steps"] == 1
            assert first["cosine_to_gradient"][0] == pytest.approx(1)
            assert first["cosine"][0] == pytest.approx(scope["reference"]["cosine_to_gradient"], abs=1e-5)
            length = scope["gamma"] * RATE * 0.25 * point["gradient_norm"]
            assert first["ratio"][0] == pytest.approx(length / scope["reference"]["length"], rel=1e-4)


def test_error_of_the_reference_bounds_the_cosine(record) -> None:
    for point in record["points"]:
        for scope in point["scopes"]:
            found = scope["reference"]
            whole = math.hypot(found["length"], found["standard_error"])
            assert found["attainable_cosine"] == pytest.approx(found["length"] / whole, rel=1e-4)
