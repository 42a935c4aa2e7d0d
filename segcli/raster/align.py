"""One raster on the grid of another, and whether it lies there already."""

import math
import re
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT

from segcli.errors import InputError
from segcli.raster.contents import EXPECTED, Contents, faults_of
from segcli.raster.ellipsoid import transformed
from segcli.raster.gdal import gdal
from segcli.raster.grid import Grid
from segcli.raster.readers import GdalReader
from segcli.raster.source import Source

SHIFT = 0.05
"""Pixels by which corners may differ on one grid: what rounding leaves."""

HALF = 0.5
"""The same where other programs have written the place: from here on it is that of another pixel."""


def difference(one: Source, other: Source) -> tuple[str, str] | None:
    """What of the one's grid is not the other's, and what was expected, for people; None where they have one size and
    one place. A picture lies nowhere, and agrees with any place."""
    first, second = one.grid, other.grid
    sizes = [f"{grid.width} x {grid.height}" for grid in (first, second)]
    if sizes[0] != sizes[1]:
        return f"{sizes[0]} pixels on another grid", f"{other.path} has {sizes[1]}"
    if first.transform is None or second.transform is None:
        return None  # a picture's mask has no place to disagree about
    beside = _moved(first, second) if (first.crs is None) == (second.crs is None) else math.inf
    if beside <= SHIFT:
        return None
    elsewhere = f"on another grid than {other.path}"
    if first.crs != second.crs:
        return f"{elsewhere}, in {_called(first.crs)}", f"expected {_called(second.crs)}"
    return f"{elsewhere}, {beside:.2g} pixels beside it", "expected the same place"


def is_elsewhere(one: Grid, other: Grid) -> bool:
    """Whether two grids of one size, each with a reference system, say of themselves that they are not in one place."""
    if one.crs is None or other.crs is None or one.transform is None or other.transform is None:
        return False
    return _moved(one, other) > HALF


def _moved(one: Grid, other: Grid) -> float:
    """How many pixels corners of the one lie from those of the other. Of two reference systems it is told by where they
    place the corners: one may be spelt in two ways, or have heights besides."""
    corners = [(col, row) for col in (0, one.width) for row in (0, one.height)]
    placed = np.array([other.transform @ corner for corner in corners])
    if one.crs != other.crs:
        placed = transformed(placed, other.crs, one.crs)
    to_pixels = ~one.transform
    distances = [math.dist(to_pixels @ tuple(place), corner) for place, corner in zip(placed, corners, strict=True)]
    return max(distances) if all(map(math.isfinite, distances)) else math.inf


def _called(crs: Any) -> str:
    """A reference system for people."""
    if crs is None:
        return "no reference system"
    name = re.match(r'\w+\["([^"]*)"', crs.to_wkt())
    code = crs.to_epsg()
    said = name[1] if name is not None and name[1] else "a reference system without a name"
    return said if code is None else f"EPSG:{code} ({said})"


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
