"""segcli predict on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from segcli.cli import texts
from segcli.cli.checks import check_images
from segcli.cli.shared import (
    MOST_JOBS,
    Config,
    Debug,
    Device,
    DryRun,
    Json,
    Level,
    LogFile,
    Mpp,
    Null,
    Overwrite,
    PageAxes,
    Quiet,
    Recursive,
    ShardText,
    StopAt,
    Verbose,
    Verify,
    between_colons,
    end_with,
)
from segcli.options import Compression, Format, PolygonFormat, Precision, PredictOptions, Quantity, Stitch, Weighting


def predict(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Images, folders, patterns, URLs and what else GDAL opens; - reads names from standard input.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the masks; for one image, a file name too.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            callback=between_colons,
            help="A file that train wrote, or the name of bundled weights (default: nuclei). Given more than once, or "
            "as a pattern in quotes ('runs/*/best.safetensors'): the mean of their scores.",
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(
            metavar="BAND,BAND,...", help="Bands of the image, from 1 or by name, in the order of the weights."
        ),
    ] = None,
    axes: PageAxes = None,
    level: Level = PredictOptions.level,
    mpp: Mpp = PredictOptions.mpp,
    format: Annotated[
        Format, typer.Option(help="auto: PNG for pictures without a place, GeoTIFF for all else. cog: cloud-optimised.")
    ] = PredictOptions.format,
    compress: Annotated[Compression, typer.Option(help="Of GeoTIFFs.")] = PredictOptions.compress,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also the probability of every class, into OUT/probabilities.")
    ] = PredictOptions.probabilities,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also the top probability and the entropy, into OUT/confidence.")
    ] = PredictOptions.confidence,
    quantity: Annotated[
        Quantity,
        typer.Option(
            help="How these are stored, and the means of objects and polygons taken: uint8 counts in steps of 0.004."
        ),
    ] = PredictOptions.quantity,
    objects: Annotated[
        bool, typer.Option("--objects", help="Also number the objects: a raster and a table, into OUT/objects.")
    ] = PredictOptions.objects,
    polygons: Annotated[
        PolygonFormat | None, typer.Option(help="Also polygons of the classes, into OUT/polygons.")
    ] = PredictOptions.polygons,
    min_pixels: Annotated[
        int, typer.Option(min=0, help="Smallest object of --objects and --polygons, in pixels of the mask.")
    ] = PredictOptions.min_pixels,
    min_area: Annotated[
        float,
        typer.Option(min=0, help="Smallest polygon: square metres, or pixels where the image is not georeferenced."),
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
            "8-bit weights), or percentiles of each file (0%,100%, or 0%,100%,per-band). Left out, those that the "
            "weights learnt from; else a 16-bit image is taken to use 8, 10, 12, 14 or 16 bits by its highest value.",
        ),
    ] = None,
    stitch: Annotated[
        Stitch,
        typer.Option(
            help="stream: rows flow through the network, equal to one pass over the whole image. windows: overlapping "
            "windows are averaged. auto: stream wherever the network allows it."
        ),
    ] = PredictOptions.stitch,
    window: Annotated[
        int, typer.Option(min=16, help="Side of the windows of --stitch windows, in pixels.")
    ] = PredictOptions.window,
    overlap: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of a window that the next one covers again.")
    ] = PredictOptions.overlap,
    weighting: Annotated[
        Weighting, typer.Option(help="How windows that overlap are blended.")
    ] = PredictOptions.weighting,
    tta: Annotated[
        bool,
        typer.Option(
            "--tta",
            help="Average over flips and quarter turns, eight times the work (weights of train --upright: left and "
            "right alone, twice).",
        ),
    ] = PredictOptions.tta,
    recursive: Recursive = False,
    null: Null = False,
    overwrite: Overwrite = False,
    device: Device = PredictOptions.device,
    precision: Annotated[
        Precision, typer.Option(help="auto is bf16 on a GPU that has it, fp32 elsewhere.")
    ] = PredictOptions.precision,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What may be used beside the program and its weights, 1.5GB or 800MB (default: half of what is free, "
            "on the CPU no more than 400MiB).",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            max=MOST_JOBS,
            help="Threads that read what comes next (default: 1, for a GPU up to 4) and that compress (up to 4).",
        ),
    ] = PredictOptions.jobs,
    shard: ShardText = None,
    dry_run: DryRun = False,
    verify: Verify = False,
    on_error: StopAt = "skip",
    config: Config = None,
    json: Json = False,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Label every pixel: one mask of class indices for each image."""
    from segcli.inputs import named

    check_images(inputs)
    options = PredictOptions(
        named(inputs, null), out, tuple(weights or ()), texts.bands(bands), texts.axes(axes), level, mpp, format,
        compress, probabilities, confidence, quantity, objects, polygons, min_pixels, min_area, simplify, overlay,
        alpha, texts.value_range("--input-range", input_range), stitch, window, overlap, weighting, tta, recursive,
        overwrite, device, precision, texts.size_in_bytes("--memory", memory), jobs, texts.shard(shard), dry_run,
        verify, on_error, debug,
    )  # fmt: skip
    from segcli.console import Console
    from segcli.predict import run

    end_with(lambda: run(options, Console(quiet, json, verbose, log_file)))
