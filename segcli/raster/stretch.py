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


def stretch_together(sources: Sequence[Source], bands: tuple[int, ...]) -> list[Limits]:
    """Black and white of each of the bands, one figure for a whole image; 8-bit images are shown as they are. Of images
    that are looked at one after the other, the same for those of one type: the lowest black and the highest white of
    all, so that a dark one stays dark."""
    found: dict[str, Limits] = {}
    for source in sources:
        dtype = source.dtype_of(bands)
        if dtype != "uint8":
            low, high = _ends(*thumbnail(source, SIDE, bands))
            known_low, known_high = found.get(dtype, (low, high))
            found[dtype] = np.fmin(low, known_low), np.fmax(high, known_high)
    as_they_are = np.zeros(len(bands)), np.full(len(bands), 255.0)
    limits = {dtype: _apart(*ends) for dtype, ends in found.items()}
    return [limits.get(source.dtype_of(bands), as_they_are) for source in sources]


def cut(pixels: NDArray[np.generic], known: NDArray[np.bool_], dtype: str) -> Limits:
    """The same of pixels, (band, row, col), of which those are data that are `known`, (row, col); the file has them as
    `dtype`."""
    if dtype == "uint8":
        return np.zeros(len(pixels)), np.full(len(pixels), 255.0)
    return _apart(*_ends(pixels, known))


def _ends(pixels: NDArray[np.generic], known: NDArray[np.bool_]) -> Limits:
    """Of each band; NaN where it has no data."""
    low, high = np.full((2, len(pixels)), np.nan)
    for n, band in enumerate(pixels):
        values = band[known].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            low[n], high[n] = np.percentile(values, PERCENTILES)
    return low, high


def _apart(low: NDArray[np.float64], high: NDArray[np.float64]) -> Limits:
    """White above black, whatever there is."""
    low = np.nan_to_num(low)
    return low, np.where(high > low, high, low + 1)
