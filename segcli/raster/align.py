"""One raster on the grid of another, and whether it lies there already."""

import math

from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from segcli.errors import InputError
from segcli.raster.contents import EXPECTED, Contents, faults_of
from segcli.raster.gdal import gdal
from segcli.raster.grid import Grid
from segcli.raster.readers import GdalReader
from segcli.raster.source import Source

SHIFT = 0.05
"""Pixels by which corners may differ on one grid: what rounding leaves."""

HALF = 0.5
"""The same where other programs have written the place: from here on it is that of another pixel."""


def differ(one: Source, other: Source) -> bool:
    """Whether they have other sizes, or lie elsewhere; a picture lies nowhere, and agrees with any place."""
    first, second = one.grid, other.grid
    if (first.height, first.width) != (second.height, second.width):
        return True
    if first.transform is None or second.transform is None:
        return False  # a picture's mask has no place to disagree about
    return first.crs != second.crs or _moved(first, second) > SHIFT


def is_elsewhere(one: Grid, other: Grid) -> bool:
    """Whether two grids of one size say of themselves, in one reference system, that they are not in one place."""
    if one.crs is None or one.crs != other.crs or one.transform is None or other.transform is None:
        return False
    return _moved(one, other) > HALF


def _moved(one: Grid, other: Grid) -> float:
    """How many pixels corners of the one lie from those of the other."""
    corners = [(col, row) for col in (0, one.width) for row in (0, one.height)]
    to_pixels = ~one.transform
    return max(math.dist(to_pixels @ (other.transform @ corner), corner) for corner in corners)


def aligned(source: Source, grid: Grid) -> Source:
    """A mask on another grid, by nearest neighbour; what lies outside it is no data. `source` must stay open.

    Raises InputError where one of the two does not lie on earth.
    """
    reader = source.reader
    if not isinstance(reader, GdalReader) or source.grid.crs is None or grid.crs is None or grid.transform is None:
        raise InputError(source.path, "no place on earth, or none of the truth", "--align needs both")
    with faults_of(source.path, EXPECTED):
        return Source(source.path, "mask", Contents((WarpedReader(reader, grid),)))


class WarpedReader(GdalReader):
    """Another dataset seen on a grid."""

    def __init__(self, other: GdalReader, grid: Grid) -> None:
        with gdal():
            self._dataset = WarpedVRT(
                other.dataset, crs=grid.crs, transform=grid.transform, height=grid.height, width=grid.width,
                resampling=Resampling.nearest,
                add_alpha=other.dataset.nodata is None and ColorInterp.alpha not in other.dataset.colorinterp,
            )  # fmt: skip
        self._look()
