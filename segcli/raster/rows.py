"""The strip that everything flows in."""

from typing import Any, NamedTuple

from numpy.typing import NDArray


class Rows(NamedTuple):
    """Some whole rows of an image: the index of the first one, and pixels as (band, row, col)."""

    first_row: int
    pixels: NDArray[Any]
