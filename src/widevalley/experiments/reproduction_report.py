"""The page of a reproduction: from the files of its folder to ``reproduction.html`` and an SVG a figure.

It works with any part missing: what is missing is named, with the command that runs it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from widevalley.experiments import (
    drawing,
    local_gradient_plots,
    measure_tables,
    reproduced_claims,
    reproduced_plots,
    reproduced_tables,
    two_valleys_plots,
)
from widevalley.experiments import reproduced_numbers as numbers
from widevalley.experiments.measure_report import spectrum_part
from widevalley.experiments.measured import Measurement
from widevalley.experiments.reading import Record
from widevalley.experiments.rendering import Panel, panel, write_page
from widevalley.experiments.reproduced import CurveRuns, Reproduced, Spectra, environment, read
from widevalley.experiments.sheet import sheet
from widevalley.writing import PARTIAL, write

__all__ = ["write_reproduction"]

TITLES = {
    "fig1": "Fig. 1: every eigenvalue of the Hessian, small-LeNet",
    "fig2": "Fig. 2: the local entropy of two valleys",
    "fig3a": "Fig. 3a: every eigenvalue of the Hessian, small-mnistfc",
    "fig3b": "Fig. 3b: every eigenvalue of the Hessian, char-lstm",
    "fig4a": "Fig. 4a: mnistfc, Entropy-SGD against Adam",
    "fig4b": "Fig. 4b: LeNet, Entropy-SGD against Adam",
    "table": "What of Entropy-SGD is it that works?",
    "direction": "Does γ(x − μ) point along the gradient of local entropy?",
    "fisher": "Is Fisher information the Hessian?",
}
# Under which name `widevalley reproduce` makes what a section shows, where that is not the section's.
MADE_BY = {"direction": "table", "fisher": "table"}


@dataclass(frozen=True)
class Section:
    """What the page says of a figure; ``panels`` are drawn into one SVG of so many ``columns`` too.

    ``kind`` says which ``parts`` there are: "spectra", "curves", "ablations", "valleys", "direction",
    "fisher"; "" has none.
    """

    name: str
    missing: Sequence[str]
    kind: str = ""
    panels: Sequence[Panel] = ()
    columns: int = 2
    looks: Mapping[str, drawing.Style] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def claim(self) -> str:
        return numbers.CLAIMS[self.name]

    @property
    def made_by(self) -> str:
        return MADE_BY.get(self.name, self.name)


def write_reproduction(folder: Path) -> Path:
    """Writes ``reproduction.html`` and ``figures/NAME.svg`` into a reproduction's folder; returns the page's path.

    Raises what ``reproduced.read`` raises. The same files give the same page.
    """
    found = read(folder)
    sections: list[Section] = []

    def context() -> dict[str, Any]:
        sections.extend(_sections(found))
        return {
            "sections": sections,
            "folder": folder.as_posix(),
            "legend": {name: look for section in sections for name, look in section.looks.items()},
            "environments": found.environments(),
        }

    page = write_page(folder / "reproduction.html", "reproduction.html.j2", context)
    for section in sections:
        if section.panels:
            path = folder / "figures" / f"{section.name}.svg"
            path.parent.mkdir(exist_ok=True)
            drawn = sheet(section.panels, section.columns, section.looks, section.title)
            write(path, drawn, partial=f".{os.getpid()}{PARTIAL}")
    return page


def _sections(found: Reproduced) -> list[Section]:
    environments = found.environments()
    spectra = {name: _spectra(name, each, environments) for name, each in found.spectra.items()}
    return [
        spectra["fig1"],
        _two_valleys(found, environments),
        spectra["fig3a"],
        spectra["fig3b"],
        *(_curves(name, found.curves[name], environments) for name in ("fig4a", "fig4b")),
        _ablations(found.curves["table"], environments),
        _direction(found, environments),
        _fisher(found, environments),
    ]


def _spectra(name: str, found: Spectra, environments: reproduced_tables.Environments) -> Section:
    missing = [f"the spectrum of {', '.join(found.missing)}"] if found.missing else []
    merged = found.merged
    if merged is None:
        return Section(name, missing)
    looks = {each: drawing.style(place) for place, each in enumerate(merged.networks)}
    part = spectrum_part(merged, looks, name)
    parts = {"spectrum": part, "positions": measure_tables.positions(merged), "samples": merged.samples}
    parts |= {"recipes": _recipes(merged), "made": _made(found, environments)}
    parts |= {"lemma": reproduced_claims.lemma_2(merged)}
    return Section(name, missing, "spectra", part["panels"], part["columns"], parts=parts)


def _recipes(merged: Measurement) -> dict[str, str]:
    """How each network came about, as far as its file says it in single words and numbers."""
    said = {}
    for name, network in merged.networks.items():
        items = (network.configuration or {}).items()
        said[name] = ", ".join(
            f"{key.replace('_', ' ')} {value}" for key, value in items if isinstance(value, str | int | float)
        )
    return said


def _made(found: Spectra, environments: reproduced_tables.Environments) -> dict[str, str]:
    return {
        name: reproduced_tables.places([environment(each.versions, each.machine)], environments)
        for name, each in found.found.items()
    }


def _two_valleys(found: Reproduced, environments: reproduced_tables.Environments) -> Section:
    record = found.measurements.get("two-valleys")
    if record is None:
        return Section("fig2", ["all of it"])
    panels = _panels("fig2", two_valleys_plots.figures(dict(record)))
    return Section("fig2", [], "valleys", panels, parts={"record": record, "made": _place(record, environments)})


def _panels(name: str, figures: Sequence[tuple[str, Figure, str]]) -> list[Panel]:
    return [
        each
        for place, (title, figure, text) in enumerate(figures)
        for each in panel(title, figure, f"{name}-{place}", text)
    ]


def _curves(name: str, curves: Sequence[CurveRuns], environments: reproduced_tables.Environments) -> Section:
    # Lines far above, of runs that the noise as printed keeps from training, would hide how the others differ.
    shown = [curve for curve in curves if "-printed-" not in curve.name]
    looks = {curve.curve.description: drawing.style(place) for place, curve in enumerate(shown) if curve.finished}
    [adam] = [curve for curve in curves if curve.name.endswith("-adam") and curve in shown]
    parts = {
        "errors": reproduced_tables.errors(curves, adam, environments),
        "losses": reproduced_tables.losses(curves, adam, environments),
        "choices": reproduced_tables.choices(curves, environments),
        "reach": reproduced_tables.reach(shown, numbers.LEVELS[name], environments),
    }
    panels = reproduced_plots.curves(shown, looks, name)
    return Section(name, _missing(curves), "curves", panels, looks=looks, parts=parts)


def _ablations(curves: Sequence[CurveRuns], environments: reproduced_tables.Environments) -> Section:
    parts = {"ablations": reproduced_tables.ablations(curves, environments)}
    return Section("table", _missing(curves), "ablations", reproduced_plots.ablations(curves), parts=parts)


def _direction(found: Reproduced, environments: reproduced_tables.Environments) -> Section:
    record = found.measurements.get("local-gradient")
    if record is None:
        return Section("direction", ["all of it"])
    panels = _panels("direction", local_gradient_plots.figures(dict(record)))
    parts = {
        "tables": reproduced_claims.directions(dict(record)),
        "record": record,
        "made": _place(record, environments),
    }
    return Section("direction", [], "direction", panels, looks=local_gradient_plots.looks(), parts=parts)


def _fisher(found: Reproduced, environments: reproduced_tables.Environments) -> Section:
    record = found.measurements.get("fisher")
    if record is None:
        return Section("fisher", ["all of it"])
    parts = {"tables": reproduced_claims.fisher(dict(record)), "record": record, "made": _place(record, environments)}
    return Section("fisher", [], "fisher", parts=parts)


def _place(record: Record, environments: reproduced_tables.Environments) -> str:
    return reproduced_tables.places([environment(record["versions"], record["machine"])], environments)


def _missing(curves: Sequence[CurveRuns]) -> list[str]:
    return [note for curve in curves if (note := curve.missing())]
