"""How wide a valley is: curvature, local entropy and sharpness of a trained network."""

from widevalley.landscape.convergence import ConvergenceWarning
from widevalley.landscape.learning_coefficient import local_learning_coefficient
from widevalley.landscape.local_entropy import LocalEntropyGradient, local_entropy, local_entropy_gradient
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import gauss_newton_vector_product, hessian_vector_product
from widevalley.landscape.records import Estimate
from widevalley.landscape.stochastic import (
    StochasticAverage,
    polynomial_decay,
    preconditioned_sgld,
    santa,
    sghmc,
    sgld,
)

__all__ = [
    "ConvergenceWarning",
    "Estimate",
    "LocalEntropyGradient",
    "Objective",
    "StochasticAverage",
    "gauss_newton_vector_product",
    "hessian_vector_product",
    "local_entropy",
    "local_entropy_gradient",
    "local_learning_coefficient",
    "polynomial_decay",
    "preconditioned_sgld",
    "santa",
    "sghmc",
    "sgld",
]
