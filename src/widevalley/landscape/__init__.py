"""How wide a valley is: curvature, local entropy and sharpness of a trained network."""

from widevalley.landscape.compare import WidthRow, Widths, compare_widths
from widevalley.landscape.convergence import ConvergenceWarning
from widevalley.landscape.cost import HessianPlan, plan
from widevalley.landscape.density import Density, spectral_density
from widevalley.landscape.eigenvalues import Spectrum, hessian_eigenvalues
from widevalley.landscape.estimates import log_determinant, trace
from widevalley.landscape.fisher import AdamFisher, fisher_diagonal, fisher_from_adam, fisher_vector_product
from widevalley.landscape.hessian import ExactHessian, exact_hessian
from widevalley.landscape.lanczos import Eigenpairs, top_eigenpairs
from widevalley.landscape.learning_coefficient import local_learning_coefficient
from widevalley.landscape.local_entropy import LocalEntropyGradient, local_entropy, local_entropy_gradient
from widevalley.landscape.objective import Objective
from widevalley.landscape.probe import Probe, ProbeRecord
from widevalley.landscape.products import gauss_newton_vector_product, hessian_vector_product
from widevalley.landscape.records import Estimate
from widevalley.landscape.sharpness import sharpness
from widevalley.landscape.stochastic import (
    StochasticAverage,
    polynomial_decay,
    preconditioned_sgld,
    santa,
    sghmc,
    sgld,
)
from widevalley.landscape.surface import Surface, surface

__all__ = [
    "AdamFisher",
    "ConvergenceWarning",
    "Density",
    "Eigenpairs",
    "Estimate",
    "ExactHessian",
    "HessianPlan",
    "LocalEntropyGradient",
    "Objective",
    "Probe",
    "ProbeRecord",
    "Spectrum",
    "StochasticAverage",
    "Surface",
    "WidthRow",
    "Widths",
    "compare_widths",
    "exact_hessian",
    "fisher_diagonal",
    "fisher_from_adam",
    "fisher_vector_product",
    "gauss_newton_vector_product",
    "hessian_eigenvalues",
    "hessian_vector_product",
    "local_entropy",
    "local_entropy_gradient",
    "local_learning_coefficient",
    "log_determinant",
    "plan",
    "polynomial_decay",
    "preconditioned_sgld",
    "santa",
    "sghmc",
    "sgld",
    "sharpness",
    "spectral_density",
    "surface",
    "top_eigenpairs",
    "trace",
]
