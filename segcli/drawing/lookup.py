"""From class indices to colours, by look-up table. OpenCV and numpy only."""

from collections.abc import Collection

import cv2
import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassTable


def color_table(classes: ClassTable, shown: Collection[int] | None = None) -> NDArray[np.uint8]:
    """Red, green, blue and alpha by mask value, (4, 256): opaque for classes, for those of `shown` where it is given,
    and transparent for all else."""
    table = np.zeros((4, 256), np.uint8)
    table[:3] = classes.palette().T
    for entry in classes.entries:
        table[3, entry.index] = 255 if shown is None or entry.index in shown else 0
    return table


def look_up(indices: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours (band, row, col) of indices (row, col), by a table (band, 256)."""
    colors = np.empty((len(table), *indices.shape), np.uint8)
    for band, values in enumerate(table):
        cv2.LUT(indices, values, dst=colors[band])
    return colors
