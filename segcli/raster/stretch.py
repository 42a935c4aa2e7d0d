"""Which values of a raster are shown black, and which white."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segcli.raster.source import Source
from segcli.raster.thumbnail import thumbnail

PERCENTILES = (2.0, 98.0)
"""Of each band, as QGIS cuts by default."""

SIDE = 2048
"""Of images with more rows or columns every second, third, ... is looked at."""


Limits = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Black and white of each band."""


def shown_bands(source: Source) -> tuple[int, ...]:
    """Which bands are red, green and blue, unless told: the first three, or the first as grey."""
    return (0, 1, 2) if source.bands >= 3 else (0,)


def stretch(source: Source, bands: tuple[int, ...]) -> Limits:
    """Black and white of each of the bands, one figure for the whole image; 8-bit images are shown as they are."""
    if source.dtype_of(bands) == "uint8":
        return np.zeros(len(bands)), np.full(len(bands), 255.0)
    return cut(*thumbnail(source, SIDE, bands), source.dtype)


def stretch_together(sources: Sequence[Source], bands: tuple[int, ...]) -> Limits:
    """Of images that are looked at one after the other: the lowest black and the highest white, so that a dark one
    stays dark."""
    limits = [stretch(source, bands) for source in sources]
    return np.min([low for low, _ in limits], axis=0), np.max([high for _, high in limits], axis=0)


def cut(pixels: NDArray[np.generic], known: NDArray[np.bool_], dtype: str) -> Limits:
    """The same of pixels, (band, row, col), of which those are data that are `known`, (row, col); the file has them as
    `dtype`."""
    if dtype == "uint8":
        return np.zeros(len(pixels)), np.full(len(pixels), 255.0)
    low, high = np.zeros(len(pixels)), np.ones(len(pixels))
    for n, band in enumerate(pixels):
        values = band[known].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            low[n], high[n] = np.percentile(values, PERCENTILES)
    return low, np.where(high > low, high, low + 1)
