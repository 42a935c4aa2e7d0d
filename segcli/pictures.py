"""Masks as pictures, row by row: in colours, or over the image that they were found in. For every verb that draws."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segcli.colors import repeated
from segcli.drawing.contours import Outlined, outlined
from segcli.drawing.lookup import look_up
from segcli.drawing.overlay import blend, to_picture
from segcli.drawing.stamps import Stamp, stamp
from segcli.raster.sink import Layout
from segcli.raster.source import Source
from segcli.raster.stretch import Limits

STRIP_PIXELS = 2**20

OVER = Layout(3, "uint8", is_rgb=True, overviews="average")
"""What a picture over an image is stored as."""

ALONE = Layout(4, "uint8", is_rgb=True, overviews="nearest")
"""What colours alone are stored as: transparent where there is no class."""

Indices = Iterable[tuple[int, NDArray[np.number]]]
"""Rows of a mask, (row, col), and the first of them."""

Pictures = Iterator[tuple[int, NDArray[np.uint8]]]
"""Rows of a picture, (band, row, col): red, green, blue and maybe alpha."""


@dataclass(frozen=True)
class Style:
    """How classes are drawn: `table` has red, green, blue and alpha by index, (4, 256); `alpha` is their strength over
    an image. With `contours` only outlines of so many pixels are drawn, at full strength. `stamps` come on top. With
    `numbers` it is objects that are drawn, of any number: colours repeat, outlines are between any two."""

    table: NDArray[np.uint8]
    alpha: float = 1.0
    contours: int = 0
    stamps: tuple[Stamp, ...] = ()
    numbers: bool = False


def strip_height(source: Source, least: int = 1) -> int:
    """How many rows to take at once."""
    return max(least, STRIP_PIXELS // source.grid.width)


def pictured(source: Source, bands: tuple[int, ...], height: int, limits: Limits) -> Pictures:
    """An image as people look at it: three bands, or one as grey, between black and white as `limits` says. What is no
    data is black, whatever the file has there."""
    low, high = limits
    for first_row, pixels, valid in source.strips(height, bands):  # without the nodata of single bands
        picture = to_picture(pixels, low, high)
        yield first_row, picture if valid is None else picture * valid


def painted(strips: Indices, style: Style, image: Pictures | None = None) -> Pictures:
    """The mask in colours, with alpha; or over the image, whose strips must be those of the mask."""
    for first_row, indices, outline in _with_outlines(strips, style.contours):
        colors = look_up(repeated(indices) if style.numbers else indices.astype(np.uint8, copy=False), style.table)
        if outline is not None:
            colors[3] *= outline
        if image is not None:
            _, picture = next(image)
            colors = blend(picture, colors, 1.0 if style.contours else style.alpha)
        stamp(first_row, colors, style.stamps)
        yield first_row, colors


def _with_outlines(strips: Indices, width: int) -> Iterator[Outlined | tuple[int, NDArray[np.number], None]]:
    if width:
        yield from outlined(strips, width)
    else:
        yield from ((first_row, indices, None) for first_row, indices in strips)
