"""The tables of ``widevalley measure``, every number as text."""

from __future__ import annotations

import math
from collections.abc import Mapping

from markupsafe import Markup

from widevalley.experiments import measure_numbers as numbers
from widevalley.experiments.measured import (
    PARTS,
    Coefficient,
    Eigenvalues,
    Entropy,
    EntropyPoint,
    Measurement,
    Network,
    Quadrature,
    Rise,
    Sharpness,
    Width,
    Widths,
)
from widevalley.experiments.tables import NOTHING, SUPERSCRIPT, Heads, Table, significant
from widevalley.landscape.records import Estimate

WIDTHS = {
    "lambda_max": "largest eigenvalue",
    "trace": "trace",
    "average_sharpness": "average sharpness",
    "adaptive_sharpness": "adaptive sharpness",
    "element_lambda_max": "largest eigenvalue, per weight",
    "element_trace": "trace, per weight",
    "filter_lambda_max": "largest eigenvalue, per filter",
    "filter_trace": "trace, per filter",
}


LARGEST, LEAST = (Markup("λ<sub>{}</sub>").format(end) for end in ("max", "min"))


def estimate(value: float, error: float | None) -> str:
    """ "value ± error", four digits of the value where there is no error."""
    if error is None or not error > 0:
        return significant(value)
    exponent = math.floor(math.log10(max(abs(value), error)))
    if exponent < -4:
        scale = 10.0**exponent
        return f"({estimate(value / scale, error / scale)})·10{f'{exponent}'.translate(SUPERSCRIPT)}"
    # Files have six digits of a value: an error below them shows no more.
    wanted = max(1 - math.floor(math.log10(error)), 0)
    digits = min(wanted, max(5 - exponent, 0))
    said = f"{error:,.{digits}f}" if digits == wanted else significant(error, 2)
    return f"{value:,.{digits}f} ± {said}".replace("-", "−")


def percent(share: float) -> str:
    """A share near 1 keeps two digits of what it lacks."""
    distance = min(share, 1 - share)
    digits = 1 if distance <= 0 else min(max(-math.floor(math.log10(distance)) - 1, 1), 6)
    return f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def beyond(value: float, floor: float) -> str:
    """An eigenvalue, unless the noise floor hides whether it is one."""
    return significant(value) if abs(value) > floor else "0 within the floor"


def positions(measurement: Measurement) -> Table:
    heads: Heads = (("Network", ""), ("Parameters", ""), ("Loss", "f"), ("Error", "%"), ("Gradient norm", "‖∇f‖"))
    heads += (("A gradient step gains", "of the loss"), ("Weight norm", "‖x‖"), ("Gauss-Newton rank", "at most"))
    rows = []
    for name, network in measurement.networks.items():
        at, gain = network.position, numbers.gain(network)
        cells = (
            f"{at.parameters:,}",
            significant(at.loss),
            NOTHING if math.isnan(at.error) else f"{at.error:.2f}",
            significant(at.gradient_norm, 3),
            NOTHING if gain is None else f"{significant(100 * gain, 2)}\N{NO-BREAK SPACE}%",
            significant(at.weight_norm),
            NOTHING if at.rank_bound_gauss_newton is None else f"{at.rank_bound_gauss_newton:,}",
        )
        rows.append((name, cells))
    return Table("Where the networks lie" if len(rows) > 1 else "Where the network lies", heads, tuple(rows))


def widths(found: Widths) -> Table:
    first, *others = found.losses
    heads = (("Measure", ""), (first, "the reference"), *((name, "") for name in others))
    rows: list[tuple[str, tuple[str, ...]]] = [
        ("training loss", tuple(significant(found.losses[name]) for name in found.losses)),
        ("logits multiplied by", tuple(significant(found.scales[name]) for name in found.losses)),
        ("training loss then", tuple(significant(found.matched_losses[name]) for name in found.losses)),
    ]
    for row in sorted(found.rows, key=lambda row: not row.invariant):
        said = WIDTHS.get(row.measure, row.measure)
        rows.append((said if row.invariant else f"{said} (raw)", tuple(_width(row, name) for name in found.losses)))
    return Table("The smaller, the wider: value, 95 % interval, verdict against the reference", heads, tuple(rows))


def _width(row: Width, name: str) -> str:
    low, high = row.intervals[name]
    value, ends = significant(row.values[name]), f"{significant(low)} to {significant(high)}"
    if significant(low) == significant(high):
        ends = ""
    if not row.invariant:
        return Markup("<small>{}</small>").format(value)
    verdict = row.verdicts.get(name, "").split(" because")[0]
    return Markup('<div class="verdict">{} <small>{} <strong>{}</strong></small></div>').format(value, ends, verdict)


def spectra(found: Mapping[str, Eigenvalues]) -> Table:
    heads: Heads = (
        ("Network", ""),
        ("Almost zero", "|λ| < 10⁻⁴"),
        ("Exactly zero", "by the data’s rank"),
    )
    heads += (("Largest", LARGEST), ("Most negative", LEAST), ("Negative", "beyond the floor"), ("Trace", "Σ λ"))
    heads += (("Noise floor", ""), ("Asymmetry", "‖H − Hᵀ‖/‖H‖"), ("Computed in", ""))
    rows = []
    for name, each in found.items():
        zero = numbers.near_zero(each)
        if zero.threshold == numbers.NEAR_ZERO:
            ends = f"{percent(zero.low)} to {percent(zero.high)}"
            said = ends if percent(zero.low) != percent(zero.high) else ""
        else:
            said = "within the floor"
        cells = (
            Markup('<div class="verdict">{} <small>{}</small></div>').format(percent(zero.share), said),
            f"{each.structural_zeros:,}",
            beyond(float(each.eigenvalues[-1]), each.noise_floor),
            beyond(float(each.eigenvalues[0]), each.noise_floor),
            f"{numbers.negative(each):,}",
            significant(each.trace),
            significant(each.noise_floor, 2),
            significant(each.asymmetry, 2),
            each.dtype,
        )
        rows.append((name, cells))
    return Table("What the spectrum says", heads, tuple(rows))


def elsewhere(measurement: Measurement, found: Mapping[str, Eigenvalues]) -> Table | None:
    """The same networks on other samples, below what their spectra say of these."""
    heads: Heads = (("Samples", ""), ("Number", ""), ("Loss", "f"), ("Gradient norm", "‖∇f‖"))
    heads += (("Largest", LARGEST), ("Most negative", LEAST), ("Trace", "± standard error"))
    rows = []
    for name, spectrum in found.items():
        at, values = measurement.networks[name].position, spectrum.eigenvalues
        first = (
            *map(significant, (at.loss, at.gradient_norm)),
            *(beyond(float(end), spectrum.noise_floor) for end in (values[-1], values[0])),
            significant(spectrum.trace),
        )
        before = f"{name}, " if len(found) > 1 else ""
        rows.append((f"{before}these", (f"{at.samples:,}", *first)))
        for which, each in spectrum.elsewhere.items():
            top = each.largest[0] if each.largest else math.nan
            figures = map(significant, (each.loss, each.gradient_norm, top, each.most_negative))
            size = estimate(each.trace, each.trace_standard_error)
            rows.append((f"{before}{which}", (f"{each.samples:,}", *figures, size)))
    return Table("On other samples", heads, tuple(rows)) if len(rows) > len(found) else None


def largest(name: str, spectrum: Eigenvalues) -> Table | None:
    """The largest eigenvalues on these samples and on others, side by side."""
    columns = {which: each.largest for which, each in spectrum.elsewhere.items()}
    count = max(map(len, columns.values()), default=0)
    if not count:
        return None
    columns = {"these": tuple(spectrum.eigenvalues[::-1][:count].tolist()), **columns}
    return _ranked(f"Largest eigenvalues of {name}", columns)


def densities(found: Mapping[str, Quadrature]) -> Table:
    heads: Heads = (("Network", ""), ("Probes", "× products"), ("Trace", "n × 1st moment"), ("Trace", "Hutch++"))
    heads += (
        ("Squared norm", "‖H‖², n × 2nd moment"),
        ("Nearer to 0", "than the figure goes"),
        ("Residual", "at most"),
    )
    rows = []
    for name, each in found.items():
        density = each.density
        starts = [numbers.resolved(density, sign) for sign in (-1, 1)]
        low, high = (math.inf if start is None else start for start in starts)
        cells = (
            f"{len(density.nodes)} × {density.nodes.shape[1]}",
            _moment(density.moment(1), density.n),
            estimate(each.trace, each.trace_standard_error),
            _moment(density.moment(2), density.n),
            estimate(100 * (share := density.share(-low, high)).value, 100 * (share.standard_error or 0.0)) + " %",
            significant(each.largest_residual, 2),
        )
        rows.append((name, cells))
    return Table("What the density says: mean ± standard error over the probes", heads, tuple(rows))


def _moment(mean: Estimate, n: int) -> str:
    return estimate(n * mean.value, n * (mean.standard_error or 0.0))


def outermost(found: Mapping[str, Quadrature]) -> Table:
    """Both ends of each network's spectrum."""
    columns: dict[str, tuple[float, ...]] = {}
    for name, each in found.items():
        before = f"{name}: " if len(found) > 1 else ""
        columns |= {f"{before}largest": each.largest, f"{before}most negative": each.most_negative}
    return _ranked("Eigenvalues found one by one, from both ends", columns)


def _ranked(caption: str, columns: Mapping[str, tuple[float, ...]]) -> Table:
    rows = []
    for rank in range(max(map(len, columns.values()))):
        cells = (significant(values[rank]) if rank < len(values) else NOTHING for values in columns.values())
        rows.append((f"{rank + 1}", tuple(cells)))
    return Table(caption, (("Rank", ""), *((title, "") for title in columns)), tuple(rows))


def entropies(name: str, found: Entropy) -> Table:
    heads: Heads = (("Scope", "γ"), ("Local entropy F", "± standard error"), ("Φ", "without the Gaussian"))
    heads += (("Radius", "RMS"), ("Radius", "of ‖x‖"), ("Mean loss", "⟨f⟩"), ("Entropy", "−∫ p log p"))
    heads += (("Samples", "effective"), ("Accepted", ""), ("Gradients", "of all samples"), ("Chains", ""))
    rows = []
    for point in sorted(found.points, key=lambda point: point.gamma):
        digits = (
            1 if not point.standard_error > 0 else min(max(1 - math.floor(math.log10(point.standard_error)), 0), 12)
        )
        cells = (
            estimate(point.value, point.standard_error),
            f"{point.phi:,.{digits}f}".replace("-", "−"),
            significant(point.rms_radius, 3),
            f"{significant(100 * point.relative_radius, 3)}\N{NO-BREAK SPACE}%",
            significant(point.mean_loss),
            significant(point.classical_entropy, 5),
            f"{point.effective_sample_size:,.0f}",
            percent(point.acceptance),
            f"{point.gradients:,.0f}",
            _mixed(point),
        )
        rows.append((f"{point.gamma:g}", cells))
    return Table(f"Local entropy of {name}, β = {found.inverse_temperature:,.6g}", heads, tuple(rows))


def coefficients(found: Mapping[str, Entropy], networks: Mapping[str, Network]) -> Table | None:
    heads: Heads = (("Network", ""), ("Learning coefficient", "± standard error"), ("Regular minimum", "n/2"))
    rows = tuple(
        (
            name,
            (estimate(each.value, each.standard_error), f"{networks[name].position.parameters / 2:,g}", _mixed(each)),
        )
        for name, entropy in found.items()
        if (each := entropy.learning_coefficient)
    )
    return Table("Local learning coefficient, β = 1/log N", (*heads, ("Chains", "")), rows) if rows else None


def _mixed(sampled: EntropyPoint | Coefficient) -> str:
    return Markup("<strong>did not mix</strong>") if sampled.warning else "mixed"


def sharpnesses(found: Mapping[str, Sharpness]) -> Table:
    cells: dict[tuple[str, float], dict[str, str]] = {}
    for name, each in found.items():
        for row in each.rows:
            cells.setdefault((row.kind, row.radius), {})[name] = _rise(row)
    rows = tuple(
        (f"{kind}, {radius:g}", tuple(by_name.get(name, NOTHING) for name in found))
        for (kind, radius), by_name in cells.items()
    )
    return Table("Rise of the loss", (("Kind and radius", ""), *((name, "") for name in found)), rows)


def _rise(row: Rise) -> str:
    if not math.isnan(row.standard_error):
        return estimate(row.value, row.standard_error)
    small = "" if math.isnan(row.spread) else f"runs agree to {significant(row.spread, 2)}"
    return Markup('<div class="verdict">≥\N{NO-BREAK SPACE}{} <small>{}</small></div>').format(
        significant(row.value), small
    )


def seconds(measurement: Measurement) -> Table | None:
    """Of the parts that were measured."""

    def cell(part: object) -> str:
        time = getattr(part, "seconds", math.nan)
        return significant(sum(time.values()) if isinstance(time, Mapping) else time, 3)

    rows = {n: tuple(cell(getattr(each, p)) for p in PARTS) for n, each in measurement.networks.items()}
    shown = [place for place in range(len(PARTS)) if any(cells[place] != NOTHING for cells in rows.values())]
    heads = (("Network", ""), *((PARTS[place], "") for place in shown))
    kept = tuple((name, tuple(cells[place] for place in shown)) for name, cells in rows.items())
    return Table("Seconds", heads, kept) if shown else None


def spectrum_seconds(found: Mapping[str, Eigenvalues]) -> Table | None:
    parts = list(dict.fromkeys(part for each in found.values() for part in each.seconds))
    heads = (("Network", ""), *((part.replace("_", " "), "") for part in parts))
    rows = ((n, tuple(significant(e.seconds.get(part, math.nan), 3) for part in parts)) for n, e in found.items())
    return Table("Seconds of the parts of the spectrum", heads, tuple(rows)) if parts else None
