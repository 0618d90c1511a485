"""How wide a valley is: curvature, local entropy and sharpness of a trained network."""

from widevalley.landscape.objective import Objective
from widevalley.landscape.probe import Probe, ProbeRecord
from widevalley.landscape.products import gauss_newton_vector_product, hessian_vector_product
from widevalley.landscape.records import Estimate
from widevalley.landscape.sharpness import sharpness
from widevalley.landscape.surface import Surface, surface

__all__ = [
    "Estimate",
    "Objective",
    "Probe",
    "ProbeRecord",
    "Surface",
    "gauss_newton_vector_product",
    "hessian_vector_product",
    "sharpness",
    "surface",
]
