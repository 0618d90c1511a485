"""The page of ``widevalley measure``: from ``measurement.json`` to one self-contained ``measure.html``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from widevalley.experiments import drawing, measure_numbers, measure_plots, measure_tables
from widevalley.experiments.measure_findings import findings
from widevalley.experiments.measured import (
    PARTS,
    Eigenvalues,
    Entropy,
    Measurement,
    Quadrature,
    Sharpness,
    Skipped,
    Surroundings,
    Widths,
)
from widevalley.experiments.measurements import read
from widevalley.experiments.rendering import Panel, panel, write_page
from widevalley.experiments.tables import significant

__all__ = ["write_measure_report"]

Part = TypeVar("Part")
Looks = Mapping[str, drawing.Style]


def write_measure_report(folder: Path) -> Path:
    """Writes ``measure.html`` into a measurement's folder and returns its path.

    What was not asked for is not on the page; what has not been measured yet is named, what cannot be had says why.
    Raises what ``measurements.read`` raises. The same file gives the same page.
    """
    measurement = read(folder)
    return write_page(folder / "measure.html", "measure.html.j2", lambda: _context(measurement))


def _context(measurement: Measurement) -> dict[str, Any]:
    looks = {name: drawing.style(place) for place, name in enumerate(measurement.networks)}
    spectra, densities = _of(measurement, Eigenvalues), _of(measurement, Quadrature)
    entropies, sharpnesses = _of(measurement, Entropy), _of(measurement, Sharpness)
    surfaces = _of(measurement, Surroundings)
    widths = measurement.widths
    return {
        "measurement": measurement,
        "names": list(looks),
        "findings": findings(measurement),
        "legend": looks,
        "missing": _missing(measurement),
        "skipped": {part: _skipped(measurement, part) for part in PARTS},
        "positions": measure_tables.positions(measurement),
        "widths": measure_tables.widths(widths) if isinstance(widths, Widths) else None,
        "caveats": widths.caveats if isinstance(widths, Widths) else (),
        "widths_skipped": widths.reason if isinstance(widths, Skipped) else None,
        "spectra": spectrum_part(measurement, looks, "spectrum") if spectra else None,
        "densities": measure_tables.densities(densities) if densities else None,
        "outermost": measure_tables.outermost(densities) if densities else None,
        "density_panels": _density(densities, looks),
        "entropies": {name: measure_tables.entropies(name, each) for name, each in entropies.items()},
        "coefficients": measure_tables.coefficients(entropies, measurement.networks),
        "entropy_panels": _entropy(entropies, looks) if entropies else [],
        "entropy_methods": sorted({each.method for each in entropies.values()}),
        "warnings": [
            f"{name} at γ = {point.gamma:g}: {point.warning}"
            for name, each in entropies.items()
            for point in each.points
            if point.warning
        ]
        + [
            f"{name}, learning coefficient: {each.learning_coefficient.warning}"
            for name, each in entropies.items()
            if each.learning_coefficient and each.learning_coefficient.warning
        ],
        "sharpnesses": measure_tables.sharpnesses(sharpnesses) if sharpnesses else None,
        "surface_panels": _surface(surfaces),
        "lengths": _lengths(surfaces),
        "line_panels": _lines(surfaces, looks),
        "lines_to": [name for each in surfaces.values() for name in each.to],
        "seconds": measure_tables.seconds(measurement),
        "spectrum_seconds": measure_tables.spectrum_seconds(spectra) if spectra else None,
    }


def spectrum_part(measurement: Measurement, looks: Looks, label: str) -> dict[str, Any]:
    """What a page says of whole spectra, of which there must be one; ``label`` begins the names of the figures."""
    spectra = _of(measurement, Eigenvalues)
    panels = _spectrum(spectra, looks, label)
    return {
        "table": measure_tables.spectra(spectra),
        "panels": panels,
        "columns": len(panels) // len(spectra),
        "middle": significant(max(map(measure_numbers.middle, spectra.values())), 1),
        "all_above": all(each.noise_floor < measure_numbers.NEAR_ZERO for each in spectra.values()),
        "floor_is_thin": all(map(_thin, spectra.values())),
        "elsewhere": measure_tables.elsewhere(measurement, spectra),
        "largest": {name: table for name, each in spectra.items() if (table := measure_tables.largest(name, each))},
    }


def _of(measurement: Measurement, kind: type[Part]) -> dict[str, Part]:
    """The parts of that kind that there are, by network."""
    return {
        name: part
        for name, network in measurement.networks.items()
        for part in vars(network).values()
        if isinstance(part, kind)
    }


def _thin(found: Eigenvalues) -> bool:
    """Whether the noise floor would be no wider than a hair in the figure."""
    return found.noise_floor < 0.002 * measure_numbers.middle(found)


def _missing(measurement: Measurement) -> list[str]:
    notes = [f"{', '.join(parts)} of {name}" for name, parts in measurement.missing().items()]
    if len(measurement.networks) > 1 and measurement.widths is None:
        notes.append("the comparison of widths")
    return notes


def _skipped(measurement: Measurement, part: str) -> dict[str, str]:
    found = {name: getattr(network, part) for name, network in measurement.networks.items()}
    return {name: each.reason for name, each in found.items() if isinstance(each, Skipped)}


def _spectrum(spectra: Mapping[str, Eigenvalues], looks: Looks, label: str) -> list[Panel]:
    panels = []
    for name, figures in measure_plots.spectrum(spectra, looks).items():
        before = f"{name}: " if len(spectra) > 1 else ""
        values = spectra[name].eigenvalues
        said = {
            "left tail": f"from the most negative, {values[0]:.4g}",
            "around 0": f"median of their size {statistics.median(abs(values)):.2g}",
            "right tail": f"up to the largest, {values[-1]:.4g}",
        }
        for (title, words), figure in zip(said.items(), figures, strict=True):
            text = f"Histogram: eigenvalues of {name}, {title}, {words}."
            place = f"{label}-{list(looks).index(name)}-{title.replace(' ', '-')}"
            panels += panel(f"{before}{title}", figure, place, text)
    return panels


def _density(found: Mapping[str, Quadrature], looks: Looks) -> list[Panel]:
    panels = []
    for sign, side in ((-1, "negative"), (1, "positive")) if found else ():
        text = f"Lines: number of {side} eigenvalues per decade against their size, for {', '.join(found)}."
        figure = measure_plots.density(found, looks, sign)
        panels += panel(f"{side.capitalize()} eigenvalues", figure, f"density-{side}", text)
    return panels


def _entropy(found: Mapping[str, Entropy], looks: Looks) -> list[Panel]:
    said = [
        f"{name} from {ends[0].phi:.4g} at γ = {ends[0].gamma:g} to {ends[-1].phi:.4g} at γ = {ends[-1].gamma:g}"
        for name, each in found.items()
        if (ends := sorted(each.points, key=lambda point: point.gamma))
    ]
    text = f"Lines: Φ against γ. {'; '.join(said)}."
    panels = panel("Local entropy less the Gaussian’s", measure_plots.phi(found, looks), "entropy-phi", text)
    text = "Lines: radius of the local entropy against γ; numbers below."
    return panels + panel("How far it looks", measure_plots.radius(found, looks), "entropy-radius", text)


def _surface(found: Mapping[str, Surroundings]) -> list[Panel]:
    at = measure_plots.levels([each.around for each in found.values()]) if found else []
    panels = []
    for place, (name, each) in enumerate(found.items()):
        loss = each.around.loss
        text = f"Contours: loss around {name}, from {loss.min():.4g} to {loss.max():.4g}."
        panels += panel(name, measure_plots.contours(each.around, at), f"surface-{place}", text)
    return panels


def _lengths(found: Mapping[str, Surroundings]) -> list[str]:
    said = []
    for name, each in found.items():
        first, second = (significant(length, 3) for length in each.around.lengths)
        said.append(f"‖d₁‖ = {first} and ‖d₂‖ = {second} at {name}")
    for name, each in found.items():
        said += [f"{significant(line.lengths[0], 3)} from {name} to {other}" for other, line in each.to.items()]
    return said


def _lines(found: Mapping[str, Surroundings], looks: Looks) -> list[Panel]:
    panels = []
    for name, each in found.items():
        if each.to:
            said = [f"to {other}, highest {line.loss.max():.4g}" for other, line in each.to.items()]
            figure = measure_plots.lines(name, each.to, looks)
            text = f"Lines: loss from {name} {'; '.join(said)}."
            panels += panel(
                f"From {name} to {'the others' if len(each.to) > 1 else next(iter(each.to))}",
                figure,
                f"lines-{list(looks).index(name)}",
                text,
            )
    return panels
