"""Reading planes of Zarr arrays: by GDAL where it has a decoder, by the package zarr elsewhere."""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from segcli.raster.gdal import deaf_to, opened
from segcli.raster.ngff import Array
from segcli.raster.readers import GdalReader

DECODED_AT_ONCE = 2
"""Chunks, which may be large; it would be ten."""

Part = tuple[int, int, int, int]
"""Row, col, height and width of a rectangle."""


class PlaneReader:
    """One band of one plane of an array: `place` are its numbers along all axes but rows and columns. `pixels` reads a
    rectangle where the package zarr does it; GDAL's dataset rests, closed, between two uses if told to."""

    def __init__(self, array: Array, place: tuple[int, ...], pixels: Callable[..., NDArray[Any]] | None) -> None:
        self.height, self.width = array.shape[-2:]
        self.dtypes: tuple[str, ...] = (array.dtype,)
        self.block = (min(array.chunks[-2], self.height), min(array.chunks[-1], self.width))
        self._array, self._place, self._pixels = array, place, pixels
        self._reader: GdalReader | None = None

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        part = row, col, height, width
        found = self._pixels(self._place, part) if self._pixels is not None else self._by_gdal(part)
        return np.repeat(found[None].astype(self.dtypes[0], copy=False), len(bands), axis=0)

    def _by_gdal(self, part: Part) -> NDArray[Any]:
        """float16 comes as float32, which holds it."""
        _check_readable(self._array, self._place, part)
        if self._reader is None:
            self._reader = GdalReader(_gdal_name(self._array, self._place))
        return self._reader.read([0], *part)[0]

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> None:
        """Everywhere: what GDAL calls nodata is the number of chunks that were not written, which pixels have, too."""

    def rest(self) -> None:
        if self._reader is not None:
            self._reader.rest()

    def close(self) -> None:
        self.rest()


def readers(array: Array, places: Sequence[Sequence[tuple[int, ...]]]) -> list[list[PlaneReader]]:
    """A reader for each band of each plane. Raises ImportError, with why, where the package zarr is needed and missing,
    and what that says of an array that it cannot read either."""
    why = _why_not_gdal(array, places[0][0])
    pixels = _by_zarr(array, why) if why else None
    return [[PlaneReader(array, place, pixels) for place in of_plane] for of_plane in places]


def _gdal_name(array: Array, place: tuple[int, ...]) -> str:
    return f'ZARR:"{array.path}":/' + "".join(f":{n}" for n in place)


def _why_not_gdal(array: Array, place: tuple[int, ...]) -> str | None:
    """Why GDAL cannot read it; it looks for decoders on opening. Of format 3 it knows drafts alone in many builds."""
    if array.format != 2:
        return f"Zarr format {array.format}"
    if '"' in str(array.path):
        return "a quotation mark in its name, which GDAL cannot open"
    try:
        opened(_gdal_name(array, place)).close()
    except RasterioError as error:
        return str(error)
    return None


def _by_zarr(array: Array, why: str) -> Callable[[tuple[int, ...], Part], NDArray[Any]]:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(why) from error
    zarr.config.set({"async.concurrency": DECODED_AT_ONCE})
    with deaf_to(UserWarning):  # of codecs that are not in the specification
        found = zarr.open_array(array.path, mode="r")

    def pixels(place: tuple[int, ...], part: Part) -> NDArray[Any]:
        row, col, height, width = part
        chosen: Any = (*place, slice(row, row + height), slice(col, col + width))
        return np.asarray(found[chosen])

    return pixels


def _check_readable(array: Array, place: tuple[int, ...], part: Part) -> None:
    """OSError where a chunk is there and cannot be opened: GDAL takes it for one that was never written."""
    row, col, height, width = part
    down, across = array.chunks[-2:]
    leading = [n // size for n, size in zip(place, array.chunks, strict=False)]
    for at in product(range(row // down, math.ceil((row + height) / down)),
                      range(col // across, math.ceil((col + width) / across))):  # fmt: skip
        try:
            array.file((*leading, *at)).open("rb").close()
        except FileNotFoundError:
            continue
