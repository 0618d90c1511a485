"""The shape of the valley while a network trains: curvature at the weights, and what the inner chain does."""

from __future__ import annotations

import statistics
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from widevalley.landscape.directions import direction_generator
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import hessian_vector_product
from widevalley.landscape.records import Estimate
from widevalley.optim.chain import Chain
from widevalley.optim.nested import NestedOptimizer
from widevalley.validation import integer

# The search ends at a residual of this share of the eigenvalue, whose own error is of the square of it. Of an
# eigenvalue near 0, at this share squared of how long any vector has become.
CONVERGED = 1e-3

# A step of which less than this lies outside the span of the two other vectors is left out: its image is rounding.
DEPENDENT = 1e-3


@dataclass(frozen=True)
class ProbeRecord:
    """One look, after ``step`` steps of training; x is the centre for nested optimizers."""

    step: int
    loss: float  # f(x)
    gradient_norm: float  # ‖∇f(x)‖
    largest_eigenvalue: float  # a Rayleigh quotient, so at most λ_max of ∇²f(x) but for rounding
    residual: float  # ‖Hv − λv‖ with ‖v‖ = 1: an eigenvalue lies within it
    trace: Estimate  # of ∇²f(x)
    # At the end of the last cycle, None before it and for optimizers without one.
    displacement: float | None  # ‖x′ − x‖
    pull_to_gradient: float | None  # γ‖x′ − x‖ / ‖∇f(x′; ξ)‖
    noise_to_gradient: float | None
    # What the probe itself has cost so far, in passes over its data; training's own gradients are not in it.
    own_gradients: int
    own_products: int


class Probe:
    """Looks at the loss f of an objective every k steps of training, and leaves training bit for bit as it was.

    Call it once a step between ``backward()`` and ``step()``, or hand it to the optimizer, in any trainer::

        probe = Probe(Objective(model, data=a_few_batches), every=100)
        optimizer.register_step_pre_hook(probe)   # or: probe(optimizer) in the loop

    At steps 0, k, 2k, … it appends to ``records``: f, its slope, the largest Hessian eigenvalue (LOBPCG from the vector
    of the look before), the trace (Hutchinson, with the same random signs at every look), and how the inner chain of a
    nested optimizer stood at its cycle's end.
    Nested optimizers are measured at their centre, with batch-norm's running statistics as they are, those of x′.

    Args:
        objective: over the model that is trained. Its data must not draw on a generator that training uses.
        every: k, steps between two looks.
        products: Hessian-vector products for the eigenvalue at most.
        signs: random sign vectors of the trace, 2 at least; its standard error falls with their root.
        seed: of these and of the first vector.

    Cost of a look: one gradient, and ``products`` + ``signs`` products at most, each over the objective's data.

    Raises:
        ValueError: an argument is wrong; the optimizer trains none of the objective's parameters; the loss is not
            finite.
    """

    def __init__(
        self, objective: Objective, every: int = 100, *, products: int = 30, signs: int = 8, seed: int = 0
    ) -> None:
        integer("every", every, minimum=1)
        integer("products", products, minimum=1)
        integer("signs", signs, minimum=2)
        self.objective = objective
        self.every = every
        self.records: list[ProbeRecord] = []
        self.steps = 0
        self.own_gradients = 0
        self.own_products = 0
        self._budget = products
        self._signs = signs
        self._seed = seed
        self._chain: Chain | None = None
        self._vector: Tensor | None = None

    def __call__(self, optimizer: Optimizer, *hook: object) -> None:
        """Counts a step, and looks if it is time to; ``hook`` is what torch passes to a step's pre-hook."""
        if self._chain is None:
            self._refuse_another_model(optimizer)
            self._chain = Chain(optimizer)
        if self.steps % self.every == 0:
            with optimizer.at_center() if isinstance(optimizer, NestedOptimizer) else nullcontext():
                self.records.append(self._look(self._chain))
        self._chain.look()
        self.steps += 1

    def _look(self, chain: Chain) -> ProbeRecord:
        loss, gradient = self.objective.value_and_gradient()
        self.own_gradients += 1
        value, residual = self._largest_eigenvalue()
        trace = self._trace()
        return ProbeRecord(
            step=self.steps,
            loss=loss,
            gradient_norm=float(gradient.norm()),
            largest_eigenvalue=value,
            residual=residual,
            trace=trace,
            **chain.latest,
            own_gradients=self.own_gradients,
            own_products=self.own_products,
        )

    def _largest_eigenvalue(self) -> tuple[float, float]:
        """λ and ‖Hv − λv‖; v is kept for the next look.

        Beside training three pairs of vectors are what memory there is: Lanczos would keep one for every product.
        """
        v = self._vector
        if v is None:
            v = self._random().normal_(generator=self._generator()).to(self.objective.device, self.objective.dtype)
        v = v / v.norm()
        image = self._product(v)
        past: list[tuple[Tensor, Tensor]] = []
        scale = 0.0
        for _ in range(self._budget - 1):
            value, residual = self._rayleigh(v, image)
            scale = max(scale, float(image.norm()))
            if float(residual.norm()) <= CONVERGED * max(abs(value), CONVERGED * scale):
                break
            w = residual / residual.norm()
            pairs = [(v, image), (w, self._product(w)), *past]
            scale = max(scale, float(pairs[1][1].norm()))
            v, image, past = _best_of_span(pairs)
        value, residual = self._rayleigh(v, image)
        self._vector = v
        return value, float(residual.norm())

    @staticmethod
    def _rayleigh(v: Tensor, image: Tensor) -> tuple[float, Tensor]:
        """λ = vᵀHv and Hv − λv."""
        value = float(v @ image)
        return value, image - value * v

    def _trace(self) -> Estimate:
        generator = self._generator()
        found = []
        # One after the other: side by side they would need the memory of that many backward passes in training.
        for _ in range(self._signs):
            signs = self._random().bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
            v = signs.to(self.objective.device, self.objective.dtype)
            found.append(float(v @ self._product(v)))
        return Estimate(statistics.fmean(found), statistics.stdev(found) / self._signs**0.5)

    def _product(self, v: Tensor) -> Tensor:
        self.own_products += 1
        return hessian_vector_product(self.objective, v)

    def _random(self) -> Tensor:
        return torch.empty(self.objective.n, dtype=torch.float64)

    def _generator(self) -> torch.Generator:
        return direction_generator(self._seed)

    def _refuse_another_model(self, optimizer: Optimizer) -> None:
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(p) in trained for p in self.objective.parameters):
            raise ValueError(
                "the optimizer trains none of the objective's parameters: make the Objective over the model that is "
                "trained"
            )


def _best_of_span(pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Of pairs (s, Hs) with ‖s‖ = 1: v in their span with the largest vᵀHv, Hv, and the step to it from the first s.

    Called with v, its residual and the last step it is LOBPCG (Knyazev, 2001): conjugate gradients for the largest
    eigenvalue, which unlike power iteration is not drawn to strong negative curvature.
    """
    q, r = torch.linalg.qr(torch.stack([s for s, _ in pairs], dim=1))
    if len(pairs) == 3 and abs(float(r[2, 2])) < DEPENDENT:
        return _best_of_span(pairs[:2])
    images = torch.linalg.solve_triangular(r, torch.stack([h for _, h in pairs], dim=1), upper=True, left=False)
    inside = q.T @ images
    c = torch.linalg.eigh((inside + inside.T) / 2).eigenvectors[:, -1]
    step, its_image = q[:, 1:] @ c[1:], images[:, 1:] @ c[1:]
    length = step.norm()
    past = [(step / length, its_image / length)] if bool(length > 0) else []
    return q @ c, images @ c, past
