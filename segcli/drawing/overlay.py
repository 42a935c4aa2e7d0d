"""Classes in colour over the picture they were found in. numpy only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassTable
from segcli.drawing.lookup import color_table


def over_picture(classes: ClassTable, shown: frozenset[int] | None = None) -> NDArray[np.uint8]:
    """`color_table` in which the background, too, is transparent, unless it is asked for."""
    if shown is None:
        shown = frozenset(entry.index for entry in classes.entries if not entry.is_background)
    return color_table(classes, shown)


def blend(picture: NDArray[np.uint8], colors: NDArray[np.uint8], alpha: float) -> NDArray[np.uint8]:
    """`picture` (3, row, col) with `colors` (red, green, blue and alpha, row, col) over it, `alpha` times as strong."""
    strength = colors[3] * np.float32(alpha / 255)
    blended = picture + (colors[:3].astype(np.float32) - picture) * strength
    return np.rint(blended).astype(np.uint8)


def to_picture(pixels: NDArray[np.generic], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Values from `low` to `high`, one a band, as 8-bit RGB, (3, row, col): three bands, or one as grey."""
    chosen = pixels if len(pixels) == 3 else pixels[[0, 0, 0]]
    if chosen.dtype == np.uint8 and not low.any() and (high == 255).all():
        return chosen.astype(np.uint8, copy=False)
    # 16 bits fit float32; of larger numbers it would lose what tells them apart.
    exact: Any = np.float32 if chosen.dtype.itemsize <= 2 else np.float64
    dark, factor = np.asarray(low, exact)[:, None, None], (255 / (high - low)).astype(exact)[:, None, None]
    with np.errstate(over="ignore", invalid="ignore"):  # infinity is white
        scaled = np.clip((np.asarray(chosen, exact) - dark) * factor, 0, 255)
    return np.rint(np.nan_to_num(scaled)).astype(np.uint8)
