"""What stored numbers stand for, as look-up tables: palettes, transparency, few bits from black to white."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def lookup_table(colormap: dict[int, tuple[int, ...]]) -> NDArray[np.uint8]:
    """Palette as (band, value): one band where every colour is a grey, else three. Values without one are black."""
    table = np.zeros((3, _length(colormap)), np.uint8)
    for value, color in colormap.items():
        table[:, value] = color[:3]
    return table[:1] if (table == table[:1]).all() else table


def opaque_table(colormap: dict[int, tuple[int, ...]]) -> NDArray[np.bool_] | None:
    """Which palette indices show anything, those without a colour too; None where all do."""
    table = np.ones(_length(colormap), bool)
    for value, color in colormap.items():
        table[value] = color[3] > 0
    return None if table.all() else table


def _length(colormap: dict[int, tuple[int, ...]]) -> int:
    """Room for all values of 16 bits, of which a raster may hold more than its palette has colours. numpy counts
    negative ones from the end, where the last 2**15 places are nobody else's."""
    return max(2**15, *colormap) + 1 + 2**15


def looked_up(table: NDArray[Any], numbers: NDArray[Any]) -> NDArray[Any]:
    """What numbers stand for, (..., row, col); those that have no place in a table, such as fractions, stand for what
    the smallest one of 16 bits does: it has no colour."""
    if numbers.dtype.kind == "f" or numbers.dtype.itemsize > 2:
        is_there = (numbers >= 0) & (numbers < table.shape[-1] - 2**15) & (numbers == np.floor(numbers))
        numbers = np.where(is_there, numbers, 0).astype(np.intp) - 2**15 * ~is_there
    found: NDArray[Any] = table[..., numbers]
    return found


def negative_bits(colormap: Mapping[int, tuple[int, ...]]) -> int | None:
    """Of how many bits the numbers are that a palette only shows as a negative, from white to black; None for others.
    GDAL makes one up for such greys, and copies, VRTs and overviews have it as if it were theirs."""
    bits = len(colormap).bit_length() - 1
    if bits < 8 or len(colormap) != 2**bits:
        return None
    greys = np.arange(2**bits)[::-1] * 255 // (2**bits - 1)
    colors = np.array([colormap.get(value, (0, 0, 0, 0)) for value in range(2**bits)])
    return bits if (colors[:, :3] == greys[:, None]).all() and (colors[:, 3] == 255).all() else None


def shown(pixels: NDArray[Any], blacks: Sequence[int | None], stretch: NDArray[np.uint8] | None) -> NDArray[Any]:
    """Stored numbers, (band, row, col), as they are seen. `blacks` has by band the one that is black where 0 is white;
    those are counted from it, in place."""
    for band, black in zip(pixels, blacks, strict=True):
        if black is not None:
            np.subtract(np.asarray(black, band.dtype), band, out=band)
    return pixels if stretch is None else stretch[pixels]


def stretch_table(dataset: Any) -> NDArray[np.uint8] | None:
    """Values of 1, 2 or 4 bits a pixel as 8 bits, black to white, shape (256,); None for other files."""
    bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    if dataset.dtypes[0] != "uint8" or not 1 <= bits < 8:
        return None
    return np.minimum(np.arange(256) * 255 // (2**bits - 1), 255).astype(np.uint8)
