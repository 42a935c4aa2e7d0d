"""Outlines of what is labelled, strip by strip. OpenCV and numpy only."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray


class Outlined(NamedTuple):
    """Rows of a mask, (row, col), and which of their pixels lie on an outline."""

    first_row: int
    indices: NDArray[np.number]
    outline: NDArray[np.bool_]


def outlined(strips: Iterable[tuple[int, NDArray[np.number]]], width: int) -> Iterator[Outlined]:
    """Pixels with another index no further than `width` rows and columns away; the border of the image is none.

    Strips come as they went in; all but the last have at least `width` rows.
    """
    above: NDArray[np.number] | None = None
    waiting: tuple[int, NDArray[np.number]] | None = None
    for first_row, indices in strips:
        if waiting is not None:
            yield _outlined(above, waiting, indices[:width], width)
            above = waiting[1][-width:]
        waiting = first_row, indices
    if waiting is not None:
        yield _outlined(above, waiting, None, width)


def _outlined(
    above: NDArray[np.number] | None,
    strip: tuple[int, NDArray[np.number]],
    below: NDArray[np.number] | None,
    width: int,
) -> Outlined:
    first_row, indices = strip
    around = np.concatenate([part for part in (above, indices, below) if part is not None])
    if around.dtype not in (np.uint8, np.uint16, np.int16):
        around = around.astype(np.float64)  # OpenCV has no other type for so large numbers
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    # What lies outside the image never is the largest nor the smallest to OpenCV.
    differs = cv2.dilate(around, square) != cv2.erode(around, square)
    skipped = 0 if above is None else len(above)
    return Outlined(first_row, indices, differs[skipped : skipped + len(indices)])
