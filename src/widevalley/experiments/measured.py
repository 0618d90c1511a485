"""What ``widevalley measure`` has measured: the records of its file, ``measurement.json``, and their units.

A part that was not asked for, or has not been measured yet, is None; one that cannot be had is ``Skipped``. Losses are
means over samples, errors percent, times seconds. What may lack is NaN or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from widevalley.experiments.reading import Record
from widevalley.landscape.density import Density
from widevalley.landscape.surface import Surface

PARTS = ("spectrum", "density", "entropy", "sharpness", "surface")


@dataclass(frozen=True)
class Skipped:
    """Why a part cannot be had, in a sentence."""

    reason: str


@dataclass(frozen=True)
class Position:
    """A network where it is measured: n, N, f, its error on these samples in percent or NaN, ‖∇f‖, ‖x‖, N(K − 1)."""

    parameters: int
    samples: int
    loss: float
    error: float
    gradient_norm: float
    weight_norm: float
    rank_bound_gauss_newton: int | None


@dataclass(frozen=True)
class Elsewhere:
    """The same network on other samples."""

    samples: int
    loss: float
    gradient_norm: float
    largest: tuple[float, ...]  # eigenvalues, descending
    most_negative: float
    largest_residual: float
    trace: float
    trace_standard_error: float


@dataclass(frozen=True)
class Eigenvalues:
    """All of them; the fields of ``landscape.Spectrum``, and the same network ``elsewhere`` by the samples' name."""

    eigenvalues: NDArray[np.float64]  # (n,), ascending
    noise_floor: float
    structural_zeros: int
    asymmetry: float
    trace: float
    dtype: str
    seconds: Mapping[str, float]
    elsewhere: Mapping[str, Elsewhere]
    unfinished: bool  # not of all other samples yet


@dataclass(frozen=True)
class Quadrature:
    """The density by stochastic Lanczos quadrature, both ends of the spectrum, an estimate of the trace."""

    density: Density
    products: int
    largest: tuple[float, ...]  # eigenvalues, descending
    most_negative: tuple[float, ...]  # eigenvalues, ascending
    largest_residual: float
    trace: float
    trace_standard_error: float  # NaN where the trace is exact
    seconds: float


@dataclass(frozen=True)
class EntropyPoint:
    """``local_entropy`` at one γ: F, Φ and how they came about; ``warning`` where the chains did not mix."""

    gamma: float
    value: float
    standard_error: float
    phi: float
    classical_entropy: float
    rms_radius: float
    relative_radius: float
    mean_loss: float
    gradients: float
    acceptance: float
    effective_sample_size: float
    warning: str | None


@dataclass(frozen=True)
class Coefficient:
    """``local_learning_coefficient``; ``warning`` where the chains did not mix."""

    value: float
    standard_error: float
    warning: str | None


@dataclass(frozen=True)
class Entropy:
    inverse_temperature: float
    method: str
    points: tuple[EntropyPoint, ...]
    learning_coefficient: Coefficient | None  # of small networks alone
    unfinished: bool
    seconds: float


@dataclass(frozen=True)
class Rise:
    """One kind of ``sharpness`` at one radius. Maxima have a spread and no standard error, averages the reverse."""

    kind: str
    radius: float
    value: float
    standard_error: float
    spread: float
    length: float


@dataclass(frozen=True)
class Sharpness:
    rows: tuple[Rise, ...]
    seconds: float


@dataclass(frozen=True)
class Surroundings:
    """The loss around a network, and along the lines to others, by name."""

    around: Surface
    to: Mapping[str, Surface]
    seconds: float


@dataclass(frozen=True)
class Network:
    """``configuration`` is what trained it, None where its file does not say."""

    checkpoint: str
    sha256: str
    configuration: Record | None
    position: Position
    spectrum: Eigenvalues | Skipped | None
    density: Quadrature | Skipped | None
    entropy: Entropy | Skipped | None
    sharpness: Sharpness | Skipped | None
    surface: Surroundings | Skipped | None


@dataclass(frozen=True)
class Width:
    """A row of ``landscape.Widths``, by network."""

    measure: str
    invariant: bool
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    verdicts: Mapping[str, str]


@dataclass(frozen=True)
class Widths:
    """Networks side by side at one loss; verdicts are those of all but the first, against the first."""

    match: str
    losses: Mapping[str, float]
    scales: Mapping[str, float]
    matched_losses: Mapping[str, float]
    verdicts: Mapping[str, str]
    caveats: tuple[str, ...]
    rows: tuple[Width, ...]


@dataclass(frozen=True)
class Measurement:
    """``what`` was asked for, of which parts may still lack; ``samples`` says in words on what."""

    command: str
    what: tuple[str, ...]
    samples: str
    task: str | None
    objective: str | None
    versions: Record
    machine: Record
    networks: Mapping[str, Network]
    widths: Widths | Skipped | None

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Parts that were asked for and are not there yet, or not to their end, by network."""

        def lacks(part: object) -> bool:
            return part is None or (isinstance(part, Eigenvalues | Entropy) and part.unfinished)

        lacking = {
            name: tuple(part for part in self.what if lacks(getattr(network, part)))
            for name, network in self.networks.items()
        }
        return {name: parts for name, parts in lacking.items() if parts}
