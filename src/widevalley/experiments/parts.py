"""The parts of a measurement: each measures one network, and gives what goes into the file."""

from __future__ import annotations

import functools
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from widevalley.experiments.records import Record
from widevalley.experiments.subjects import Subject
from widevalley.landscape import (
    ConvergenceWarning,
    Estimate,
    Objective,
    Widths,
    compare_widths,
    hessian_eigenvalues,
    local_entropy,
    local_learning_coefficient,
    plan,
    sharpness,
    spectral_density,
    surface,
    top_eigenpairs,
    trace,
)
from widevalley.landscape.sharpness import Kind

Told = Callable[[str, float], None]

TOP, TOP_BESIDE = 20, 10
# Of the largest |λ|. The error of an eigenvalue that stands apart is of second order in it; at the lower end they
# crowd, and the most negative one came out as 6e-5 with 1e-4.
RESIDUAL, RESIDUAL_BELOW = 1e-4, 1e-5
# Seconds that a spectrum may take without having been asked for by name.
UNASKED = 300.0
# Of the Gaussian alone, √(n/βγ), as shares of ‖x‖.
RADII = (0.02, 0.05, 0.1)
ENTROPY_TOLERANCE = 0.01
# Parameters up to which the learning coefficient is measured: its chains go far, and on a network of 26,634 they had
# come a tenth of their way in seven minutes.
FEW_PARAMETERS = 2_000
OF_THE_SAMPLER = (
    "phi",
    "classical_entropy",
    "rms_radius",
    "relative_radius",
    "mean_loss",
    "gradients",
    "acceptance",
    "effective_sample_size",
)
# The papers' own: SAM's ball, Keskar's box, ASAM's ball.
SHARPNESSES: tuple[tuple[Kind, float], ...] = (("worst", 0.05), ("average", 0.05), ("adaptive", 0.5), ("box", 5e-4))


class Skipped(Exception):
    """A part cannot be had, or would cost more than was asked for; the message says why."""


def point(subject: Subject) -> Record:
    """Where it is: sizes, loss, slope.

    Raises ValueError where nothing can be measured.
    """
    objective = subject.objective
    objective.check()
    value, gradient = objective.value_and_gradient()
    return {
        "parameters": objective.n,
        "samples": objective.samples,
        "loss": value,
        "error": subject.error,
        "gradient_norm": float(gradient.double().norm()),
        "weight_norm": float(objective.vector().double().norm()),
        "rank_bound_gauss_newton": subject.rank_bound,
    }


def spectrum(
    subject: Subject, folder: Path, asked: bool, before: Record | None, keep: Callable[[Record], None], told: Told
) -> Record:
    """Every eigenvalue, and the outermost ones on other samples.

    What ``before`` has is not measured again. ``keep`` is given what there is once the eigenvalues are had, and after
    each of the other samples.

    Raises Skipped if it was not asked for and takes more than minutes.
    """
    record = before or {**_eigenvalues(subject, folder, asked, told), "elsewhere": {}, "unfinished": True}
    keep(record)
    # As large as the matrix, several times over, and of no more use.
    shutil.rmtree(folder, ignore_errors=True)
    for name, objective in subject.elsewhere.items():
        if name not in record["elsewhere"]:
            record["elsewhere"][name] = outermost(objective, told)
            keep(record)
    return {key: value for key, value in record.items() if key != "unfinished"}


def _eigenvalues(subject: Subject, folder: Path, asked: bool, told: Told) -> Record:
    if not asked:
        planned = plan(subject.objective)
        seconds = planned.seconds + planned.reduction_seconds
        if seconds > UNASKED:
            raise Skipped(
                f"It would take about {seconds / 60:.0f} minutes ({planned}): ask for it with --what spectrum."
            )
    found = hessian_eigenvalues(subject.objective, folder=folder, progress=told)
    return {
        "eigenvalues": found.eigenvalues.tolist(),
        "noise_floor": found.noise_floor,
        "structural_zeros": found.structural_zeros,
        "asymmetry": found.asymmetry,
        "trace": float(found.eigenvalues.sum()),
        "dtype": str(subject.objective.dtype).removeprefix("torch."),
        "seconds": dict(found.seconds),
    }


def outermost(objective: Objective, told: Told) -> Record:
    """The largest eigenvalues, the most negative one and the trace, from products alone."""
    objective.check()
    value, gradient = objective.value_and_gradient()
    ends = top_eigenpairs(objective, min(TOP, objective.n // 2), tolerance=RESIDUAL, products=6000, progress=told)
    lowest = top_eigenpairs(objective, 1, tolerance=RESIDUAL_BELOW, products=6000, progress=told)
    whole = trace(objective, progress=told)
    return {
        "samples": objective.samples,
        "loss": value,
        "gradient_norm": float(gradient.double().norm()),
        "largest": ends.values.flip(0)[: len(ends.values) // 2].tolist(),
        "most_negative": float(lowest.values[0]),
        "largest_residual": float(ends.residuals.max()),
        "trace": whole.value,
        "trace_standard_error": whole.standard_error,
    }


def density(subject: Subject, told: Told) -> Record:
    began = time.perf_counter()
    objective = subject.objective
    found = spectral_density(objective, progress=told)
    pairs = max(1, min(TOP_BESIDE, objective.n // 2))
    ends = top_eigenpairs(objective, pairs, tolerance=RESIDUAL_BELOW, products=6000, progress=told)
    whole = trace(objective, seed=1, progress=told)
    return {
        "nodes": found.nodes.tolist(),
        "weights": found.weights.tolist(),
        "n": found.n,
        "products": int(found.diagnostics["products"]),
        "largest": ends.values.flip(0)[:pairs].tolist(),
        "most_negative": ends.values[:pairs].tolist(),
        "largest_residual": float(ends.residuals.max()),
        "trace": whole.value,
        "trace_standard_error": whole.standard_error,
        "seconds": time.perf_counter() - began,
    }


def default_gammas(objective: Objective) -> list[float]:
    """Scopes at which the Gaussian alone reaches so far that ‖x′ − x‖ is ``RADII`` of ‖x‖, ascending."""
    square = float(objective.vector().double().square().sum())
    if square == 0:
        raise Skipped("All weights are 0, so that no scope is a share of them: give --gammas.")
    return sorted(float(f"{objective.n / (objective.samples * share**2 * square):.1g}") for share in RADII)


def entropy(
    subject: Subject, gammas: Sequence[float], before: Record | None, keep: Callable[[Record], None], told: Told
) -> Record:
    """Local entropy at every γ, β = N, and the learning coefficient of a small network.

    What ``before`` has is not measured again. ``keep`` is given what there is after each of them.
    """
    objective = subject.objective
    record: Record = before or {
        "inverse_temperature": objective.samples,
        "method": "thermodynamic",
        "points": [],
        "learning_coefficient": None,
        "seconds": 0.0,
        "unfinished": True,
    }
    for gamma in gammas:
        if any(there["gamma"] == gamma for there in record["points"]):
            continue
        found, warning, seconds = _sampled(
            functools.partial(
                local_entropy, objective, gamma, objective.samples, tolerance=ENTROPY_TOLERANCE, progress=told
            )
        )
        record["points"].append(
            {
                "gamma": gamma,
                "value": found.value,
                "standard_error": found.standard_error,
                **{name: found.diagnostics[name] for name in OF_THE_SAMPLER},
                "warning": warning,
            }
        )
        record["points"].sort(key=lambda each: float(each["gamma"]))
        record["seconds"] += seconds
        keep(record)
    if record["learning_coefficient"] is None and objective.n <= FEW_PARAMETERS:
        found, warning, seconds = _sampled(functools.partial(local_learning_coefficient, objective, progress=told))
        record["learning_coefficient"] = {
            "value": found.value,
            "standard_error": found.standard_error,
            "warning": warning,
        }
        record["seconds"] += seconds
    return {key: value for key, value in record.items() if key != "unfinished"}


def sharpnesses(subject: Subject, told: Told) -> Record:
    began = time.perf_counter()
    rows = []
    for kind, radius in SHARPNESSES:
        found = sharpness(subject.objective, kind, radius, progress=told)
        rows.append(
            {
                "kind": kind,
                "radius": radius,
                "value": found.value,
                "standard_error": found.standard_error,
                "spread": found.diagnostics.get("spread"),
                "length": found.diagnostics.get("length"),
            }
        )
    return {"rows": rows, "seconds": time.perf_counter() - began}


def surfaces(subject: Subject, others: Sequence[Subject], told: Told) -> Record:
    """Around the network, and on the lines from it to the others of its shapes."""
    began = time.perf_counter()
    plane = surface(subject.objective, progress=told)
    record: Record = {
        "coordinates": [axis.tolist() for axis in plane.coordinates],
        "loss": plane.loss.tolist(),
        "lengths": list(plane.lengths),
        "to": {},
    }
    for other in others:
        if [p.shape for p in other.objective.parameters] == [p.shape for p in subject.objective.parameters]:
            line = surface(subject.objective, other.objective, progress=told)
            record["to"][other.name] = {
                "coordinates": line.coordinates[0].tolist(),
                "loss": line.loss.tolist(),
                "length": line.lengths[0],
            }
    return {**record, "seconds": time.perf_counter() - began}


def widths(subjects: Sequence[Subject], told: Told) -> Record:
    """Which of the networks lies in the wider valley, against the first."""
    found = compare_widths({subject.name: subject.objective for subject in subjects}, progress=told)
    return widths_record(found)


def widths_record(found: Widths) -> Record:
    return {
        "match": found.match,
        "losses": dict(found.losses),
        "scales": dict(found.scales),
        "matched_losses": dict(found.matched_losses),
        "verdicts": dict(found.verdicts),
        "caveats": list(found.caveats),
        "rows": [
            {
                "measure": row.measure,
                "invariant": row.invariant,
                "values": {name: estimate.value for name, estimate in row.estimates.items()},
                "intervals": {name: list(interval) for name, interval in row.intervals.items()},
                "verdicts": dict(row.verdicts),
            }
            for row in found.rows
        ],
    }


def _sampled(measure: Callable[[], Estimate]) -> tuple[Estimate, str | None, float]:
    """The estimate, what it warned of, and seconds."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        found = measure()
    said = [str(each.message) for each in caught if issubclass(each.category, ConvergenceWarning)]
    return found, said[0] if said else None, time.perf_counter() - began
