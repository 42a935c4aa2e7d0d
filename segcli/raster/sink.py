"""Writing: rows in, a whole file at the end. GeoTIFF directly, PNG by way of a scratch GeoTIFF that GDAL copies row by
row, because PNG cannot be written in pieces. Knows files and formats, nothing of networks.
"""

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.windows import Window

from segcli.classes import ClassTable
from segcli.files import part_of
from segcli.machine import cores
from segcli.raster.canvas import MOST_BYTES, Canvas
from segcli.raster.faults import faults_of_writing
from segcli.raster.gdal import created, gdal, opened, settled, without_sidecar
from segcli.raster.grid import Grid
from segcli.raster.rows import pieces
from segcli.raster.sidecars import remove_aux, replacing_both
from segcli.raster.statistics import Statistics

STRIP_BYTES = 2**20
"""Of a file of many bands that is too narrow for tiles, about so many."""

BLOCK = 512
"""Side of the tiles of a GeoTIFF, in pixels."""


@dataclass(frozen=True)
class Layout:
    """What the file holds. `colors` (value to RGB) makes it an indexed picture of one band; `names` are the bands'.

    `scale` is what a stored value is to be multiplied with. `class_names`, by value, are embedded as metadata;
    `statistics` are counted while rows come. With `is_rgb` its bands are red, green, blue and, of four, alpha. `half`
    stores float32 as half floats. `overviews` is how a GeoTIFF's smaller versions are made.
    """

    bands: int
    dtype: str
    colors: dict[int, tuple[int, int, int]] | None = None
    nodata: float | None = None
    names: tuple[str, ...] = ()
    scale: float = 1.0
    class_names: dict[int, str] = field(default_factory=dict)
    half: bool = False
    statistics: bool = False
    is_rgb: bool = False
    overviews: Literal["mode", "average", "nearest"] | None = None


@dataclass(frozen=True)
class Encoding:
    """How files are written: `compress` as GDAL names it, `cog` for cloud-optimised GeoTIFFs, by so many threads, which
    change nothing in them."""

    compress: str = "DEFLATE"
    cog: bool = False
    threads: int = field(default=min(4, cores()), compare=False)


OVERVIEW_SIDE = 2 * BLOCK
"""Rasters with both sides over this get overviews."""


def mask_layout(classes: ClassTable) -> Layout:
    """One byte a pixel, in the colours of the classes; where there are no data, the value that marks no label."""
    colors = {entry.index: entry.color for entry in classes.entries}
    empty = empty_value(classes)
    if empty is not None:
        colors[empty] = (255, 255, 255)
    names = {entry.index: entry.name for entry in classes.entries}
    return Layout(1, "uint8", colors, empty, ("class",), class_names=names, statistics=True, overviews="mode")


def empty_value(classes: ClassTable) -> int | None:
    """What a mask holds where the image has no data: the ignore index, else the highest value that is no class."""
    if classes.ignore is not None:
        return classes.ignore
    taken = {entry.index for entry in classes.entries}
    return next((value for value in range(255, -1, -1) if value not in taken), None)


class Sink:
    """Takes strips from the top and hands them to GDAL in whole rows of tiles, so that no tile is written twice.

    An image may come in column panels, from the left: all rows of one, then all rows of the next.
    """

    def __init__(self, path: Path, dataset: Any, grid: Grid, layout: Layout) -> None:
        self._path = path
        self._dataset = dataset
        self._grid = grid
        self.statistics = Statistics(layout.bands, layout.nodata) if layout.statistics else None
        self.is_opaque = True  # of red, green, blue and alpha
        self._has_alpha = layout.is_rgb and layout.bands == 4
        self._block: NDArray[Any] = np.empty(0)  # a row of tiles of the panel that is being written
        self._filled = 0  # rows of it
        self._first_col, self._end_col = 0, 0  # of the panel
        self._next_row = 0  # the first of the panel that GDAL does not have yet

    def write(self, first_row: int, pixels: NDArray[Any], first_col: int = 0) -> None:
        """Take (band, row, col), or (row, col) for one band, that follows on what came before; else ValueError."""
        strip = pixels[None] if pixels.ndim == 2 else pixels
        if first_row == 0 and first_col == self._end_col:
            self._end_panel()
            self._first_col, self._end_col, self._next_row = first_col, first_col + strip.shape[2], 0
        due = self._next_row + self._filled
        if (first_row, first_col) != (due, self._first_col) or first_row + strip.shape[1] > self._grid.height:
            came = f"rows {first_row} to {first_row + strip.shape[1]} from column {first_col}"
            raise ValueError(f"{came} came where row {due} from column {self._first_col} was due")
        for first, end in pieces(first_row, strip.shape[1], BLOCK):
            self._take(strip[:, first - first_row : end - first_row], is_last=end == self._grid.height)

    def _take(self, rows: NDArray[Any], is_last: bool) -> None:
        """Rows of one row of tiles, which are copied until all of these are there: whoever made them has their memory
        back at once."""
        count, width = rows.shape[1:]
        if not self._filled and (is_last or count == BLOCK):
            self._put(rows)
            return
        if self._block.shape[2:] != (width,):
            self._block = np.empty((len(rows), min(BLOCK, self._grid.height), width), rows.dtype)
        self._block[:, self._filled : self._filled + count] = rows
        self._filled += count
        if is_last or self._filled == BLOCK:
            whole, self._filled = self._block[:, : self._filled], 0
            self._put(whole)

    def restart(self) -> None:
        """Forget what came: it comes again, from the first row of the first column on."""
        self._first_col = self._end_col = self._next_row = self._filled = 0
        self.is_opaque = True
        if self.statistics is not None:
            self.statistics.restart()

    def finish(self) -> None:
        """Write what is left. ValueError where rows or columns are missing."""
        self._end_panel()
        if self._end_col != self._grid.width:
            raise ValueError(f"{self._end_col} of {self._grid.width} columns came")

    def _end_panel(self) -> None:
        if self._end_col == 0:
            return
        if self._next_row != self._grid.height:
            raise ValueError(f"{self._next_row + self._filled} of {self._grid.height} rows came")

    def _put(self, rows: NDArray[Any]) -> None:
        """To GDAL, at once."""
        height, width = rows.shape[1:]
        with faults_of_writing(self._path):
            self._dataset.write(rows, window=Window(self._first_col, self._next_row, width, height))
        if self.statistics is not None:
            self.statistics.add(rows)
        if self._has_alpha and self.is_opaque:
            self.is_opaque = bool((rows[3] == 255).all())
        self._next_row += height


@contextmanager
def create(path: Path, grid: Grid, layout: Layout, encoding: Encoding = Encoding()) -> Iterator[Sink]:
    """A sink for `path`, a GeoTIFF or a PNG by its ending; the file is there, whole, when the block has ended well.

    Raises InputError where the file cannot be written, NothingDoneError where nothing can be: no room, no permission.
    """
    with replacing_both(path, faults_of_writing) as part:
        is_png = path.suffix.lower() == ".png"
        if is_png and layout.is_rgb and grid.height * grid.width * layout.bands <= MOST_BYTES:
            canvas = Canvas(grid.height, grid.width)
            sink = Sink(path, canvas, grid, layout)
            yield sink
            sink.finish()
            with faults_of_writing(path):
                part.write_bytes(canvas.png())
        elif is_png or encoding.cog:
            scratch = part_of(part)
            try:
                kept = encoding if encoding.cog else replace(encoding, compress="NONE")
                with _geotiff(path, scratch, grid, layout, kept) as sink:
                    yield sink
                with faults_of_writing(path):
                    drops_alpha = is_png and layout.is_rgb and layout.bands == 4 and sink.is_opaque
                    convert(_first_three(scratch, grid) if drops_alpha else scratch, part, layout, encoding)
                    if encoding.cog:
                        check_blocks(part)
            finally:
                scratch.unlink(missing_ok=True)
                remove_aux(scratch)
        else:
            with _geotiff(path, part, grid, layout, encoding) as sink:
                yield sink
            if layout.overviews and min(grid.height, grid.width) > OVERVIEW_SIDE:
                with faults_of_writing(path):
                    check_blocks(part, 1 + _add_overviews(part, grid, layout))


def _first_three(scratch: Path, grid: Grid) -> str:
    """The file without its alpha, as GDAL knows to name it: a virtual data set."""
    bands = [
        f'<VRTRasterBand dataType="Byte" band="{n}"><ColorInterp>{color}</ColorInterp><SimpleSource>'
        f"<SourceFilename>{escape(str(scratch.absolute()))}</SourceFilename><SourceBand>{n}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for n, color in enumerate(("Red", "Green", "Blue"), start=1)
    ]
    return f'<VRTDataset rasterXSize="{grid.width}" rasterYSize="{grid.height}">{"".join(bands)}</VRTDataset>'


def convert(scratch: Path | str, part: Path, layout: Layout, encoding: Encoding) -> None:
    """The finished scratch GeoTIFF as a PNG, or as a COG."""
    if not encoding.cog:
        with gdal(), without_sidecar(part):
            rasterio.shutil.copy(scratch, part, driver="PNG", write_metadata_as_text="YES")
        return
    options = {"compress": encoding.compress, "overview_resampling": (layout.overviews or "nearest").upper()}
    if layout.dtype != "uint8" or layout.colors is None:
        options["predictor"] = "YES"
    with gdal():
        rasterio.shutil.copy(scratch, part, driver="COG", blocksize=BLOCK, bigtiff="IF_SAFER", **options)


def _add_overviews(part: Path, grid: Grid, layout: Layout) -> int:
    """Smaller versions, down to one tile, inside the file; how many."""
    factors = [2**n for n in range(1, 16) if max(grid.height, grid.width) // 2 ** (n - 1) > BLOCK]
    with opened(part, "r+") as dataset, gdal():
        dataset.build_overviews(factors, Resampling[layout.overviews or "nearest"])
    return len(factors)


@contextmanager
def _geotiff(path: Path, part: Path, grid: Grid, layout: Layout, encoding: Encoding) -> Iterator[Sink]:
    profile = _profile(grid, layout, encoding)
    with faults_of_writing(path):
        dataset = created(part, **{key: value for key, value in profile.items() if value is not None})
    try:
        with faults_of_writing(path):
            _describe(dataset, grid, layout)
            if path.suffix.lower() != ".png" and not grid.is_georeferenced:  # to PNG it would be a text among others
                dataset.update_tags(**resolution_tags(grid))
            settled(dataset)
        sink = Sink(path, dataset, grid, layout)
        yield sink
        sink.finish()
        with faults_of_writing(path):
            if sink.statistics is not None:
                for n in range(layout.bands):
                    dataset.update_tags(n + 1, **sink.statistics.tags(n))
    finally:
        dataset.close()
    with faults_of_writing(path):
        check_blocks(part)


def _profile(grid: Grid, layout: Layout, encoding: Encoding) -> dict[str, Any]:
    compress = encoding.compress
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": layout.bands,
        "dtype": layout.dtype,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": layout.nodata,
        "compress": compress,
        "bigtiff": "IF_SAFER",
        "num_threads": encoding.threads,
    }
    if compress in ("DEFLATE", "ZSTD", "LZW") and layout.colors is None:  # neighbouring classes are no differences
        profile["predictor"] = 3 if layout.dtype.startswith("float") and not layout.half else 2
    if layout.half:
        profile["nbits"] = 16
    if grid.width > BLOCK:  # low ones, too: they may come in panels, each of which would write whole rows again
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": min(BLOCK, -(-grid.height // 16) * 16)}
    elif layout.bands > 4:  # GDAL's strips would be of a row or two, each with a block for each band in its cache
        row = grid.width * layout.bands * np.dtype(layout.dtype).itemsize
        profile["blockysize"] = min(BLOCK, 1 << max(0, (STRIP_BYTES // row).bit_length() - 1))
    if layout.colors is None:  # three or four bands of bytes are a picture to GDAL unless it is told otherwise
        profile["photometric"] = "RGB" if layout.is_rgb else "MINISBLACK"
        profile["alpha"] = "YES" if layout.is_rgb and layout.bands == 4 else "NO"
    return profile


def _describe(dataset: Any, grid: Grid, layout: Layout) -> None:
    """All that is not pixels."""
    if layout.colors is not None:
        dataset.write_colormap(1, layout.colors)
    for number, name in enumerate(layout.names, start=1):
        dataset.set_band_description(number, name)
    if layout.class_names:
        names = {f"CLASS_{value}": name for value, name in layout.class_names.items()}
        dataset.update_tags(1, **names)
        dataset.update_tags(**names)  # what PNG keeps, as text
    if layout.scale != 1.0:
        dataset.scales = (layout.scale,) * layout.bands
    if grid.gcps and grid.transform is None:  # GDAL would drop the one for the others
        dataset.gcps = (list(grid.gcps), grid.gcps_crs or CRS())
    if grid.rpcs is not None:
        dataset.rpcs = grid.rpcs


def resolution_tags(grid: Grid) -> dict[str, str]:
    """The size of a pixel as GDAL's metadata have it, in its spelling; none where it is not known."""
    found = grid.pixels_per_cm()
    if found is None:
        return {}
    tags = {f"TIFFTAG_{axis}RESOLUTION": f"{np.float32(number):.8g}" for axis, number in zip("XY", found, strict=True)}
    return tags | {"TIFFTAG_RESOLUTIONUNIT": "3 (pixels/cm)"}


def check_blocks(path: Path, pages: int = 1) -> None:
    """OSError unless every block of a closed GeoTIFF lies in the file: rasterio passes over what fails at closing."""
    try:
        with tifffile.TiffFile(path) as file:
            size = path.stat().st_size
            whole = len(file.pages) >= pages
            for page in file.pages:
                offsets, counts = page.dataoffsets, page.databytecounts
                ends = [start + count for start, count in zip(offsets, counts, strict=True) if count]
                whole = whole and len(ends) == len(offsets) and max(ends) <= size
    except (tifffile.TiffFileError, ValueError, IndexError, struct.error) as error:
        raise OSError(errno.EIO, "the end of the file could not be written") from error
    if not whole:
        raise OSError(errno.EIO, "the end of the file could not be written")
