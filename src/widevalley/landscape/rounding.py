"""How far a matrix is from the exact Hessian: the norm of the difference, by products in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from widevalley.landscape.batches import map_tensors
from widevalley.landscape.objective import Objective, parameter_names
from widevalley.landscape.patches import convolve_patches

# Rounding alone makes less of a difference in float32.
SAME_LOSS = 1e-3
# Krylov vectors, and the chance that the bound is below the norm.
STEPS, FAILURE = 31, 1e-3


class _DoubleData:
    """Batches with their floating-point tensors in float64."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Any]:
        for batch in self.data:
            yield map_tensors(batch, _double)


class _Promoting(TorchFunctionMode):
    """Inside, what refuses float64 beside float32 gets all in float64: constants that a loss brings along."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except RuntimeError:
            return func(*map_tensors(args, _double), **map_tensors(kwargs, _double))


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def in_float64(objective: Objective) -> Objective:
    """The same objective with a copy of the model, and its data, in float64.

    Raises:
        ValueError: the loss cannot be evaluated so, or is another one.
    """
    given = objective.check()
    model = copy.deepcopy(objective.model).double()
    convolve_patches(model)
    parameters = [model.get_parameter(name) for name in parameter_names(objective)]
    exact = objective.replaced(model, parameters, _DoubleData(objective.data), _Promoting)
    try:
        found = exact.check()
    except RuntimeError as error:
        raise ValueError(
            f"the loss cannot be evaluated in float64 ({str(error).splitlines()[0]}): make the tensors that it brings "
            "along follow the type of the model's outputs"
        ) from error
    if abs(found - given) > SAME_LOSS * max(1.0, abs(given)):
        raise ValueError(
            f"the loss is {given:.8g}, and {found:.8g} with the model's copy in float64: a loss must use the model "
            "that it is given"
        )
    return exact


def norm_bound(apply: Callable[[Tensor], Tensor], n: int, device: torch.device, seed: int = 0) -> float:
    """A bound on ‖E‖₂ of a symmetric E given by its products with vectors (n,) in float64, right but for 1 in 1,000.

    The largest ‖E v‖/‖v‖ over a Krylov space of 31 dimensions from a random start, divided by √(1 - ε): the Lanczos
    method on E² reaches (1 - ε)‖E²‖ in j steps but with probability 1.648 √n exp(-√ε(2j - 1)) (Kuczyński and
    Woźniakowski, SIAM J. Matrix Anal. Appl. 13, 1992, Theorem 4.1), and j = 16 of its steps lie in that space.
    """
    steps = min(STEPS, n)
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(n, generator=generator, dtype=torch.float64).to(device)
    basis = torch.zeros(0, n, dtype=torch.float64, device=device)
    images = torch.zeros(0, n, dtype=torch.float64, device=device)
    scale, whole = 0.0, n <= STEPS
    for _ in range(steps):
        # Twice: once leaves what rounding brings back.
        for _ in range(2):
            v = v - basis.T @ (basis @ v)
        length = float(v.norm())
        if length <= 1e-12 * scale or length == 0:
            whole = True
            break
        basis = torch.cat([basis, (v / length).unsqueeze(0)])
        v = apply(basis[-1])
        scale = max(scale, float(v.norm()))
        images = torch.cat([images, v.unsqueeze(0)])
    largest = float(torch.linalg.matrix_norm(images, 2))
    if whole:
        return largest
    root = math.log(1.648 * math.sqrt(n) / FAILURE) / STEPS
    return largest / math.sqrt(1 - root**2)
