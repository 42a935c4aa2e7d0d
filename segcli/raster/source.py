"""Reading: a raster as strips of rows or as windows, through GDAL. Knows files and formats, nothing of networks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.windows import Window

from segcli.errors import InputError
from segcli.raster.gdal import gdal, opened
from segcli.raster.rows import Rows

Purpose = Literal["image", "mask"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff"})
"""What a folder is searched for, in lower case."""


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels lie: size in pixels, and, where known, the reference system and its transform."""

    height: int
    width: int
    crs: Any = None
    transform: Any = None


BLOCK_BYTES = 2**28
"""Rows are read in whole blocks of the file while these take no more memory than this."""


class Source:
    """One open raster. As an image a palette is applied (three bands); as a mask its indices are kept.

    Attributes: `path`, `grid`, `bands` (without alpha), `begins_with_rgb`, `dtype` (a numpy name).
    Use it in a `with` block. Raises InputError, naming the file, when it cannot be opened or read.
    """

    def __init__(self, path: Path, purpose: Purpose = "image") -> None:
        self.path = path
        self._loaded: NDArray[Any] | None = None
        try:
            self._dataset = opened(path)
            transform = self._dataset.transform
        except (RasterioError, OSError) as error:
            raise InputError(path, _reason(error), "expected an image that GDAL can open") from error
        kinds = self._dataset.colorinterp
        self._block_height = self._dataset.block_shapes[0][0]
        self._indexes = [n for n, kind in enumerate(kinds, start=1) if kind != ColorInterp.alpha]
        self._lookup: NDArray[np.uint8] | None = None
        if purpose == "image" and kinds[0] == ColorInterp.palette:
            self._lookup = _lookup_table(self._dataset.colormap(1))
        self.bands = len(self._indexes) if self._lookup is None else len(self._lookup)
        self._stretch = _stretch(self._dataset) if purpose == "image" and self._lookup is None else None
        self.begins_with_rgb = kinds[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        self.dtype = str(self._dataset.dtypes[0])
        self.grid = Grid(
            self._dataset.height, self._dataset.width, self._dataset.crs, None if transform.is_identity else transform
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what `load` has read can still be had."""
        self._dataset.close()

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def size_bytes(self) -> int:
        """Of all pixels in memory."""
        return self.grid.height * self.grid.width * self.bands * np.dtype(self.dtype).itemsize

    def rows(
        self, strip_height: int, bands: Sequence[int] | None = None, first_col: int = 0, end_col: int | None = None
    ) -> Iterator[Rows]:
        """All rows from the top, `strip_height` at a time; `bands` counts from 0 and may repeat a band.

        The file is read in whole blocks, so that no block is decoded twice.
        """
        width = (self.grid.width if end_col is None else end_col) - first_col
        read_height = self._read_height(strip_height, width)
        waiting: NDArray[Any] | None = None
        first_row = 0
        for row in range(0, self.grid.height, read_height):
            height = min(read_height, self.grid.height - row)
            pixels = self.window(row, first_col, height, width, bands)
            if waiting is not None:
                pixels = np.concatenate([waiting, pixels], axis=1)
            last = row + height == self.grid.height
            end = pixels.shape[1] if last else pixels.shape[1] // strip_height * strip_height
            for start in range(0, end, strip_height):
                yield Rows(first_row, pixels[:, start : min(start + strip_height, end)])
                first_row += min(strip_height, end - start)
            waiting = pixels[:, end:] if end < pixels.shape[1] else None

    def _read_height(self, strip_height: int, width: int) -> int:
        """Rows to read at once: whole blocks of the file, at least a strip; but one strip where blocks are too high."""
        blocks = -(-strip_height // self._block_height) * self._block_height
        row_bytes = width * self.bands * np.dtype(self.dtype).itemsize
        return blocks if blocks * row_bytes <= BLOCK_BYTES else strip_height

    def load(self) -> None:
        """Read all pixels now, close the file, and answer from memory: small images show their faults before work."""
        self._loaded = self.window(0, 0, self.grid.height, self.grid.width)
        self._dataset.close()

    def window(self, row: int, col: int, height: int, width: int, bands: Sequence[int] | None = None) -> NDArray[Any]:
        """The pixels of one rectangle, (band, row, col) in the file's dtype."""
        chosen = range(self.bands) if bands is None else bands
        if self._loaded is not None:
            return self._loaded[list(chosen), row : row + height, col : col + width]
        window = Window(col, row, width, height)
        distinct = [0] if self._lookup is not None else sorted(set(chosen))
        try:
            with gdal():
                pixels = self._dataset.read([self._indexes[band] for band in distinct], window=window)
        except (RasterioError, OSError) as error:
            found = f"row {row} and below cannot be read: {_reason(error)}"
            raise InputError(self.path, found, "expected a whole file", "fetch or export it again") from error
        if self._lookup is not None:
            return self._lookup[:, pixels[0]][list(chosen)]
        if self._stretch is not None:
            pixels = self._stretch[pixels]
        return pixels if list(chosen) == distinct else pixels[[distinct.index(band) for band in chosen]]

    def value_range(self, bands: Sequence[int] | None = None) -> tuple[float, float]:
        """What black and white stand for: 0 and 255 in 8-bit files, else the lowest and highest value of the bands."""
        if self.dtype == "uint8":
            return 0.0, 255.0
        extremes = [(pixels.min(), pixels.max()) for _, pixels in self.rows(256, bands)]
        low, high = float(min(low for low, _ in extremes)), float(max(high for _, high in extremes))
        return low, high if high > low else low + 1


def _lookup_table(colormap: dict[int, tuple[int, ...]]) -> NDArray[np.uint8]:
    """Palette as (band, value): one band where every colour is a grey, else three."""
    table = np.zeros((3, 256), np.uint8)
    for value, color in colormap.items():
        if value < 256:
            table[:, value] = color[:3]
    return table[:1] if (table == table[:1]).all() else table


def _stretch(dataset: Any) -> NDArray[np.uint8] | None:
    """Values of 1, 2 or 4 bits a pixel as 8 bits, black to white, shape (256,); None for other files."""
    bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
    if dataset.dtypes[0] != "uint8" or not 1 <= bits < 8:
        return None
    return np.minimum(np.arange(256) * 255 // (2**bits - 1), 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    """GDAL's own words: rasterio keeps them in the cause."""
    text = str(error.__cause__ or error).strip()
    return " ".join(text.split()) or type(error).__name__
