"""``widevalley measure``."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from widevalley import options
from widevalley.options import refuse

if TYPE_CHECKING:
    from widevalley.experiments.records import Record
    from widevalley.experiments.subjects import Subject


def measure(
    checkpoint: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT…",
            help="Networks: safetensors files, files of a state_dict, or folders that train wrote. "
            "The first is the one that the others are compared with.",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Task that they are networks of, or module:function for one of your own.",
            show_default="as the checkpoints say",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="A function of yours, of a checkpoint's path, that returns a widevalley.landscape.Objective.",
        ),
    ] = None,
    what: options.What = None,
    images: Annotated[
        int, typer.Option(min=2, help="Training examples that the loss is the mean over, equally many of each class.")
    ] = 4096,
    gammas: Annotated[
        str | None,
        typer.Option(
            help="Scopes of the local entropy, with commas between.", show_default="reaching 2, 5 and 10 % of ‖x‖"
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the measurement.")] = Path("runs/measure"),
    data_dir: options.DataDir = None,
    device: options.Device = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what is in that folder, or measure more of the same networks.")
    ] = False,
) -> None:
    """Measure how wide the valleys of trained networks are: spectrum, density, local entropy, sharpness, surface.

    Networks are measured side by side on the same training examples. Of several it says which lies in the wider valley,
    at matched loss. Writes measurement.json and measure.html. Stopped or killed, it goes on with --resume.

    Examples:

        widevalley measure runs/digits-sgd runs/digits-entropy-sgd

        widevalley measure net.safetensors --task mnist-fc --what density,sharpness

        widevalley measure net.pt --objective mine:objective
    """
    from widevalley.experiments import subjects
    from widevalley.experiments.measure import Plan
    from widevalley.experiments.measure import measure as run
    from widevalley.experiments.measure_report import write_measure_report
    from widevalley.experiments.measured import PARTS
    from widevalley.experiments.tasks import TaskError
    from widevalley.experiments.train import Stopped
    from widevalley.progress import MeasureNarrator
    from widevalley.stopping import Stopping

    if task is not None and objective is not None:
        refuse("--task and --objective both say what is measured: give one.")
    wanted = _parts(what)
    scopes = _scopes(gammas)
    where = options.the_device(device)
    try:
        measured: list[Subject]
        if objective is not None:
            measured, samples = subjects.of_function(checkpoint, objective), f"the samples of {objective}"
        else:
            measured, samples = subjects.of_task(
                subjects.read_checkpoints(checkpoint),
                task,
                lambda found: options.the_data(found, data_dir),
                images,
                where,
            )
    except (subjects.SubjectError, TaskError) as error:
        refuse(str(error))
    words = ["widevalley", "measure", *map(str, checkpoint)]
    for name, value in (("task", task), ("objective", objective), ("what", what), ("gammas", gammas)):
        words += [f"--{name}", value] if value is not None else []
    words += ["--images", str(images)] if images != 4096 and objective is None else []
    plan = Plan(
        tuple(measured), samples, shlex.join(words), wanted or PARTS, bool(wanted), scopes, task, objective, where
    )
    with Stopping() as stopping, options.ending_in_words(stopping):
        try:
            with MeasureNarrator(stopping) as narrator:
                found = run(plan, out, narrator, resume)
        except Stopped:
            # What is done is shown.
            write_measure_report(out)
            raise
        except ValueError as error:
            refuse(str(error))
        page = write_measure_report(out)
        typer.echo(f"{_summary(found)}\nNumbers: {out / 'measurement.json'}\nReport: {page}")
    if wanted and (lost := _left_out(found, wanted)):
        refuse("\n".join(lost))


def _parts(what: str | None) -> tuple[str, ...]:
    from widevalley.experiments.measured import PARTS
    from widevalley.experiments.tasks import perhaps

    given = [name.strip() for name in (what or "").split(",") if name.strip()]
    if what is not None and not given:
        refuse(f"--what names nothing. Parts: {', '.join(PARTS)}.")
    for name in given:
        if name not in PARTS:
            refuse(f"There is no part {name!r}.{perhaps(name, PARTS)} Parts: {', '.join(PARTS)}.")
    return tuple(part for part in PARTS if part in given)


def _scopes(gammas: str | None) -> tuple[float, ...]:
    if gammas is None:
        return ()
    try:
        found = sorted({float(word) for word in gammas.split(",")})
    except ValueError:
        refuse(f"--gammas {gammas!r} is no list of numbers, such as 0.1,1,10.")
    if not all(math.isfinite(gamma) and gamma > 0 for gamma in found):
        refuse(f"--gammas {gammas!r}: every scope must be above 0.")
    return tuple(found)


def _summary(found: Record) -> str:
    """A line or two a network, and the verdicts."""
    lines = []
    for name, network in found["networks"].items():
        point = network["point"]
        said = [f"loss {point['loss']:.4g}", f"‖∇f‖ {point['gradient_norm']:.3g}"]
        density = network.get("density", {})
        if "largest" in density:
            said += [f"largest eigenvalue {density['largest'][0]:.4g}", f"trace {density['trace']:.4g}"]
        lines.append(f"{name}: {', '.join(said)}")
    for name, verdict in ((found["widths"] or {}).get("verdicts") or {}).items():
        lines.append(f"{name} against {next(iter(found['networks']))}, at matched loss: {verdict}")
    return "\n".join(lines)


def _left_out(found: Record, wanted: tuple[str, ...]) -> list[str]:
    return [
        f"{part} of {name} cannot be had: {network[part]['skipped']}"
        for name, network in found["networks"].items()
        for part in wanted
        if "skipped" in network.get(part, {})
    ]
