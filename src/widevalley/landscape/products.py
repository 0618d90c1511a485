"""Products of curvature matrices with vectors, by two backward passes; no matrix is formed.

All of them are of the objective's mean over samples, sum nothing else in (no weight decay), and take one vector of
shape (n,) or k of them as rows, (k, n), which share their forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from widevalley.landscape.objective import Objective, zero_where_unused


def hessian_vector_product(objective: Objective, v: Tensor) -> Tensor:
    """H v with H = ∇²f at the objective's parameters (Pearlmutter, 1994), of the shape of ``v``.

    Raises:
        ValueError: ``v`` does not fit; an operation of the model has no second derivative.
    """
    objective.check()

    def product(batch: Any, rows: Tensor) -> Tensor:
        loss = objective.batch_loss(batch)
        slopes = torch.autograd.grad(loss, objective.parameters, create_graph=True, allow_unused=True)
        _refuse_once_differentiable(slopes)
        return _backward(slopes, objective.unflat(rows), objective.parameters)

    return _mean(objective, v, product)


def hessian_rows(objective: Objective, rows: Tensor, parameter: int, others: Sequence[int]) -> Tensor:
    """``rows`` (k, numel(p)) times ∂²f/∂p∂q, for p the parameter in that place and each q of ``others``, side by side.

    Part of ``hessian_vector_product``, for less: only what lies between p and those is differentiated.
    """
    p, inputs = objective.parameters[parameter], [objective.parameters[place] for place in others]

    def product(batch: Any, rows: Tensor) -> Tensor:
        slopes = torch.autograd.grad(objective.batch_loss(batch), [p], create_graph=True, allow_unused=True)
        _refuse_once_differentiable(slopes)
        return _backward(slopes, [rows.reshape(-1, *p.shape).to(p.dtype)], inputs).to(objective.dtype)

    return _over_batches(objective, rows, sum(q.numel() for q in inputs), product)


def gauss_newton_vector_product(objective: Objective, v: Tensor) -> Tensor:
    """G v with G = (1/N) Σ_i J_iᵀ H_i J_i, J the Jacobian of the outputs, H_i the Hessian of the criterion in them.

    For the cross-entropy of logits G is the Fisher information of the model, the expectation under its own
    predictions (Martens, arXiv:1412.1193). It is H without the curvature of the network itself.

    Raises ValueError as ``hessian_vector_product``, and if the objective hides its outputs.
    """
    objective.check()

    def product(batch: Any, rows: Tensor) -> Tensor:
        outputs = objective.outputs(batch)
        free = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(objective.criterion(free, batch), free, create_graph=True)
        # J v, from the gradient of uᵀ J in u: a forward-mode derivative, for operations that have none.
        u = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, objective.parameters, u, create_graph=True, allow_unused=True)
        _refuse_once_differentiable(pulled)
        used = [part for part in pulled if part is not None]
        results = []
        for row in rows:
            weights = [w for w, part in zip(objective.unflat(row), pulled, strict=True) if part is not None]
            (pushed,) = torch.autograd.grad(used, u, weights, retain_graph=True)
            (curved,) = torch.autograd.grad(slope, free, pushed, retain_graph=True)
            back = torch.autograd.grad(outputs, objective.parameters, curved, retain_graph=True, allow_unused=True)
            results.append(objective.flat(zero_where_unused(back, objective.parameters)))
        return torch.stack(results)

    return _mean(objective, v, product)


def _mean(objective: Objective, v: Tensor, product: Callable[[Any, Tensor], Tensor]) -> Tensor:
    """Σ_b n_b product(b) / N."""
    if v.ndim not in (1, 2) or v.shape[-1] != objective.n:
        raise ValueError(f"v of shape {tuple(v.shape)} does not fit: give (n,) or (k, n) with n = {objective.n}")
    rows = v.detach().to(objective.device, objective.dtype).reshape(-1, objective.n)
    return _over_batches(objective, rows, objective.n, product).reshape(v.shape)


def _over_batches(objective: Objective, rows: Tensor, width: int, product: Callable[[Any, Tensor], Tensor]) -> Tensor:
    total = torch.zeros(len(rows), width, dtype=objective.dtype, device=objective.device)
    count = 0
    with objective.measuring(), twice_differentiable(objective.model), torch.enable_grad():
        for batch, size in objective.batches():
            total += size * product(batch, rows)
            count += size
    return total / count


def _backward(slopes: Sequence[Tensor | None], rows: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Σ rowsᵀ ∂slopes/∂inputs, (k, all of the inputs), for ``rows`` of shapes (k, *that of the slope).

    Inputs on which nothing depends have zeros.
    """
    used = [(s, t) for s, t in zip(slopes, rows, strict=True) if s is not None and s.requires_grad]
    count, outputs = len(rows[0]), [s for s, _ in used]

    def once(weights: list[Tensor], batched: bool) -> Tensor:
        parts: Sequence[Tensor | None] = [None] * len(inputs)
        if outputs:
            parts = torch.autograd.grad(
                outputs, inputs, weights, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )
        lead = count if batched else 1
        return torch.cat(
            [
                p.new_zeros(lead, p.numel()) if part is None else part.reshape(lead, -1)
                for part, p in zip(parts, inputs, strict=True)
            ],
            dim=1,
        )

    if count > 1:
        try:
            return once([t for _, t in used], batched=True)
        except RuntimeError as error:
            # Some operations cannot be vectorised over vectors: one after the other then.
            if "vmap" not in str(error):
                raise
    return torch.cat([once([t[k] for _, t in used], batched=False) for k in range(count)])


def _refuse_once_differentiable(slopes: Sequence[Tensor | None]) -> None:
    """torch leaves such a function's second derivative out, without a word, where the graph ends at it."""
    seen: set[Any] = set()
    left = [s.grad_fn for s in slopes if s is not None and s.grad_fn is not None]
    while left:
        node = left.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.name().endswith("Error"):
            raise ValueError(
                "a function of the model is marked once_differentiable, so that it has no second derivative: replace "
                "it by one that has, or leave its parameters out"
            )
        left.extend(following for following, _ in node.next_functions if following is not None)


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Inside, attention and recurrent layers take the paths that have second derivatives.

    Attention: torch's plain arithmetic in place of fused kernels. Recurrent layers on CUDA: without cuDNN.

    Raises:
        ValueError: an operation has none all the same; says which, and what to do.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        with (
            sdpa_kernel(SDPBackend.MATH),
            torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent),
        ):
            yield
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        if "derivative for" in said or "double backward" in said or "not differentiable" in said:
            raise ValueError(
                f"an operation of the model has no second derivative ({said}): replace it by one that has, such as "
                "plain attention for a fused one, or leave its parameters out"
            ) from error
        raise
