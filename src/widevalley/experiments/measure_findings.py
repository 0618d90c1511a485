"""What a measurement says, in sentences that its numbers support."""

from __future__ import annotations

import math
from collections.abc import Iterable

from widevalley.experiments import measure_numbers as numbers
from widevalley.experiments.measure_tables import percent
from widevalley.experiments.measured import Eigenvalues, Measurement, Network, Quadrature, Skipped, Widths
from widevalley.experiments.tables import significant


def findings(measurement: Measurement) -> list[str]:
    """First which valley is wider, or how wide the only one is; then whether the networks lie at minima."""
    said = _widths(measurement)
    if len(measurement.networks) == 1:
        [(name, network)] = measurement.networks.items()
        said += _curvature(name, network)
    return said + _states(measurement)


def _widths(measurement: Measurement) -> list[str]:
    found = measurement.widths
    if isinstance(found, Skipped):
        return [f"The widths are not compared: {found.reason.rstrip('.')}."]
    if not isinstance(found, Widths):
        return []
    first, said = next(iter(found.losses)), []
    at = " at equal training loss" if found.match == "loss" else ""
    for verdict in ("wider", "narrower"):
        if those := [name for name, each in found.verdicts.items() if each == verdict]:
            lie = "lies in a" if len(those) == 1 else "each lie in a"
            said.append(
                f"{_listed(those)} {lie} {verdict} valley than {first}{at}, by every measure that no rescaling changes."
            )
    if those := [name for name, each in found.verdicts.items() if each == "undecided"]:
        one = len(those) == 1
        said.append(
            f"Whether the valley{'' if one else 's'} of {_listed(those)} {'is' if one else 'are'} wider than that of "
            f"{first} is undecided{at}: the measures do not all say the same beyond their errors."
        )
    for name, each in found.verdicts.items():
        if each.startswith("not comparable"):
            said.append(f"{name} and {first} are {each.rstrip('.')}.")
    return said


def _curvature(name: str, network: Network) -> list[str]:
    n = network.position.parameters
    if isinstance(network.spectrum, Eigenvalues):
        values, zero = network.spectrum.eigenvalues, numbers.near_zero(network.spectrum)
        where = "are smaller than 10⁻⁴" if zero.threshold == numbers.NEAR_ZERO else "cannot be told from 0"
        low = f"the most negative is {significant(float(values[0]))}"
        return [
            f"Of the {n:,} eigenvalues of {name}’s Hessian {percent(zero.share)} {where}; the largest is "
            f"{significant(float(values[-1]))}, {low if numbers.negative(network.spectrum) else 'none is negative'}, "
            f"their sum is {significant(network.spectrum.trace)}."
        ]
    if isinstance(network.density, Quadrature) and (ends := numbers.ends(network)):
        return [
            f"The {n:,} eigenvalues of {name}’s Hessian reach from {significant(ends[0])} to {significant(ends[1])}; "
            f"their sum is {significant(network.density.trace, 3)}."
        ]
    return []


def _states(measurement: Measurement) -> list[str]:
    found = {name: numbers.state(network) for name, network in measurement.networks.items()}
    by_state = {state: [name for name, each in found.items() if each == state] for state in (*found.values(),)}
    gains = {name: numbers.gain(network) or 0.0 for name, network in measurement.networks.items()}
    norms = {name: network.position.gradient_norm for name, network in measurement.networks.items()}
    said = []
    if those := by_state.get("minimum"):
        said.append(
            f"{_listed(those)} {_be(those)} at a minimum, as far as these numbers tell: the gradient is small "
            f"({_range(norms[name] for name in those)}) and no eigenvalue is negative beyond its error."
        )
    if those := by_state.get("saddle"):
        has = "has" if len(those) == 1 else "have"
        said.append(
            f"{_listed(those)} {has} a small gradient ({_range(norms[name] for name in those)}), but eigenvalues that "
            f"are negative beyond their error: strictly not a minimum."
        )
    if those := by_state.get("slope"):
        said.append(
            f"{_listed(those)} {_be(those)} not at a minimum: a step against the gradient, of norm "
            f"{_range(norms[name] for name in those)}, would still lower the loss by about "
            f"{_range((100 * gains[name] for name in those), 2)}\N{NO-BREAK SPACE}% of it."
        )
    if those := by_state.get(None):
        said.append(
            f"The gradient of {_listed(those)} has a norm of {_range(norms[name] for name in those)}; whether that is "
            f"small enough for a minimum takes the largest eigenvalue to say, from the spectrum or the density."
        )
    return said


def _be(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _range(values: Iterable[float], digits: int = 3) -> str:
    found = [value for value in values if math.isfinite(value)]
    said = list(dict.fromkeys(significant(value, digits) for value in (min(found), max(found)))) if found else ["–"]
    return " to ".join(said)
