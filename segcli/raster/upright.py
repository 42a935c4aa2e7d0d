"""Photographs as they are seen, and where of that lies what in the file. `orientation` counts as EXIF and TIFF do."""

import numpy as np


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(..., row, col) as stored to (..., row, col) as seen. Source: TIFF 6.0, tag 274."""
    turned = pixels.swapaxes(-1, -2) if orientation >= 5 else pixels
    if orientation in (3, 4, 7, 8):
        turned = turned[..., ::-1, :]
    return turned[..., ::-1] if orientation in (2, 3, 6, 7) else turned


def stored_window(
    orientation: int, size: tuple[int, int], row: int, col: int, height: int, width: int
) -> tuple[int, int, int, int]:
    """Where a rectangle of the upright image, whose (height, width) is `size`, lies in the stored one."""
    if orientation in (3, 4, 7, 8):
        row = size[0] - row - height
    if orientation in (2, 3, 6, 7):
        col = size[1] - col - width
    return (col, row, width, height) if orientation >= 5 else (row, col, height, width)
