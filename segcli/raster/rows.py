"""The strips that everything flows in."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from segcli.validity import Valid

Item = TypeVar("Item")

BLOCK_BYTES = 2**29
"""Rows are read in whole blocks of the file while these take no more memory than this; of higher blocks in parts, each
of which decodes them again."""


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


def in_step(*files: Iterator[Item]) -> Iterator[list[Item]]:
    """The next strip of each, until all end together; ValueError where one ends before another.

    Other than `zip`, which keeps what it gave two rounds ago: a strip may keep the block that it was cut from, while as
    much is read again.
    """
    while True:
        strips = [strip for file in files if (strip := next(file, None)) is not None]
        if not strips:
            return
        if len(strips) < len(files):
            raise ValueError("one ends before another")
        yield strips
        del strips


def pieces(first: int, count: int, step: int) -> list[tuple[int, int]]:
    """`count` rows or columns from `first` on, in pieces (first, end) that end at multiples of `step`."""
    return list(pairwise([first, *range(first // step * step + step, first + count, step), first + count]))


def rows_at_once(strip_height: int, block_height: int, row_bytes: int) -> int:
    """Rows to read at once: whole blocks of the file if the memory allows it, else so many strips as it allows."""
    blocks = -(-strip_height // block_height) * block_height
    if blocks * row_bytes <= BLOCK_BYTES:
        return blocks
    return max(1, BLOCK_BYTES // (row_bytes * strip_height)) * strip_height
