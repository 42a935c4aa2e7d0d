"""Whether two rasters lie on one grid."""

import math

from segcli.raster.align import aligned
from segcli.raster.source import Source

__all__ = ["aligned", "differ"]

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
