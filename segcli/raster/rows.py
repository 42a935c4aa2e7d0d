"""The strips that everything flows in."""

from itertools import pairwise
from typing import Any, NamedTuple

from numpy.typing import NDArray

from segcli.validity import Valid


class Rows(NamedTuple):
    """Some whole rows of an image: the index of the first one, and pixels as (band, row, col)."""

    first_row: int
    pixels: NDArray[Any]


class Strip(NamedTuple):
    """Some whole rows: the index of the first, pixels (band, row, col), and where they are data, (row, col)."""

    first_row: int
    pixels: NDArray[Any]
    valid: Valid


def cut(first_row: int, pixels: NDArray[Any], valid: Valid, start: int, stop: int, alone: bool) -> Strip:
    """Rows of a block as a strip, whose first one is `first_row`.

    `alone` they are a copy: whoever still has them while the next block is read does not keep all of this one.
    """
    rows, known = pixels[:, start:stop], None if valid is None else valid[start:stop]
    if alone:
        rows, known = rows.copy(), None if known is None else known.copy()
    return Strip(first_row, rows, known)


def pieces(first: int, count: int, step: int) -> list[tuple[int, int]]:
    """`count` rows or columns from `first` on, in pieces (first, end) that end at multiples of `step`."""
    return list(pairwise([first, *range(first // step * step + step, first + count, step), first + count]))
