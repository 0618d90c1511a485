"""``widevalley data``: where the files of data sets are looked for, whether they are right, and their download."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from widevalley.options import DataDir, refuse

if TYPE_CHECKING:
    from widevalley.experiments.files import Dataset

app = typer.Typer(
    help="Where data sets are looked for, whether they are right, and their download.", no_args_is_help=True
)

Sets = Annotated[list[str] | None, typer.Argument(metavar="[SET]...", help="Names of data sets.", show_default="all")]


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """The files of each data set, and whether they are there (by their size alone: check reads them)."""
    from widevalley.experiments.files import DATASETS, data_folder, state

    folder = data_folder(data_dir)
    typer.echo(f"Data folder: {folder}  (--data-dir or WIDEVALLEY_DATA gives another)")
    for dataset in DATASETS.values():
        states = {file.place: state(file, folder) for file in dataset.files}
        present = sum(found == "present" for found in states.values())
        typer.echo(f"\n{dataset.name}: {present} of {len(states)} files present")
        for place, found in states.items():
            typer.echo(f"  {found:8}  {place}")
        if present < len(states):
            typer.echo(f"  To download: widevalley data fetch {dataset.name}, {_megabytes(_download_size(dataset))}")
    typer.echo("\ndigits: comes with scikit-learn, needs no file")


@app.command()
def check(sets: Sets = None, data_dir: DataDir = None) -> None:
    """Read every file and compare its SHA-256: of the sets named, else of those of which a file is there.

    Exit status 1 if one is missing or damaged.
    """
    from widevalley.experiments.files import DataError, contents, data_folder, state

    folder = data_folder(data_dir)
    wrong = 0
    for dataset in _named(sets):
        found = {file: state(file, folder) for file in dataset.files}
        if not sets and set(found.values()) == {"missing"}:
            typer.echo(f"none of {dataset.name} is there")
            continue
        for file, looks in found.items():
            try:
                contents(file, folder)
            except DataError as error:
                wrong += 1
                typer.echo(f"missing  {folder / file.place}" if looks == "missing" else f"damaged  {error}")
            else:
                typer.echo(f"right    {folder / file.place}")
    if wrong:
        typer.echo(f"{wrong} missing or damaged", err=True)
        raise typer.Exit(1)


@app.command()
def fetch(
    sets: Annotated[list[str], typer.Argument(metavar="SET...", help="Names of data sets.")], data_dir: DataDir = None
) -> None:
    """Download what is missing or damaged. Every file is checked before it is put in its place."""
    from widevalley.experiments.download import fetch as download
    from widevalley.experiments.files import DataError, data_folder

    folder = data_folder(data_dir)
    for dataset in _named(sets):
        try:
            with _Bar(dataset.name) as bar:
                written = download(dataset.name, folder, bar)
        except DataError as error:
            refuse(str(error))
        except KeyboardInterrupt:
            typer.echo("Stopped. Nothing half was kept: the same command goes on.", err=True)
            raise typer.Exit(130) from None
        for place in written:
            typer.echo(f"{dataset.name}: wrote {folder / place}")
        if not written:
            typer.echo(f"{dataset.name}: all files are there and right, under {folder}")


class _Bar:
    """Bytes done of bytes in all: a bar on a terminal, a plain line every tenth elsewhere, on standard error."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self.name, self.tenth, self.plain = name, -1, not console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=self.plain,
        )
        self.task = self.bar.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def __call__(self, done: int, total: int) -> None:
        self.bar.update(self.task, completed=done, total=total)
        tenth = 10 * done // total
        if self.plain and tenth != self.tenth:
            self.tenth = tenth
            print(f"{self.name}: {_megabytes(done)} of {_megabytes(total)}", file=sys.stderr, flush=True)


def _named(names: list[str] | None) -> list[Dataset]:
    from widevalley.experiments.files import DATASETS

    unknown = [name for name in names or () if name not in DATASETS]
    if unknown:
        refuse(f"There is no data set {', '.join(map(repr, unknown))} with files. Data sets: {', '.join(DATASETS)}.")
    return [DATASETS[name] for name in dict.fromkeys(names or DATASETS)]


def _download_size(dataset: Dataset) -> int:
    return sum(download.size for download in dataset.downloads)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
