"""The figures of ``local_gradient``: how far what a cycle of Entropy-SGD leaves points along −∇F."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from widevalley.experiments.drawing import TEXT, Style, empty, line, logarithmic, style
from widevalley.experiments.records import Record

# What is drawn and tabled: (cycle, gradients, average) of the estimates, and how they are called.
CHAIN, DESCENT, NOISY_DESCENT, AUTHORS = (
    ("langevin", "all", "uniform"),
    ("descent", "all", "authors"),
    ("descent", "minibatch", "authors"),
    ("authors", "minibatch", "authors"),
)
NAMES = {
    CHAIN: "T = 1/N, all images, mean of all x′",
    DESCENT: "T = 0, all images, μ",
    NOISY_DESCENT: "T = 0, minibatches, μ",
    AUTHORS: "the authors’ loop, minibatches, μ",
}
GRADIENT = "∇f itself"
POINTS = {"early": "Early in training", "end": "At its end"}


def looks() -> dict[str, Style]:
    """How each line is drawn."""
    return {name: style(place) for place, name in enumerate((*NAMES.values(), GRADIENT))}


def figures(record: Record) -> list[tuple[str, Figure, str]]:
    """(title, figure, description for a screen reader) for each point of training and γ."""
    return [
        _cosines(f"{POINTS[point['name']]}, γ = {scope['gamma']:g}", scope)
        for point in record["points"]
        for scope in point["scopes"]
    ]


def estimates(scope: Record, which: Sequence[str]) -> list[Record]:
    """Those of one kind, by rising L."""
    found = [each for each in scope["estimates"] if (each["cycle"], each["gradients"], each["average"]) == which]
    return sorted(found, key=lambda each: each["inner_steps"])


def _cosines(title: str, scope: Record) -> tuple[str, Figure, str]:
    figure, axes = empty(("inner steps L", "cosine with −∇F"))
    drawn, said = looks(), []
    lengths: list[float] = []
    for which, name in NAMES.items():
        rows = estimates(scope, which)
        lengths = [row["inner_steps"] for row in rows]
        means = [row["cosine"][0] for row in rows]
        line(axes, lengths, means, drawn[name], marker=drawn[name].marker)
        low, high = (
            [mean + sign * row["cosine"][1] for mean, row in zip(means, rows, strict=True)] for sign in (-1, 1)
        )
        axes.fill_between(lengths, low, high, color=drawn[name].colour, alpha=0.16, linewidth=0, zorder=2)
        said.append(f"{name} {means[0]:.2f} to {means[-1]:.2f}")
    reference: Mapping[str, float] = scope["reference"]
    ends = [lengths[0], lengths[-1]]
    line(axes, ends, [reference["cosine_to_gradient"]] * 2, drawn[GRADIENT], marker="")
    axes.axhline(reference["attainable_cosine"], color=TEXT, linewidth=0.9, zorder=1)
    logarithmic(axes, "x", lengths)
    axes.set_xticks(lengths, [f"{length:g}" for length in lengths])
    axes.set_ylim(-0.15, 1.03)
    text = f"Cosine with −∇F from L = {ends[0]} to {ends[1]}: {'; '.join(said)}. "
    return title, figure, f"{text}{GRADIENT}: {reference['cosine_to_gradient']:.2f}."
