"""The values of a mask as they are counted: class indices, or numbers of objects."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.errors import InputError
from segcli.raster.rows import Strip
from segcli.raster.source import Source
from segcli.validity import written_out

STRIP_HEIGHT = 512

MOST_INDEX = 255
"""Of a class."""

NUMBERS = "numbers of objects are for --objects labels or against-labels"

EXACT_FLOAT = 2**53
"""A float beyond that stands for several whole numbers."""


def whole_numbers(source: Source, is_numbered: bool, height: int = STRIP_HEIGHT) -> Iterator[Strip]:
    """The strips of a mask: class indices as bytes, numbers of objects that are stored as floats, as ImageJ has them,
    as integers. InputError where one is no such number."""
    for strip in source.strips(height):
        pixels = strip.pixels
        if not is_numbered and pixels.dtype != np.uint8:
            values = np.where(written_out(strip.valid, pixels.shape[1:]), pixels, 0)
            wrong = values[(values < 0) | (values > MOST_INDEX)]
            if wrong.size:
                raise InputError(source.path, f"the value {wrong[0]}", f"expected class indices, 0 to {MOST_INDEX}",
                                 NUMBERS)  # fmt: skip
            pixels = values.astype(np.uint8)
        if pixels.dtype.kind == "f":
            values = np.where(written_out(strip.valid, pixels.shape[1:]), pixels, 0)
            wrong = values[(values != np.rint(values)) | (np.abs(values) > EXACT_FLOAT)]
            if wrong.size:
                raise InputError(source.path, f"the value {wrong[0]:g}", "expected whole numbers, one for each object")
            pixels = values.astype(np.int64)
        yield strip._replace(pixels=pixels)


def as_values(pixels: NDArray[Any], is_numbered: bool) -> NDArray[np.uint8]:
    """Values that a meaning knows: of numbers 1 where there is an object, and not at 0 or below, which many programs
    write where nothing is known."""
    if is_numbered:
        return (pixels > 0).view(np.uint8)
    return pixels if pixels.dtype == np.uint8 else pixels.clip(0, MOST_INDEX).astype(np.uint8)
