"""Fisher information: of the data, of the model's own predictions, and from the moments that Adam keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from widevalley.landscape.lanczos import Progress
from widevalley.landscape.objective import Objective
from widevalley.landscape.per_sample import pulled
from widevalley.landscape.products import gauss_newton_vector_product
from widevalley.optim.nested import NestedOptimizer
from widevalley.validation import integer

Kind = Literal["empirical", "model"]


def fisher_diagonal(
    objective: Objective,
    kind: Kind = "empirical",
    *,
    samples: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Tensor:
    """The diagonal of the Fisher information at the objective's parameters, a mean over the N samples, shape (n,).

    ``"empirical"``: (1/N) Σ_i (∂ℓ_i/∂w)², with the targets of the data. ``"model"``: (1/N) Σ_i Σ_c p_ic (∂ log
    p_ic/∂w)², with targets drawn from the model's own predictions p_i, the softmax of the logits (samples, classes, …).
    With several predictions a sample, as at each place of a text, N counts them all. It is the diagonal of the
    Gauss-Newton matrix of the cross-entropy; the empirical one is not (Kunstner, Balles and Hennig, arXiv:1905.12558).

    Args:
        objective: any loss for ``"empirical"``; for ``"model"`` one that gives logits, with the mean cross-entropy.
        samples: None: the sum over the classes, exact. Else this many draws of the targets, unbiased.
        seed: of the draws.
        progress: is told what is going on and the fraction done.

    Cost: a pass over the data, and a gradient for each sample, for ``"model"`` times the classes and places, or times
    ``samples``; by vmap, or one after the other where an operation of the model does not know it.

    Raises:
        ValueError: logits that are hidden or not of a mean cross-entropy; samples whose losses depend on each other
            (batch-norm in training mode, class weights), so that there is no gradient of one.
    """
    _check_kind(kind)
    objective.check()
    if kind == "empirical":
        if samples is not None:
            raise ValueError(f"samples={samples!r} draws targets, and the empirical Fisher takes those of the data")
        total = torch.zeros(objective.n, dtype=objective.dtype, device=objective.device)
        for rows in _of_losses(objective, progress):
            total += rows.square().sum(0)
        return total / objective.samples
    if samples is not None:
        integer("samples", samples, minimum=1)
    return _of_predictions(objective, samples, torch.Generator().manual_seed(seed), progress)


def fisher_vector_product(
    objective: Objective, v: Tensor, kind: Kind = "empirical", *, progress: Progress | None = None
) -> Tensor:
    """F v, of the shape of ``v``, (n,) or rows (k, n).

    ``"empirical"``: (1/N) Σ_i g_i g_iᵀ v with the gradients g_i of single samples. ``"model"``: the Gauss-Newton
    product, which it is for the cross-entropy.

    Cost: a gradient for each sample and a pass more, or a Gauss-Newton product for each row.

    Raises ValueError as ``fisher_diagonal``, and if ``v`` does not fit.
    """
    _check_kind(kind)
    if v.ndim not in (1, 2) or v.shape[-1] != objective.n:
        raise ValueError(f"v of shape {tuple(v.shape)} does not fit: give (n,) or (k, n) with n = {objective.n}")
    objective.check()
    if kind == "model":
        batch, _ = next(objective.batches())
        with objective.measuring(), torch.no_grad():
            outputs = objective.outputs(batch)
        _refuse_other_criteria(objective, outputs, batch)
        return gauss_newton_vector_product(objective, v)
    columns = v.detach().to(objective.device, objective.dtype).reshape(-1, objective.n).T
    total = torch.zeros_like(columns)
    for rows in _of_losses(objective, progress):
        total += rows.T @ (rows @ columns)
    return (total.T / objective.samples).reshape(v.shape)


@dataclass(frozen=True)
class AdamFisher:
    """E(g²) − (E g)² of Adam's moments: diagonals in the order of the optimizer's groups, shape (n,).

    Nothing is clipped: the two moments look back over different lengths, so that some differences are below 0.
    """

    minibatch: Tensor  # variance of minibatch gradients along the path, (n,)
    per_sample: Tensor  # the same times the batch size: of single samples, if they were drawn independently
    negative: int  # how many are below 0


def fisher_from_adam(optimizer: Optimizer, batch_size: int) -> AdamFisher:
    """v/(1 − β₂ᵗ) − (m/(1 − β₁ᵗ))², with Adam's moments m of the gradient and v of its square after t steps.

    The paper's stand-in for a spectrum that is too large (Sec. 5.1, Fig. 3c). Adam sees means over minibatches, whose
    variance is smaller than that of single samples by the batch size. On gradients that are independent along the path
    the difference is on average 2β₁/(1 + β₁) of their variance for large t (0.947 at β₁ = 0.9): m still scatters.

    Args:
        optimizer: Adam, AdamW, NAdam or RAdam, or a ``NestedOptimizer`` with one inside (``EntropyAdam``), whose
            gradients include the pull γ(x′ − x), as they do coupled weight decay. Frozen parameters are left out.
        batch_size: samples a minibatch, of mean loss.

    Raises:
        TypeError: the optimizer keeps no such moments.
        ValueError: it has not stepped yet, or ``restart`` has just emptied its state.
    """
    integer("batch_size", batch_size, minimum=1)
    inner = optimizer.inner if isinstance(optimizer, NestedOptimizer) else optimizer
    if not all("betas" in group for group in inner.param_groups):
        raise TypeError(f"{type(inner).__name__} keeps no two moments of the gradient: give Adam, AdamW or EntropyAdam")
    parts = []
    for group in inner.param_groups:
        first, second = (float(beta) for beta in group["betas"])
        for p in group["params"]:
            if not p.requires_grad:
                continue
            state = inner.state.get(p, {})
            step = float(state.get("step", 0))
            if step == 0:
                raise ValueError(
                    f"a parameter of shape {tuple(p.shape)} has no moments yet: call this after a step with its "
                    "gradient; with restart=True, within a cycle, not at its end"
                )
            if "exp_avg" not in state or "exp_avg_sq" not in state:
                raise TypeError(
                    f"{type(inner).__name__} keeps no exp_avg and exp_avg_sq: give Adam, AdamW or EntropyAdam"
                )
            kind = torch.promote_types(p.dtype, torch.float32)
            mean = state["exp_avg"].to(kind) / (1 - first**step)
            square = state["exp_avg_sq"].to(kind) / (1 - second**step)
            parts.append((square - mean.square()).reshape(-1))
    if not parts:
        raise ValueError("every parameter of the optimizer is frozen: nothing has moments")
    variance = torch.cat(parts)
    return AdamFisher(variance, variance * batch_size, int((variance < 0).sum()))


def _of_losses(objective: Objective, progress: Progress | None) -> Iterator[Tensor]:
    """Gradients of single samples' losses, (c, n) at a time; refuses those whose mean is not ∇f."""
    mean = torch.zeros(objective.n, dtype=objective.dtype, device=objective.device)
    length, done = 0.0, 0
    for batch, size in objective.batches():
        ones = torch.ones(size, 1, dtype=objective.dtype, device=objective.device)
        for rows in pulled(objective, objective.batch_loss, batch, ones):
            mean += rows.sum(0) / objective.samples
            length += float(rows.square().sum())
            done += len(rows)
            if progress is not None:
                progress("gradients of single samples", done / objective.samples)
            yield rows
    # Far above rounding, far below what coupled samples do.
    if float((mean - objective.gradient()).norm()) > 1e-3 * (length / objective.samples) ** 0.5:
        raise ValueError(
            "the gradients of single samples have another mean than that of their batches: the loss couples samples "
            "(batch-norm in training mode, class weights, padding), so that one alone has no gradient; measure in eval "
            "mode, or give a loss that is the mean over samples"
        )


def _of_predictions(
    objective: Objective, samples: int | None, generator: torch.Generator, progress: Progress | None
) -> Tensor:
    if objective.training and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in objective.model.modules()):
        raise ValueError(
            "batch-norm in training mode couples samples, so that one alone has no gradient: use eval mode"
        )
    total = torch.zeros(objective.n, dtype=objective.dtype, device=objective.device)
    count = done = 0
    for batch, size in objective.batches():
        with objective.measuring(), torch.no_grad():
            outputs = objective.outputs(batch)
        if count == 0:
            _refuse_other_criteria(objective, outputs, batch)
        places = outputs[0, 0].numel()
        count += size * places
        p = outputs.softmax(1).reshape(size, -1, places)
        back = _all_classes(p) if samples is None else _draws(p, samples, generator)
        # A sample is a batch of one.
        back = back.reshape(size, -1, 1, *outputs.shape[1:])
        for rows in pulled(objective, objective.outputs, batch, back):
            total += rows.square().sum(0)
            done += len(rows)
            if progress is not None:
                progress("predictions of single samples", done / (objective.samples * back.shape[1]))
    return total / count


def _all_classes(p: Tensor) -> Tensor:
    """√p_c (e_c − p) at each place, for each class and place, (samples, classes · places, classes, places)."""
    size, classes, places = p.shape
    eye = torch.eye(classes, dtype=p.dtype, device=p.device)
    each = p.sqrt()[:, :, None, :] * (eye[None, :, :, None] - p[:, None])
    spread = torch.eye(places, dtype=p.dtype, device=p.device)
    return (each[:, :, None] * spread[None, None, :, None, :]).reshape(size, classes * places, classes, places)


def _draws(p: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """(e_y − p)/√samples with y drawn at each place, (samples of data, draws, classes, places)."""
    size, classes, places = p.shape
    flat = p.transpose(1, 2).reshape(-1, classes).to("cpu", torch.float64)
    drawn = torch.multinomial(flat, samples, replacement=True, generator=generator).to(p.device)
    hot = nn.functional.one_hot(drawn, classes).to(p.dtype).reshape(size, places, samples, classes)
    back: Tensor = (hot.permute(0, 2, 3, 1) - p[:, None]) / samples**0.5
    return back


def _refuse_other_criteria(objective: Objective, outputs: Tensor, batch: Any) -> None:
    """Compares the criterion's curvature, at random logits, with diag p − p pᵀ over the count of predictions."""
    if outputs.ndim < 2:
        raise ValueError(f"outputs of shape {tuple(outputs.shape)} are no logits: give (samples, classes, …)")
    generator = torch.Generator().manual_seed(0)
    z, u = torch.randn(2, *outputs.shape, generator=generator).to(outputs)
    z.requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(objective.criterion(z, batch), z, create_graph=True)
        found = torch.autograd.grad(slope, z, u)[0] if slope.requires_grad else torch.zeros_like(u)
    p = z.detach().softmax(1)
    expected = p * (u - (p * u).sum(1, keepdim=True)) * (outputs.shape[1] / outputs.numel())
    if float((found - expected).abs().max()) > 1e-2 * float(expected.abs().max()):
        raise ValueError(
            "the criterion is not the mean cross-entropy of logits (samples, classes, …): its curvature is another, so "
            "the model's predictions are not known; use kind='empirical', or gauss_newton_vector_product"
        )


def _check_kind(kind: str) -> None:
    if kind not in ("empirical", "model"):
        raise ValueError(f"kind={kind!r} is unknown: give 'empirical' or 'model'")
