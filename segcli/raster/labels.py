"""What the values of masks mean: the table that was given, one beside them, one inside them, or the values found."""

import html
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from segcli.classes import IGNORE, MOST_CLASSES, ClassEntry, ClassTable
from segcli.colors import color_of, distinct_colors
from segcli.errors import InputError, NothingDoneError
from segcli.palettes import read_classes
from segcli.raster.facts import kinds_of
from segcli.raster.images import Images, open_images
from segcli.raster.names import Name
from segcli.raster.readers import GdalReader
from segcli.raster.source import Source
from segcli.validity import Valid

TABLES = ("classes.json", "classes.csv")
"""Files that are looked for beside masks."""

BINARY = ClassTable((ClassEntry(0, "background", (0, 0, 0)), ClassEntry(255, "foreground", (230, 159, 0))), None)
"""What masks of 0 and 255 alone mean: black and white, as drawing programs write them."""

STRIP_HEIGHT = 512

MOST_VALUES = 100
"""More values than that, with nothing to say what they mean, are grey levels."""


def written_table(given: Path | None, folder: Path, above: int = 2) -> ClassTable | None:
    """The table in the file `given`, or one in `folder`, or so many folders above: masks may lie in DATA/val/masks."""
    place = given or table_beside(folder, above)
    return None if place is None else read_classes(place)


def table_beside(folder: Path, above: int = 2) -> Path | None:
    """Where a table lies that speaks for the masks in `folder`."""
    whole = folder.absolute()
    places = (place / name for place in (whole, *whole.parents[:above]) for name in TABLES)
    return next((place for place in places if place.is_file()), None)


def check_labels(mask: Source) -> None:
    """InputError unless it can be labels: one band of whole numbers, or three or four of 8-bit colours."""
    is_indices = mask.bands == 1 and np.dtype(mask.dtype).kind in "ui"
    if not is_indices and not (mask.bands in (3, 4) and mask.dtype == "uint8"):
        found = f"{mask.bands} band{'s' * (mask.bands != 1)} of {mask.dtype}"
        raise InputError(mask.path, found, "expected class indices, one band of whole numbers, or 8-bit colours")


def check_indices(source: Source) -> None:
    """InputError unless it is one band of class indices, uint8."""
    if source.bands != 1 or source.dtype != "uint8":
        found = f"{source.bands} band{'s' * (source.bands != 1)} of {source.dtype}"
        remedy = "colours are to be turned into indices" if source.bands >= 3 else "gdal_translate -ot Byte makes it so"
        raise InputError(source.path, found, "expected a mask: one band of class indices, uint8", remedy)


def embedded_table(path: Path) -> ClassTable | None:
    """The classes that a mask names itself, as segcli writes them: metadata CLASS_n, colours, nodata for no label."""
    with suppress(InputError), closing(open_images(path, "mask")) as images:
        return table_in(path, images)
    return None


def table_in(path: Name, images: Images) -> ClassTable | None:
    """The same of a mask that is open."""
    reader = images.planes[0].reader
    if images.in_pages:
        return _table_of_stack(Path(path))
    return _table_of_dataset(reader) if isinstance(reader, GdalReader) else None


def _table_of_stack(path: Path) -> ClassTable | None:
    """What `stack_sink` has written of classes: as OME's description, ImageJ's info, or tifffile's own metadata."""
    with (
        suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError),
        tifffile.TiffFile(path) as file,
    ):
        if file.is_imagej:
            said = json.loads((file.imagej_metadata or {})["Info"])
        elif file.is_ome:
            _, _, rest = (file.ome_metadata or "").partition("<Description>")
            text, is_closed, _ = rest[:_DESCRIPTION].partition("</Description>")
            said = json.loads(html.unescape(text)) if is_closed else {}
        else:
            said = (file.shaped_metadata or ({},))[0]
        if len(said["classes"]) > MOST_CLASSES:  # colours for a million take for ever
            return None
        names = {int(value): str(name) for value, name in said["classes"].items()}
        colors = {int(value): color_of(color) for value, color in said.get("colors", {}).items()}
        defaults = distinct_colors(len(names))
        entries = [ClassEntry(value, names[value], colors.get(value, default))
                   for value, default in zip(sorted(names), defaults, strict=True)]  # fmt: skip
        ignore = said.get("ignore", IGNORE)  # older files do not say it
        is_index = type(ignore) is int and 0 <= ignore <= 255 and ignore not in names
        return ClassTable(tuple(entries), ignore if is_index else None)
    return None


def _table_of_dataset(reader: GdalReader) -> ClassTable | None:
    dataset = reader.dataset
    named = {int(key[6:]): name for key, name in (dataset.tags() | dataset.tags(1)).items() if _KEY.fullmatch(key)}
    if not named or max(named) > 255:
        return None
    colors = dataset.colormap(1) if kinds_of(reader)[0] == ColorInterp.palette else {}
    defaults = distinct_colors(len(named))
    ignore = int(dataset.nodata) if dataset.nodata in range(256) and int(dataset.nodata) not in named else None
    entries = [ClassEntry(value, named[value], colors.get(value, default)[:3])
               for value, default in zip(sorted(named), defaults, strict=True)]  # fmt: skip
    with suppress(ValueError):  # of names that repeat, or that nobody can write: another program's
        return ClassTable(tuple(entries), ignore)
    return None


_DESCRIPTION = 2**16
"""Characters of OME's description of an image that are looked at."""

_KEY = re.compile(r"CLASS_\d{1,3}")


def values_in(paths: Iterable[Path]) -> list[int]:
    """Values that occur in masks, ascending; a file that cannot be read, or is no mask, is left for others to tell."""
    seen = np.zeros(256, bool)
    for path in paths:
        with suppress(InputError):
            for source in open_images(path, "mask").planes:
                with source:
                    if source.bands != 1 or np.dtype(source.dtype).kind not in "ui":
                        continue
                    for _, pixels, valid in source.strips(STRIP_HEIGHT):
                        if pixels.dtype != np.uint8:
                            found = np.unique(pixels[0] if valid is None else pixels[0][valid])
                            seen[found[(found >= 0) & (found < 256)].astype(np.int64)] = True
                            continue
                        seen |= count_bytes(pixels[0], valid) > 0
    return list(map(int, np.flatnonzero(seen)))


def count_bytes(values: NDArray[np.integer], valid: Valid = None) -> NDArray[np.int64]:
    """Pixels of (row, col), uint8, by value, (256,), where there are data. By OpenCV's histogram, which is six times as
    fast as numpy's unique and counts in float32: exact up to 2^24 pixels, hence in pieces."""
    found = np.zeros(256, np.int64)
    flat, where = values.reshape(-1, 1), None if valid is None else valid.view(np.uint8).reshape(-1, 1)
    for first in range(0, len(flat), _EXACT):
        piece = slice(first, first + _EXACT)
        mask = None if where is None else where[piece]
        found += cv2.calcHist([flat[piece]], [0], mask, [256], [0, 256]).ravel().astype(np.int64)
    return found


_EXACT = 2**23


def table_of(values: Sequence[int], where: Path) -> ClassTable:
    """Classes for the values found in masks. NothingDoneError, about `where`, if there are none."""
    if list(values) == [0, 255]:
        return BINARY
    classes = [value for value in values if value != IGNORE]
    if len(classes) > MOST_VALUES:
        raise NothingDoneError(where, f"{len(classes)} values in masks without a class table", "these may be images",
                               "if they are masks, give --classes; if they number objects, train takes them in "
                               "instances/, eval with --objects labels")  # fmt: skip
    if not classes:
        raise NothingDoneError(where, "no class in any mask", "expected class indices in 0..254, 255 for no label")
    return ClassTable.from_indices(classes)
