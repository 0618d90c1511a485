"""The figures of ``widevalley measure``. A network keeps its colour, dashes and marker in all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from widevalley.experiments import measure_numbers
from widevalley.experiments.drawing import GRID, PAGE, TEXT, Style, empty, line, logarithmic, style
from widevalley.experiments.measure_numbers import WIDTH, per_decade
from widevalley.experiments.measured import Eigenvalues, Entropy, EntropyPoint, Quadrature
from widevalley.landscape.surface import Surface

Array = NDArray[np.float64]
Looks = Mapping[str, Style]

# Bins of the middle panel, an odd number: one lies around 0. Those of a tail.
MIDDLE, TAIL = 61, 40
# Shades of the surface add up to this opacity: labels keep a contrast of 4 on it, on light pages and dark ones.
DARKEST = 0.6


def spectrum(
    spectra: Mapping[str, Eigenvalues], looks: Looks
) -> dict[str, tuple[Figure | None, Figure, Figure | None]]:
    """Histograms of each network's eigenvalues as in the paper's Fig. 1: left tail, neighbourhood of 0, right tail.

    Counts are on a logarithmic axis. The middle reaches as far as the bulk of every network (``middle`` in
    ``measure_numbers``), the noise floor is shaded in it, the tails begin there; all networks have the same axes. A
    tail that no network has is None.
    """
    bulk = max(measure_numbers.middle(found) for found in spectra.values())
    low = min(float(found.eigenvalues[0]) for found in spectra.values())
    high = max(float(found.eigenvalues[-1]) for found in spectra.values())
    left = np.linspace(low, -bulk, TAIL + 1) if low < -bulk else None
    middle = np.linspace(-bulk, bulk, MIDDLE + 1)
    right = np.linspace(bulk, high, TAIL + 1) if high > bulk else None
    most = max(found.eigenvalues.size for found in spectra.values())
    figures = {}
    for name, found in spectra.items():
        x, look = found.eigenvalues, looks[name]
        centre = _histogram(x[np.abs(x) <= bulk], middle, most, look)
        centre.axes[0].axvspan(-found.noise_floor, found.noise_floor, color=TEXT, alpha=0.18, linewidth=0, zorder=4)
        figures[name] = (
            None if left is None else _histogram(x[x < -bulk], left, most, look),
            centre,
            None if right is None else _histogram(x[x > bulk], right, most, look),
        )
    return figures


def _histogram(values: Array, edges: Array, most: int, look: Style) -> Figure:
    figure, axes = empty(("eigenvalue λ", "eigenvalues"))
    figure.set_size_inches(3.9, 3.1)
    logarithmic(axes, "y", [1.0, most])
    axes.set_ylim(bottom=0.6)
    counts, _ = np.histogram(values, edges)
    axes.stairs(np.maximum(counts, 0.5), edges, baseline=0.5, fill=True, color=look.colour, zorder=3)
    if not counts.any():
        axes.text(0.5, 0.5, "none", color=TEXT, transform=axes.transAxes, ha="center", alpha=0.6)
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_locator(MaxNLocator(4))
    return figure


def density(found: Mapping[str, Quadrature], looks: Looks, sign: int) -> Figure | None:
    """Eigenvalues per decade of |λ| against |λ|, both logarithmic; positive ones or, with ``sign`` −1, negative ones.

    Bands are ± 2 standard errors over the probes. Lines end where the quadrature resolves no more (``per_decade``);
    marks at the lower edge are eigenvalues found one by one. None where there is nothing to draw.
    """
    lines = {name: curve for name, each in found.items() if (curve := per_decade(each.density, sign))}
    if not lines:
        return None
    figure, axes = empty(("λ" if sign > 0 else "−λ", "eigenvalues per decade"))
    reached: list[float] = []
    heights: list[float] = []
    for name, each in found.items():
        look = looks[name]
        if name in lines:
            x, mean, error = lines[name]
            line(axes, x.tolist(), mean.tolist(), look, marker="")
            low = np.maximum(mean - 2 * error, 1e-3)
            axes.fill_between(x, low, mean + 2 * error, color=look.colour, alpha=0.16, linewidth=0, zorder=2)
            heights += mean.tolist()
            reached += [float(x[0]), float(x[-1])]
        ends = [sign * value for value in (each.largest if sign > 0 else each.most_negative) if sign * value > 0]
        edge = axes.get_xaxis_transform()
        axes.vlines(ends, 0, 0.05, color=look.colour, linewidth=1.4, transform=edge, zorder=4)
    logarithmic(axes, "x", reached)
    # The axis ends at one eigenvalue in the width of the smoothing.
    logarithmic(axes, "y", [1 / (WIDTH * math.sqrt(2 * math.pi)) / 4, *heights])
    axes.set_ylim(bottom=1 / (WIDTH * math.sqrt(2 * math.pi)) / 4)
    return figure


def phi(found: Mapping[str, Entropy], looks: Looks) -> Figure:
    """Φ against γ with ± 2 standard errors."""
    figure, axes = _by_gamma(found, looks, "Φ = F less the Gaussian’s", lambda point: point.phi)
    for name, each in found.items():
        for point in each.points:
            ends = (point.phi - 2 * point.standard_error, point.phi + 2 * point.standard_error)
            axes.vlines([point.gamma], *ends, color=looks[name].colour, linewidth=1.4, zorder=2)
    return figure


def radius(found: Mapping[str, Entropy], looks: Looks) -> Figure:
    """The root of the mean square of ‖x′ − x‖ against γ, both logarithmic."""
    figure, axes = _by_gamma(found, looks, "radius √⟨‖x′ − x‖²⟩", lambda point: point.rms_radius)
    logarithmic(axes, "y", [point.rms_radius for each in found.values() for point in each.points])
    return figure


def _by_gamma(
    found: Mapping[str, Entropy], looks: Looks, label: str, of: Callable[[EntropyPoint], float]
) -> tuple[Figure, Axes]:
    """Points whose chains did not mix are hollow."""
    figure, axes = empty(("scope γ", label))
    for name, each in found.items():
        look = looks[name]
        points = sorted(each.points, key=lambda point: point.gamma)
        line(axes, [point.gamma for point in points], [of(point) for point in points], look, marker="")
        for point in points:
            face, edge, width = (PAGE, look.colour, 1.5) if point.warning else (look.colour, PAGE, 0.6)
            axes.plot([point.gamma], [of(point)], look.marker, mfc=face, mec=edge, mew=width, ms=6, zorder=4)
    logarithmic(axes, "x", [point.gamma for each in found.values() for point in each.points])
    return figure, axes


def levels(surfaces: Sequence[Surface]) -> list[float]:
    """Losses at which contours are drawn: 1, 2 and 5 times powers of 10, evenly spaced ones over a short range."""
    low = min(float(each.loss.min()) for each in surfaces)
    high = max(float(each.loss.max()) for each in surfaces)
    if low > 0:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        found = [level for level in found if low < level < high]
        if len(found) >= 5:
            return found
    return [float(level) for level in MaxNLocator(9).tick_values(low, high) if low < level < high]


def contours(found: Surface, at: Sequence[float]) -> Figure:
    """The loss on a plane through a network, the dot; stronger colour is higher, lines are labelled with the loss."""
    figure, axes = empty(("along d₁", "along d₂"))
    figure.set_size_inches(3.9, 3.7)
    axes.grid(visible=False)
    axes.yaxis.set_major_formatter(axes.xaxis.get_major_formatter())
    x, y = found.coordinates
    # Every level is one more veil over what lies above it: no seams, and the page's own ground shows through.
    veil = 1 - (1 - DARKEST) ** (1 / max(len(at), 1))
    for level in at:
        if level < found.loss.max():
            axes.contourf(
                x, y, found.loss.T, [level, 2 * float(found.loss.max())], colors=[style(0).colour], alpha=veil
            )
    drawn = axes.contour(x, y, found.loss.T, at, colors=[TEXT], linewidths=0.6, alpha=0.55)
    for label in axes.clabel(drawn, fmt=lambda level: f"{level:.4g}", fontsize=8, colors=[TEXT]):
        label.set_alpha(None)
    axes.plot([0], [0], "o", color=TEXT, mec=PAGE, mew=0.8, ms=6, zorder=4)
    axes.set_aspect("equal")
    for ticks in (axes.xaxis, axes.yaxis):
        ticks.set_major_locator(MaxNLocator(4))
    return figure


def lines(reference: str, found: Mapping[str, Surface], looks: Looks) -> Figure:
    """The loss on the straight lines from ``reference``, at t = 0, to each of the others, at t = 1."""
    figure, axes = empty(("t", "loss"))
    for name, each in found.items():
        line(axes, each.coordinates[0].tolist(), each.loss.tolist(), looks[name], marker="")
        ends = np.interp([0, 1], each.coordinates[0], each.loss)
        axes.plot([0, 1], ends, "o", color=looks[name].colour, mec=PAGE, mew=0.6, ms=6, zorder=4)
    values = np.concatenate([each.loss for each in found.values()])
    if values.min() > 0 and values.max() > 30 * values.min():
        logarithmic(axes, "y", values.tolist())
    top = axes.get_xaxis_transform()
    for t, said in ((0, reference), (1, next(iter(found)) if len(found) == 1 else "the other")):
        axes.axvline(t, color=GRID, linewidth=1.6, zorder=1)
        axes.text(t, 1.01, said, color=TEXT, transform=top, ha="center", va="bottom", fontsize=9)
    return figure
