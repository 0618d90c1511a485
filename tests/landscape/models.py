"""Small models and data for the measures, with closed forms or dense results at hand."""

import torch
from torch import nn

from widevalley.landscape import Objective


def data(samples=30, features=5, classes=3, dtype=torch.float64, sizes=(11, 7, 12)):
    """Random (inputs, targets) in ragged batches."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(samples, features, generator=generator, dtype=dtype)
    targets = torch.randint(0, classes, (samples,), generator=generator)
    return list(zip(inputs.split(list(sizes)), targets.split(list(sizes)), strict=True))


def network(features=5, width=4, classes=3, dtype=torch.float64, activation=nn.Tanh):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(features, width), activation(), nn.Linear(width, classes)).to(dtype)


def objective(**changes):
    return Objective(network(**changes), data=data(dtype=changes.get("dtype", torch.float64)))


class Recurrent(nn.Module):
    """Logits (samples, 3) of (samples, positions, 4)."""

    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(4, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x):
        return self.out(self.inner(x)[0].mean(1))


class Quadratic(nn.Module):
    """f(w) = ½ wᵀ A w − bᵀ w, whatever the batch; A of shape (n, n)."""

    def __init__(self, matrix, slope=None, start=None):
        super().__init__()
        n = len(matrix)
        self.w = nn.Parameter(torch.zeros(n, dtype=matrix.dtype) if start is None else start.clone())
        self.register_buffer("matrix", matrix)
        self.register_buffer("slope", torch.zeros(n, dtype=matrix.dtype) if slope is None else slope)

    def forward(self, inputs):
        return self.w @ self.matrix @ self.w / 2 - self.slope @ self.w


def quadratic(matrix, slope=None, start=None):
    """Its objective, on one batch of one sample."""
    batch = torch.zeros(1, 1, dtype=matrix.dtype)
    return Objective(Quadratic(matrix, slope, start), lambda model, x: model(x), [batch])


def dense(objective):
    """The Hessian by torch.func, an independent way, float64 where the parameters are."""
    names = [name for name, p in objective.model.named_parameters() if any(p is q for q in objective.parameters)]
    shapes = [p.shape for p in objective.parameters]

    def f(flat):
        parts = flat.split([s.numel() for s in shapes])
        values = {name: part.reshape(s) for name, part, s in zip(names, parts, shapes, strict=True)}
        total, count = 0.0, 0
        for inputs, targets in objective.data:
            out = torch.func.functional_call(objective.model, values, (inputs,))
            total = total + len(inputs) * nn.functional.cross_entropy(out, targets)
            count += len(inputs)
        return total / count

    return torch.func.jacrev(torch.func.jacrev(f))(objective.vector()).detach()
