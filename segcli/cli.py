"""The command line: five thin commands. The only user of typer. Imports a verb inside its command, so help is quick."""

import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import segcli
from segcli.errors import SegcliError, UsageError, one_line
from segcli.options import (
    Absent,
    BoundaryUnit,
    Compression,
    EvalOptions,
    Format,
    Norm,
    PolygonFormat,
    Precision,
    PredictOptions,
    Quantity,
    Stitch,
    TrainOptions,
    TrainPrecision,
    Weighting,
)

app = typer.Typer(
    name="segcli",
    help="Label every pixel of large satellite and medical images with a PyTorch U-Net.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

INTERRUPTED, BROKEN_PIPE = 130, 141  # as shells count the signals

# Options that several verbs share, each declared once.
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that segcli did not write, too.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")]


@app.callback(invoke_without_command=True)
def common(version: Annotated[bool, typer.Option("--version", help="Show the version and end.")] = False) -> None:
    if version:
        print(f"segcli {segcli.__version__}")
        raise typer.Exit


@app.command(epilog="Example: segcli predict scans/ --out masks/ --weights runs/mine/best.safetensors --overlay")
def predict(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Images, folders of images, URLs and what else GDAL opens.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks; for one image, a file name too.")],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", "-w", help="A file that train wrote, or the name of bundled weights (default: nuclei)."
        ),
    ] = PredictOptions.weights,
    bands: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Bands of the image, from 1, in the order of the weights.")
    ] = None,
    level: Annotated[
        int | None, typer.Option(min=0, help="Level of a pyramid or slide; 0 is the whole size.")
    ] = PredictOptions.level,
    mpp: Annotated[
        float | None, typer.Option(min=1e-6, help="The level with about so many micrometres a pixel.")
    ] = PredictOptions.mpp,
    format: Annotated[
        Format, typer.Option(help="auto: PNG for pictures, GeoTIFF for all else. cog: cloud-optimised GeoTIFF.")
    ] = PredictOptions.format,
    compress: Annotated[Compression, typer.Option(help="Of GeoTIFFs.")] = PredictOptions.compress,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also the probability of every class, into OUT/probabilities.")
    ] = PredictOptions.probabilities,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also the top probability and the entropy, into OUT/confidence.")
    ] = PredictOptions.confidence,
    quantity: Annotated[
        Quantity, typer.Option(help="How these are stored: uint8 counts in steps of 0.004.")
    ] = PredictOptions.quantity,
    polygons: Annotated[
        PolygonFormat | None, typer.Option(help="Also polygons of the classes, into OUT/polygons.")
    ] = PredictOptions.polygons,
    min_area: Annotated[
        float, typer.Option(min=0, help="Smallest polygon: square metres, or pixels of images that lie nowhere.")
    ] = PredictOptions.min_area,
    simplify: Annotated[
        float, typer.Option(min=0, help="How far corners of polygons may move, in units of the coordinates.")
    ] = PredictOptions.simplify,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write the image with its classes in colour, into OUT/overlays.")
    ] = PredictOptions.overlay,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Strength of the colours in overlays.")
    ] = PredictOptions.alpha,
    input_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            help="Values of the image that stand for the lowest and the highest that the weights know (0 and 255 for "
            "8-bit weights). Left out, a 16-bit image is taken to use 8, 10, 12, 14 or 16 bits by its highest value.",
        ),
    ] = None,
    stitch: Annotated[
        Stitch,
        typer.Option(
            help="stream: rows flow through the network, equal to one pass over the whole image. windows: overlapping "
            "windows are averaged. auto: stream wherever the network allows it."
        ),
    ] = PredictOptions.stitch,
    window: Annotated[int, typer.Option(min=16, help="Side of the windows in pixels.")] = PredictOptions.window,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a window that the next one covers again.")
    ] = PredictOptions.overlap,
    weighting: Annotated[Weighting, typer.Option(help="Weights within a window.")] = PredictOptions.weighting,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over flips and quarter turns, in windows: eight times the work.")
    ] = PredictOptions.tta,
    recursive: Annotated[bool, typer.Option("--recursive", help="Folders below the folders, too.")] = False,
    overwrite: Overwrite = False,
    device: Device = PredictOptions.device,
    precision: Annotated[
        Precision, typer.Option(help="auto is bf16 on a GPU that has it, fp32 elsewhere.")
    ] = PredictOptions.precision,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What the network may use, 1.5GB or 800MB (default: half of what is free, on the CPU 256MiB).",
        ),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label every pixel: one mask of class indices for each image."""
    from segcli.raster.names import parse

    options = PredictOptions(
        tuple(parse(text) for text in inputs), out, weights, _band_numbers(bands), level, mpp, format, compress,
        probabilities, confidence, quantity, polygons, min_area, simplify, overlay, alpha,
        _number_pair("--input-range", input_range), stitch, window, overlap, weighting, tta, recursive, overwrite,
        device, precision, _bytes("--memory", memory), quiet, debug,
    )  # fmt: skip
    from segcli.console import Console
    from segcli.predict import run

    _end_with(lambda: run(options, Console(quiet)))


@app.command(name="eval", epilog="Example: segcli eval masks/ truth/ --out report/ --min-miou 0.8")
def evaluate(
    predicted: Annotated[
        Path, typer.Argument(help="Predicted masks: a file, a folder, or a CSV file with the columns predicted, truth.")
    ],
    truth: Annotated[Path | None, typer.Argument(help="True masks, matched by name.")] = EvalOptions.truth,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for report.json, per_class.csv and per_image.csv.")
    ] = EvalOptions.out,
    classes: Annotated[
        Path | None,
        typer.Option(help="Class table in JSON (default: classes.json beside the truth, or the values found)."),
    ] = EvalOptions.classes,
    absent: Annotated[
        Absent, typer.Option(help="What a class that is neither there nor predicted counts in a mean.")
    ] = EvalOptions.absent,
    align: Annotated[
        bool, typer.Option("--align", help="Resample predictions to the grid of the truth, by nearest neighbour.")
    ] = EvalOptions.align,
    boundary: Annotated[
        str | None,
        typer.Option(metavar="WIDTH", help="Boundary IoU and F-score within so many pixels (2), or metres (5m)."),
    ] = None,
    min_miou: Annotated[
        float | None, typer.Option(min=0, max=1, help="End with exit code 4 if mIoU is lower.")
    ] = EvalOptions.min_miou,
    min_iou: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=VALUE", help="The same for one class; may be repeated.")
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", help="Folders below the folders, too.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare masks with the truth: IoU, Dice, precision, recall and more, with intervals."""
    bars = tuple(_class_bar(text) for text in min_iou or ())
    options = EvalOptions(
        predicted, truth, out, classes, absent, align, _width(boundary), min_miou, bars, recursive, quiet, debug
    )
    from segcli.console import Console
    from segcli.evaluate import run

    _end_with(lambda: run(options, Console(quiet)))


@app.command(epilog="Example: segcli train data/ --out runs/first --epochs 30")
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

    _end_with(lambda: run(options, Console(quiet)))


def _end_with(run: Callable[[], int]) -> NoReturn:
    """Run a verb and end with its exit code."""
    try:
        code = run()
    except BrokenPipeError:  # here, because typer would make exit code 1 of it
        # The reader of our stdout has what it wanted (head, for one); Python must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = BROKEN_PIPE
    raise typer.Exit(code)


def _width(text: str | None) -> tuple[float, BoundaryUnit] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(m?)", text)
    if not found or float(found[1]) == 0:
        raise UsageError("--boundary", f"found {text!r}", "expected pixels, such as 2, or metres, such as 5m")
    return float(found[1]), "metres" if found[2] else "pixels"


def _class_bar(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        bar = float(value)
    except ValueError:
        bar = math.nan
    if not name or not 0 <= bar <= 1:
        raise UsageError("--min-iou", f"found {text!r}", "expected CLASS=VALUE, such as road=0.7")
    return name, bar


def _band_numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        raise UsageError("--bands", f"found {text!r}", "expected numbers from 1 on, such as 4,3,2")
    return tuple(map(int, text.split(",")))


def _number_pair(option: str, text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(option, f"found {text!r}", "expected two numbers, LOW,HIGH") from None
    if not (low < high and math.isfinite(low) and math.isfinite(high)):
        raise UsageError(option, f"found {text!r}", "expected LOW below HIGH")
    return low, high


def _bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if not found or float(found[1]) == 0:
        raise UsageError(option, f"found {text!r}", "expected a size such as 800MB, 1.5GB or 2GiB")
    return round(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))


def main() -> None:
    """The program: every failure becomes one line on stderr and an exit code."""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # typer makes an exit code of Ctrl-C
            _failed("interrupted", code)
        sys.stdout.flush()
    except SegcliError as error:
        code = _failed(str(error), error.exit_code)
    except typer.TyperException as error:  # wrong usage
        # Without arguments typer shows the help and has no message.
        message = error.format_message()
        code = _failed(f"{message} (see segcli --help)", error.exit_code) if message else error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = _failed("interrupted", INTERRUPTED)
    except Exception as error:  # a fault of ours: one line, too, and never exit code 0
        code = _failed(f"{type(error).__name__}: {error}; this is a fault in segcli; --debug shows where", 3)
    sys.exit(code or 0)


def _failed(text: str, code: int) -> int:
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    print(f"segcli: {one_line(text)}", file=sys.stderr, flush=True)
    return code
