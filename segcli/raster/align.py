"""One raster on the grid of another, and whether it lies there already."""

import math

from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from segcli.errors import InputError
from segcli.raster.contents import EXPECTED, Contents, faults_of
from segcli.raster.gdal import gdal
from segcli.raster.grid import Grid
from segcli.raster.readers import GdalReader
from segcli.raster.source import Source

SHIFT = 0.05
"""Pixels by which corners may differ on one grid: what rounding leaves."""


def differ(one: Source, other: Source) -> bool:
    """Whether they have other sizes, or lie elsewhere; a picture lies nowhere, and agrees with any place."""
    first, second = one.grid, other.grid
    if (first.height, first.width) != (second.height, second.width):
        return True
    if first.transform is None or second.transform is None:
        return False  # a picture's mask has no place to disagree about
    corners = [(col, row) for col in (0, first.width) for row in (0, first.height)]
    to_pixels = ~first.transform
    moved = max(math.dist(to_pixels @ (second.transform @ corner), corner) for corner in corners)
    return first.crs != second.crs or moved > SHIFT


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
                resampling=Resampling.nearest, add_alpha=other.dataset.nodata is None,
            )  # fmt: skip
        self._look()
