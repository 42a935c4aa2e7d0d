"""segcli train on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from segcli.cli import texts
from segcli.cli.shared import (
    MOST_JOBS,
    Config,
    Debug,
    Device,
    Level,
    LogFile,
    Mpp,
    PageAxes,
    Quiet,
    Verbose,
    end_with,
    given,
)  # fmt: skip
from segcli.options import Augment, EncoderName, LossKind, Norm, Padding, Skip, TrainOptions, TrainPrecision, Up


def train(
    context: typer.Context,
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder with images/ and masks/, or with train/ and val/ that hold them; or a CSV file with the "
            "columns image, mask and maybe split, group, instances."
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for weights and history (default: runs/NAME OF DATA).")
    ] = TrainOptions.out,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Class table: JSON, CSV, QGIS .qml or .clr (default: DATA/classes.json or .csv, or the values found)."
        ),
    ] = TrainOptions.classes,
    val: Annotated[
        float, typer.Option(min=0.01, max=0.9, help="Share to validate on where DATA has no val/.")
    ] = TrainOptions.val,
    split_seed: Annotated[
        int, typer.Option(min=0, help="Another number validates on other images; by itself their names decide.")
    ] = TrainOptions.split_seed,
    fold: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Cross-validation: validate on the I-th of N parts, learn from the others."),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Images in whose names it finds the same stay in one split."),
    ] = TrainOptions.group_by,
    check: Annotated[bool, typer.Option("--check", help="Look at the data, say what is odd, and stop.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = TrainOptions.epochs,
    minutes: Annotated[
        float | None, typer.Option(min=0.001, help="Train for so long, however many epochs that is.")
    ] = TrainOptions.minutes,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better mIoU.")
    ] = TrainOptions.patience,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights", "-w", help="Begin with these, of a file that train wrote or bundled by that name, not afresh."
        ),
    ] = TrainOptions.weights,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="BAND,BAND,...",
            help="Learn from these bands of the images, from 1 or by name, in this order, not all.",
        ),
    ] = None,
    axes: PageAxes = None,
    level: Level = TrainOptions.level,
    mpp: Mpp = TrainOptions.mpp,
    input_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW%,HIGH%[,per-band]|none",
            help="Bring each image to percentiles of its own values, now and in predict: for unlike exposures "
            "(default: none, or those of --weights).",
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(min=1, max=1024, help="Channels of the first level; doubled at each.")
    ] = TrainOptions.width,
    depth: Annotated[int, typer.Option(min=1, max=8, help="How often the image is halved.")] = TrainOptions.depth,
    norm: Annotated[Norm, typer.Option(help="Normalisation between convolutions.")] = TrainOptions.norm,
    dropout: Annotated[float, typer.Option(min=0, max=0.95, help="At the deepest level.")] = TrainOptions.dropout,
    padding: Annotated[
        Padding, typer.Option(help="same: zeros at the border. valid: none, the image mirrored, as in the paper.")
    ] = TrainOptions.padding,
    up: Annotated[Up, typer.Option(help="How the decoder doubles rows and columns.")] = TrainOptions.up,
    skip: Annotated[Skip, typer.Option(help="What becomes of the encoder's features beside the decoder's.")] = "concat",
    encoder: Annotated[
        EncoderName, typer.Option(help="plain is the U-Net's own; the others are torchvision's, of depth 5.")
    ] = TrainOptions.encoder,
    pretrained: Annotated[
        bool, typer.Option("--pretrained/--no-pretrained", help="Fetch ImageNet weights for torchvision's encoders.")
    ] = TrainOptions.pretrained,
    encoder_weights: Annotated[
        Path | None,
        typer.Option(help="Take those from this file, a state dict of torchvision's model, .pth or .safetensors."),
    ] = TrainOptions.encoder_weights,
    freeze: Annotated[
        int, typer.Option(min=0, help="Leave the encoder as it is for so many epochs.")
    ] = TrainOptions.freeze,
    freeze_norms: Annotated[
        bool, typer.Option("--freeze-norms", help="Leave batch norm's means and variances as --weights has them.")
    ] = False,
    crop: Annotated[
        int, typer.Option(min=16, help="Side of the training crops in pixels; at most the largest image's.")
    ] = TrainOptions.crop,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step, over all processes.")] = TrainOptions.batch,
    augment: Annotated[
        Augment,
        typer.Option(
            help="light: flips, 90-degree turns, brightness. geometric: also any angle, scale, deformation. "
            "full: also colour, blur, noise."
        ),
    ] = TrainOptions.augment,
    upright: Annotated[
        bool,
        typer.Option("--upright", help="Images have an up, as streets do: mirrored left to right only, hardly turned."),
    ] = False,
    keep_values: Annotated[
        bool,
        typer.Option(
            "--keep-values",
            help="Pixels measure something (reflectance, Hounsfield units, heights): brightness and contrast stay.",
        ),
    ] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="Take every other crop where a class is that is drawn from all.")
    ] = TrainOptions.balance,
    loss: Annotated[LossKind, typer.Option(help="Loss function.")] = TrainOptions.loss,
    class_weights: Annotated[
        str, typer.Option(metavar="none|auto|N,N,...", help="auto: by median frequency; or one for each class.")
    ] = "none",
    border_weight: Annotated[
        float,
        typer.Option(min=0, help="Put a gap between touching objects, of this weight; needs instances/ (paper: 10)."),
    ] = TrainOptions.border_weight,
    border_gap: Annotated[
        int, typer.Option(min=0, max=2, help="Pixels of that gap; fewer cost objects less of their area.")
    ] = TrainOptions.border_gap,
    label_smoothing: Annotated[float, typer.Option(min=0, max=0.5, help="Of the cross entropy.")] = 0.0,
    ignore: Annotated[
        int | None, typer.Option(min=0, max=255, help="Mask value without a label (default: the class table's, 255).")
    ] = TrainOptions.ignore,
    learning_rate: Annotated[float, typer.Option(min=0, help="Highest rate of AdamW.")] = TrainOptions.learning_rate,
    weight_decay: Annotated[float, typer.Option(min=0, help="Weight decay of AdamW.")] = TrainOptions.weight_decay,
    ema: Annotated[
        float, typer.Option(min=0, max=0.99999, help="Decay of the averaged weights that are kept; 0: the last ones.")
    ] = TrainOptions.ema,
    clip: Annotated[float, typer.Option(min=0, help="Largest norm of the gradient; 0: no limit.")] = TrainOptions.clip,
    seed: Annotated[
        int, typer.Option(min=0, max=2**64 - 1, help="First weights, crops and augmentation follow it.")
    ] = 0,
    precision: Annotated[
        TrainPrecision, typer.Option(help="auto is bf16 on a GPU that has it, fp32 elsewhere.")
    ] = TrainOptions.precision,
    compile: Annotated[bool, typer.Option("--compile", help="Let torch compile the network first.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Store weights in half precision: half the file.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, max=MOST_JOBS, help="Threads that make crops (default: one for each core).")
    ] = TrainOptions.workers,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in OUT that was stopped.")] = False,
    resume_if_any: Annotated[
        bool, typer.Option("--resume-if-any", help="The same, but begin anew where OUT has none: for jobs put back.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the training that is in OUT.")] = False,
    device: Device = TrainOptions.device,
    json: Annotated[bool, typer.Option("--json", help="A JSON object for each epoch on stdout.")] = False,
    config: Config = None,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a network on images and masks, and keep the best weights."""
    options = TrainOptions(
        data, out, classes, val, split_seed, texts.fold(fold), texts.pattern("--group-by", group_by), check, epochs,
        minutes, patience, weights, texts.bands(bands), texts.axes(axes), level, mpp,
        texts.percentiles("--input-range", input_range), width, depth, norm, dropout, padding, up, skip, encoder,
        pretrained, encoder_weights, freeze, freeze_norms, crop, batch, augment, upright, keep_values,
        balance, loss, texts.class_weights(class_weights), border_weight, border_gap, label_smoothing, ignore,
        learning_rate, weight_decay, ema, clip, seed, precision, compile, half, workers, resume, resume_if_any,
        overwrite, device,
    )  # fmt: skip
    from segcli.console import Console
    from segcli.train import run

    end_with(lambda: run(options, Console(quiet, json, verbose, log_file), given(context)))
