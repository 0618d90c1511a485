"""How wide a valley is: curvature, local entropy and sharpness of a trained network."""

from widevalley.landscape.convergence import ConvergenceWarning
from widevalley.landscape.local_entropy import LocalEntropyGradient, local_entropy, local_entropy_gradient
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import gauss_newton_vector_product, hessian_vector_product
from widevalley.landscape.records import Estimate

__all__ = [
    "ConvergenceWarning",
    "Estimate",
    "LocalEntropyGradient",
    "Objective",
    "gauss_newton_vector_product",
    "hessian_vector_product",
    "local_entropy",
    "local_entropy_gradient",
]
