"""The objects of a finished mask, sets of pixels of one class that touch at edges: how large each is, where it lies and
how sure the network was, as a table, and a raster of their numbers. The mask is read in strips; in memory is what is
known of each object."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.components import Components
from segcli.files import replacing
from segcli.raster.faults import faults_of_writing
from segcli.raster.grid import Grid
from segcli.raster.sink import Encoding, Layout, create
from segcli.raster.source import Source

OBJECTS = "objects"
"""The folder inside the output folder."""

STRIP_PIXELS = 2**20
LINES = 2**16
"""Of the table, that are numbers of Python's at a time."""


@dataclass(frozen=True)
class Objects:
    """In the order of their first pixels, row by row.

    `first` is the place of that pixel, row * width + column, `pixels` how many there are, `centre` the mean row and
    column, `box` the first row and column and those after the last, `confidence` the mean top probability. `of` tells
    the object, from 0, of each number that `Components` gives of this mask in the same strips.
    """

    width: int
    first: NDArray[np.int64]  # ascending
    values: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    centre: NDArray[np.float64]  # (object, 2)
    box: NDArray[np.int64]  # (object, 4)
    confidence: NDArray[np.float64]
    of: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def at(self, row: int, col: int) -> int:
        """The one whose topmost row is `row`, and in it the leftmost pixel `col`."""
        return int(np.searchsorted(self.first, row * self.width + col))


def find_objects(mask: Path, confidence: Path, values: list[int]) -> Objects:
    """Those of pixels of these values, in one pass over the mask and over how sure the network was."""
    components = _components(values)
    parts: list[tuple[NDArray[Any], ...]] = []
    with Source(mask, "mask") as labels, Source(confidence, "mask") as sure:
        width, height = labels.grid.width, _strip_height(labels)
        for (first_row, pixels), (_, shares) in zip(labels.rows(height), sure.rows(height, [0]), strict=True):
            numbers = components.add(pixels[0]).ravel()
            inside = np.flatnonzero(numbers >= 0)
            base = int(numbers[inside].min()) if inside.size else 0  # numbers of a strip are its own
            weights = np.nan_to_num(shares[0].ravel()[inside].astype(np.float64)) * sure.scales[0]
            parts.append(_of_strip(numbers[inside] - base, inside + first_row * width, width, weights))
    of, found = components.objects()
    count = len(found)
    counts, weighted, rows, cols, first, last, left, right = map(np.concatenate, zip(*parts, strict=True))
    least = partial(_gathered, np.minimum, of, count, np.iinfo(np.int64).max)
    most = partial(_gathered, np.maximum, of, count, 0)
    sums = [np.bincount(of, part, count) for part in (counts, weighted, rows, cols)]
    first, total = least(first), np.maximum(1, sums[0])
    box = np.stack([first // width, least(left), most(last) // width + 1, most(right) + 1], axis=1)
    order = np.argsort(first)
    place = np.empty(count, np.int64)
    place[order] = np.arange(count)
    return Objects(
        width, first[order], found[order], sums[0].astype(np.int64)[order],
        (np.stack(sums[2:], axis=1) / total[:, None])[order], box[order], (sums[1] / total)[order], place[of],
    )  # fmt: skip


def _components(values: list[int]) -> Components:
    counted = np.zeros(256, bool)
    counted[values] = True
    return Components(counted)


def _strip_height(mask: Source) -> int:
    return max(1, STRIP_PIXELS // mask.grid.width)


def _of_strip(
    numbers: NDArray[np.int64], places: NDArray[np.int64], width: int, weights: NDArray[np.float64]
) -> tuple[NDArray[Any], ...]:
    """Of each number in a strip, from 0: pixels, sums of weights, rows and columns, first and last place, first and
    last column. `places` ascend."""
    rows, cols = places // width, places % width
    counts = np.bincount(numbers)
    first, last, left, right = np.zeros((4, len(counts)), np.int64)
    first[numbers[::-1]] = places[::-1]  # the last one written is the first pixel
    last[numbers] = places
    left[:] = width
    np.minimum.at(left, numbers, cols)
    np.maximum.at(right, numbers, cols)
    return counts, np.bincount(numbers, weights), np.bincount(numbers, rows), np.bincount(numbers, cols), \
        first, last, left, right  # fmt: skip


def _gathered(
    ufunc: np.ufunc, of: NDArray[np.int64], count: int, start: int, parts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The least or the most of each object's parts."""
    found = np.full(count, start, np.int64)
    ufunc.at(found, of, parts)
    return found


def write_objects(
    mask: Path, objects: Objects, output: Path, table: Path, names: dict[int, str], grid: Grid, encoding: Encoding
) -> None:
    """Every object's number, from 1, as a raster of the mask's size (0: none), in 16 bits where they suffice, and a
    table with a line for each. Both files are there when they are whole.

    `names` are those of the classes that have objects; `grid` is the image's: a mask may not be able to say where it
    lies.
    """
    layout = Layout(1, "uint16" if len(objects) < 2**16 else "uint32", names=("object",), overviews="nearest")
    numbers = np.append(objects.of + 1, 0).astype(layout.dtype)  # -1 takes the last
    components = _components(list(names))
    with Source(mask, "mask") as labels, create(output, grid, layout, encoding) as sink:
        for first_row, pixels in labels.rows(_strip_height(labels)):
            sink.write(first_row, numbers[components.add(pixels[0])])
    with (
        replacing(table, faults_of_writing) as part,
        faults_of_writing(table),
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file).writerows(_lines(objects, names, grid))


def _lines(objects: Objects, names: dict[int, str], grid: Grid) -> Iterator[list[object]]:
    transform, pixel_um2 = grid.transform, None
    if not grid.is_georeferenced and {"X", "Y"} <= grid.calibration.keys():
        pixel_um2 = grid.calibration["X"] * grid.calibration["Y"]
    head = ["object", "class", "name", "pixels", "row", "column", "top", "left", "bottom", "right", "confidence"]
    yield [*head, *(["x", "y"] if transform is not None else []), *(["area_um2"] if pixel_um2 is not None else [])]
    columns = objects.values, objects.pixels, objects.centre, objects.box, objects.confidence
    for first in range(0, len(objects), LINES):
        part = (column[first : first + LINES].tolist() for column in columns)
        for number, (value, count, (row, column), box, sure) in enumerate(zip(*part, strict=True), first + 1):
            line = [number, value, names[value], count, round(row, 2), round(column, 2), *box, round(sure, 4)]
            if transform is not None:
                line += transform @ (column + 0.5, row + 0.5)
            yield line if pixel_um2 is None else [*line, count * pixel_um2]
