"""The commands, from arguments to the experiments. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    help="Train networks into wide valleys of the loss, and measure how wide a valley is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of the data sets.", envvar="WIDEVALLEY_DATA", show_default="user's cache"),
]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from importlib.metadata import version as of

        typer.echo(f"widevalley {of('widevalley')}")
        raise typer.Exit


@app.command()
def compare(
    task: Annotated[str, typer.Argument(help="digits, mnist-fc or mnist-lenet.")],
    methods: Annotated[
        str, typer.Option(help="Names with commas between: entropy-sgd, entropy-adam, sgd, adam.")
    ] = "entropy-sgd,entropy-adam,sgd,adam",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method, with seeds 0, 1, …")] = 5,
    epochs: Annotated[
        float | None,
        typer.Option(min=0.01, help="Epochs of gradients, the same for all.", show_default="the task's own"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of results.", show_default="runs/TASK")] = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in that folder.")] = False,
) -> None:
    """Train the same network by several methods, at the same number of gradients, and write report.html.

    Each method's learning rate is chosen from five on a validation split; then it runs once a seed, and the test set
    is looked at once. digits needs no download. Killed? The same command with --resume goes on.
    """
    from widevalley.experiments.compare import FolderError, Plan
    from widevalley.experiments.compare import compare as run
    from widevalley.experiments.data import DataError
    from widevalley.experiments.methods import METHODS
    from widevalley.experiments.report import write_report
    from widevalley.experiments.tasks import TASKS
    from widevalley.progress import Narrator

    if task not in TASKS:
        _refuse(f"There is no task {task!r}. Tasks: {', '.join(TASKS)}.")
    names = [name.strip() for name in methods.split(",") if name.strip()]
    unknown = [name for name in names if name not in METHODS]
    if unknown or not names:
        _refuse(f"There is no method {', '.join(map(repr, unknown)) or 'named'}. Methods: {', '.join(METHODS)}.")
    chosen_task = TASKS[task]
    folder = out or Path("runs") / task
    plan = Plan(
        task=chosen_task,
        methods=tuple(METHODS[name] for name in dict.fromkeys(names)),
        seeds=seeds,
        epochs=float(epochs if epochs is not None else chosen_task.epochs),
    )
    try:
        data = chosen_task.data(data_dir)
        with Narrator() as narrator:
            run(plan, data, folder, resume, narrator)
    except (DataError, FolderError) as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"Cannot write the results: {error}. Finished runs are kept: --resume goes on in {folder}.")
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Finished runs are kept: the same command with --resume goes on in {folder}.", err=True)
        raise typer.Exit(130) from None
    page = write_report(folder)
    typer.echo(f"{_table(folder)}\nReport: {page}")


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A folder that compare wrote.")]) -> None:
    """Draw report.html again from the results in a folder."""
    from widevalley.experiments.report import write_report

    if not (folder / "comparison.json").exists():
        _refuse(f"{folder} holds no comparison (no comparison.json in it): give a folder that compare wrote.")
    try:
        typer.echo(f"Report: {write_report(folder)}")
    except ValueError as error:
        _refuse(str(error))


def _refuse(message: str) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(2)


def _table(folder: Path) -> str:
    """The final results of each method as a few aligned lines."""
    from widevalley.experiments.report import plus_minus
    from widevalley.experiments.results import read

    comparison = read(folder)
    heads = ("method", "lr", "test error %", "test loss", "ms a gradient")
    rows = [heads]
    for method in comparison.methods:
        results = [result for _, result in comparison.finished(method)]
        rows.append(
            (
                method,
                f"{comparison.chosen[method]:g}",
                plus_minus([result.test_error for result in results]),
                plus_minus([result.test_loss for result in results]),
                plus_minus([1e3 * result.seconds_per_gradient for result in results]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)
