"""segcli train on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from segcli.cli.shared import Debug, Device, Overwrite, Quiet, end_with
from segcli.options import Norm, TrainOptions, TrainPrecision


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder with images/ and masks/, or with train/ and val/ that hold them.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for weights and history (default: runs/NAME OF DATA).")
    ] = TrainOptions.out,
    classes: Annotated[
        Path | None,
        typer.Option(help="Class table in JSON (default: DATA/classes.json, or the values found in the masks)."),
    ] = TrainOptions.classes,
    val: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share to validate on where DATA has no val/.")
    ] = TrainOptions.val,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = TrainOptions.epochs,
    width: Annotated[
        int, typer.Option(min=1, max=1024, help="Channels of the first level; doubled at each.")
    ] = TrainOptions.width,
    depth: Annotated[int, typer.Option(min=1, max=8, help="How often the image is halved.")] = TrainOptions.depth,
    norm: Annotated[Norm, typer.Option(help="Normalisation between convolutions.")] = TrainOptions.norm,
    dropout: Annotated[float, typer.Option(min=0, max=0.95, help="At the deepest level.")] = TrainOptions.dropout,
    crop: Annotated[int, typer.Option(min=16, help="Side of the training crops in pixels.")] = TrainOptions.crop,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = TrainOptions.batch,
    learning_rate: Annotated[float, typer.Option(min=0, help="Highest rate of AdamW.")] = TrainOptions.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0, help="Weight decay of AdamW.")] = TrainOptions.weight_decay,
    seed: Annotated[int, typer.Option(min=0, help="Split, first weights, crops and augmentation follow it.")] = 0,
    precision: Annotated[
        TrainPrecision, typer.Option(help="auto is bf16 on a GPU that has it, fp32 elsewhere.")
    ] = TrainOptions.precision,
    half: Annotated[bool, typer.Option("--half", help="Store weights in half precision: half the file.")] = False,
    overwrite: Overwrite = False,
    device: Device = TrainOptions.device,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a network on images and masks, and keep the best weights."""
    options = TrainOptions(
        data, out, classes, val, epochs, width, depth, norm, dropout, crop, batch, learning_rate, weight_decay,
        seed, precision, half, overwrite, device, quiet, debug,
    )  # fmt: skip
    from segcli.console import Console
    from segcli.train import run

    end_with(lambda: run(options, Console(quiet)))
