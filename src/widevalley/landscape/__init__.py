"""How wide a valley is: curvature, local entropy and sharpness of a trained network."""

from widevalley.landscape.cost import HessianPlan, plan
from widevalley.landscape.eigenvalues import Spectrum, hessian_eigenvalues
from widevalley.landscape.hessian import ExactHessian, exact_hessian
from widevalley.landscape.objective import Objective
from widevalley.landscape.products import gauss_newton_vector_product, hessian_vector_product
from widevalley.landscape.records import Estimate

__all__ = [
    "Estimate",
    "ExactHessian",
    "HessianPlan",
    "Objective",
    "Spectrum",
    "exact_hessian",
    "gauss_newton_vector_product",
    "hessian_eigenvalues",
    "hessian_vector_product",
    "plan",
]
