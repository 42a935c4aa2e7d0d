"""A picture in the colours of classes, back to a mask of their indices."""

import math
from pathlib import Path

from segcli.batch import Job
from segcli.classes import ClassTable, check_colors
from segcli.coloring.drawing import Advance, write
from segcli.coloring.setting import Setting
from segcli.drawing.indexing import MOST_COLORS, ColorIndex
from segcli.errors import InputError
from segcli.pictures import Pictures, strip_height
from segcli.raster.images import Images
from segcli.raster.labels import written_table
from segcli.raster.sink import empty_value, mask_layout
from segcli.raster.source import Source
from segcli.raster.stack_sink import create_for

FEW, FAR = 3, 32
"""So many colours in no class, and so far from all that are, somebody may have chosen."""


def draw_indices(job: Job, pictures: Images, setting: Setting, advance: Advance) -> list[Path]:
    """The index of the class of each pixel's colour; gives the file that was written.

    Raises InputError with the colours that are in no class, and how many pixels have them.
    """
    classes = _classes(job, setting)
    check_colors(classes.entries, job.source, classes.ignore_color)
    with create_for(pictures, job.output, mask_layout(classes), setting.encoding, ome=True) as sinks:
        for picture, sink in zip(pictures.planes, sinks, strict=True):
            if picture.bands != 3 or picture.dtype != "uint8":
                found = f"{picture.bands} band{'s' * (picture.bands != 1)} of {picture.dtype}"
                raise InputError(job.source, found, "expected red, green and blue of 8 bits")
            rows = _rows(picture, classes, setting.options.tolerance)
            write(sink, rows, picture.grid, 1 / len(pictures.planes), advance)
    return [job.output]


def _rows(picture: Source, classes: ClassTable, tolerance: float) -> Pictures:
    empty = empty_value(classes)
    index = ColorIndex(classes, tolerance, 0 if empty is None else empty)
    for first_row, pixels, valid in picture.strips(strip_height(picture)):
        if valid is not None and empty is None:
            raise InputError(picture.path, "pixels without data, and all 256 values are classes")
        yield first_row, index.indices(pixels, valid)[None]
        if index.is_hopeless:
            raise InputError(picture.path, f"over {MOST_COLORS} colours in no class",
                             "expected a mask in the colours of classes", "is it a photograph?")  # fmt: skip
    if index.foreign:
        # Others are what JPEG makes of those of the palette.
        is_choice = len(index.foreign) <= FEW and index.farthest() > FAR
        few = "name it in the palette, as a class or as what has no label (ignore_color in JSON)"
        many = f"choose another --palette, or a --tolerance; {math.ceil(index.farthest())} would take all"
        raise InputError(picture.path, f"colours in no class: {index.listed()}", "expected those of the palette",
                         few if is_choice else many)  # fmt: skip


def _classes(job: Job, setting: Setting) -> ClassTable:
    """Of the palette that was given, or of a class table beside the picture."""
    if setting.given is not None:
        return setting.given
    table = written_table(None, job.source.parent) if isinstance(job.source, Path) else None
    if table is None:
        raise InputError(job.source, "nothing says which colour is which class", "", "give --palette")
    return table
