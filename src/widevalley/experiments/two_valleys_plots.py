"""The figures of ``two_valleys``: −F over the landscape, the classical entropy, and where walks end."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from widevalley.experiments.drawing import TEXT, empty, line, style
from widevalley.experiments.records import Record

# Bins of the ends over the landscape's range, and how much of a row the fullest one takes.
BINS, HEIGHT = 65, 0.55
NAMES = {"robust": "wide", "non-robust": "sharp", "candidate": "high"}


def figures(record: Record) -> list[tuple[str, Figure, str]]:
    """(title, figure, description for a screen reader) of each, from what ``two_valleys`` returns."""
    return [_local_entropy(record), _classical_entropy(record), _ends(record)]


def _local_entropy(record: Record) -> tuple[str, Figure, str]:
    figure, axes = _landscape(record, "f, and −F less the Gaussian’s part")
    line(axes, record["x"], record["f"], style(0), marker="")
    axes.lines[-1].set_label("f")
    lows = []
    for place, scope in enumerate(record["scopes"], start=1):
        # −F → f as γ grows, without the ½ log(2π/γ) that each γ adds everywhere.
        shift = math.log(2 * math.pi / scope["gamma"]) / 2
        line(axes, record["x"], [value + shift for value in scope["minus_f"]], style(place), marker="")
        axes.lines[-1].set_label(f"γ = {scope['gamma']:g}")
        lows.append(f"{scope['minus_f_least_at']:g} at γ = {scope['gamma']:g}")
    # The wall on the right would take the room of the valleys.
    axes.set_ylim(-0.5, 1.05 * record["f"][0])
    _legend(figure)
    return (
        "Negative local entropy",
        figure,
        "The loss f and the negative local entropy over the parameter x, with a wide valley, a deeper sharp one and a "
        f"wide region of high loss. The negative local entropy is lowest at x = {', '.join(lows)}.",
    )


def _classical_entropy(record: Record) -> tuple[str, Figure, str]:
    figure, axes = _landscape(record, "entropy S = −∫ P log P")
    highs = []
    for place, scope in enumerate(record["scopes"], start=1):
        line(axes, record["x"], scope["entropy"], style(place), marker="")
        axes.lines[-1].set_label(f"γ = {scope['gamma']:g}")
        highs.append(f"{scope['entropy_largest_at']:g} at γ = {scope['gamma']:g}")
    _legend(figure)
    return (
        "Classical entropy",
        figure,
        f"The classical entropy of the tilted Gibbs measure over x. It is largest at x = {', '.join(highs)}.",
    )


def _ends(record: Record) -> tuple[str, Figure, str]:
    figure, axes = _landscape(record, "")
    walks = record["ends"]
    figure.set_size_inches(4.7, 0.75 * len(walks) + 0.8)
    edges = np.linspace(record["x"][0], record["x"][-1], BINS + 1)
    said = []
    for row, walk in enumerate(walks):
        base = len(walks) - 1 - row
        counts, _ = np.histogram(np.clip(walk["x"], edges[0], edges[-1]), edges)
        heights = base + HEIGHT * counts / counts.max()
        axes.stairs(heights, edges, baseline=base, fill=True, color=style(0).colour, zorder=3)
        shares = ", ".join(f"{NAMES[name]} {100 * share:.0f} %" for name, share in walk["shares"].items())
        axes.text(edges[0] + 0.15, base + HEIGHT + 0.07, f"{walk['description']}: {shares}", color=TEXT, fontsize=7.5)
        said.append(f"{walk['description']}: {shares}")
    axes.set_ylim(0, len(walks))
    axes.set_yticks([])
    return (
        "Where walks from evenly spaced starts end",
        figure,
        f"Histograms of the end points of {record['starts']['count']} walks each; shares that end in the wide valley, "
        f"the sharp valley and the high region. {'. '.join(said)}.",
    )


def _landscape(record: Record, label: str) -> tuple[Figure, Axes]:
    """Axes over x on which the three points are marked."""
    figure, axes = empty(("parameter x", label))
    top = axes.get_xaxis_transform()
    for name, point in record["points"].items():
        axes.axvline(point["x"], color=TEXT, linewidth=0.8, alpha=0.35, zorder=1)
        axes.text(point["x"], 1.01, NAMES[name], color=TEXT, transform=top, ha="center", va="bottom", fontsize=9)
    axes.set_xlim(record["x"][0], record["x"][-1])
    return figure, axes


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, labelcolor=TEXT, frameon=False, handlelength=3)
