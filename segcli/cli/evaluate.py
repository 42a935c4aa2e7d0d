"""segcli eval on the command line."""

from pathlib import Path
from typing import Annotated

import typer

from segcli.cli import texts
from segcli.cli.shared import MOST_JOBS, Config, Debug, Json, LogFile, PageAxes, Quiet, Recursive, Verbose, end_with
from segcli.options import Absent, BoundaryUnit, EvalOptions, ObjectKind, Unpredicted


def evaluate(
    predicted: Annotated[
        Path, typer.Argument(help="Predicted masks: a file, a folder, or a CSV file with the columns predicted, truth.")
    ],
    truth: Annotated[Path | None, typer.Argument(help="True masks, matched by name.")] = EvalOptions.truth,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for report.html, report.json, per_class.csv and per_image.csv."),
    ] = EvalOptions.out,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Class table: JSON, CSV, .qml, .clr (default: classes.json or .csv by the truth, or values found)."
        ),
    ] = EvalOptions.classes,
    absent: Annotated[
        Absent, typer.Option(help="What a class that is neither there nor predicted counts in a mean.")
    ] = EvalOptions.absent,
    unpredicted: Annotated[
        Unpredicted,
        typer.Option(help="Pixels with a true class and no prediction: left out, or counted as missed (for bars)."),
    ] = EvalOptions.unpredicted,
    align: Annotated[
        bool, typer.Option("--align", help="Resample predictions to the grid of the truth, by nearest neighbour.")
    ] = EvalOptions.align,
    boundary: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTH",
            help="Boundary IoU and F-score within so many pixels (2), metres (5m) or micrometres (0.5um).",
        ),
    ] = None,
    distances: Annotated[
        BoundaryUnit | None, typer.Option(help="Hausdorff 95 and mean distance between outlines, in that unit.")
    ] = EvalOptions.distances,
    objects: Annotated[
        ObjectKind | None,
        typer.Option(
            help="Average precision, panoptic quality and counts of objects. components: pixels of a class that "
            "touch; labels: the masks hold a number for each object; against-labels: only the true ones do, and what "
            "touches in a prediction is an object."
        ),
    ] = EvalOptions.objects,
    scores: Annotated[
        Path | None,
        typer.Option(help="Probabilities, as predict --probabilities writes them: calibration, curves, thresholds."),
    ] = EvalOptions.scores,
    images: Annotated[
        Path | None, typer.Option(help="The images themselves, for the best and worst in report.html.")
    ] = EvalOptions.images,
    axes: PageAxes = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Also figures by group: what this regular expression finds in a name."),
    ] = EvalOptions.group_by,
    compare: Annotated[
        Path | None, typer.Option(help="Another report.json: what got better and worse since, on the same images.")
    ] = EvalOptions.compare,
    min_miou: Annotated[
        float | None, typer.Option(min=0, max=1, help="End with exit code 4 if mIoU is lower.")
    ] = EvalOptions.min_miou,
    min_iou: Annotated[
        list[str] | None, typer.Option(metavar="CLASS=VALUE", help="The same for one class; may be repeated.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_JOBS,
            help="Processes that compare files (default: one for each core, of few and small files one).",
        ),
    ] = EvalOptions.jobs,
    recursive: Recursive = False,
    config: Config = None,
    json: Json = False,
    log_file: LogFile = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare masks with the truth: IoU, Dice, precision, recall and more, with intervals."""
    bars = texts.class_bars(min_iou or ())
    options = EvalOptions(
        predicted, truth, out, classes, absent, unpredicted, align, texts.width(boundary), distances, objects, scores,
        images, texts.axes(axes), texts.pattern("--group-by", group_by), compare, min_miou, bars, jobs, recursive,
        debug,
    )  # fmt: skip
    from segcli.console import Console
    from segcli.evaluate import run

    end_with(lambda: run(options, Console(quiet, json, verbose, log_file)))
