"""What the values of one mask are shown as: indices of a class table, row by row, whatever the mask was stored as."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from segcli.classes import ClassEntry, ClassTable
from segcli.colors import NUMBERS, distinct_colors, repeated
from segcli.errors import InputError, SegcliError
from segcli.known_palettes import is_nameless
from segcli.raster.facts import kinds_of
from segcli.raster.images import Images, open_images
from segcli.raster.labels import BINARY, count_bytes, table_in, written_table
from segcli.raster.names import Name
from segcli.raster.readers import GdalReader
from segcli.raster.sink import empty_value
from segcli.raster.source import Source
from segcli.validity import Valid

STRIP_HEIGHT = 512


@dataclass(frozen=True)
class MaskValues:
    """The classes of a mask; with `numbers` its values are numbers of objects, 0 where there is none. `is_made_up`
    says that nothing but its values is known."""

    classes: ClassTable
    numbers: bool = False
    is_made_up: bool = False

    def rows(self, source: Source, height: int, empty: int | None = None) -> Iterator[tuple[int, NDArray[np.integer]]]:
        """Strips of indices, (row, col), and their first rows; or of the numbers of objects. Without data it is
        `empty`, or the value that stands for no label.

        Raises InputError with the values that are no class, and how many pixels have them, at the end.
        """
        if self.numbers:
            for first_row, pixels, valid in source.strips(height):
                yield first_row, pixels[0] if valid is None else np.where(valid, pixels[0], 0)
            return
        known = self.classes.positions()
        foreign: dict[int, int] = {}
        empty = empty_value(self.classes) if empty is None else empty
        for first_row, pixels, valid in source.strips(height):
            indices = self._indices(pixels[0], valid, known, foreign)
            if valid is not None and empty is None:
                raise InputError(source.path, "pixels without data, and all 256 values are classes")
            yield first_row, indices if valid is None else np.where(valid, indices, np.uint8(empty or 0))
        if foreign:
            listed = ", ".join(f"{value} ({count} pixels)" for value, count in sorted(foreign.items())[:5])
            raise InputError(source.path, f"values that are no class: {listed}",
                             f"expected {', '.join(map(str, self.classes.indices[:20].tolist()))}",
                             "choose another --palette")  # fmt: skip

    def _indices(
        self, values: NDArray[np.integer], valid: Valid, known: NDArray[np.int16], foreign: dict[int, int]
    ) -> NDArray[np.uint8]:
        indices, is_foreign = values.astype(np.uint8), None
        if values.dtype != np.uint8:
            is_foreign = indices != values
        if (odd := cv2.LUT(indices, (known == -2).astype(np.uint8))).any():
            is_foreign = odd > 0 if is_foreign is None else (odd > 0) | is_foreign
        if is_foreign is not None and valid is not None:
            is_foreign &= valid
        if is_foreign is not None and is_foreign.any():
            for value, count in zip(*np.unique(values[is_foreign], return_counts=True), strict=True):
                foreign[int(value)] = foreign.get(int(value), 0) + int(count)
        return indices

    def counts(self, source: Source) -> NDArray[np.int64]:
        """Pixels by index, (256,)."""
        found = np.zeros(256, np.int64)
        for _, rows in self.rows(source, STRIP_HEIGHT):
            indices = repeated(rows) if self.numbers else rows
            found += count_bytes(indices)
        return found


def values_of(path: Name, masks: Images, given: ClassTable | None, black_and_white: Callable[[], bool]) -> MaskValues:
    """By the table that is given, one in the mask, one beside it, its palette, or by the values that occur.

    A palette that only has colours leaves the names to the mask. Without any, values of more than 8 bits are numbers of
    objects; others are classes, or black and white, which is asked for all masks of a run, so that a value means the
    same in each. InputError where it is no mask.
    """
    for plane in masks.planes:
        if plane.bands != 1 or np.dtype(plane.dtype).kind not in "ui":
            found = f"{plane.bands} band{'s' * (plane.bands != 1)} of {plane.dtype}"
            remedy = "colours go through --to-index" if plane.bands >= 3 else ""
            raise InputError(path, found, "expected a mask: one band of whole numbers", remedy)
    if given is not None and not is_nameless(given):
        return MaskValues(given)
    own = _own_table(path, masks)
    if given is not None:
        return MaskValues(given if own is None else _with_names(given, own))
    if own is not None:
        return MaskValues(own)
    if any(plane.dtype != "uint8" for plane in masks.planes):
        return _numbers()
    if black_and_white():
        return MaskValues(BINARY)
    # A value has the same colour in every mask, so that a folder of them can be looked through.
    return _values()


def in_usual_colors(classes: ClassTable) -> ClassTable:
    """The classes in the colours that their values have in every mask of which nothing says any."""
    usual = {entry.index: entry.color for entry in _values().classes.entries}
    entries = (replace(entry, color=usual.get(entry.index, entry.color)) for entry in classes.entries)
    return replace(classes, entries=tuple(entries))


def _own_table(path: Name, masks: Images) -> ClassTable | None:
    """Of its metadata, of a table beside the mask, or of its palette."""
    found = table_in(path, masks)
    if found is None and isinstance(path, Path):
        found = written_table(None, path.parent)
    return found or _palette(masks.planes[0])


def are_black_and_white(paths: Iterable[Name], told: Callable[[Name, Images], ClassTable | None] = _own_table) -> bool:
    """Whether no value but 0 and 255 is in any of the masks that nothing (`told`) says the meaning of, and 255 is in
    one.

    Most masks show soon that they are not.
    """
    white = False
    for path in paths:
        with suppress(SegcliError), closing(open_images(path, "mask")) as images:
            if any(plane.bands != 1 or plane.dtype != "uint8" for plane in images.planes) or told(path, images):
                continue
            seen = _black_or_white(images.planes)
            if seen is None:
                return False
            white |= seen
    return white


def _palette(plane: Source) -> ClassTable | None:
    reader = plane.reader
    if not isinstance(reader, GdalReader) or kinds_of(reader)[0] != ColorInterp.palette:
        return None
    colors = {value: color for value, color in reader.dataset.colormap(1).items() if color[3] and value < 255}
    entries = tuple(ClassEntry(v, f"class {v}", color[:3]) for v, color in sorted(colors.items()))
    return ClassTable(entries) if entries else None


def _with_names(colors: ClassTable, own: ClassTable) -> ClassTable:
    """The mask's own classes, and what stands for no label there, in other colours."""
    found = {entry.index: entry.color for entry in colors.entries}
    entries = (replace(entry, color=found[entry.index]) for entry in own.entries if entry.index in found)
    return replace(own, entries=tuple(entries)) if found.keys() & set(own.indices.tolist()) else colors


def _black_or_white(planes: Sequence[Source]) -> bool | None:
    """Whether there is white; None where something is neither that nor black."""
    white = False
    for plane in planes:
        for _, pixels, valid in plane.strips(STRIP_HEIGHT):
            known = pixels[0] if valid is None else pixels[0][valid]
            if ((known != 0) & (known != 255)).any():
                return None
            white = white or bool((known == 255).any())
    return white


@cache
def _numbers() -> MaskValues:
    names = ["background", *map(str, range(1, NUMBERS + 1))]
    return MaskValues(_table([0, *range(1, NUMBERS + 1)], names), numbers=True)


@cache
def _values() -> MaskValues:
    return MaskValues(_table(list(range(255)), [f"class {value}" for value in range(255)]), is_made_up=True)


def _table(values: list[int], names: list[str]) -> ClassTable:
    colors = distinct_colors(len(values))
    return ClassTable(tuple(ClassEntry(*entry) for entry in zip(values, names, colors, strict=True)))
