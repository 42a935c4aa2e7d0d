"""Smaller versions of images that tifffile is to write, each half as wide and high as the one before."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.machine import make_room

ROWS = 512
"""Of a smaller version, that are made at a time."""


def smaller_versions(
    planes: Sequence[NDArray[Any]], tile: int, by_majority: bool, scratch: Path
) -> list[NDArray[np.generic]]:
    """Of planes (band, row, col) of one size, (plane, band, row, col) for each level down to one tile, mapped from a
    scratch file: of four pixels the value that most of them have, the first of them where none has more; or always the
    first one."""
    bands, height, width = planes[0].shape
    sizes = []
    while max(height, width) > tile:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    dtype = planes[0].dtype
    shapes = [(len(planes), bands, *size) for size in sizes]
    ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    with scratch.open("wb") as file:
        make_room(file, int(ends[-1]) * dtype.itemsize)
    whole = np.memmap(scratch, dtype, "r+")
    levels = [whole[start:end].reshape(shape) for (start, end), shape in zip(pairwise(ends), shapes, strict=True)]
    above: Sequence[NDArray[Any]] = planes
    for level in levels:
        for plane, half in zip(above, level, strict=True):
            for row in range(0, half.shape[1], ROWS):
                half[:, row : row + ROWS] = halved(plane[:, 2 * row : 2 * (row + ROWS)], by_majority)
        above = list(level)
    return levels


def halved(pixels: NDArray[Any], by_majority: bool) -> NDArray[Any]:
    """(band, row, col) with half of the rows and columns, rounded up: a last one without another counts twice."""
    rows, cols = (size % 2 for size in pixels.shape[1:])
    pixels = np.pad(pixels, ((0, 0), (0, rows), (0, cols)), mode="edge")
    one = pixels[:, ::2, ::2]
    if not by_majority:
        return one
    right, below, last = pixels[:, ::2, 1::2], pixels[:, 1::2, ::2], pixels[:, 1::2, 1::2]
    others = np.where((right == below) | (right == last), right, np.where(below == last, below, one))
    return np.where((one == right) | (one == below) | (one == last), one, others)
