"""Products: against dense matrices formed another way, closed forms, and each other."""

import models
import pytest
import torch
from torch import nn

from widevalley.landscape import Objective, gauss_newton_vector_product, hessian_vector_product


def vectors(objective, k=4):
    return torch.randn(k, objective.n, generator=torch.Generator().manual_seed(5), dtype=objective.dtype)


def test_a_product_is_the_dense_matrix_times_the_vector_one_at_a_time_and_in_chunks() -> None:
    objective = models.objective()
    expected = vectors(objective) @ models.dense(objective)
    torch.testing.assert_close(hessian_vector_product(objective, vectors(objective)), expected)
    torch.testing.assert_close(hessian_vector_product(objective, vectors(objective)[0]), expected[0])


def test_linear_regression_has_the_hessian_of_the_textbook() -> None:
    """f = (1/N) Σ (x wᵀ − y)²/2: H = XᵀX/N for the weights."""
    inputs = torch.cat([x for x, _ in models.data()])
    model = nn.Linear(5, 1, bias=False).double()
    objective = Objective(model, lambda m, b: (m(b[0]).squeeze(1) - b[1]).square().mean() / 2, models.data())
    expected = vectors(objective) @ (inputs.T @ inputs / len(inputs))
    torch.testing.assert_close(hessian_vector_product(objective, vectors(objective)), expected)


def test_logistic_regression_has_the_hessian_of_the_textbook() -> None:
    """Cross-entropy of a linear layer: H = (1/N) Σ (diag p − p pᵀ) ⊗ x xᵀ, and so is its Gauss-Newton part."""
    torch.manual_seed(0)
    model = nn.Linear(5, 3, bias=False).double()
    objective = Objective(model, data=models.data())
    inputs = torch.cat([x for x, _ in models.data()])
    p = model(inputs).softmax(1).detach()
    blocks = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    matrix = torch.einsum("iab,ic,id->acbd", blocks, inputs, inputs).reshape(15, 15) / len(inputs)
    expected = vectors(objective) @ matrix
    torch.testing.assert_close(hessian_vector_product(objective, vectors(objective)), expected)
    torch.testing.assert_close(gauss_newton_vector_product(objective, vectors(objective)), expected)


def test_gauss_newton_is_the_jacobian_way() -> None:
    objective = models.objective()
    names = [name for name, _ in objective.model.named_parameters()]
    inputs = torch.cat([x for x, _ in models.data()])

    def logits(flat):
        values = dict(zip(names, objective.unflat(flat), strict=True))
        return torch.func.functional_call(objective.model, values, (inputs,))

    jacobian = torch.func.jacrev(logits)(objective.vector())
    p = logits(objective.vector()).softmax(1)
    middle = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    matrix = torch.einsum("ian,iab,ibm->nm", jacobian, middle, jacobian) / len(inputs)
    found = gauss_newton_vector_product(objective, vectors(objective))
    torch.testing.assert_close(found, (vectors(objective) @ matrix).detach())


def test_products_of_attention_and_recurrent_networks() -> None:
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.inner(x, x, x, need_weights=False)[0].mean(1))

    torch.manual_seed(0)
    batches = [(torch.randn(6, 7, 4).double(), torch.arange(6) % 3)]
    for model in (Attending().double(), models.Recurrent().double()):
        objective = Objective(model, data=batches)
        rows = vectors(objective, 3)
        found = hessian_vector_product(objective, rows)
        # Against differences of the gradient.
        x, step = objective.vector(), 1e-5
        for row, product in zip(rows, found, strict=True):
            with objective.at(x + step * row):
                up = objective.gradient()
            with objective.at(x - step * row):
                down = objective.gradient()
            torch.testing.assert_close(product, (up - down) / (2 * step), rtol=1e-5, atol=1e-6)


def test_parameters_without_influence_have_zeros() -> None:
    model = models.network()
    model.extra = nn.Parameter(torch.ones(2, dtype=torch.float64))
    objective = Objective(model, data=models.data())
    place = [name for name, _ in model.named_parameters()].index("extra")
    start = sum(p.numel() for p in list(model.parameters())[:place])
    found = hessian_vector_product(objective, vectors(objective))
    assert torch.equal(found[:, start : start + 2], torch.zeros(4, 2, dtype=torch.float64))
    assert torch.equal(gauss_newton_vector_product(objective, vectors(objective))[:, start : start + 2],
                       torch.zeros(4, 2, dtype=torch.float64))  # fmt: skip


def test_an_operation_without_second_derivative_is_named() -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g.clone()

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 3).double()

        def forward(self, x):
            return Once.apply(self.inner(x))

    objective = Objective(Model(), data=models.data())
    with pytest.raises(ValueError, match="no second derivative"):
        hessian_vector_product(objective, torch.zeros(objective.n))


def test_wrong_shapes_and_hidden_logits_are_refused() -> None:
    objective = models.objective()
    with pytest.raises(ValueError, match=r"give \(n,\) or \(k, n\) with n = 39"):
        hessian_vector_product(objective, torch.zeros(3))
    hidden = Objective(models.network(), lambda m, b: m(b[0]).square().mean(), models.data())
    with pytest.raises(ValueError, match="outputs= and criterion="):
        gauss_newton_vector_product(hidden, torch.zeros(hidden.n))
