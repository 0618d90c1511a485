"""The objective: the mean over samples, flat vectors, and a model that is given back as it was."""

import models
import pytest
import torch
from torch import nn

from widevalley.landscape import Objective, hessian_vector_product


def test_ragged_batches_are_weighted_by_their_size() -> None:
    ragged = models.objective()
    inputs, targets = (torch.cat(parts) for parts in zip(*models.data(), strict=True))
    full = Objective(models.network(), data=[(inputs, targets)])
    assert ragged.value() == pytest.approx(full.value(), rel=1e-12)
    torch.testing.assert_close(ragged.gradient(), full.gradient())
    assert ragged.samples == full.samples == 30


def test_vectors_are_the_parameters_in_order_and_come_back() -> None:
    objective = models.objective()
    expected = torch.cat([p.detach().reshape(-1) for p in objective.model.parameters()])
    assert torch.equal(objective.vector(), expected)
    assert objective.n == len(expected) == 5 * 4 + 4 + 4 * 3 + 3
    for part, p in zip(objective.unflat(expected), objective.model.parameters(), strict=True):
        assert torch.equal(part, p)
    with objective.at(expected + 1):
        assert torch.equal(objective.vector(), expected + 1)
    assert torch.equal(objective.vector(), expected)
    with pytest.raises(KeyError), objective.at(expected + 1):
        raise KeyError
    assert torch.equal(objective.vector(), expected)


def test_the_gradient_is_that_of_autograd_and_frozen_parameters_are_left_out() -> None:
    objective = models.objective()
    objective.model[0].weight.requires_grad_(False)
    part = Objective(objective.model, data=models.data())
    assert part.n == objective.n - 20
    whole = models.objective().gradient()
    torch.testing.assert_close(part.gradient(), whole[20:])
    chosen = Objective(models.network(), data=models.data())
    chosen = Objective(chosen.model, data=models.data(), parameters=[chosen.model[2].bias, chosen.model[0].bias])
    torch.testing.assert_close(chosen.gradient(), torch.cat([whole[20:24], whole[-3:]]))


def test_a_model_is_given_back_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    model.train()
    model[1].eval()
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    random = torch.get_rng_state()
    for training in (False, True):
        model[2].p = 0.0 if training else 0.5
        objective = Objective(model, data=models.data(), training=training)
        hessian_vector_product(objective, torch.ones(objective.n))
        objective.value_and_gradient()
    assert [module.training for module in model] == [True, False, True, True]
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(torch.equal(p.grad, torch.full_like(p, 7.0)) for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_batches_of_other_forms() -> None:
    class Output:
        def __init__(self, loss):
            self.loss = loss

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = models.network()

        def forward(self, features, labels):
            return Output(nn.functional.cross_entropy(self.inner(features), labels))

    named = Objective(Named(), data=[{"features": x, "labels": y} for x, y in models.data()])
    plain = models.objective()
    assert named.value() == pytest.approx(plain.value(), rel=1e-12)
    own = Objective(
        models.network(),
        lambda model, batch: (model(batch[0][0]) - batch[1]).square().mean(),
        [((x, None), torch.zeros(len(x), 3, dtype=x.dtype)) for x, _ in models.data()],
    )
    inputs = torch.cat([x for x, _ in models.data()])
    assert own.value() == pytest.approx(models.network()(inputs).square().mean().item(), rel=1e-12)
    sized = Objective(
        models.network(),
        lambda model, batch: model(batch["x"]).square().mean(),
        [{"id": torch.zeros(1), "x": x} for x, _ in models.data()],
        size=lambda batch: len(batch["x"]),
    )
    assert sized.value() == pytest.approx(own.value(), rel=1e-12)


class Noisy(list):
    """Augmentation: other samples at each pass."""

    def __iter__(self):
        for inputs, targets in super().__iter__():
            yield inputs + 0.1 * torch.randn_like(inputs), targets


class Shuffled(list):
    def __iter__(self):
        inputs, targets = (torch.cat(parts) for parts in zip(*super().__iter__(), strict=True))
        order = torch.randperm(len(inputs))
        return iter(list(zip(inputs[order].split(8), targets[order].split(8), strict=True)))


def test_augmented_data_are_refused_and_shuffled_ones_are_not() -> None:
    with pytest.raises(ValueError, match="switch off augmentation"):
        Objective(models.network(), data=Noisy(models.data())).check()
    assert Objective(models.network(), data=Shuffled(models.data())).check() == pytest.approx(
        models.objective().value(), rel=1e-9
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Objective(models.network()), "data is missing"),
        (lambda: Objective(models.network(), data=iter(models.data())), "only once"),
        (lambda: Objective(models.network().requires_grad_(False), data=models.data()), "no parameter requires"),
        (lambda: Objective(models.network(), data=[]).value(), "data is empty"),
        (lambda: Objective(models.network(), data=[torch.zeros(3, 5).double()]).value(), "not .inputs, targets."),
        (lambda: Objective(models.network(), lambda m, b: m(b[0]), models.data()).value(), "one number"),
        (lambda: Objective(models.network(), lambda m, b: m(b[0]).sum() * float("nan"), models.data()).value(), "nan"),
        (lambda: Objective(models.network(), data=models.data(), parameters=[nn.Parameter(torch.zeros(1))]), "not the"),
        (lambda: Objective(models.network(), data=models.data(), outputs=lambda m, b: m(b)), "both outputs and"),
        (lambda: models.objective().unflat(torch.zeros(3)), "does not fit"),
        (
            lambda: Objective(
                nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)).double(), data=models.data(), training=True
            ).check(),
            "dropout .1. measures another",
        ),
    ],
)
def test_bad_input_is_refused_with_the_remedy(make, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
