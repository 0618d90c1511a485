"""What is measured: the mean loss of a model over a data set, as a function of a flat vector of its parameters."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from widevalley.landscape.batches import first_length, map_tensors, mean_cross_entropy, model_outputs

# Two passes over the same samples in another order differ by rounding alone: a few 1e-7 of the loss in float32 here.
SAME_LOSS = 1e-5


class Objective:
    """f(w) = (1/N) Σ_i ℓ_i(w), the mean over N samples of the loss at the parameters w.

    Vectors are flat: the n trainable parameters in the order of ``model.parameters()``, each in its logical order.
    Every measure leaves the model as it was: parameters, gradients, modes, buffers, and torch's random states.

    Args:
        model: measured in eval mode, with dropout off and batch-norm frozen, unless ``training``.
        loss: ``loss(model, batch)``, the mean loss over the batch, a plain function without weight decay. None: the
            cross-entropy of ``model(inputs)`` and ``targets`` for batches ``(inputs, targets)``; for batches that are
            dictionaries, ``model(**batch).loss``, as Hugging Face models have it.
        data: batches, to be gone through any number of times with the same samples: a list or a DataLoader without
            augmentation. They may be of different sizes, and are moved to the model's device.
        size: ``size(batch)``, its number of samples. None: the length of its first tensor.
        outputs: ``outputs(model, batch)``, the logits (samples, classes, …), and
        criterion: ``criterion(outputs, batch)``, their mean loss: in place of ``loss``, for the measures that need to
            know the logits (Gauss-Newton, Fisher). The default loss knows them.
        parameters: those to be measured, a part of the model's. None: all that require a gradient.
        training: measure in training mode instead: batch-norm over each batch. Dropout is refused there.

    Raises:
        ValueError: nothing to measure; ``loss`` beside ``outputs`` and ``criterion``; data that can be read only once.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor] | None = None,
        data: Iterable[Any] | None = None,
        *,
        size: Callable[[Any], int] | None = None,
        outputs: Callable[[nn.Module, Any], Tensor] | None = None,
        criterion: Callable[[Tensor, Any], Tensor] | None = None,
        parameters: Sequence[nn.Parameter] | None = None,
        training: bool = False,
    ) -> None:
        if data is None:
            raise ValueError("data is missing: give the batches that the loss is the mean over")
        if isinstance(data, Iterator):
            raise ValueError(
                f"data={type(data).__name__} can be gone through only once, and measures need many passes: give a list "
                "of batches, or a DataLoader"
            )
        if (outputs is None) != (criterion is None) or (loss is not None and outputs is not None):
            raise ValueError("give either loss, or both outputs and criterion, or none of them for the cross-entropy")
        self.model, self.data, self.training = model, data, training
        if loss is None and outputs is None:
            outputs, criterion = model_outputs, mean_cross_entropy
        self._loss, self._outputs, self._criterion = loss, outputs, criterion
        self._size = size or first_length
        self.parameters = _trainable(model, parameters)
        devices = {p.device for p in self.parameters}
        if len(devices) > 1:
            raise ValueError(f"the parameters lie on {len(devices)} devices, but a vector lies on one: move the model")
        self.device = devices.pop()
        self._around: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._samples: int | None = None
        self._start: float | None = None

    # ------------------------------------------------------------------ shapes

    @property
    def n(self) -> int:
        """Number of parameters."""
        return sum(p.numel() for p in self.parameters)

    @property
    def samples(self) -> int:
        """N. Raises as ``check``."""
        self.check()
        assert self._samples is not None
        return self._samples

    @property
    def dtype(self) -> torch.dtype:
        """The widest float type among the parameters; vectors have it."""
        widest = self.parameters[0].dtype
        for p in self.parameters:
            widest = torch.promote_types(widest, p.dtype)
        return widest

    def replaced(
        self,
        model: nn.Module,
        parameters: Sequence[nn.Parameter],
        data: Iterable[Any],
        around: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> Objective:
        """The same loss, of another model over other data, evaluated inside of ``around()``."""
        other = copy.copy(self)
        other.model, other.data, other.parameters = model, data, _trainable(model, parameters)
        other.device, other._start = other.parameters[0].device, None
        other._around = around or self._around
        return other

    def tempered(self, scale: float) -> Objective:
        """The same objective with its outputs times ``scale``: logits at the temperature 1/scale.

        Raises ValueError if only the loss is known.
        """
        inner = self._outputs
        if inner is None:
            raise ValueError(
                "only the loss is known, so that its logits cannot be scaled: give outputs= and criterion="
            )
        other = copy.copy(self)
        other._outputs, other._start = (lambda model, batch: scale * inner(model, batch)), None
        return other

    # ------------------------------------------------------------------ vectors

    @property
    def spans(self) -> list[slice]:
        """Where each parameter stands in a vector."""
        ends = list(itertools.accumulate((p.numel() for p in self.parameters), initial=0))
        return [slice(start, stop) for start, stop in itertools.pairwise(ends)]

    def vector(self) -> Tensor:
        """The present parameters, a copy, shape (n,)."""
        return self.flat([p.detach() for p in self.parameters])

    def flat(self, tensors: Iterable[Tensor]) -> Tensor:
        """Tensors of the parameters' shapes as one vector of shape (n,)."""
        return torch.cat([t.reshape(-1).to(self.dtype) for t in tensors])

    def unflat(self, vector: Tensor) -> list[Tensor]:
        """A vector (n,), or several (k, n), as tensors of the parameters' shapes and types."""
        if vector.shape[-1] != self.n or vector.ndim > 2:
            raise ValueError(f"a vector of shape {tuple(vector.shape)} does not fit {self.n} parameters")
        parts = vector.to(self.device).split([p.numel() for p in self.parameters], dim=-1)
        lead = vector.shape[:-1]
        return [part.reshape((*lead, *p.shape)).to(p.dtype) for part, p in zip(parts, self.parameters, strict=True)]

    @contextmanager
    def at(self, vector: Tensor) -> Iterator[None]:
        """Inside, the parameters are those of ``vector``; afterwards what they were, also after an exception."""
        before = [p.detach().clone() for p in self.parameters]
        try:
            self._write(self.unflat(vector))
            yield
        finally:
            self._write(before)

    @torch.no_grad()
    def _write(self, tensors: list[Tensor]) -> None:
        for p, t in zip(self.parameters, tensors, strict=True):
            p.copy_(t)

    # ------------------------------------------------------------------ the loss

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Inside, the model is in the mode that is measured; every mode, buffer and random state is given back."""
        modes = {module: module.training for module in self.model.modules()}
        buffers = {name: b.clone() for name, b in self.model.named_buffers()} if self.training else {}
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            self.model.train(self.training)
            with torch.random.fork_rng(devices):
                yield
        finally:
            for module, mode in modes.items():
                module.training = mode
            present = dict(self.model.named_buffers())
            with torch.no_grad():
                for name, b in buffers.items():
                    present[name].copy_(b)

    def batches(self) -> Iterator[tuple[Any, int]]:
        """Each batch on the model's device, and how many samples it has."""
        empty = True
        for batch in self.data:
            count = self._size(batch)
            if count:
                empty = False
                yield map_tensors(batch, lambda tensor: tensor.to(self.device)), count
        if empty:
            raise ValueError("data is empty: give at least one batch")

    def batch_loss(self, batch: Any) -> Tensor:
        """Mean loss over the batch, with its graph. The model is in the mode that it is in: see ``measuring``."""
        with self._around():
            if self._loss is not None:
                loss = self._loss(self.model, batch)
            elif self._outputs is model_outputs and isinstance(batch, Mapping):
                loss = self.model(**batch).loss
            else:
                loss = self.criterion(self.outputs(batch), batch)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"loss(model, batch) gave {shape}: it must return the mean loss over the batch, one number"
            )
        return loss.reshape(())

    def outputs(self, batch: Any) -> Tensor:
        """Logits of the batch, with their graph.

        Raises ValueError if only the loss is known.
        """
        if self._outputs is None or (self._outputs is model_outputs and isinstance(batch, Mapping)):
            raise ValueError(
                "this needs the logits, and only the loss is known: make the Objective with outputs= and criterion="
            )
        return self._outputs(self.model, batch)

    def criterion(self, outputs: Tensor, batch: Any) -> Tensor:
        """Mean loss over the batch of these outputs."""
        assert self._criterion is not None
        return self._criterion(outputs, batch)

    def value(self) -> float:
        """f at the present parameters, summed in float64.

        Raises ValueError if it is not finite.
        """
        return self._mean_loss()[0]

    def gradient(self) -> Tensor:
        """∇f at the present parameters, shape (n,)."""
        return self.value_and_gradient()[1]

    def value_and_gradient(self) -> tuple[float, Tensor]:
        total, count = 0.0, 0
        gradient = torch.zeros(self.n, dtype=self.dtype, device=self.device)
        with self.measuring():
            for batch, size in self.batches():
                with torch.enable_grad():
                    loss = self.batch_loss(batch)
                    parts = torch.autograd.grad(loss, self.parameters, allow_unused=True)
                total += size * self._finite(loss)
                gradient += size * self.flat(zero_where_unused(parts, self.parameters))
                count += size
        return total / count, gradient / count

    @torch.no_grad()
    def _mean_loss(self, seed: int | None = None) -> tuple[float, int]:
        total, count = 0.0, 0
        with self.measuring():
            if seed is not None:
                torch.manual_seed(seed)
            for batch, size in self.batches():
                total += size * self._finite(self.batch_loss(batch))
                count += size
        return total / count, count

    def _finite(self, loss: Tensor) -> float:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at these parameters: nothing can be measured there")
        return value

    def check(self) -> float:
        """f at the parameters where it was first called, after two passes over the data that must agree.

        Raises:
            ValueError: they do not (augmentation, dropout that is on), or the loss is not finite.
        """
        if self._start is None:
            if self.training and (name := _dropout(self.model)):
                raise ValueError(
                    f"training=True with dropout ({name}) measures another function at each pass: set its p to 0, or "
                    "measure in eval mode"
                )
            # From other random states, or augmentation would look the same twice.
            first, count = self._mean_loss(seed=0)
            second, again = self._mean_loss(seed=1)
            if count != again or abs(first - second) > SAME_LOSS * max(1.0, abs(first)):
                raise ValueError(
                    f"two passes over the data gave a loss of {first:.8g} over {count} samples and {second:.8g} over "
                    f"{again}: switch off augmentation, dropout and sampling, so that each pass has the same samples"
                )
            self._start, self._samples = first, count
        return self._start


def zero_where_unused(parts: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients as ``torch.autograd.grad(…, allow_unused=True)`` gives them, zeros for None."""
    return [torch.zeros_like(p) if part is None else part for part, p in zip(parts, parameters, strict=True)]


def parameter_names(objective: Objective) -> list[str]:
    """The measured parameters' names in the model."""
    names = {id(p): name for name, p in objective.model.named_parameters()}
    return [names[id(p)] for p in objective.parameters]


def _trainable(model: nn.Module, given: Sequence[nn.Parameter] | None) -> list[nn.Parameter]:
    own = list(model.parameters())
    chosen = [p for p in own if p.requires_grad] if given is None else list(given)
    if not chosen:
        raise ValueError("no parameter requires a gradient: unfreeze those that are to be measured")
    identities = [id(p) for p in own]
    for p in chosen:
        if id(p) not in identities:
            raise ValueError(f"a parameter of shape {tuple(p.shape)} is not the model's: take it from its parameters()")
        if not p.requires_grad:
            raise ValueError(f"a parameter of shape {tuple(p.shape)} is frozen: unfreeze it, or leave it out")
        if not p.is_floating_point():
            raise ValueError(f"a parameter of type {p.dtype} has no Hessian here: use real floating point")
    if len({id(p) for p in chosen}) != len(chosen):
        raise ValueError("a parameter is named twice: name each once")
    return sorted(chosen, key=lambda p: identities.index(id(p)))


def _dropout(model: nn.Module) -> str | None:
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return str(name)
    return None
