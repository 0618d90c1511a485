"""``widevalley reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from widevalley import options
from widevalley.options import refuse


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
    from widevalley.experiments.reproduce import Reproduction
    from widevalley.progress import Narrator
    from widevalley.stopping import Stopping

    wanted = list(options.REPRODUCED) if "all" in what else list(dict.fromkeys(what))
    if unknown := [name for name in wanted if name not in options.REPRODUCED]:
        refuse(f"There is no {unknown[0]!r} to reproduce: {', '.join(options.REPRODUCED)}, all, or list.")
    where = options.the_device(device)
    with Stopping() as stopping, options.ending_in_words(stopping), Narrator(stopping) as narrator:
        try:
            Reproduction(wanted, out, narrator, data_dir, where).run()
        except DataError as error:
            refuse(str(error))
