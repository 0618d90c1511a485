"""``widevalley reproduce``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from widevalley import options
from widevalley.options import refuse

if TYPE_CHECKING:
    from widevalley.experiments.reproduce import Job, Reproduction


def reproduce(
    what: Annotated[
        list[str],
        typer.Argument(metavar="WHAT…", help=f"{', '.join(options.REPRODUCED)}; all, or list.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the results, which several processes may share.")] = Path(
        "runs/reproduction"
    ),
    data_dir: options.DataDir = None,
    device: options.Device = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what is missing and what it would cost.")] = False,
) -> None:
    """Run the paper's experiments again, and draw its figures beside ours.

    What is in the folder already is not run again; stopped or killed, the same command goes on. So does a second
    process beside the first: they share the runs. One thread each is best (OMP_NUM_THREADS=1).

    Examples:

        widevalley reproduce list

        widevalley reproduce fig4a --dry-run

        widevalley reproduce all --out results/reproduction
    """
    from widevalley.experiments.data import DataError
    from widevalley.experiments.minima import MinimumError
    from widevalley.experiments.reproduce import Reproduction
    from widevalley.experiments.reproduction_report import write_reproduction
    from widevalley.progress import Narrator
    from widevalley.stopping import Stopping

    if "list" in what:
        typer.echo("\n".join(f"{name:7} {said}" for name, said in options.REPRODUCED.items()))
        return
    wanted = list(options.REPRODUCED) if "all" in what else list(dict.fromkeys(what))
    if missing := [name for name in wanted if name in options.NOT_REPRODUCED]:
        refuse(f"{missing[0]} is not there yet: {options.NOT_REPRODUCED[missing[0]]}.")
    if unknown := [name for name in wanted if name not in options.REPRODUCED]:
        refuse(f"There is no {unknown[0]!r} to reproduce: {', '.join(options.REPRODUCED)}, all, or list.")
    where = options.the_device(device)
    with (
        Stopping() as stopping,
        options.ending_in_words(stopping, options.again(resume=False)),
        Narrator(stopping) as narrator,
    ):
        work = Reproduction(wanted, out, narrator, data_dir, where)
        if dry_run:
            typer.echo(_costs(work))
            return
        try:
            work.run()
            page = write_reproduction(out)
        except (DataError, MinimumError) as error:
            refuse(str(error))
    typer.echo(f"Report: {page}")


def _costs(work: Reproduction) -> str:
    """What is missing of each, and about what it would take."""
    rows: list[tuple[str, ...]] = [("", "units", "missing", "gradients", "hours")]
    for name in work.what:
        jobs = work.jobs_of(name)
        left = [job for job in jobs if job.ended() is None]
        rows.append(_row(name, len(jobs), left))
    everything = work.jobs()
    rows.append(_row("all", len(everything), [job for job in everything if job.ended() is None]))
    said = (
        "Gradients and hours are those of what is missing. Hours are of one core for training runs and of two for "
        "spectra, on the machine of our results. Nothing was run."
    )
    return f"{options.aligned(rows)}\n{said}"


def _row(name: str, units: int, left: Sequence[Job]) -> tuple[str, ...]:
    gradients = sum(job.gradients for job in left)
    return name, f"{units}", f"{len(left)}", f"{gradients:,}", f"{sum(job.hours for job in left):.1f}"
