"""segcli eval: predicted masks beside true ones, figures out."""

import csv
import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import ahead
from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.files import replacing
from segcli.matching import match_folders
from segcli.measures.boundaries import BoundaryCounts, boundary_counts, margin_of
from segcli.measures.confusion import Matrix, count_values
from segcli.measures.report import ImageCounts, per_class_rows, per_image_rows, report, to_csv
from segcli.options import BoundaryUnit, EvalOptions
from segcli.raster.align import aligned
from segcli.raster.labels import check_mask, embedded_table, table_of, values_in, written_table
from segcli.raster.sink import faults_of_writing
from segcli.raster.source import Source, Strip
from segcli.validity import both, written_out

MISSED = 4
"""Exit code where a bar that was asked for is missed."""


@dataclass(frozen=True)
class Pair:
    """A predicted mask and the true one; the name is for the report."""

    name: str
    predicted: Path
    truth: Path


def run(options: EvalOptions, console: Console) -> int:
    """Compare all pairs, report, and return the exit code."""
    pairs = find_pairs(options)
    classes = find_classes(options, pairs)
    for name, _ in options.min_iou:
        if name not in classes.names:
            raise UsageError("--min-iou", f"no class {name!r}", f"expected one of {', '.join(classes.names)}")
    images: list[ImageCounts] = []
    failed = 0
    with console.progress(len(pairs)) as progress:
        for pair in pairs:
            try:
                images.append(compare(pair, classes, options.align, options.boundary))
            except InputError as error:
                failed += 1
                console.fail(error)
            else:
                progress.advance(1, int(images[-1].matrix.sum()))
    if not images:
        raise NothingDoneError(options.predicted, "no pair could be compared", "", "see the lines above")
    found = report(images, classes.names, options.absent)
    if found["pixels"] == 0:
        raise NothingDoneError(options.truth or options.predicted, "not one pixel has a true and a predicted class")
    show(found, console)
    if options.out is not None:
        write(options.out, found, images, classes, options)
        console.result(options.out / "report.json")
    missed = missed_bars(found, options)
    for line in missed:
        console.say(line)
    console.say(f"done {len(images)}  failed {failed}")
    return 1 if failed else MISSED if missed else 0


def find_pairs(options: EvalOptions) -> list[Pair]:
    """Two files, two folders matched by name, or a table with the columns predicted and truth.

    Raises UsageError with what has no partner, NothingDoneError where nothing has one.
    """
    predicted, truth = options.predicted, options.truth
    if truth is None:
        return list(_table(predicted))
    if predicted.is_file() and truth.is_file():
        return [Pair(predicted.stem, predicted, truth)]
    if not (predicted.is_dir() and truth.is_dir()):
        missing = next((path for path in (predicted, truth) if not path.exists()), predicted)
        raise UsageError(missing, "no such file or folder" if not missing.exists() else "a file beside a folder",
                         "expected two masks, two folders, or a table of pairs")  # fmt: skip
    pairs = match_folders(predicted, truth, options.recursive)
    if not pairs:
        raise NothingDoneError(predicted, f"no mask has the name of one in {truth}", "", "name them alike")
    return [Pair(*entry) for entry in pairs]


def _table(path: Path) -> Iterator[Pair]:
    """Pairs from a CSV file; relative paths are relative to it."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(path, f"cannot be read: {error}", "expected TRUTH, or a CSV file of pairs") from error
    if not rows or not {"predicted", "truth"} <= rows[0].keys():
        raise UsageError(path, "no table of pairs", "expected the columns predicted and truth")
    for number, row in enumerate(rows, start=2):
        if not row["predicted"] or not row["truth"]:
            raise UsageError(path, f"line {number} lacks one of the two", "expected a predicted and a true mask")
        yield Pair(row["predicted"], path.parent / row["predicted"], path.parent / row["truth"])


def find_classes(options: EvalOptions, pairs: list[Pair]) -> ClassTable:
    """The given table, `classes.json` beside the truth, what the masks say themselves, or the values in them."""
    folder = options.truth if options.truth is not None and options.truth.is_dir() else pairs[0].truth.parent
    return (
        written_table(options.classes, [folder, folder.parent])
        or embedded_table(pairs[0].truth)
        or embedded_table(pairs[0].predicted)
        or _table_of_values([pair.truth for pair in pairs], [pair.predicted for pair in pairs])
    )


def _table_of_values(truths: list[Path], predictions: list[Path]) -> ClassTable:
    true, found = values_in(truths), values_in(predictions)
    if true == [0, 255]:  # black and white, if the predictions do not say otherwise
        return table_of(sorted({*true, *found}), truths[0])
    return table_of(sorted({*true, *found} - {255}), truths[0])


def compare(
    pair: Pair, classes: ClassTable, align: bool, boundary: tuple[float, BoundaryUnit] | None = None
) -> ImageCounts:
    """Count one pair, row by row. InputError where the grids differ or a value is no class."""
    with Source(pair.truth, "mask") as truth, Source(pair.predicted, "mask") as given:
        for source in (truth, given):
            check_mask(source)
        if _differ(truth, given) and not align:
            raise InputError(
                pair.predicted, f"{_size(given)} on another grid than {pair.truth}", f"expected {_size(truth)}",
                "--align resamples it where both lie on earth",
            )  # fmt: skip
        predicted = aligned(given, truth.grid) if _differ(truth, given) else given
        width = boundary_width(truth, boundary) if boundary is not None else 0.0
        counts = Counts(classes, width)
        strips = ahead(zip(truth.strips(512), predicted.strips(512), strict=True))  # read in a thread, count here
        with closing(strips):
            for true, found in strips:
                counts.add(true, found)
    return counts.of_image(pair)


def boundary_width(truth: Source, boundary: tuple[float, BoundaryUnit]) -> float:
    """The tolerance in pixels of the truth. InputError where it is in metres and the pixels are not."""
    width, unit = boundary
    if unit == "pixels":
        return width
    grid = truth.grid
    if grid.transform is None or grid.crs is None or not grid.crs.is_projected:
        raise InputError(truth.path, "its pixels have no size in metres", "--boundary asks for metres", "give pixels")
    return width / (math.hypot(grid.transform.a, grid.transform.d) * float(grid.crs.linear_units_factor[1]))


class Counts:
    """What is counted of one pair, strip by strip: values, and outlines of every class if a width is given."""

    def __init__(self, classes: ClassTable, width: float) -> None:
        self._classes, self._width = classes, width
        self._values, self._lost = np.zeros((256, 256), np.int64), np.zeros(256, np.int64)
        self._boundaries = [BoundaryCounts() for _ in classes.entries] if width else []
        self._held: tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]] | None = None
        self._due = 0  # the first held row whose outlines are not counted

    def add(self, true: Strip, found: Strip) -> None:
        """The next rows of both."""
        one, other = true.pixels[0], found.pixels[0]
        valid = both(true.valid, found.valid)
        if valid is None:
            self._values += count_values(one, other)
        else:
            known = written_out(true.valid, one.shape)
            self._lost += np.bincount(one[known & ~valid], minlength=256)
            self._values += count_values(one[valid], other[valid])
        if self._width:
            ignored = one == (-1 if self._classes.ignore is None else self._classes.ignore)
            strip = one, other, written_out(valid, one.shape) & ~ignored
            held = strip if self._held is None else tuple(map(np.concatenate, zip(self._held, strip, strict=True)))
            self._held = held  # type: ignore[assignment]  # three arrays, as before
            self._count_outlines(len(held[0]) - margin_of(self._width))

    def _count_outlines(self, end: int) -> None:
        """Of held rows up to `end`; those that later ones need are kept."""
        if self._held is None or end <= self._due:
            return
        one, other, known = self._held
        for n, entry in enumerate(self._classes.entries):
            self._boundaries[n] += boundary_counts(
                one == entry.index, other == entry.index, self._width, known, slice(self._due, end)
            )
        first = max(0, end - margin_of(self._width))
        self._held, self._due = (one[first:], other[first:], known[first:]), end - first

    def of_image(self, pair: Pair) -> ImageCounts:
        """All that was counted. InputError where a value is no class."""
        if self._held is not None:
            self._count_outlines(len(self._held[0]))
        return by_class(pair, self._values, self._lost, self._classes, tuple(self._boundaries))


def _size(source: Source) -> str:
    return f"{source.grid.width} x {source.grid.height} pixels"


def _differ(one: Source, other: Source) -> bool:
    first, second = one.grid, other.grid
    if (first.height, first.width) != (second.height, second.width):
        return True
    if first.transform is None or second.transform is None:
        return False  # a picture's mask has no place to disagree about
    moved = np.abs(np.array(first.transform[:6]) - np.array(second.transform[:6])).max()
    return first.crs != second.crs or moved > 1e-3 * abs(first.transform.a)


def by_class(
    pair: Pair, values: Matrix, lost: NDArray[np.int64], classes: ClassTable, boundaries: tuple[BoundaryCounts, ...]
) -> ImageCounts:
    """Counts of values as a confusion matrix; pixels without a true or a predicted class are left out.

    `lost` counts the true values of pixels where the prediction has no data. InputError on values that are no class.
    """
    positions = classes.positions()
    for counts, path in ((values.sum(1), pair.truth), (values.sum(0), pair.predicted)):
        foreign = np.flatnonzero((counts > 0) & (positions == -2))
        if foreign.size:
            listed = ", ".join(f"{value} ({counts[value]} pixels)" for value in foreign[:5])
            raise InputError(path, f"values that are no class: {listed}", "expected those of the class table",
                             "give --classes, or mark pixels without a label")  # fmt: skip
    indices = classes.indices
    matrix = values[np.ix_(indices, indices)]
    return ImageCounts(pair.name, matrix, int(values[indices].sum() - matrix.sum() + lost[indices].sum()), boundaries)


def missed_bars(found: dict[str, Any], options: EvalOptions) -> list[str]:
    """A line for each bar that was asked for and is missed; a figure that is undefined misses."""
    bars = []
    if options.min_miou is not None:
        bars.append(("mIoU", found["dataset"]["mean_iou"]["value"], options.min_miou))
    of_class = {entry["class"]: entry["iou"]["value"] for entry in found["per_class"]}
    bars += [(f"IoU of {name}", of_class[name], bar) for name, bar in options.min_iou]
    return [
        f"{name} {'undefined' if value is None else f'{value:.4f}'} is under {bar:g}"
        for name, value, bar in bars
        if value is None or value < bar
    ]


def show(found: dict[str, Any], console: Console) -> None:
    """Two tables: classes, and the whole."""
    rows = [
        [entry["class"], *(_percent(entry[name]) for name in ("iou", "dice", "precision", "recall")),
         str(entry["true_pixels"])]
        for entry in found["per_class"]
    ]  # fmt: skip
    columns = ["class", "IoU", "Dice", "precision", "recall", "true pixels"]
    if "boundary_iou" in found["per_class"][0]:
        columns += ["boundary IoU", "boundary F"]
        for row, entry in zip(rows, found["per_class"], strict=True):
            row += [_percent({"value": entry[name]}) for name in ("boundary_iou", "boundary_f_score")]
    console.table("all pixels together", columns, rows)
    dataset, mean = found["dataset"], found["mean_over_images"]
    rows = [[name.replace("_", " "), _percent(dataset[name]), _percent({"value": mean[name]})] for name in dataset]
    console.table(f"{found['images']} images", ["figure", "all pixels together", "mean over images"], rows)


def _percent(figure: dict[str, float | None]) -> str:
    value, low, high = figure["value"], figure.get("low"), figure.get("high")
    if value is None:
        return "-"
    return f"{value:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")


def write(
    folder: Path, found: dict[str, Any], images: list[ImageCounts], classes: ClassTable, options: EvalOptions
) -> None:
    """report.json, per_class.csv and per_image.csv."""
    texts = {
        "report.json": json.dumps(found, indent=1) + "\n",
        "per_class.csv": to_csv(per_class_rows(found)),
        "per_image.csv": to_csv(per_image_rows(images, classes.names, options.absent)),
    }
    for name, text in texts.items():
        with replacing(folder / name, faults_of_writing) as part, faults_of_writing(folder / name):
            part.write_text(text, encoding="utf-8")
