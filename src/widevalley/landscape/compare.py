"""Which of several networks lies in the wider valley: measures side by side, at equal training loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

import torch

from widevalley.landscape.estimates import trace
from widevalley.landscape.lanczos import top_eigenpairs, working_type
from widevalley.landscape.matching import Match, matched_scales, temperatures
from widevalley.landscape.normalised import LEVEL, Measured, quantile, row_lengths, scaled_lambda_max, scaled_trace
from widevalley.landscape.objective import Objective
from widevalley.landscape.records import Estimate
from widevalley.landscape.sharpness import sharpness
from widevalley.validation import integer, real

Verdict = str  # "wider", "narrower", "undecided", or "not comparable because …"
Progress = Callable[[str, float], None]

RAW = ("lambda_max", "trace", "average_sharpness")
ELEMENT = ("adaptive_sharpness", "element_lambda_max", "element_trace")
FILTER = ("filter_lambda_max", "filter_trace")
# Rescaled networks differ by rounding: the larger share has room for s at the bottom of a flat L(s) in float32.
ROUNDING64, ROUNDING32 = 1e-6, 2e-3
# Residual of the raw λ_max, a share of it; its value is off by the square.
TOLERANCE = 1e-3
NOT_INVARIANT = "not comparable because it changes under rescalings of the weights that leave the function as it is"


@dataclass(frozen=True)
class WidthRow:
    """One measure of every network. The smaller the value, the wider the valley."""

    measure: str
    invariant: bool
    estimates: Mapping[str, Estimate]  # by network
    intervals: Mapping[str, tuple[float, float]]  # 95 %, by network; of one network, not of a difference
    verdicts: Mapping[str, Verdict]  # of each network but the first, against the first


@dataclass(frozen=True)
class Widths:
    """Networks side by side; the first is the reference. ``print`` it for a table."""

    match: Match | None
    losses: Mapping[str, float]  # as they are, by network
    scales: Mapping[str, float]  # s, what the logits were multiplied by for the measures
    matched_losses: Mapping[str, float]  # with the logits scaled: where the measures were taken
    parameters: Mapping[str, int]  # n
    rows: tuple[WidthRow, ...]
    verdicts: Mapping[str, Verdict]  # over all invariant measures, of each network but the first, against the first
    caveats: tuple[str, ...]

    def row(self, measure: str) -> WidthRow:
        """The row of a measure by its name."""
        return {row.measure: row for row in self.rows}[measure]

    def __str__(self) -> str:
        names = list(self.losses)
        lines = [["", *names]]
        lines.append(["loss", *(f"{self.losses[name]:.4g}" for name in names)])
        lines.append(["loss matched", *(f"{self.matched_losses[name]:.4g}" for name in names)])
        lines.append(["logits times", *(f"{self.scales[name]:.4g}" for name in names)])
        for row in self.rows:
            cells = [
                f"{row.estimates[n].value:.4g} [{row.intervals[n][0]:.4g}, {row.intervals[n][1]:.4g}]" for n in names
            ]
            if row.invariant:
                cells = [f"{cell} {_short(row.verdicts.get(n, ''))}" for cell, n in zip(cells, names, strict=True)]
            lines.append([row.measure, *cells])
        across = [max(len(line[column]) for line in lines) for column in range(len(names) + 1)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, across, strict=True)).rstrip() for line in lines]
        said = [f"{name} against {names[0]}: {verdict}" for name, verdict in self.verdicts.items()]
        return "\n".join([*table, *said, *self.caveats])


def compare_widths(
    objectives: Mapping[str, Objective],
    match: Match | None = "loss",
    *,
    tolerance: float = 0.01,
    radius: float = 0.05,
    adaptive_radius: float = 0.5,
    products: int = 60,
    seed: int = 0,
    progress: Progress | None = None,
) -> Widths:
    """Is the valley of each network wider than that of the first?

    **Matching.** A lower training loss alone shrinks the Gauss-Newton part of the Hessian, so that a network that fits
    looks wider when its logits are multiplied by 10. Before anything is measured the logits of network i are multiplied
    by s_i > 0, its weights and its predicted classes left as they are:

    - ``"loss"`` (the default): to one training loss, the largest among the networks, on the less confident side of the
      best temperature. One network with its logits scaled by any factor comes out equal to itself, and no network is
      helped by a better fit.
    - ``"temperature"``: each to its best temperature. Logit scale is removed too, but a better fit still looks wider;
      refused where the classes are separated, where no temperature is best.
    - ``None``: as they are. Fooled by logit scale; a caveat says so where the losses differ.

    Scaling needs objectives that know their outputs, and these must be logits of a cross-entropy. For "loss", if one of
    them does not, none is scaled, and a network is comparable only where its loss is within ``tolerance`` of the
    first's. With its logits scaled f may have a slope at the weights, which adaptive_sharpness includes.

    **Measures** of f at the weights w with the scaled logits, H = ∇²f::

        raw      lambda_max, trace (Hutch++), average_sharpness at ‖δ‖ = radius
        element  element_lambda_max λ_max(D H D), element_trace tr(D H D), D = diag(|w_i|)
                 adaptive_sharpness, max f(w + D u) − f(w) over ‖u‖ ≤ adaptive_radius (ASAM)
        filter   filter_lambda_max, filter_trace, D_ii = ‖row of w_i‖: a weight's slice along its first axis (λ‖w‖² per
                 filter); an element of a bias, or of another vector, is a row of its own

    **What is invariant.** If f′(T w) = f(w) for all w and a diagonal T > 0, then D′H′D′ = D H D for the element
    measures: under every rescaling of ReLU units (Dinh et al., arXiv:1703.04933), of filters before a batch-norm, and
    of the last layer once its loss is matched. The filter measures are so where T is constant on each row: whole layers
    and batch-normed filters, not single ReLU units. Raw measures are not: they are shown and get no verdict. None
    is invariant under changes of basis that are not diagonal (between two linear layers, say). Equal up to
    permutations of units, all are.

    **Verdicts.** A row's: smaller than the first's by more than the error of the difference at 95 % is "wider". The
    error of the traces: of the paired differences where two networks have the same n (they share their probes), else of
    both combined, by Student's t. Of λ_max: the two residuals, which bound the distance to an eigenvalue. Of
    adaptive_sharpness, a lower bound: the spread of its runs, which is no confidence interval. Differences within
    rounding (1e-6 of the value in float64, 2e-3 in float32) are undecided always. The overall verdict is "wider" only
    where every invariant measure says so, at 95 % divided by the number of networks compared with the first; a demand
    on all needs no correction for the number of measures (intersection-union test, Berger 1982). So measures that
    disagree leave it undecided. Beside a network that hardly fits, all are measured near its loss, at logits close to
    0: compare networks that are trained.
    Errors are those of the measures for these weights and data; of other seeds or samples they say nothing.

    Args:
        objectives: two at least, by name, the first the reference; over the same samples.
        match: see above.
        tolerance: losses that differ by no more than this share of the larger count as equal where logits cannot be
            scaled.
        radius, adaptive_radius: of ``sharpness``.
        products: Hessian-vector products, at most, for each of λ_max(D H D), tr(D H D) and tr H; 8 at least.
        seed: of the probes.
        progress: called with what is going on and the fraction done.

    Cost a network: 5 · ``products`` products, those of ``top_eigenpairs`` and of two ``sharpness``; all outputs and
    batches are held in memory while temperatures are sought, at about 120 evaluations of the criterion.

    Raises:
        ValueError: fewer than two networks; an argument is wrong; a loss is not finite, or the data differ between
            passes, with the network's name.
    """
    if not isinstance(objectives, Mapping) or len(objectives) < 2:
        raise ValueError("objectives must be a mapping with two networks at least: give {name: objective, …}")
    if match is not None and match not in get_args(Match):
        raise ValueError(f'match={match!r} is unknown: give "loss", "temperature" or None')
    real("tolerance", tolerance, minimum=0.0)
    real("radius", radius, above=0.0)
    real("adaptive_radius", adaptive_radius, above=0.0)
    integer("products", products, minimum=8)
    losses = {name: _checked(name, objective) for name, objective in objectives.items()}
    scales, because, caveats = _matching(objectives, losses, match, tolerance)
    scaled = {name: each if scales[name] == 1.0 else each.tempered(scales[name]) for name, each in objectives.items()}
    found = {}
    for done, (name, objective) in enumerate(scaled.items()):
        if progress:
            progress(f"widths of {name}", done / len(scaled))
        try:
            found[name] = _measured(objective, radius, adaptive_radius, products, seed)
        except (ValueError, RuntimeError) as error:
            raise type(error)(f"{name!r} cannot be measured: {error}") from error
    if progress:
        progress("widths", 1.0)
    first, *others = objectives
    rows = []
    for measure in (*RAW, *ELEMENT, *FILTER):
        values = {name: found[name][measure] for name in objectives}
        verdicts = dict.fromkeys(others, NOT_INVARIANT)
        if measure not in RAW:
            verdicts = {n: because.get(n) or _verdict(values[n], values[first], LEVEL) for n in others}
        estimates = {name: value.estimate for name, value in values.items()}
        intervals = {name: value.interval() for name, value in values.items()}
        rows.append(WidthRow(measure, measure not in RAW, estimates, intervals, verdicts))
    overall = {}
    for name in others:
        said = {
            _verdict(found[name][measure], found[first][measure], LEVEL / len(others))
            for measure in (*ELEMENT, *FILTER)
        }
        overall[name] = because.get(name) or (said.pop() if len(said) == 1 else "undecided")
    return Widths(
        match,
        losses,
        scales,
        {name: objective.value() for name, objective in scaled.items()},
        {name: objective.n for name, objective in objectives.items()},
        tuple(rows),
        overall,
        tuple(caveats),
    )


def _checked(name: str, objective: Objective) -> float:
    if not isinstance(objective, Objective):
        raise TypeError(f"{name!r} is a {type(objective).__name__}: give an Objective(model, loss, data)")
    try:
        return objective.check()
    except ValueError as error:
        raise ValueError(f"{name!r} cannot be measured: {error}") from error


def _matching(
    objectives: Mapping[str, Objective], losses: Mapping[str, float], match: Match | None, tolerance: float
) -> tuple[dict[str, float], dict[str, Verdict], list[str]]:
    """Scales of the logits; why a network is not comparable with the first; caveats."""
    first, *others = objectives
    scales = dict.fromkeys(objectives, 1.0)
    because, caveats = {}, []
    differ = [n for n in others if abs(losses[n] - losses[first]) > tolerance * max(abs(losses[n]), abs(losses[first]))]
    if match is None:
        if differ:
            caveats.append(
                f"Losses were not matched ({', '.join(differ)}): a lower loss alone makes a valley look wider."
            )
    else:
        curves, hidden = temperatures(objectives)
        if hidden and match == "loss":
            why = "; ".join(hidden.values())
            because = {
                n: f"its loss is {losses[n]:.4g}, that of {first!r} {losses[first]:.4g}, and {why}" for n in differ
            }
            caveats.append(f"No logits were scaled, only losses compared: {why}.")
        else:
            found, failed = matched_scales(curves, match)
            scales.update(found)
            because = {**hidden, **failed}
        if match == "temperature":
            caveats.append("Losses were not matched, only temperatures: a better fit makes a valley look wider.")
    for name in others:
        if objectives[name].samples != objectives[first].samples:
            because[name] = f"it has {objectives[name].samples} samples, {first!r} has {objectives[first].samples}"
        elif first in because:
            because.setdefault(name, because[first])
    sizes = {objective.n for objective in objectives.values()}
    if len(sizes) > 1:
        caveats.append(f"The networks have different numbers of parameters, {min(sizes)} to {max(sizes)}.")
    return scales, {name: f"not comparable because {because[name]}" for name in others if name in because}, caveats


def _measured(
    objective: Objective, radius: float, adaptive_radius: float, products: int, seed: int
) -> dict[str, Measured]:
    rounding = ROUNDING64 if objective.dtype == torch.float64 else ROUNDING32
    ends = top_eigenpairs(objective, 1, tolerance=TOLERANCE, seed=seed)
    adaptive = sharpness(objective, "adaptive", adaptive_radius, seed=seed)
    found = {
        "lambda_max": Measured(Estimate(float(ends.values[-1])), rounding, float(ends.residuals[-1])),
        "trace": Measured(trace(objective, products=products, seed=seed), rounding),
        "average_sharpness": Measured(sharpness(objective, "average", radius, seed=seed), rounding),
        "adaptive_sharpness": Measured(adaptive, rounding, adaptive.diagnostics["spread"]),
    }
    for kind, unit in (("element", torch.abs), ("filter", row_lengths)):
        d = objective.flat([unit(p.detach()) for p in objective.parameters]).to(working_type(objective))
        found[f"{kind}_lambda_max"] = scaled_lambda_max(objective, d, products, seed, rounding)
        found[f"{kind}_trace"] = scaled_trace(objective, d, products, seed, rounding)
    return found


def _verdict(measured: Measured, reference: Measured, level: float) -> Verdict:
    ours, theirs = measured.estimate, reference.estimate
    a, b = measured.samples, reference.samples
    if a is not None and b is not None and measured.n == reference.n:
        error = float((a - b).std()) / math.sqrt(len(a))
    else:
        error = math.hypot(ours.standard_error or 0.0, theirs.standard_error or 0.0)
    margin = (
        measured.bound
        + reference.bound
        + max(measured.rounding, reference.rounding) * max(abs(ours.value), abs(theirs.value))
    )
    margin += quantile(level, a if a is not None else b) * error
    difference = ours.value - theirs.value
    if abs(difference) <= margin:
        return "undecided"
    return "wider" if difference < 0 else "narrower"


def _short(verdict: Verdict) -> str:
    return verdict.split(" because")[0]
