"""segcli colorize on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from segcli.cli import texts
from segcli.cli.shared import (
    MOST_JOBS,
    Config,
    Debug,
    DryRun,
    Json,
    LogFile,
    Null,
    Overwrite,
    PageAxes,
    Quiet,
    Recursive,
    ShardText,
    StopAt,
    Verbose,
    Verify,
    end_with,
)
from segcli.options import ColorizeOptions, Compression, Format, Legend


def colorize(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="MASK...", help="Masks of class indices, folders, patterns; - reads names from standard input."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures; for one mask, a file name too.")],
    palette: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="voc, cityscapes, camvid, ade20k, okabe-ito, tab20, glasbey; or JSON, CSV, QGIS .qml or .clr, GIMP "
            ".gpl, weights that train wrote (default: the mask's own colours, or a class table beside it).",
        ),
    ] = ColorizeOptions.palette,
    classes: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Show only these: values or names of classes.")
    ] = None,
    palette_only: Annotated[
        bool,
        typer.Option("--palette-only", help="Leave the indices, add a colour table, and a .qml beside GeoTIFFs."),
    ] = ColorizeOptions.palette_only,
    over: Annotated[
        Path | None, typer.Option(help="Draw over these images: a folder, or one file for one mask.")
    ] = ColorizeOptions.over,
    bands: Annotated[
        str | None,
        typer.Option(metavar="BAND,BAND,BAND", help="Bands of the images, from 1 or by name, for red, green and blue."),
    ] = None,
    axes: PageAxes = None,
    alpha: Annotated[
        float, typer.Option(min=0, max=1, help="Strength of the colours over images.")
    ] = ColorizeOptions.alpha,
    contours: Annotated[
        int, typer.Option(min=0, max=99, help="Draw outlines of so many pixels instead of areas.")
    ] = ColorizeOptions.contours,
    legend: Annotated[
        Legend,
        typer.Option(help="Names, colours and shares of the area: on the picture, or as a .legend.png beside it."),
    ] = ColorizeOptions.legend,
    scale_bar: Annotated[
        bool, typer.Option("--scale-bar", help="A bar of a round length, where the size of a pixel is known.")
    ] = ColorizeOptions.scale_bar,
    compare: Annotated[
        Path | None,
        typer.Option(help="True masks, a folder or a file: mask, truth and where they agree, side by side."),
    ] = ColorizeOptions.compare,
    to_index: Annotated[
        bool, typer.Option("--to-index", help="Backwards: from masks in colours to class indices.")
    ] = ColorizeOptions.to_index,
    tolerance: Annotated[
        float, typer.Option(min=0, max=442, help="How far in RGB a colour may be from that of its class.")
    ] = ColorizeOptions.tolerance,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, max=MOST_JOBS, help="Small masks to draw at once (default: one a core)."),
    ] = ColorizeOptions.jobs,
    format: Annotated[
        Format, typer.Option(help="auto: PNG for pictures without a place, GeoTIFF for all else. cog: cloud-optimised.")
    ] = ColorizeOptions.format,
    compress: Annotated[Compression, typer.Option(help="Of GeoTIFFs.")] = ColorizeOptions.compress,
    recursive: Recursive = False,
    null: Null = False,
    overwrite: Overwrite = False,
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
    """Masks as pictures that people can read: in colours, over the images, or beside the truth."""
    from segcli.inputs import named

    options = ColorizeOptions(
        named(inputs, null), out, palette, texts.names(classes), palette_only, over,
        texts.bands(bands), texts.axes(axes), alpha, contours, legend, scale_bar, compare, to_index, tolerance, jobs,
        format, compress, recursive, overwrite, texts.shard(shard), dry_run, verify, on_error, debug,
    )  # fmt: skip
    from segcli.colorize import run
    from segcli.console import Console

    end_with(lambda: run(options, Console(quiet, json, verbose, log_file)))
