"""A raster made small: every so many-th pixel, so that two of one size stay beside each other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segcli.raster.source import Source
from segcli.validity import written_out

STRIP_HEIGHT = 512


def thumbnail(
    source: Source, side: int, bands: Sequence[int] | None = None
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Pixels (band, row, col) with at most `side` rows and columns, and where they are data; the file is read once."""
    step = max(1, -(-max(source.grid.height, source.grid.width) // side))
    parts, known = [], []
    for first_row, pixels, valid in source.strips(STRIP_HEIGHT, bands):
        rows = slice(-first_row % step, None, step)
        parts.append(pixels[:, rows, ::step].copy())
        known.append(written_out(valid, pixels.shape[1:])[rows, ::step])
    return np.concatenate(parts, axis=1), np.concatenate(known)
