"""``widevalley compare``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from widevalley import options
from widevalley.options import refuse

if TYPE_CHECKING:
    from widevalley.experiments.compare import Plan
    from widevalley.experiments.data import Data
    from widevalley.experiments.methods import Method


def compare(
    task: options.TaskArgument = None,
    own_task: options.OwnTask = None,
    methods: options.Methods = options.DEFAULT_METHODS,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method, with seeds 0, 1, …")] = 5,
    epochs: options.Epochs = None,
    out: Annotated[Path | None, typer.Option(help="Folder of results.", show_default="runs/TASK")] = None,
    batch_size: options.BatchSize = None,
    train_size: options.TrainSize = None,
    subset: options.Subset = None,
    label_noise: options.LabelNoise = 0.0,
    data_dir: options.DataDir = None,
    device: options.Device = None,
    tensorboard: options.TensorBoard = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and run nothing.")] = False,
    resume: options.Resume = False,
) -> None:
    """Train the same network by several methods, at the same number of gradients, and write report.html.

    Each method's learning rate is the best of five on a validation split; with it the method runs once a seed, and the
    test set is looked at once. Stopped or killed, the same command with --resume goes on. So does a second process
    beside the first: they share the runs.

    Examples:

        widevalley compare digits --methods all

        widevalley compare mnist-fc --seeds 3 --label-noise 0.2 --dry-run
    """
    from widevalley.experiments.compare import Plan
    from widevalley.experiments.compare import compare as run
    from widevalley.experiments.report import write_report
    from widevalley.progress import Narrator
    from widevalley.stopping import Stopping

    chosen_task, changes = options.the_task(
        task, own_task, label_noise=label_noise, train_size=train_size, subset=subset, batch_size=batch_size
    )
    plan = Plan(
        task=chosen_task,
        methods=the_methods(methods),
        seeds=seeds,
        epochs=float(epochs if epochs is not None else chosen_task.epochs),
        changes=changes.given(),
        named=f"--task {own_task}" if own_task else chosen_task.name,
        device=options.the_device(device),
        tensorboard=tensorboard,
    )
    folder = out or Path("runs") / chosen_task.name
    data = options.the_data(chosen_task, data_dir)
    if dry_run:
        typer.echo(_costs(plan, data))
        return
    with Stopping() as stopping, options.ending_in_words(stopping):
        with Narrator(stopping) as narrator:
            run(plan, data, folder, resume, narrator)
        page = write_report(folder)
        typer.echo(f"{_table(folder)}\nReport: {page}")


def the_methods(names: str) -> tuple[Method, ...]:
    """The methods that ``names``, with commas between, ask for; each once."""
    from widevalley.experiments.methods import METHODS
    from widevalley.experiments.tasks import perhaps

    given = [name.strip() for name in names.split(",") if name.strip()]
    wanted = list(METHODS) if "all" in given else given
    unknown = [name for name in wanted if name not in METHODS]
    if unknown or not wanted:
        hint = "".join(perhaps(name, METHODS) for name in unknown[:1])
        named = ", ".join(map(repr, unknown)) or "named"
        refuse(f"There is no method {named}.{hint} Methods: {', '.join(METHODS)}, or all.")
    return tuple(METHODS[name] for name in dict.fromkeys(wanted))


def _costs(plan: Plan, data: Data) -> str:
    """What the plan would cost, as a few lines."""
    from widevalley.experiments.estimate import estimate
    from widevalley.experiments.tasks import TaskError
    from widevalley.experiments.train import EVALUATIONS, rehearse

    try:
        rehearse(plan.task, data)
    except TaskError as error:
        refuse(str(error))
    costs = estimate(plan, data)
    heads = ("method", "runs", "gradients", "ms a gradient", "minutes")
    rows = [
        (c.method, f"{c.runs}", f"{c.gradients:,}", f"{1e3 * c.seconds_per_gradient:.2f}", f"{c.minutes:.1f}")
        for c in costs
    ]
    total = (
        "all",
        f"{sum(c.runs for c in costs)}",
        f"{sum(c.gradients for c in costs):,}",
        "",
        f"{sum(c.minutes for c in costs):.1f}",
    )
    said = (
        f"Gradients are those of all runs; minutes, with the {EVALUATIONS + 1} evaluations of each and the widths of "
        f"the final networks, are estimated from a second of each method on {plan.device}, for one process. Nothing "
        "was run or written."
    )
    return f"{options.aligned([heads, *rows, total])}\n{said}"


def _table(folder: Path) -> str:
    """The final results of each method as a few aligned lines."""
    from widevalley.experiments.report import plus_minus
    from widevalley.experiments.results import read

    comparison = read(folder)
    rows = [("method", "lr", "test error %", "test loss", "ms a gradient")]
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
    return options.aligned(rows)
