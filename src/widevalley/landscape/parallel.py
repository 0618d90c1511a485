"""The loss and its gradient at many vectors at once: chains that are walked side by side."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from widevalley.landscape.batches import tensors
from widevalley.landscape.objective import Objective, zero_where_unused

# Numbers that a tensor of one vectorised call may hold: 2²² in float64 are 32 MiB, and a call holds some eight.
ELEMENTS = 2**22


class ParallelLoss:
    """f and ∇f at K vectors, vectorised over them where the model allows, one after the other where it does not.

    Vectorised by ``torch.func.functional_call`` under ``vmap``. Models that cannot be (control flow on values, buffers
    written in place, some recurrent kernels), and those so large that nothing is gained, are called once per vector.

    Attributes:
        width: vectors per call; 1 where they go one after the other.
        gradients: gradients over the whole data taken so far, one per vector.
    """

    def __init__(self, objective: Objective) -> None:
        objective.check()
        self.start = objective.value()
        self.objective = objective
        self.gradients = 0
        largest = max((t.numel() for batch, _ in objective.batches() for t in tensors(batch)), default=1)
        self.width = max(1, ELEMENTS // (8 * max(objective.n, largest)))
        self._caller = _Caller(objective)
        names = {id(p): name for name, p in self._caller.named_parameters()}
        self._names = [names[id(p)] for p in objective.parameters]
        if self.width > 1 and not self._agrees():
            self.width = 1

    def __call__(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """f, shape (K,), and ∇f, shape (K, n), float64, at vectors (K, n); an f that is not finite is +∞, slope 0."""
        self.gradients += len(vectors)
        parts = [self._mean(chunk, self.width > 1) for chunk in vectors.split(self.width)]
        values, slopes = torch.cat([v for v, _ in parts]), torch.cat([s for _, s in parts])
        # A sum of what is not finite is not.
        finite = torch.isfinite(values) & torch.isfinite(slopes.sum(dim=1))
        if finite.all():
            return values, slopes
        return torch.where(finite, values, math.inf), torch.where(finite[:, None], slopes, 0.0)

    def _mean(self, vectors: Tensor, vectorised: bool) -> tuple[Tensor, Tensor]:
        objective = self.objective
        values = torch.zeros(len(vectors), dtype=torch.float64, device=vectors.device)
        slopes = torch.zeros(vectors.shape, dtype=torch.float64, device=vectors.device)
        count = 0
        with objective.measuring(), torch.enable_grad():
            if vectorised:
                leaf = vectors.detach().to(objective.dtype).requires_grad_()
                tensors = dict(zip(self._names, objective.unflat(leaf), strict=True))
                for batch, size in objective.batches():
                    value = torch.func.vmap(self._call, in_dims=(0, None))(tensors, _Constant(batch))
                    # Rows do not mix, so the gradient of the sum is theirs; vmap over torch.func.grad is slower.
                    (slope,) = torch.autograd.grad(value.sum(), leaf, retain_graph=True)
                    values += size * value.detach().double()
                    slopes += size * slope.double()
                    count += size
            else:
                with objective.at(vectors[0]):
                    for batch, size in objective.batches():
                        loss = objective.batch_loss(batch)
                        parts = torch.autograd.grad(loss, objective.parameters, allow_unused=True)
                        values += size * loss.detach().double()
                        slopes += size * objective.flat(zero_where_unused(parts, objective.parameters)).double()
                        count += size
        return values / count, slopes / count

    def _call(self, parameters: dict[str, Tensor], batch: _Constant) -> Tensor:
        result = torch.func.functional_call(self._caller, parameters, (batch.value,))
        assert isinstance(result, Tensor)
        return result

    def _agrees(self) -> bool:
        """Whether the vectorised way works, and gives at two points what the plain one gives."""
        x = self.objective.vector()
        points = torch.stack([x, x * (1 + 1e-3) + 1e-4])
        try:
            with warnings.catch_warnings():
                # torch warns of operations that vmap runs in a loop.
                warnings.simplefilter("ignore")
                values, slopes = self._mean(points, vectorised=True)
        except (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError):
            return False
        tolerance = math.sqrt(torch.finfo(self.objective.dtype).eps)
        plain = [self._mean(point[None], vectorised=False) for point in points]
        expected = torch.cat([v for v, _ in plain]), torch.cat([s for _, s in plain])
        scale = max(1.0, float(expected[1].abs().max()))
        return torch.allclose(values, expected[0], rtol=tolerance, atol=tolerance) and torch.allclose(
            slopes, expected[1], rtol=tolerance, atol=tolerance * scale
        )


class _Constant:
    """Keeps vmap from looking into a batch, whatever it is made of."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Caller(nn.Module):
    """Lets ``functional_call`` put other parameters into the model under an objective's loss."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.model = objective.model
        self.batch_loss = objective.batch_loss

    def forward(self, batch: Any) -> Tensor:
        return self.batch_loss(batch)
