"""Writing: rows in, a whole file at the end. GeoTIFF directly, PNG by way of a scratch GeoTIFF that GDAL copies row by
row, because PNG cannot be written in pieces. Knows files and formats, nothing of networks.
"""

import errno
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window

from segcli.classes import ClassTable
from segcli.errors import InputError, NothingDoneError
from segcli.files import part_of, replacing
from segcli.raster.gdal import gdal, opened
from segcli.raster.source import Grid

BLOCK = 512
"""Side of the tiles of a GeoTIFF, in pixels."""

HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where no other file could be written either."""

LITTLE_ROOM = 2**20
"""Free bytes under which a failed write is put down to a full disk, where GDAL does not say."""


@dataclass(frozen=True)
class Layout:
    """What the file holds. `colors` (value to RGB) makes it an indexed picture of one band."""

    bands: int
    dtype: str
    colors: dict[int, tuple[int, int, int]] | None = None


def mask_layout(classes: ClassTable) -> Layout:
    """One byte a pixel, in the colours of the classes; white where there is no label."""
    colors = {entry.index: entry.color for entry in classes.entries}
    if classes.ignore is not None:
        colors[classes.ignore] = (255, 255, 255)
    return Layout(1, "uint8", colors)


class Sink:
    """Takes strips from the top and hands them to GDAL in whole rows of tiles, so that no tile is written twice.

    An image may come in column panels, from the left: all rows of one, then all rows of the next.
    """

    def __init__(self, path: Path, dataset: Any, grid: Grid) -> None:
        self._path = path
        self._dataset = dataset
        self._grid = grid
        self._waiting: list[NDArray[Any]] = []
        self._first_col, self._end_col = 0, 0  # of the panel that is being written
        self._next_row = 0  # the first of the panel that GDAL does not have yet

    def write(self, first_row: int, pixels: NDArray[Any], first_col: int = 0) -> None:
        """Take (band, row, col), or (row, col) for one band, that follows on what came before; else ValueError."""
        strip = pixels[None] if pixels.ndim == 2 else pixels
        if first_row == 0 and first_col == self._end_col:
            self._end_panel()
            self._first_col, self._end_col, self._next_row = first_col, first_col + strip.shape[2], 0
        due = self._next_row + self._rows_waiting()
        if (first_row, first_col) != (due, self._first_col) or first_row + strip.shape[1] > self._grid.height:
            came = f"rows {first_row} to {first_row + strip.shape[1]} from column {first_col}"
            raise ValueError(f"{came} came where row {due} from column {self._first_col} was due")
        self._waiting.append(strip)
        if self._rows_waiting() >= BLOCK:
            self._flush(self._rows_waiting() // BLOCK * BLOCK)

    def finish(self) -> None:
        """Write what is left. ValueError where rows or columns are missing."""
        self._end_panel()
        if self._end_col != self._grid.width:
            raise ValueError(f"{self._end_col} of {self._grid.width} columns came")

    def _end_panel(self) -> None:
        if self._end_col == 0:
            return
        if self._next_row + self._rows_waiting() != self._grid.height:
            raise ValueError(f"{self._next_row + self._rows_waiting()} of {self._grid.height} rows came")
        if self._waiting:
            self._flush(self._rows_waiting())

    def _rows_waiting(self) -> int:
        return sum(strip.shape[1] for strip in self._waiting)

    def _flush(self, height: int) -> None:
        whole = np.concatenate(self._waiting, axis=1) if len(self._waiting) > 1 else self._waiting[0]
        window = Window(self._first_col, self._next_row, self._end_col - self._first_col, height)
        with _faults_of(self._path):
            self._dataset.write(whole[:, :height], window=window)
        self._waiting = [whole[:, height:]] if height < whole.shape[1] else []
        self._next_row += height


@contextmanager
def create(path: Path, grid: Grid, layout: Layout) -> Iterator[Sink]:
    """A sink for `path`, a GeoTIFF or a PNG by its ending; the file is there, whole, when the block has ended well.

    Raises InputError where the file cannot be written, NothingDoneError where nothing can be: no room, no permission.
    """
    with replacing(path, _faults_of) as part:
        if path.suffix.lower() == ".png":
            scratch = part_of(part)
            try:
                with _geotiff(path, scratch, grid, layout, compress="NONE") as sink:
                    yield sink
                # Without PAM no .aux.xml is left beside the picture.
                with _faults_of(path), gdal(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
                    rasterio.shutil.copy(scratch, part, driver="PNG")
            finally:
                scratch.unlink(missing_ok=True)
        else:
            with _geotiff(path, part, grid, layout, compress="DEFLATE") as sink:
                yield sink


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """What goes wrong in writing, said of the file it was meant for."""
    try:
        yield
    except (OSError, RasterioError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())
        hopeless = isinstance(error, OSError) and error.errno in HOPELESS
        if hopeless or shutil.disk_usage(_existing(path.parent)).free < LITTLE_ROOM or _is_closed(path.parent):
            raise NothingDoneError(
                path, f"cannot be written: {reason}", "", "make room or give permission, or choose another --out"
            ) from error
        raise InputError(path, f"cannot be written: {reason}") from error


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


def _is_closed(folder: Path) -> bool:
    return not os.access(_existing(folder), os.W_OK)


@contextmanager
def _geotiff(path: Path, part: Path, grid: Grid, layout: Layout, compress: str) -> Iterator[Sink]:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": layout.bands,
        "dtype": layout.dtype,
        "crs": grid.crs,
        "transform": grid.transform,
        "compress": compress,
        "bigtiff": "IF_SAFER",
    }
    if min(grid.height, grid.width) > BLOCK:
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    if layout.bands == 3 and layout.dtype == "uint8":
        profile["photometric"] = "RGB"
    with _faults_of(path):
        dataset = opened(part, "w", **{key: value for key, value in profile.items() if value is not None})
    try:
        with _faults_of(path):
            if layout.colors is not None:
                dataset.write_colormap(1, layout.colors)
        sink = Sink(path, dataset, grid)
        yield sink
        sink.finish()
    finally:
        dataset.close()
    with _faults_of(path):
        _check_blocks(part)


def _check_blocks(path: Path) -> None:
    """OSError unless every block of a closed GeoTIFF lies in the file: rasterio passes over what fails at closing."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            ends = [start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=True) if size]
            whole = len(ends) == len(page.dataoffsets) and max(ends) <= path.stat().st_size
    except (tifffile.TiffFileError, ValueError, IndexError, struct.error) as error:
        raise OSError(errno.EIO, "the end of the file could not be written") from error
    if not whole:
        raise OSError(errno.EIO, "the end of the file could not be written")
