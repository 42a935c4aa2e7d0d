"""Classes in colour over the picture they were found in. numpy only."""

import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassTable


def shown_colors(classes: ClassTable, alpha: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour times strength, and what is left of the picture, by mask value: shapes (256, 3) and (256, 1).

    The ignore index, foreign values and the background leave the picture as it is.
    """
    strength = np.zeros((256, 1), np.float32)
    for entry in classes.entries:
        if not entry.is_background:
            strength[entry.index] = alpha
    return classes.palette() * strength, 1 - strength


def blend(
    picture: NDArray[np.uint8], mask: NDArray[np.uint8], colors: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.uint8]:
    """`picture` (3, row, col) with the classes of `mask` (row, col) over it; `colors` as `shown_colors` gives them."""
    color, rest = colors
    blended = picture * rest[mask][..., 0] + color[mask].transpose(2, 0, 1)  # (3, row, col)
    return np.rint(blended).astype(np.uint8)


def to_picture(pixels: NDArray[np.generic], low: float, high: float) -> NDArray[np.uint8]:
    """Values from `low` to `high` as 8-bit RGB, (3, row, col): the first three bands, or the first one as grey."""
    chosen = pixels[:3] if len(pixels) >= 3 else pixels[[0, 0, 0]]
    if chosen.dtype == np.uint8 and (low, high) == (0, 255):
        return chosen.astype(np.uint8, copy=False)
    scaled = (chosen.astype(np.float32) - low) * np.float32(255 / (high - low))
    return np.rint(np.nan_to_num(np.clip(scaled, 0, 255))).astype(np.uint8)
