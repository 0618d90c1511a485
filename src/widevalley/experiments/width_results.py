"""The files of ``widths/``, read into frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from widevalley.experiments.reading import Record, entry, number, parsed, text


@dataclass(frozen=True)
class WidthMeasure:
    """One measure of the networks of a seed, as in ``widevalley.landscape.WidthRow``: the smaller, the wider."""

    name: str
    invariant: bool
    values: Mapping[str, float]  # by method
    verdicts: Mapping[str, str]  # of each method but the reference, for these networks alone


@dataclass(frozen=True)
class SeedWidths:
    """The networks of one seed side by side, at one training loss.

    ``reason`` says why they could not be measured; all that was measured is empty then.
    """

    seed: int
    methods: tuple[str, ...]  # the reference first
    reason: str
    examples: int
    products: int
    seconds: float
    losses: Mapping[str, float]
    matched_losses: Mapping[str, float]
    measures: tuple[WidthMeasure, ...]
    verdicts: Mapping[str, str]  # of each method but the reference, over all invariant measures
    caveats: tuple[str, ...]

    def incomparable(self, method: str) -> bool:
        """Whether its loss could not be matched, or the reference's."""
        return self.verdicts.get(method, "").startswith("not comparable")


def read_widths(folder: Path, seed: int) -> SeedWidths | None:
    """Those of a seed, None where there are none. Raises ResultsError naming the file where it is damaged."""
    path = folder / "widths" / f"seed{seed}.json"
    if not path.is_file():
        return None
    where = f"{path}"
    record = parsed(text(path), where)
    rows = entry(record, "rows", list, where) if "rows" in record else []
    return SeedWidths(
        seed=int(entry(record, "seed", int, where)),
        methods=tuple(entry(record, "networks", dict, where)),
        reason=str(record.get("reason") or ""),
        examples=int(entry(record, "examples", int, where)),
        products=int(entry(record, "products", int, where)),
        seconds=number(record, "seconds", where),
        losses=_numbers(record, "losses", where),
        matched_losses=_numbers(record, "matched_losses", where),
        measures=tuple(_measure(row, where) for row in rows),
        verdicts=_texts(record, "verdicts", where),
        caveats=tuple(str(caveat) for caveat in record.get("caveats") or ()),
    )


def _measure(row: Record, where: str) -> WidthMeasure:
    return WidthMeasure(
        name=str(entry(row, "measure", str, where)),
        invariant=bool(entry(row, "invariant", bool, where)),
        values=_numbers(row, "values", where),
        verdicts=_texts(row, "verdicts", where),
    )


def _numbers(record: Record, key: str, where: str) -> dict[str, float]:
    found = entry(record, key, dict, where) if key in record else {}
    return {name: number(found, name, f"{where}, {key}") for name in found}


def _texts(record: Record, key: str, where: str) -> dict[str, str]:
    return {name: str(value) for name, value in (entry(record, key, dict, where) if key in record else {}).items()}
