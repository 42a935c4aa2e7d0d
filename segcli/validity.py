"""Where there are data: an array of bools, or None for everywhere, which most rasters are and which costs nothing."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Valid = NDArray[np.bool_] | None


def written_out(valid: Valid, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """As an array of `shape`."""
    return np.ones(shape, bool) if valid is None else valid


def both(one: Valid, other: Valid) -> Valid:
    """Where both have data."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def joined(parts: Sequence[tuple[Valid, tuple[int, ...]]], axis: int) -> Valid:
    """Neighbours, each with its shape, as one."""
    if all(valid is None for valid, _ in parts):
        return None
    return np.concatenate([written_out(valid, shape) for valid, shape in parts], axis)


def holding_nan(dtype: str) -> np.dtype[Any]:
    """The floats that hold numbers of `dtype`, exactly up to 32 bits, and NaN."""
    return np.dtype(dtype) if np.dtype(dtype).kind == "f" else np.result_type(dtype, np.float32)


def with_holes(pixels: NDArray[Any], known: Valid) -> NDArray[Any]:
    """(band, row, col), NaN, in floats, where a band has no data by `known`, of the same shape; as they are where bands
    have them together, which is nearly everywhere."""
    if known is None or bool((known == known[:1]).all()):
        return pixels
    return np.where(known, pixels, holding_nan(pixels.dtype.name).type(np.nan))


Noted = tuple[int, NDArray[Any], Valid]


class Validity:
    """Where rows that are on their way through the network hold data; they come and go in strips of different heights.

    A queue of (image, row, col), or a number of rows that are valid everywhere.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Valid]] = deque()

    def noted(self, strips: Iterable[Noted]) -> Iterator[Noted]:
        """The strips as they come; what their third part says is kept until it is taken."""
        for strip in strips:
            _, pixels, valid = strip
            self._waiting.append((pixels.shape[2], valid))
            yield strip

    def take(self, count: int) -> Valid:
        """Where the next `count` rows are data; None for everywhere."""
        parts: list[tuple[int, Valid]] = []
        missing = count
        while missing:
            rows, valid = self._waiting.popleft()
            if rows > missing:
                self._waiting.appendleft((rows - missing, None if valid is None else valid[:, missing:]))
                rows, valid = missing, None if valid is None else valid[:, :missing]
            parts.append((rows, valid))
            missing -= rows
        known = [valid for _, valid in parts if valid is not None]
        if not known:
            return None
        images, _, columns = known[0].shape
        return joined([(valid, (images, rows, columns)) for rows, valid in parts], axis=1)
