"""The numbers behind the figures and tables of a reproduction, and those of others that stand beside them.

All are over the seeds that have ended and did not diverge.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from widevalley.experiments import summaries
from widevalley.experiments.reproduced import CurveRuns
from widevalley.experiments.statistics import Interval, paired_interval
from widevalley.experiments.summaries import Difference, Point
from widevalley.experiments.tables import NOTHING
from widevalley.experiments.unit_results import Result


@dataclass(frozen=True)
class Reported:
    """Test errors in percent, and what they cost, as others report them; a dash where they do not."""

    text: tuple[str, str] = (NOTHING, "")
    authors: tuple[str, str] = (NOTHING, "")


# By curve. ``text``: Sec. 5.2 of the version of the paper with ρ and fixed γ, in the paper's epochs; ``authors``: the
# final version's table, mean ± standard deviation, in epochs of gradients.
REPORTED = {
    "mnistfc-authors": Reported(authors=("1.37 ± 0.03", "120 epochs")),
    "mnistfc-text": Reported(text=("1.39", "at epoch 22")),
    "mnistfc-adam": Reported(text=("1.39", "at epoch 67"), authors=("1.39 ± 0.03", "100 epochs")),
    "lenet-authors": Reported(authors=("0.50 ± 0.01", "80 epochs")),
    "lenet-text": Reported(text=("0.48", "around epoch 40")),
    "lenet-adam": Reported(text=("0.51", "after epoch 100"), authors=("0.51 ± 0.01", "100 epochs")),
}
# What the text says of each figure: Secs. 1, 3, 4.2, 5.1, 5.2 and 6.
CLAIMS = {
    "fig1": "At minima of small-LeNet found by Adam about 94 % of the eigenvalues are smaller than 10⁻⁴, the largest is"
    " about 40, the most negative −0.4.",
    "fig2": "Local entropy has its maximum in the wide valley, the loss its minimum in the sharp one; classical entropy"
    " would prefer a wide region of high loss.",
    "fig3a": "small-mnistfc at a minimum found by SGD: a large peak near zero, a long positive tail, a short negative"
    " one.",
    "fig3b": "char-lstm at a minimum found by Adam: a large peak near zero, a long positive tail, a short negative"
    " one.",
    "fig4a": "On mnistfc Entropy-SGD reaches 1.39 % in 22 epochs, Adam in 67; an epoch of Entropy-SGD counts its outer"
    " updates, each of L = 5 gradients.",
    "fig4b": "On LeNet Entropy-SGD reaches 0.48 % around epoch 40, Adam 0.51 % after 100; an outer update takes"
    " L + 1 = 21 gradients.",
    "table": "The error is comparable to that of SGD, the cross-entropy always lower; with one minibatch for both loops"
    " it is slightly worse, but still better than SGD.",
    "direction": "The gradient of local entropy is γ(x − ⟨x′⟩), and L steps of Langevin dynamics estimate ⟨x′⟩ by μ.",
    "fisher": "Fisher information is exactly the Hessian of the negative log-likelihood; the moments that Adam keeps"
    " estimate its diagonal.",
}
# Test errors in percent to which the way is told; the last is what the text reports of Adam.
LEVELS = {"fig4a": (4.0, 2.0, 1.6, 1.5, 1.39), "fig4b": (2.0, 1.0, 0.7, 0.6, 0.51)}


@dataclass(frozen=True)
class Reached:
    """A mean test error, and what it had cost until then; gradients of one seed."""

    error: float
    gradients: float
    paper_epochs: float


def curve(of: CurveRuns, measure: str, axis: str) -> list[Point]:
    """Mean over seeds ± their standard deviation (n − 1); no band for one seed."""

    def band(ys: Sequence[float]) -> tuple[float, float]:
        mean, sd = statistics.fmean(ys), statistics.stdev(ys) if len(ys) > 1 else 0.0
        return mean - sd, mean + sd

    return summaries.over_seeds([unit for unit, _ in of.finished], measure, axis, band)


def way(of: CurveRuns) -> list[Reached]:
    """The mean test error at every look, without the rounding of the mean, by which equals would differ."""
    both = zip(curve(of, "test_error", "gradients"), curve(of, "test_error", "paper_epochs"), strict=True)
    return [Reached(round(point.mean, 9), point.x, other.x) for point, other in both]


def best(of: CurveRuns) -> Reached | None:
    """The lowest mean test error at any look, the first of equals: chosen by the test set, so no result."""
    return min(way(of), key=lambda look: look.error, default=None)


def first_below(of: CurveRuns, level: float) -> Reached | None:
    """The first look at which the mean test error is ``level`` or less."""
    return next((look for look in way(of) if look.error <= level), None)


def difference(of: CurveRuns, base: CurveRuns, figure: Callable[[Result], float]) -> Difference | None:
    """Paired by seed, the interval over seeds alone; None where they share no finished seed."""
    theirs = {unit.seed: figure(result) for unit, result in base.finished}
    pairs = [figure(result) - theirs[unit.seed] for unit, result in of.finished if unit.seed in theirs]
    return summaries.difference_over_seeds(of.name, pairs) if pairs else None


def interval(of: CurveRuns) -> Interval | None:
    """The mean test error at the end and its 95 % interval over seeds; None without a finished seed."""
    errors = [[result.test_error] for _, result in of.finished]
    return paired_interval(np.array(errors)) if errors else None


def pull(of: CurveRuns) -> float:
    """Median of γ‖x′ − x‖/‖∇f(x′)‖ over all looks of all seeds; NaN for a method without cycles."""
    found = [look.pull_to_gradient for unit, _ in of.finished for look in unit.evaluations]
    return statistics.median([value for value in found if not math.isnan(value)] or [math.nan])
