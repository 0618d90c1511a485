"""``measurement.json``, one object that is written anew after every part, read into the records of ``measured``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from widevalley.experiments.measured import (
    PARTS,
    Coefficient,
    Eigenvalues,
    Elsewhere,
    Entropy,
    EntropyPoint,
    Measurement,
    Network,
    Position,
    Quadrature,
    Rise,
    Sharpness,
    Skipped,
    Surroundings,
    Width,
    Widths,
)
from widevalley.experiments.reading import Record, naming, parsed, text
from widevalley.landscape.density import Density
from widevalley.landscape.surface import Surface

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def read(folder: Path) -> Measurement:
    """The measurement in ``folder``.

    Raises FileNotFoundError where there is no ``measurement.json``, and ResultsError naming what is damaged in it.
    """
    path = folder / "measurement.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; name a folder that `widevalley measure` has written")
    record = parsed(text(path), f"{path}")
    with naming(f"{path}"):
        found = dict(record["networks"])
        if not found:
            raise ValueError("networks is empty")
        what = tuple(str(part) for part in record["what"])
        if unknown := [part for part in what if part not in PARTS]:
            raise ValueError(f"what has {', '.join(unknown)}, which is none of {', '.join(PARTS)}")
    networks = {name: _network(network, f"{path}, network {name!r}") for name, network in found.items()}
    with naming(f"{path}, widths"):
        widths = _part(record.get("widths"), lambda widths: _widths(widths, tuple(networks)))
    with naming(f"{path}"):
        return _filled(Measurement, record, what=what, networks=networks, widths=widths)


Part = TypeVar("Part")
Kind = TypeVar("Kind", bound="DataclassInstance")


def _part(record: Record | None, of: Callable[[Record], Part]) -> Part | Skipped | None:
    if record is None:
        return None
    return Skipped(str(record["skipped"])) if "skipped" in record else of(record)


def _network(record: Record, where: str) -> Network:
    def part(name: str, of: Callable[[Record], Part]) -> Part | Skipped | None:
        with naming(f"{where}, {name}"):
            return _part(record.get(name), of)

    with naming(f"{where}, point"):
        position = _filled(Position, record["point"])
    with naming(where):
        return _filled(
            Network,
            record,
            position=position,
            spectrum=part("spectrum", lambda found: _spectrum(found, position.parameters)),
            density=part("density", _density),
            entropy=part("entropy", _entropy),
            sharpness=part("sharpness", _sharpness),
            surface=part("surface", _surface),
        )


def _spectrum(record: Record, parameters: int) -> Eigenvalues:
    values = np.asarray(record["eigenvalues"], dtype=np.float64)
    if values.shape != (parameters,):
        raise ValueError(f"eigenvalues has shape {values.shape} where the network has {parameters} parameters")
    seconds = {str(part): _real(time) for part, time in record["seconds"].items()}
    elsewhere = {str(name): _filled(Elsewhere, other) for name, other in record["elsewhere"].items()}
    unfinished = bool(record.get("unfinished"))
    return _filled(Eigenvalues, record, eigenvalues=values, seconds=seconds, elsewhere=elsewhere, unfinished=unfinished)


def _density(record: Record) -> Quadrature:
    nodes = torch.tensor(record["nodes"], dtype=torch.float64)
    weights = torch.tensor(record["weights"], dtype=torch.float64)
    if nodes.ndim != 2 or nodes.shape != weights.shape:
        raise ValueError(f"nodes has shape {tuple(nodes.shape)}, weights {tuple(weights.shape)}")
    return _filled(Quadrature, record, density=Density(nodes, weights, _whole(record["n"])))


def _entropy(record: Record) -> Entropy:
    coefficient = record["learning_coefficient"]
    return _filled(
        Entropy,
        record,
        points=tuple(_filled(EntropyPoint, point) for point in record["points"]),
        learning_coefficient=None if coefficient is None else _filled(Coefficient, coefficient),
        unfinished=bool(record.get("unfinished")),
    )


def _sharpness(record: Record) -> Sharpness:
    return _filled(Sharpness, record, rows=tuple(_filled(Rise, row) for row in record["rows"]))


def _surface(record: Record) -> Surroundings:
    def line(other: Record) -> Surface:
        return _grid([other["coordinates"]], other["loss"], [other["length"]])

    around = _grid(record["coordinates"], record["loss"], record["lengths"])
    to = {str(name): line(other) for name, other in (record.get("to") or {}).items()}
    return _filled(Surroundings, record, around=around, to=to)


def _grid(coordinates: list[Any], loss: list[Any], lengths: list[float]) -> Surface:
    axes = tuple(np.asarray(axis, dtype=np.float64) for axis in coordinates)
    values = np.asarray(loss, dtype=np.float64)
    if values.shape != tuple(map(len, axes)):
        raise ValueError(
            f"loss has shape {values.shape} on axes of {', '.join(str(len(axis)) for axis in axes)} points"
        )
    return Surface(axes, values, _reals(lengths))


def _widths(record: Record, names: tuple[str, ...]) -> Widths:
    def each(key: str) -> dict[str, float]:
        return {name: _real(record[key][name]) for name in names}

    def row(found: Record) -> Width:
        return _filled(
            Width,
            found,
            values={name: _real(found["values"][name]) for name in names},
            intervals={name: _pair(found["intervals"][name]) for name in names},
            verdicts={name: str(found["verdicts"][name]) for name in names[1:]},
        )

    return _filled(
        Widths,
        record,
        losses=each("losses"),
        scales=each("scales"),
        matched_losses=each("matched_losses"),
        verdicts={name: str(record["verdicts"][name]) for name in names[1:]},
        caveats=tuple(str(caveat) for caveat in record["caveats"]),
        rows=tuple(map(row, record["rows"])),
    )


def _filled(kind: type[Kind], record: Record, **given: Any) -> Kind:
    """Fields that are not ``given`` are the record's own, by their names, read as their types say."""
    fields = {field.name: field.type for field in dataclasses.fields(kind) if field.name not in given}
    return kind(**{name: _AS[str(of)](record[name]) for name, of in fields.items()}, **given)


def _real(value: float | None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"{value!r} where a number belongs")
    return math.nan if value is None else float(value)


def _reals(values: list[float]) -> tuple[float, ...]:
    return tuple(map(_real, values))


def _pair(ends: list[float]) -> tuple[float, float]:
    low, high = _reals(ends)
    return low, high


def _whole(value: int) -> int:
    if isinstance(value, bool) or value != int(value):
        raise TypeError(f"{value!r} where a whole number belongs")
    return int(value)


# By the annotation of a field.
_AS: Mapping[str, Callable[[Any], Any]] = {
    "bool": bool,
    "float": _real,
    "int": _whole,
    "int | None": lambda value: None if value is None else _whole(value),
    "str": str,
    "str | None": lambda value: None if value is None else str(value),
    "Record": dict,
    "Record | None": lambda value: None if value is None else dict(value),
    "tuple[float, ...]": _reals,
}
