"""Fisher information: against single gradients, the Gauss-Newton matrix, closed forms and hand-made moments."""

import math

import models
import pytest
import torch
from torch import nn

from widevalley import EntropyAdam, NestedOptimizer
from widevalley.landscape import (
    Objective,
    fisher_diagonal,
    fisher_from_adam,
    fisher_vector_product,
    gauss_newton_vector_product,
    per_sample,
)


def gradients(objective):
    """Of single samples, by autograd, (N, n)."""
    rows = []
    for inputs, targets in objective.data:
        for x, y in zip(inputs, targets, strict=True):
            loss = nn.functional.cross_entropy(objective.model(x[None]), y[None])
            rows.append(objective.flat(torch.autograd.grad(loss, objective.parameters)))
    return torch.stack(rows)


def test_the_empirical_diagonal_is_the_mean_of_squared_gradients() -> None:
    objective = models.objective()
    expected = gradients(objective).square().mean(0)
    told = []
    found = fisher_diagonal(objective, progress=lambda what, done: told.append(done))
    torch.testing.assert_close(found, expected)
    assert told == pytest.approx([11 / 30, 18 / 30, 1])
    assert all(p.grad is None for p in objective.model.parameters())


def test_the_empirical_product_is_that_of_the_sum_of_outer_products() -> None:
    objective = models.objective()
    g = gradients(objective)
    v = torch.randn(3, objective.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = v @ (g.T @ g / len(g))
    torch.testing.assert_close(fisher_vector_product(objective, v), expected)
    torch.testing.assert_close(fisher_vector_product(objective, v[0]), expected[0])


class Tagger(nn.Module):
    """Three classes at each of four places: logits (samples, 3, 4)."""

    def __init__(self):
        super().__init__()
        self.inner = models.network()

    def forward(self, x):
        return self.inner(x).transpose(1, 2)


def tagger():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (6, 4), generator=generator)
    return Objective(Tagger(), data=[(x[:2], y[:2]), (x[2:], y[2:])])


@pytest.mark.parametrize("make", [models.objective, tagger])
def test_the_model_diagonal_is_that_of_gauss_newton(make) -> None:
    objective = make()
    matrix = gauss_newton_vector_product(objective, torch.eye(objective.n, dtype=torch.float64))
    told = []
    found = fisher_diagonal(objective, "model", progress=lambda what, done: told.append(done))
    torch.testing.assert_close(found, matrix.diagonal())
    assert told == sorted(told)
    assert told[-1] == 1
    v = torch.ones(objective.n, dtype=torch.float64)
    torch.testing.assert_close(fisher_vector_product(objective, v, "model"), matrix @ v)


@pytest.mark.parametrize("make", [models.objective, tagger])
def test_the_sampled_model_diagonal_is_unbiased(make) -> None:
    objective = make()
    exact = fisher_diagonal(objective, "model")
    drawn = torch.stack([fisher_diagonal(objective, "model", samples=3, seed=seed) for seed in range(150)])
    error = drawn.std(0) / math.sqrt(150)
    assert ((drawn.mean(0) - exact).abs() < 4 * error + 1e-12).all()
    assert error.max() < 0.1 * exact.max()
    assert torch.equal(drawn[0], fisher_diagonal(objective, "model", samples=3, seed=0))


def test_chunks_of_samples_and_of_classes_give_the_same(monkeypatch) -> None:
    whole = [fisher_diagonal(tagger(), kind) for kind in ("empirical", "model")]
    for numbers in (1, 39 * 5):
        monkeypatch.setattr(per_sample, "MEMORY", numbers)
        for kind, expected in zip(("empirical", "model"), whole, strict=True):
            torch.testing.assert_close(fisher_diagonal(tagger(), kind), expected)


def test_ordinary_networks_are_vectorised(monkeypatch) -> None:
    """Also attention, also inside no_grad."""

    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.inner(x).mean(1))

    torch.manual_seed(0)
    y = torch.arange(5) % 3
    convolutional = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 3))
    cases = [(convolutional, torch.randn(5, 1, 5, 5)), (Attending().eval(), torch.randn(5, 6, 4))]
    expected = [gradients(Objective(model.eval(), data=[(x, y)])).square().mean(0) for model, x in cases]
    monkeypatch.setattr(per_sample, "_one_by_one", None)
    for (model, x), diagonal in zip(cases, expected, strict=True):
        with torch.no_grad():
            torch.testing.assert_close(fisher_diagonal(Objective(model, data=[(x, y)])), diagonal)


class Recurrent(nn.Module):
    """vmap does not know torch's LSTM."""

    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(5, 4, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.inner(x)[0][:, -1])


class Branching(nn.Module):
    """Nor a branch on a value."""

    def __init__(self):
        super().__init__()
        self.inner = models.network()

    def forward(self, x):
        return self.inner(x) if float(x.sum()) > 0 else self.inner(2 * x)


def test_models_that_vmap_does_not_know() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(7, 6, 5, dtype=torch.float64), torch.arange(7) % 3
    objective = Objective(Recurrent().double(), data=[(x, y)])
    torch.testing.assert_close(fisher_diagonal(objective), gradients(objective).square().mean(0))
    matrix = gauss_newton_vector_product(objective, torch.eye(objective.n, dtype=torch.float64))
    torch.testing.assert_close(fisher_diagonal(objective, "model"), matrix.diagonal())
    singles = [(x[None], y[None]) for inputs, targets in models.data() for x, y in zip(inputs, targets, strict=True)]
    objective = Objective(Branching(), data=singles)
    torch.testing.assert_close(fisher_diagonal(objective), gradients(objective).square().mean(0))


def test_frozen_parameters_and_those_without_influence() -> None:
    model = models.network()
    whole = fisher_diagonal(Objective(model, data=models.data()), "model")
    model[0].weight.requires_grad_(False)
    model.extra = nn.Parameter(torch.ones(2, dtype=torch.float64))
    part = Objective(model, data=models.data())
    expected = torch.cat([torch.zeros(2, dtype=torch.float64), whole[20:]])
    torch.testing.assert_close(fisher_diagonal(part, "model"), expected)
    torch.testing.assert_close(fisher_diagonal(part), torch.cat([expected[:2], gradients_of_part(model)]))


def gradients_of_part(model):
    objective = Objective(model, data=models.data(), parameters=[model[0].bias, model[2].weight, model[2].bias])
    return gradients(objective).square().mean(0)


def test_plain_losses_dictionaries_and_what_belongs_to_no_sample() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def loss(model, batch):
        return (model(batch["x"]) * batch["weights"]).square().mean()

    batches = [{"x": x, "weights": weights} for x, _ in models.data()]
    objective = Objective(models.network(), loss, batches)
    rows = []
    for x, _ in models.data():
        for one in x:
            value = loss(objective.model, {"x": one[None], "weights": weights})
            rows.append(objective.flat(torch.autograd.grad(value, objective.parameters)))
    torch.testing.assert_close(fisher_diagonal(objective), torch.stack(rows).square().mean(0))


def weighted(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], weight=torch.tensor([1.0, 5.0, 9.0]).double())


def normalised():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    return Objective(model, data=models.data(), training=True)


def with_criterion(criterion):
    return Objective(models.network(), data=models.data(), outputs=lambda m, b: m(b[0]), criterion=criterion)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fisher_diagonal(models.objective(), "true"), "kind='true' is unknown"),
        (lambda: fisher_vector_product(models.objective(), torch.zeros(39), "true"), "kind='true' is unknown"),
        (lambda: fisher_vector_product(models.objective(), torch.zeros(3)), "n = 39"),
        (lambda: fisher_diagonal(models.objective(), samples=3), "takes those of the data"),
        (lambda: fisher_diagonal(models.objective(), "model", samples=0), "samples=0"),
        (lambda: fisher_diagonal(Objective(models.network(), weighted, models.data())), "couples samples"),
        (lambda: fisher_diagonal(Objective(models.network(), weighted, models.data()), "model"), "outputs= and crit"),
        (lambda: fisher_diagonal(normalised(), "model"), "batch-norm in training mode"),
        (lambda: fisher_diagonal(with_criterion(lambda z, b: z.square().mean()), "model"), "not the mean cross-entr"),
        (
            lambda: fisher_vector_product(with_criterion(lambda z, b: z.sum() / len(z)), torch.zeros(39), "model"),
            "not the mean cross-entropy",
        ),
        (lambda: fisher_diagonal(Objective(models.network(), data=models.data(), size=lambda b: 99)), "cut into"),
        (
            lambda: fisher_diagonal(Objective(models.network(), lambda m, b: m(b[0]).sum() * math.nan, models.data())),
            "the loss is nan",
        ),
    ],
)
def test_bad_input_is_refused_with_the_remedy(make, says) -> None:
    with pytest.raises(ValueError, match=says):
        make()


def follow(optimizer, p, gradients):
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_adams_moments_by_hand(kind) -> None:
    a, b = nn.Parameter(torch.zeros(2, 3).double()), nn.Parameter(torch.zeros(4).double())
    groups = [{"params": [a], "betas": (0.8, 0.9)}, {"params": [b]}]
    optimizer = kind(groups, lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    seen = [torch.randn(10, generator=generator, dtype=torch.float64) + 1 for _ in range(7)]
    for g in seen:
        a.grad, b.grad = g[:6].reshape(2, 3).clone(), g[6:].clone()
        optimizer.step()
    expected = []
    for part, (first, second) in ((slice(0, 6), (0.8, 0.9)), (slice(6, 10), (0.9, 0.999))):
        ages = torch.arange(6, -1, -1, dtype=torch.float64)
        means = []
        for beta, power in ((first, 1), (second, 2)):
            weights = beta**ages / (beta**ages).sum()
            means.append(sum(w * g[part] ** power for w, g in zip(weights, seen, strict=True)))
        expected.append(means[1] - means[0] ** 2)
    found = fisher_from_adam(optimizer, 32)
    torch.testing.assert_close(found.minibatch, torch.cat(expected))
    torch.testing.assert_close(found.per_sample, 32 * torch.cat(expected))
    assert found.negative == int((torch.cat(expected) < 0).sum())


def test_negative_differences_are_counted_and_kept() -> None:
    p = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([p], betas=(0.5, 0.999))
    follow(optimizer, p, [torch.tensor([0.0, 1.0])] * 20 + [torch.tensor([3.0, 1.0])] * 5)
    found = fisher_from_adam(optimizer, 8)
    assert found.negative == 1
    assert found.minibatch[0] < 0
    assert found.per_sample[0] == 8 * found.minibatch[0]


@pytest.mark.slow
def test_independent_gradients_of_minibatches_have_the_variance_said() -> None:
    """2β₁/(1 + β₁) of the variance σ²/B of minibatch means, over 4,000 independent elements."""
    p = nn.Parameter(torch.zeros(4000, dtype=torch.float64))
    optimizer = torch.optim.Adam([p])
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        p.grad = 0.7 + 3.0 * torch.randn(4000, 16, generator=generator, dtype=torch.float64).mean(1)
        optimizer.step()
    found = fisher_from_adam(optimizer, 16).per_sample
    expected = 9.0 * 2 * 0.9 / 1.9
    assert abs(found.mean() - expected) < 4 * found.std() / math.sqrt(4000)
    assert found.std() / math.sqrt(4000) < 0.02 * expected


def test_nested_optimizers_give_the_moments_of_their_inner_loop() -> None:
    def trained(make):
        model = models.network()
        optimizer = make(model.parameters())
        for inputs, targets in models.data():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return optimizer

    plain = fisher_from_adam(trained(torch.optim.Adam), 10)
    for make in (
        lambda ps: NestedOptimizer(torch.optim.Adam(ps), gamma=0.0),
        lambda ps: EntropyAdam(ps, 1e-3, gamma=0.0, restart=False),
    ):
        nested = fisher_from_adam(trained(make), 10)
        torch.testing.assert_close(nested.minibatch, plain.minibatch, rtol=1e-6, atol=1e-15)
    emptied = trained(lambda ps: NestedOptimizer(torch.optim.Adam(ps), inner_steps=3, restart=True))
    with pytest.raises(ValueError, match="within a cycle"):
        fisher_from_adam(emptied, 10)


def test_optimizers_without_moments_are_refused() -> None:
    p = nn.Parameter(torch.ones(3))
    with pytest.raises(TypeError, match="SGD keeps no two moments"):
        fisher_from_adam(torch.optim.SGD([p], lr=0.1), 8)
    with pytest.raises(ValueError, match="no moments yet"):
        fisher_from_adam(torch.optim.Adam([p]), 8)
    with pytest.raises(ValueError, match="batch_size=0"):
        fisher_from_adam(torch.optim.Adam([p]), 0)
    adamax = torch.optim.Adamax([p])
    follow(adamax, p, [torch.ones(3)])
    with pytest.raises(TypeError, match="Adamax keeps no exp_avg"):
        fisher_from_adam(adamax, 8)
    optimizer = torch.optim.Adam([p, nn.Parameter(torch.ones(2), requires_grad=False)])
    follow(optimizer, p, [torch.ones(3)])
    assert fisher_from_adam(optimizer, 8).minibatch.shape == (3,)
