"""The objects of a finished mask, sets of pixels of one class that touch at edges: how large each is, where it lies and
how sure the network was, as a table, and a raster of their numbers. The mask is read in strips; in memory is what is
known of each object."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.components import Components
from segcli.files import replacing
from segcli.raster.faults import faults_of_writing
from segcli.raster.grid import Grid
from segcli.raster.images import Images
from segcli.raster.sink import Encoding, Layout
from segcli.raster.source import Source
from segcli.raster.stack_sink import create_for

OBJECTS = "objects"
"""The folder inside the output folder."""

COUNTS = ".counts.csv"
"""How the table of counts ends."""

STRIP_PIXELS = 2**20
LINES = 2**16
"""Of the table, that are numbers of Python's at a time."""


@dataclass(frozen=True)
class Objects:
    """In the order of their first pixels, row by row.

    `first` is the place of that pixel, row * width + column, `pixels` how many there are, `centre` the mean row and
    column, `box` the first row and column and those after the last, `confidence` the mean top probability. `of` tells
    the object, from 0, of each number that `Components` gives of this mask in strips of the same height; -1 is one that
    was left out. `is_whole` says that all pixels of the mask have data.
    """

    width: int
    names: dict[int, str]  # of the classes, by value
    first: NDArray[np.int64]  # ascending
    values: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    centre: NDArray[np.float64]  # (object, 2)
    box: NDArray[np.int64]  # (object, 4)
    confidence: NDArray[np.float64]
    of: NDArray[np.int64]
    is_whole: bool

    def __len__(self) -> int:
        return len(self.first)

    def at(self, row: int, col: int) -> int | None:
        """The one whose topmost row is `row`, and in it the leftmost pixel `col`; None where it was left out."""
        place = row * self.width + col
        number = int(np.searchsorted(self.first, place))
        return number if number < len(self) and self.first[number] == place else None


@dataclass(frozen=True)
class _Parts:
    """What of each set lies in one strip: pixels, sums of how sure the network was, of rows and of columns, the first
    and the last place, row * width + column, and the first and the last column."""

    pixels: NDArray[Any]
    sure: NDArray[Any]
    rows: NDArray[Any]
    cols: NDArray[Any]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    left: NDArray[np.int64]
    right: NDArray[np.int64]


def find_objects(mask: Source, confidence: Source, names: dict[int, str], least: int = 0) -> Objects:
    """Those of pixels of the classes with these names, by value, and of at least so many, in one pass over the mask and
    over how sure the network was."""
    components = _components(names)
    parts: list[_Parts] = []
    is_whole = True
    width, height = mask.grid.width, _strip_height(mask)
    strips = zip(mask.strips(height), confidence.rows(height, [0]), strict=True)
    for (first_row, pixels, valid), (_, (shares,)) in strips:
        weights = np.nan_to_num(shares.astype(np.float64)) * confidence.scales[0]
        parts.append(_of_strip(components.add(pixels[0]), weights, first_row))
        is_whole = is_whole and (valid is None or bool(valid.all()))
    of, values = components.objects()
    count = len(values)

    def of_all(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    def summed(name: str) -> NDArray[Any]:
        return np.bincount(of, of_all(name), count)

    def gathered(ufunc: np.ufunc, name: str, start: int) -> NDArray[np.int64]:
        found = np.full(count, start, np.int64)
        ufunc.at(found, of, of_all(name))
        return found

    pixels, first = summed("pixels"), gathered(np.minimum, "first", np.iinfo(np.int64).max)
    centre = np.stack([summed("rows"), summed("cols")], axis=1) / pixels[:, None]
    left, right = gathered(np.minimum, "left", width), gathered(np.maximum, "right", 0)
    box = np.stack([first // width, left, gathered(np.maximum, "last", 0) // width + 1, right + 1], axis=1)
    order = np.argsort(first)
    order = order[pixels[order] >= least]
    place = np.full(count, -1)
    place[order] = np.arange(len(order))
    return Objects(
        width, names, first[order], values[order], pixels[order].astype(np.int64), centre[order], box[order],
        (summed("sure") / pixels)[order], place[of], is_whole,
    )  # fmt: skip


def _components(names: dict[int, str]) -> Components:
    counted = np.zeros(256, bool)
    counted[list(names)] = True
    return Components(counted)


def _strip_height(mask: Source) -> int:
    return max(1, STRIP_PIXELS // mask.grid.width)


def _of_strip(numbers: NDArray[np.int64], sure: NDArray[np.float64], first_row: int) -> _Parts:
    """By runs, the pixels of one number that lie side by side in a row: there are far fewer of them than pixels."""
    width = numbers.shape[1]
    flat = numbers.ravel()
    is_start = np.append(True, flat[1:] != flat[:-1])
    is_start[::width] = True
    starts = np.flatnonzero(is_start)
    lengths, sums, of = np.diff(starts, append=flat.size), np.add.reduceat(sure.ravel(), starts), flat[starts]
    inside = of >= 0
    starts, lengths, sums, of = starts[inside], lengths[inside], sums[inside], of[inside]
    of = of - (of.min() if of.size else 0)  # numbers of a strip are its own
    rows, cols = starts // width + first_row, starts % width
    pixels = np.bincount(of, lengths)
    first, last, right = np.zeros((3, len(pixels)), np.int64)
    left = np.full(len(pixels), width)
    places = starts + first_row * width
    first[of[::-1]] = places[::-1]  # the last one written is the first run
    last[of] = places
    np.minimum.at(left, of, cols)
    np.maximum.at(right, of, cols + lengths - 1)
    return _Parts(
        pixels, np.bincount(of, sums), np.bincount(of, rows * lengths),
        np.bincount(of, (cols + (lengths - 1) / 2) * lengths), first, last, left, right,
    )  # fmt: skip


def write_objects(
    masks: Sequence[Source], objects: Sequence[Objects], output: Path, table: Path, counts: Path, images: Images,
    encoding: Encoding,
) -> None:  # fmt: skip
    """Every object's number, from 1, as a raster of the mask's size, in 16 bits where they suffice, a table with a line
    for each, and how many there are of each class, none included. 0 is no object; where the mask has no data stands the
    highest number of the type, and only then. Of a stack each image has numbers of its own, and the tables say along
    the axes, from 0, which one it is. Each file is there when it is whole.

    `objects` are the masks', found in strips as high as now; where they lie `images` say: a mask may not be able to.
    """
    is_whole, most = all(one.is_whole for one in objects), max(map(len, objects))
    bits = 16 if most + (not is_whole) < 2**16 else 32
    empty = 2**bits - 1
    layout = Layout(1, f"uint{bits}", None, None if is_whole else empty, ("object",), overviews="nearest")
    with create_for(images, output, layout, encoding) as sinks:
        for mask, one, sink in zip(masks, objects, sinks, strict=True):
            numbers = np.append(one.of + 1, 0).astype(layout.dtype)  # -1 takes the last
            components, seen = _components(one.names), 0
            for first_row, pixels, valid in mask.strips(_strip_height(mask)):
                found, kinds = components.within(pixels[0], seen)
                seen += len(kinds)
                rows = numbers[found]
                if valid is not None:
                    rows[~valid] = empty
                sink.write(first_row, rows)
    _write_table(table, _table(objects, images))
    _write_table(counts, _counts(objects, images))


def _write_table(path: Path, lines: Iterator[list[object]]) -> None:
    with (
        replacing(path, faults_of_writing) as part,
        faults_of_writing(path),
        part.open("w", encoding="utf-8", newline="") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(lines)


def _counts(objects: Sequence[Objects], images: Images) -> Iterator[list[object]]:
    pixel_um = images.planes[0].grid.pixel_um()
    yield [*_which(images), "class", "name", "objects", "pixels", *(["area_um2"] if pixel_um is not None else [])]
    for place, one in zip(_places(images), objects, strict=True):
        for value, name in one.names.items():
            pixels = one.pixels[one.values == value]
            line: list[object] = [*place, value, name, len(pixels), int(pixels.sum())]
            yield line if pixel_um is None else [*line, _area(int(pixels.sum()), pixel_um)]


def _area(pixels: int, pixel_um: tuple[float, float]) -> float:
    """In square micrometres, to six digits."""
    return float(f"{pixels * pixel_um[0] * pixel_um[1]:.6g}")


def _table(objects: Sequence[Objects], images: Images) -> Iterator[list[object]]:
    grid = images.planes[0].grid
    head = ["object", "class", "name", "pixels", "row", "column", "top", "left", "bottom", "right", "confidence"]
    in_place = ["x", "y"] if grid.transform is not None else []
    yield [*_which(images), *head, *in_place, *(["area_um2"] if grid.pixel_um() is not None else [])]
    for place, one, image in zip(_places(images), objects, images.planes, strict=True):
        for line in _lines(one, image.grid):
            yield [*place, *line]


def _which(images: Images) -> list[str]:
    """The columns that say which image of a stack a line is of: the axes, and the name where positions have some."""
    return [*images.axis_names, *(["image"] if images.axes[:1] == "I" and any(images.names) else [])]


def _places(images: Images) -> list[tuple[int | str, ...]]:
    """What stands in them for each image."""
    has_name = len(_which(images)) > len(images.axes)
    return [(*place, images.names[place[0]]) if has_name else place for place in images.places]


def _lines(objects: Objects, grid: Grid) -> Iterator[list[object]]:
    transform, pixel_um = grid.transform, grid.pixel_um()
    columns = objects.values, objects.pixels, objects.centre, objects.box, objects.confidence
    for first in range(0, len(objects), LINES):
        part = (column[first : first + LINES].tolist() for column in columns)
        for number, (value, count, (row, column), box, sure) in enumerate(zip(*part, strict=True), first + 1):
            line = [number, value, objects.names[value], count, round(row, 2), round(column, 2), *box, round(sure, 4)]
            if transform is not None:
                line += transform @ (column + 0.5, row + 0.5)
            yield line if pixel_um is None else [*line, _area(count, pixel_um)]
