"""segcli tile on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from segcli.cli import texts
from segcli.cli.shared import (
    MOST_JOBS,
    Config,
    Debug,
    Json,
    LogFile,
    Null,
    Quiet,
    Recursive,
    ShardText,
    StopAt,
    Verbose,
    Verify,
    end_with,
)
from segcli.options import Compression, Edge, Merge, TileFormat, TileOptions


def tile(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Rasters, folders, patterns, - for names on standard input; with --join, folders of tiles.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the tiles (default: NAME_tiles beside each raster); with --join, a file too.",
        ),
    ] = TileOptions.out,
    size: Annotated[int, typer.Option(min=1, help="Side of a tile in pixels.")] = TileOptions.size,
    overlap: Annotated[
        float, typer.Option(min=0, help="Pixels that neighbours share; below 1, a share of a tile.")
    ] = TileOptions.overlap,
    edge: Annotated[
        Edge,
        typer.Option(
            help="The last row and column: moved back inside (shift), filled up with no data (pad), smaller (keep), "
            "left out (drop)."
        ),
    ] = TileOptions.edge,
    format: Annotated[
        TileFormat, typer.Option(help="auto: PNG for pictures where it keeps all, (Geo)TIFF for all else.")
    ] = TileOptions.format,
    compress: Annotated[Compression, typer.Option(help="Of TIFFs.")] = TileOptions.compress,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Labels to cut alongside, into images/ and masks/: a raster, polygons (.gpkg, .geojson, ...), or a "
            "folder of either, matched by name."
        ),
    ] = TileOptions.masks,
    attribute: Annotated[
        str | None, typer.Option(metavar="NAME", help="Attribute of the polygons that names their class.")
    ] = TileOptions.attribute,
    classes: Annotated[
        Path | None, typer.Option(help="Class table of the labels (default: classes.json or .csv beside them).")
    ] = TileOptions.classes,
    min_valid: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out tiles with a smaller share of data.")
    ] = TileOptions.min_valid,
    min_label: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out tiles with a smaller share of labels other than background.")
    ] = TileOptions.min_label,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="A/B[/C]",
            help="Shares of train/, val/ and test/, such as 0.8/0.1/0.1: blocks of neighbours, of "
            "which no two of different splits touch.",
        ),
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Only so many tiles in all, by chance, classes in balance.")
    ] = TileOptions.sample,
    seed: Annotated[int, typer.Option(min=0, help="Of --split and --sample.")] = TileOptions.seed,
    shard: ShardText = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show tiles, bytes and time, and write nothing.")] = False,
    verify: Verify = False,
    join: Annotated[
        bool, typer.Option("--join", help="Put tiles, or what any program made of them, back together.")
    ] = False,
    manifest: Annotated[
        Path | None, typer.Option(help="With --join: the tiles.json (default: in the folder, or above it).")
    ] = TileOptions.manifest,
    merge: Annotated[
        Merge,
        typer.Option(
            help="With --join, where tiles overlap: cut in the middle, or average with smooth weights; auto averages "
            "what is no whole number."
        ),
    ] = TileOptions.merge,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="With --join: no data where a tile is missing.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, max=MOST_JOBS, help="Threads that encode (default: one for each core)."),
    ] = TileOptions.jobs,
    recursive: Recursive = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over, and replace files that segcli did not write, too.")
    ] = False,
    null: Null = False,
    on_error: StopAt = "skip",
    config: Config = None,
    json: Json = False,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Cut large rasters into tiles to train on, and put tiles back together."""
    from segcli.inputs import named

    options = TileOptions(
        named(inputs, null), out, size, overlap, edge, format, compress, masks, attribute, classes,
        min_valid, min_label, texts.shares("--split", split), sample, seed, texts.shard(shard), dry_run, verify, join,
        manifest, merge, allow_missing, jobs, recursive, overwrite, on_error, debug,
    )  # fmt: skip
    from segcli.console import Console
    from segcli.tile import run

    end_with(lambda: run(options, Console(quiet, json, verbose, log_file)))
