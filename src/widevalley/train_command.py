"""``widevalley train``."""

from __future__ import annotations

import ast
import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from widevalley import options
from widevalley.options import DIVERGED, refuse

if TYPE_CHECKING:
    from widevalley.experiments.methods import Method


def train(
    task: options.TaskArgument = None,
    own_task: options.OwnTask = None,
    method: options.MethodOption = "entropy-sgd",
    lr: Annotated[
        float | None, typer.Option(min=0.0, max=1e38, help="Learning rate.", show_default="middle of the method's grid")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the optimizer, such as gamma=0.1; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of initialisation, data order and noise.")] = 0,
    epochs: options.Epochs = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/TASK-METHOD")] = None,
    batch_size: options.BatchSize = None,
    train_size: options.TrainSize = None,
    subset: options.Subset = None,
    label_noise: options.LabelNoise = 0.0,
    data_dir: options.DataDir = None,
    device: options.Device = None,
    tensorboard: options.TensorBoard = False,
    resume: options.Resume = False,
) -> None:
    """Train one network: metrics as JSON lines, weights as safetensors at the centre, checkpoints to go on from.

    The test set is not read: choose by the validation split, and let compare have the last word.

    Examples:

        widevalley train digits

        widevalley train mnist-lenet --method entropy-sgd --lr 0.3 --set inner_steps=5 --tensorboard
    """
    from widevalley.experiments.single import train_one
    from widevalley.experiments.train import Unit
    from widevalley.progress import Narrator
    from widevalley.stopping import Stopping

    chosen_task, changes = options.the_task(
        task, own_task, label_noise=label_noise, train_size=train_size, subset=subset, batch_size=batch_size
    )
    folder = out or Path("runs") / f"{chosen_task.name}-{method}"
    where = options.the_device(device)
    chosen = _the_method(method, setting or [])
    data = options.the_data(chosen_task, data_dir)
    with Stopping() as stopping, options.ending_in_words(stopping):
        rate = lr if lr is not None else chosen.learning_rates[2]
        gradients = chosen_task.gradients(len(data.train), epochs if epochs is not None else chosen_task.epochs)
        unit = Unit("train", chosen, float(rate), seed, gradients)
        with Narrator(stopping) as narrator:
            result = train_one(
                unit, chosen_task, data, folder, narrator,
                changes=changes.given(), resume=resume, device=where, tensorboard=tensorboard,
            )  # fmt: skip
    if result["diverged"]:
        refuse(
            f"Diverged after {result['gradients']:,} gradients: a loss was not finite. Try a lower --lr than {rate:g}, "
            f"in another --out. What there was until then: {folder / 'metrics.jsonl'}",
            DIVERGED,
        )
    typer.echo(
        f"Validation error {result['validation_error']:.2f} %, training loss {result['train_loss']:.4g}, after "
        f"{result['gradients']:,} gradients.\n"
        f"Metrics: {folder / 'metrics.jsonl'}\nWeights: {folder / 'center.safetensors'}"
    )


def _the_method(name: str, given: list[str]) -> Method:
    """The method, with settings of its optimizer changed."""
    from widevalley.experiments.extras import MissingExtra
    from widevalley.experiments.methods import METHODS
    from widevalley.experiments.tasks import perhaps

    if name not in METHODS:
        refuse(f"There is no method {name!r}.{perhaps(name, METHODS)} Methods: {', '.join(METHODS)}.")
    method = METHODS[name]
    settings: dict[str, Any] = {}
    for word in given:
        key, value = _parsed(word)
        if key in settings:
            refuse(f"--set {key}=… is given twice: give it once.")
        settings[key] = value
    changed = dataclasses.replace(method, build=functools.partial(method.build, **settings))
    try:
        changed.settings(method.learning_rates[2], 100)
    except MissingExtra as error:
        refuse(str(error))
    except (TypeError, ValueError) as error:
        own = method.settings(0.1, 100)
        unknown = "".join(perhaps(key, own) for key in settings if key not in own)
        refuse(f"--set does not fit {name}: {error}.{unknown} Its settings: {', '.join(own)}.")
    return changed


def _parsed(word: str) -> tuple[str, Any]:
    name, equals, value = word.partition("=")
    if not (name.isidentifier() and equals and value):
        refuse(f"--set {word!r} is not NAME=VALUE, such as gamma=0.1.")
    if name in ("lr", "seed"):
        refuse(f"--set {name}=…: it has an option of its own, --{name}.")
    try:
        return name, ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(value, value))
    except (ValueError, SyntaxError):
        refuse(f"--set {word!r}: {value!r} is not a number, True, False, None or a (tuple, of, them).")
