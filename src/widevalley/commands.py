"""The commands: the app, and those that are short. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from widevalley import compare_command, data_commands, measure_command, reproduce_command, train_command
from widevalley.options import CANNOT_WRITE, refuse

app = typer.Typer(
    help="""Train networks into wide valleys of the loss, and measure how wide a valley is.

    Begin with: widevalley compare digits""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(compare_command.compare)
app.command()(train_command.train)
app.command()(measure_command.measure)
app.command()(reproduce_command.reproduce)
app.add_typer(data_commands.app, name="data")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from importlib.metadata import version as of

        typer.echo(f"widevalley {of('widevalley')}")
        raise typer.Exit


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A folder that compare, measure or reproduce wrote.")]) -> None:
    """Draw the page again from the results in a folder, finished or not."""
    from widevalley.experiments.measure_report import write_measure_report
    from widevalley.experiments.report import write_report
    from widevalley.experiments.reproduction_report import write_reproduction

    pages = {"comparison.json": write_report, "measurement.json": write_measure_report}
    found = [write for name, write in pages.items() if (folder / name).exists()]
    # A comparison has units too, and a plan beside them.
    if not found and any((folder / name).is_dir() for name in ("units", "spectra")):
        found = [write_reproduction]
    if not found:
        refuse(f"{folder} holds no results: give a folder that compare, measure or reproduce wrote.")
    try:
        for write in found:
            typer.echo(f"Report: {write(folder)}")
    except ValueError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"Cannot write the page: {error}", CANNOT_WRITE)
