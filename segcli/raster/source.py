"""Reading: a raster as strips of rows or as windows. Knows files and formats, nothing of networks."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from segcli.errors import InputError
from segcli.options import Band
from segcli.raster import facts
from segcli.raster.called import Called
from segcli.raster.contents import EXPECTED, Contents, faults_of, open_contents
from segcli.raster.names import Name
from segcli.raster.readers import GdalReader, JoinedReader, Reader
from segcli.raster.rows import Rows, Strip, cut, pieces, rows_at_once
from segcli.raster.tables import looked_up, lookup_table, opaque_table, shown, stretch_table
from segcli.raster.upright import stored_window, upright
from segcli.validity import Valid, both, holding_nan, joined, with_holes

Purpose = Literal["image", "mask", "stored"]

ROW_BYTES = 2**27
"""A header that claims longer rows is not believed."""

PIECE_BYTES = 2**21
"""Of a row of blocks so much is read at once, all bands counted, so that GDAL finds each block in its cache when it is
asked where its data are."""


class Source:
    """One image of a file. As an image a palette is applied (three bands), and a pixel has data if a band that is asked
    for has: others without are NaN, in floats, which whole numbers become in strips with such holes. As a mask a
    palette's indices are kept. As stored it has all its bands, alpha among them, and data are where the file's nodata,
    mask or alpha as GDAL knows it say so.

    Attributes: `path`, `grid`, `bands` (without alpha), `called` (their names), `begins_with_rgb`, `dtype` (a numpy
    name). A photograph is seen upright, as viewers show it; a georeferenced raster as it is stored. Use it in a `with`
    block. Raises InputError, naming the file, when it cannot be opened or read, and when it holds several images
    (`open_images`).
    """

    def __init__(
        self, path: Name, purpose: Purpose = "image", contents: Contents | None = None, number: int = 0
    ) -> None:
        self.path = path
        self._loaded: NDArray[Any] | None = None
        self._loaded_valid: Valid = None
        if contents is None:
            contents = open_contents(path)
            if len(contents.readers) > 1:
                contents.close()
                by = "" if contents.chunked is not None else f", such as by: rio convert GTIFF_DIR:1:{path} 1.tif"
                raise InputError(path, f"a stack of {len(contents.readers)} images", "expected one image",
                                 f"save them as files of their own{by}")  # fmt: skip
        self._reader = contents.readers[number]
        self._is_one_of_many = len(contents.readers) > 1
        with faults_of(path, EXPECTED):
            self._look(contents, purpose, number)

    def _look(self, contents: Contents, purpose: Purpose, number: int) -> None:
        """What the pixels mean."""
        if number == 0 and purpose == "image" and contents.chunked is not None and contents.chunked.is_empty():
            raise InputError(self.path, "none of its chunks is there", EXPECTED, "fetch or export it again")
        reader = self._reader
        dataset = facts.dataset_of(reader)
        kinds = facts.kinds_of(reader)
        self._purpose = purpose
        self._indexes = [n for n, kind in enumerate(kinds) if kind != ColorInterp.alpha or purpose == "stored"] or [0]
        alphas = [n for n, kind in enumerate(kinds) if kind == ColorInterp.alpha]
        followed = isinstance(reader, GdalReader) and reader.follows_alpha
        self._alpha = alphas[0] if alphas and not followed and purpose != "stored" else None
        self._lookup: NDArray[np.uint8] | None = None
        self._stretch: NDArray[np.uint8] | None = None
        self._opaque: NDArray[np.bool_] | None = None  # by palette index, where some are transparent
        if dataset is not None and kinds[0] == ColorInterp.palette and purpose != "stored":
            palette = dataset.colormap(1)
            self._opaque = opaque_table(palette)
            self._lookup = lookup_table(palette) if purpose == "image" else None
        elif dataset is not None and purpose == "image":
            self._stretch = stretch_table(dataset)
        self._blacks = facts.blacks_of(reader) if purpose == "image" else [None] * len(kinds)
        self.bands = len(self._indexes) if self._lookup is None else len(self._lookup)
        self.called = self._called(contents, number, kinds)
        self.begins_with_rgb = tuple(kinds[:3]) == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        self.dtype = reader.dtypes[self._indexes[0]]
        self._is_mixed = len({reader.dtypes[n] for n in self._indexes}) > 1
        refused = "complex_int16" if purpose == "stored" else "complex"
        if any(reader.dtypes[n].startswith(refused) for n in self._indexes):
            raise InputError(self.path, f"complex numbers ({self.dtype})", "expected real ones", "convert it to bands")
        self._is_by_band = purpose == "image" and facts.masked_by_band(reader)
        self._held = holding_nan(self.dtype) if self._is_by_band else np.dtype(self.dtype)  # what strips may come in
        if reader.width * len(reader.dtypes) * np.dtype(self.dtype).itemsize > ROW_BYTES:
            raise InputError(
                self.path, f"its header claims rows of {reader.width} pixels", f"expected at most {ROW_BYTES >> 20} MB"
            )
        grid = facts.grid_of_reader(dataset, contents, reader)
        self._orientation = 1 if grid.is_georeferenced else contents.orientation
        if self._orientation >= 5:
            grid = replace(grid, height=grid.width, width=grid.height)
        self.grid = grid
        block = reader.block if self._orientation < 5 else reader.block[::-1]
        self._block_height, self._block_width = block

    def _called(self, contents: Contents, number: int, kinds: list[ColorInterp]) -> Called:
        if self._lookup is not None:
            return Called(("",) * self.bands, (ColorInterp.red, ColorInterp.green, ColorInterp.blue)[: self.bands])
        known = facts.names_of(self._reader)
        if not any(known) and contents.channels:
            channels = contents.channels[number * len(contents.channels) // len(contents.readers)]
            known = list(channels) if len(channels) == len(known) else known
        return Called(tuple(known[n] for n in self._indexes), tuple(kinds[n] for n in self._indexes))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what `load` has read can still be had."""
        self._reader.close()

    @property
    def reader(self) -> Reader:
        """Where the pixels come from."""
        return self._reader

    @property
    def scales(self) -> tuple[float, ...]:
        """What stored values are to be multiplied with, by band, as the file says; not applied here."""
        known = facts.of_bands(self._reader, lambda dataset: dataset.scales, 1.0)
        return tuple(known[n] for n in self._indexes)

    @property
    def offsets(self) -> tuple[float, ...]:
        """What is to be added then."""
        known = facts.of_bands(self._reader, lambda dataset: dataset.offsets, 0.0)
        return tuple(known[n] for n in self._indexes)

    @property
    def has_channels(self) -> bool:
        """Whether bands are pages of their own, as microscopes write channels: three of them are no red, green and
        blue."""
        return isinstance(self._reader, JoinedReader) and not self.begins_with_rgb

    @property
    def nodata(self) -> float | None:
        """The value that stands for no data, as the file says."""
        dataset = facts.dataset_of(self._reader)
        return None if dataset is None or dataset.nodata is None else float(dataset.nodata)

    @property
    def band_names(self) -> tuple[str, ...]:
        """As the file says them, by band; empty where it does not."""
        return self.called.names

    def rest(self) -> None:
        """Let go of the file until it is read again."""
        if self._loaded is None:
            self._reader.rest()

    def band_of(self, band: Band) -> int | None:
        """Where a band of the file is among the bands here; None for alpha, or where there is none. InputError where
        several have the name."""
        if isinstance(band, str):
            found = self.called.places(band)
            if len(found) > 1:
                raise InputError(self.path, f"{len(found)} bands called {band}", "expected one", "count them from 1")
            return found[0] if found else None
        if self._lookup is not None:
            return band - 1 if band <= self.bands else None
        return self._indexes.index(band - 1) if band - 1 in self._indexes else None

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    @property
    def is_turned(self) -> bool:
        """Whether rows of the image are not rows of the file, so that it had better be read at once."""
        return self._orientation != 1

    @property
    def size_bytes(self) -> int:
        """Of all pixels in memory."""
        return self.grid.height * self.grid.width * self.bands * self._held.itemsize

    def column_bytes(self, bands: Sequence[int]) -> float:
        """Bytes for each column while `strips` are read: two rows of the file's blocks, the one that is read and the
        one that strips are cut from. None to speak of where all pixels are in memory already."""
        if self._loaded is not None:
            return 0.0
        column = len(set(bands)) * self._held.itemsize
        height = min(self.grid.height, rows_at_once(1, self._block_height, self.grid.width * column))
        return 2.0 * column * height

    def rows(
        self, strip_height: int, bands: Sequence[int] | None = None, first_col: int = 0, end_col: int | None = None
    ) -> Iterator[Rows]:
        """All rows from the top, `strip_height` at a time; `bands` counts from 0 and may repeat a band."""
        for first_row, pixels, _ in self._strips(strip_height, bands, first_col, end_col, 0, with_valid=False):
            yield Rows(first_row, pixels)

    def strips(
        self, strip_height: int, bands: Sequence[int] | None = None, first_col: int = 0, end_col: int | None = None,
        first_row: int = 0,
    ) -> Iterator[Strip]:  # fmt: skip
        """As `rows`, and where there are data; from `first_row` on."""
        return self._strips(strip_height, bands, first_col, end_col, first_row, with_valid=True)

    def _strips(
        self, strip_height: int, bands: Sequence[int] | None, first_col: int, end_col: int | None, first_row: int,
        with_valid: bool,
    ) -> Iterator[Strip]:  # fmt: skip
        """The file is read in whole blocks, so that no block is decoded twice."""
        width = (self.grid.width if end_col is None else end_col) - first_col
        column = (self.bands if bands is None else len(set(bands))) * self._held.itemsize
        read_height = rows_at_once(strip_height, self._block_height, width * column)
        waiting: Strip | None = None
        for row, end_row in pieces(first_row, self.grid.height - first_row, read_height):
            height = end_row - row
            pixels, valid = self._read(row, first_col, height, width, bands, with_valid)
            if waiting is not None:
                pixels = np.concatenate([waiting.pixels, pixels], axis=1)
                valid = joined([(waiting.valid, (waiting.pixels.shape[1], width)), (valid, (height, width))], axis=0)
            end = pixels.shape[1] - (0 if end_row == self.grid.height else pixels.shape[1] % strip_height)
            for start in range(0, end, strip_height):
                stop = min(start + strip_height, end)
                yield cut(first_row, pixels, valid, start, stop, alone=start > 0 and stop == end)
                first_row += stop - start
            waiting = cut(first_row, pixels, valid, end, pixels.shape[1], alone=True) if end < pixels.shape[1] else None
            del pixels, valid  # before as much is read again
        if self._is_one_of_many:
            self.rest()  # a system lets a process have about a thousand files open

    def dtype_of(self, bands: Sequence[int] | None = None) -> str:
        """The type of these bands, or of all; InputError where they have several: a VRT may hold any."""
        if self._lookup is not None:
            return self.dtype
        found = [self._reader.dtypes[self._indexes[band]] for band in (range(self.bands) if bands is None else bands)]
        if other := next((dtype for dtype in found if dtype != found[0]), None):
            raise InputError(self.path, f"bands of {found[0]} and of {other}", "expected one type",
                             "choose with --bands, or convert it (gdal_translate -ot)")  # fmt: skip
        return found[0]

    def load(self) -> None:
        """Read all pixels now, close the file, and answer from memory: small images show their faults before work. One
        with bands of several types, which are no array, stays as it is."""
        if self._is_mixed:
            return
        whole = (0, 0, self.grid.height, self.grid.width)
        self._loaded, self._loaded_valid = self._from_file(list(range(self.bands)), *whole, with_valid=True)
        self._reader.close()

    def window(self, row: int, col: int, height: int, width: int, bands: Sequence[int] | None = None) -> NDArray[Any]:
        """The pixels of one rectangle, (band, row, col) in the file's dtype."""
        return self._read(row, col, height, width, bands, with_valid=False)[0]

    def patch(
        self, row: int, col: int, height: int, width: int, bands: Sequence[int] | None = None
    ) -> tuple[NDArray[Any], Valid]:
        """As `window`, and where there are data."""
        return self._read(row, col, height, width, bands, with_valid=True)

    def _read(
        self, row: int, col: int, height: int, width: int, bands: Sequence[int] | None, with_valid: bool
    ) -> tuple[NDArray[Any], Valid]:
        """The pixels of one rectangle, and where they are data: one of these bands at least is a finite number."""
        chosen = list(range(self.bands) if bands is None else bands)
        if self._loaded is None:
            pixels, valid = self._from_file(chosen, row, col, height, width, with_valid)
        else:
            place = (slice(row, row + height), slice(col, col + width))
            pixels = self._loaded[chosen, *place]
            valid = None if self._loaded_valid is None else self._loaded_valid[place]
        if with_valid and self._purpose != "stored" and pixels.dtype.kind == "f":
            finite = np.isfinite(pixels[0])
            for band in pixels[1:]:
                finite |= np.isfinite(band)
            valid = valid if finite.all() else both(valid, finite)
        return pixels, valid

    def _from_file(
        self, chosen: list[int], row: int, col: int, height: int, width: int, with_valid: bool
    ) -> tuple[NDArray[Any], Valid]:
        """The pixels of one rectangle, and where the file says that they are data."""
        if self._is_mixed:
            self.dtype_of(chosen)
        distinct = [0] if self._lookup is not None else sorted(set(chosen))
        wanted = [self._indexes[band] for band in distinct]
        with faults_of(self.path, "expected a whole file"):
            pixels, valid = self._pieces(wanted, row, col, height, width, with_valid)
        if self._lookup is not None:
            return looked_up(self._lookup, pixels[0])[chosen], valid
        return (pixels if chosen == distinct else pixels[[distinct.index(band) for band in chosen]]), valid

    def _pieces(
        self, wanted: list[int], row: int, col: int, height: int, width: int, with_valid: bool
    ) -> tuple[NDArray[Any], Valid]:
        down, across = self._piece_size(height)
        pixels: NDArray[Any] = np.empty(0)
        valid: Valid = None
        for (top, bottom), (left, right) in product(pieces(row, height, down), pieces(col, width, across)):
            part, known = self._piece(wanted, top, left, bottom - top, right - left, with_valid)
            if part.shape[1:] == (height, width):
                return part, known
            # Each to its place at once: a list of them would be as much again.
            place = (slice(top - row, bottom - row), slice(left - col, right - col))
            pixels = pixels if pixels.size else np.empty((len(wanted), height, width), part.dtype)
            pixels = pixels.astype(np.result_type(pixels, part), copy=False)  # floats once there are holes
            pixels[:, *place] = part
            if known is not None:
                valid = np.ones((height, width), bool) if valid is None else valid
                valid[place] = known
            del part, known  # before the next one is read
        return pixels, valid

    def _piece_size(self, height: int) -> tuple[int, int]:
        """Rows and columns, whole blocks of them, to read at once of `height` rows."""
        row_of_block = self._block_width * len(self._reader.dtypes) * np.dtype(self.dtype).itemsize
        down = max(1, PIECE_BYTES // (row_of_block * self._block_height)) * self._block_height
        return down, max(1, PIECE_BYTES // (row_of_block * min(height, down))) * self._block_width

    def _piece(
        self, wanted: list[int], row: int, col: int, height: int, width: int, with_valid: bool
    ) -> tuple[NDArray[Any], Valid]:
        place = stored_window(self._orientation, (self.grid.height, self.grid.width), row, col, height, width)
        pixels = shown(self._reader.read(wanted, *place), [self._blacks[n] for n in wanted], self._stretch)
        if not with_valid:
            return upright(pixels, self._orientation), None
        known = self._reader.valid(wanted if self._is_by_band else self._indexes, *place)
        valid: Valid = None if known is None else np.any(known, axis=0)
        pixels = with_holes(pixels, known) if self._is_by_band else pixels
        if self._alpha is not None:
            valid = both(valid, self._reader.read([self._alpha], *place)[0] > 0)
        if self._opaque is not None:
            valid = both(valid, looked_up(self._opaque, self._reader.read([0], *place)[0]))
        if valid is not None:
            valid = None if valid.all() else upright(valid, self._orientation)
        return upright(pixels, self._orientation), valid
