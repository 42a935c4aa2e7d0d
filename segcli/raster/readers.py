"""Where pixels come from: GDAL, or an array for what GDAL reads wrongly or not at all. One rectangle at a time."""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning
from rasterio.io import MemoryFile
from rasterio.windows import Window

from segcli.raster.gdal import deaf_to, gdal, opened
from segcli.raster.ifd import page_at
from segcli.raster.sidecars import sidecars
from segcli.raster.tiffs import Plane, Raw
from segcli.validity import Valid, joined

# What it would print is raised here as an error, in one line. OpenCV 4 and 5 have this in two places.
(cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel)(0)

GDAL_CODECS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32909, 32946, 34887, 34925, 50000, 50001})
"""Compressions of TIFF that the GDAL of rasterio's wheels reads; for others imagecodecs is asked, if it is there."""

JPEG = 7


class Reader(Protocol):
    """All bands of one image, alpha among them; `block` is the (height, width) that is decoded at once."""

    height: int
    width: int
    dtypes: tuple[str, ...]
    block: tuple[int, int]

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        """(band, row, col); bands count from 0, ascending."""

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> Valid:
        """(band, row, col): where there are data, alpha left out; (1, row, col) where that is known of the pixel as a
        whole, None where they are everywhere."""

    def rest(self) -> None:
        """Let go of the file until it is read again."""

    def close(self) -> None: ...


class GdalReader:
    """A dataset of GDAL's; `dataset` tells what else it knows. It rests, closed, between two uses if told to. Where
    data are alpha says if GDAL's mask `follows_alpha`, which nodata hides."""

    def __init__(self, name: str | Path, **options: Any) -> None:
        self._name, self._options = name, options
        self._dataset: Any = None
        self._look()

    def _look(self) -> None:
        self.height, self.width = self.dataset.height, self.dataset.width
        self.dtypes = tuple(self.dataset.dtypes)
        self.block = self.dataset.block_shapes[0] if self.dataset.count else (1, self.width)
        flags, kinds = self.dataset.mask_flag_enums, self.dataset.colorinterp
        self._alphas = [n for n, kind in enumerate(kinds) if kind == ColorInterp.alpha]
        self.follows_alpha = bool(flags) and MaskFlags.alpha in flags[0]
        # Not rasterio's dataset_mask, which takes the fourth band's nodata for that of all where red comes first.
        self._is_masked = [known != [MaskFlags.all_valid] for known in flags]
        self._has_one_mask = bool(flags) and MaskFlags.per_dataset in flags[0]

    @property
    def dataset(self) -> Any:
        if self._dataset is None:
            self._dataset = opened(self._name, **self._options)
        return self._dataset

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        with gdal():
            return self.dataset.read([band + 1 for band in bands], window=Window(col, row, width, height))

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> Valid:
        asked = [0] if self._has_one_mask else [band for band in bands if band not in self._alphas] or [0]
        if not any(self._is_masked[band] for band in asked):
            return None
        with gdal(), deaf_to(NodataShadowWarning) if self._alphas else nullcontext():  # who reads this asks alpha, too
            masks = self.dataset.read_masks([band + 1 for band in asked], window=Window(col, row, width, height))
        found: NDArray[np.bool_] = masks != 0
        return found

    def rest(self) -> None:
        self.close()

    def close(self) -> None:
        if self._dataset is not None:
            self._dataset.close()
            self._dataset = None


MOST_OPEN = 256
"""Files, of pages that are bands of one image: a system lets a process have about a thousand open."""


class JoinedReader:
    """Readers of one size, their bands one after the other; of very many each rests when it has been read."""

    def __init__(self, parts: Sequence[Reader]) -> None:
        self.parts = parts
        first = parts[0]
        self.height, self.width, self.block = first.height, first.width, first.block
        self.dtypes = tuple(dtype for part in parts for dtype in part.dtypes)
        self._places = [(part, n) for part in parts for n in range(len(part.dtypes))]
        if any((part.height, part.width) != (first.height, first.width) for part in parts):
            raise OSError("pages of different sizes stand for bands of one image")

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        found = []
        for part, n in (self._places[band] for band in bands):
            found.append(part.read([n], row, col, height, width))
            self.spare(part)
        return np.concatenate(found)

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> Valid:
        masks = []
        for part, n in (self._places[band] for band in bands):
            masks.append((part.valid([n], row, col, height, width), (1, height, width)))
            self.spare(part)
        return joined(masks, axis=0)

    def spare(self, part: Reader) -> None:
        """Let go of one of the parts, where there are too many of them to be open at once."""
        if len(self.parts) > MOST_OPEN and part is not self.parts[0]:  # which is asked what the file is
            part.rest()

    def rest(self) -> None:
        for part in self.parts:
            part.rest()

    def close(self) -> None:
        for part in self.parts:
            part.close()


class ArrayReader:
    """Pixels that are an array already, (band, row, col), in memory or mapped from a file for as long as they are read:
    what is mapped is a file that is open. `white_is_zero` counts as TIFF's tag."""

    def __init__(self, pixels: Callable[[], NDArray[Any]], white_is_zero: bool = False) -> None:
        self._pixels, self.white_is_zero = pixels, white_is_zero
        bands, self.height, self.width = pixels().shape
        self.dtypes = (pixels().dtype.newbyteorder("=").name,) * bands
        self.block = (1, self.width)

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        part = self._pixels()[list(bands), row : row + height, col : col + width]
        return np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("="))

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> None:
        return None

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


class DecodedReader:
    """A page of a TIFF whose compression tifffile decodes and GDAL does not; needs imagecodecs. `dataset` is one of a
    single pixel, which says what GDAL makes of the page's other tags and of what lies beside the file, if this is its
    `first_page`: its place on earth, nodata, alpha, names; not of a mask in a file of its own."""

    def __init__(self, path: Path, offset: int, first_page: bool) -> None:
        self._file = tifffile.TiffFile(path)
        page = tifffile.TiffPage(self._file, index=_goto(self._file, offset))
        self._page = page
        self.height, self.width = page.imagelength, page.imagewidth
        self.dtypes = (np.dtype(page.dtype).name,) * page.samplesperpixel
        self.bits = int(page.bitspersample)
        self.block = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        self._memory = _in_memory(path, page, first_page)
        self.dataset = opened(self._memory[0].name)

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        page = self._page
        down, across = self.block
        per_row = -(-self.width // across)
        per_plane = per_row * -(-self.height // down)
        planar = page.planarconfig == 2 and page.samplesperpixel > 1
        out = np.zeros((len(bands), height, width), page.dtype)
        for n, band in enumerate(bands):
            for block_row in range(row // down, -(-(row + height) // down)):
                for block_col in range(col // across, -(-(col + width) // across)):
                    index = block_row * per_row + block_col + (band * per_plane if planar else 0)
                    block = self._segment(index)
                    sample = block[..., 0 if planar else band]
                    top, left = block_row * down, block_col * across
                    r0, c0 = max(row, top), max(col, left)
                    r1 = min(row + height, top + sample.shape[0])
                    c1 = min(col + width, left + sample.shape[1])
                    out[n, r0 - row : r1 - row, c0 - col : c1 - col] = sample[
                        r0 - top : r1 - top, c0 - left : c1 - left
                    ]
        return out

    def _segment(self, index: int) -> NDArray[Any]:
        """One decoded tile or strip, (row, col, sample)."""
        offset, size = self._page.dataoffsets[index], self._page.databytecounts[index]
        if size == 0:  # a sparse file
            samples = 1 if self._page.planarconfig == 2 else self._page.samplesperpixel
            shape = min(self.block[0], self.height), self.block[1], samples
            return np.full(shape, self.dataset.nodata or 0, self._page.dtype)
        handle = self._file.filehandle
        if handle.closed:
            handle.open()
        if offset + size > handle.size:  # before memory is taken for it
            raise OSError("the file ends inside a block")
        handle.seek(offset)
        data = handle.read(size)
        block, _, _ = self._page.decode(data, index, jpegtables=self._page.jpegtables)
        if block is None:
            raise OSError("a block is missing")
        return block[0]

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> Valid:
        nodata = self.dataset.nodata
        if nodata is None or np.isnan(nodata):  # NaN is no data without being said
            return None
        kinds = self.dataset.colorinterp
        colors = [band for band in bands if kinds[band] != ColorInterp.alpha] or [0]
        return self.read(colors, row, col, height, width) != nodata

    def rest(self) -> None:
        self._file.filehandle.close()

    def close(self) -> None:
        self.dataset.close()
        for file in self._memory:
            file.close()
        self._file.close()


SAID = frozenset({33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844})
"""Tags of TIFF that only GDAL understands: GeoTIFF's, RPC, GDAL's metadata and nodata."""


def _in_memory(path: Path, page: tifffile.TiffPage, first_page: bool) -> list[MemoryFile]:
    """A TIFF like the page, of one pixel, and behind it in the list what lies beside the file."""
    folder = uuid4().hex
    beside = [found for found in sidecars(path) if found.suffix != ".msk"] if first_page else []  # a mask has a size
    contents = {path.name: _one_pixel_of(page)} | {found.name: found.read_bytes() for found in beside}
    return [MemoryFile(data, dirname=folder, filename=name) for name, data in contents.items()]


def _one_pixel_of(page: tifffile.TiffPage) -> bytes:
    """A TIFF like the page, of one pixel."""
    file = BytesIO()
    samples = page.samplesperpixel
    kind = {0: "miniswhite", 2: "rgb", 3: "palette", 6: "rgb"}.get(int(page.photometric), "minisblack")
    palette = page.colormap if kind == "palette" and samples == 1 else None
    if (kind == "rgb" and samples < 3) or (kind == "palette" and palette is None):
        kind = "minisblack"
    said = [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in page.tags if tag.code in SAID]
    tifffile.imwrite(
        file, np.zeros((1, 1, samples) if samples > 1 else (1, 1), page.dtype), photometric=kind, metadata=None,
        planarconfig="contig" if samples > 1 else None, extrasamples=tuple(page.extrasamples) or None, extratags=said,
        software=False, colormap=palette,
    )  # fmt: skip
    return file.getvalue()


def _goto(file: tifffile.TiffFile, offset: int) -> int:
    file.filehandle.seek(offset)
    return 0


def plane_reader(path: Path, plane: Plane, first_page: bool) -> Reader:
    """A reader for one image of a TIFF; `first_page` where any reader finds it."""
    if plane.raw:
        return JoinedReader([ArrayReader(partial(_mapped, path, raw), raw.white_is_zero) for raw in plane.raw])
    parts = [_page_reader(path, offset, first_page) for offset in plane.offsets]
    return parts[0] if len(parts) == 1 else JoinedReader(parts)


def _page_reader(path: Path, offset: int, first_page: bool) -> Reader:
    compression = page_at(path, offset).compression
    if compression not in GDAL_CODECS or (compression == JPEG and _bits(path, offset) == 12):
        return _decoded(path, offset, compression, first_page)
    return GdalReader(path if first_page else f"GTIFF_DIR:off:{offset}:{path}")


def _bits(path: Path, offset: int) -> int:
    with tifffile.TiffFile(path) as file:
        return int(tifffile.TiffPage(file, index=_goto(file, offset)).bitspersample)


def _decoded(path: Path, offset: int, compression: int, first_page: bool) -> Reader:
    try:
        reader = DecodedReader(path, offset, first_page)
        try:
            reader.read([0], 0, 0, 1, 1)
        except BaseException:
            reader.close()
            raise
        return reader
    except (ValueError, ImportError) as error:  # tifffile says ValueError where imagecodecs is missing
        raise OSError(f"no decoder for TIFF compression {compression}; pip install imagecodecs may help") from error


def _mapped(path: Path, raw: Raw) -> NDArray[Any]:
    """(band, row, col), with one band."""
    return np.memmap(path, np.dtype(raw.dtype), "r", raw.offset, (1, raw.height, raw.width))


def picture(path: Path) -> NDArray[Any]:
    """A picture that GDAL reads wrongly or not at all: (band, row, col), red first, as it is stored."""
    with path.open("rb") as file:
        if file.read(2) in (b"P2", b"P3"):
            return _plain_pnm(path)
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise OSError("OpenCV cannot read it")
    if pixels.ndim == 2:
        return pixels[None]
    order = [2, 1, 0, 3] if pixels.shape[2] == 4 else [2, 1, 0]
    return np.ascontiguousarray(pixels[:, :, order].transpose(2, 0, 1))


def _plain_pnm(path: Path) -> NDArray[Any]:
    """Numbers in digits, as they stand: OpenCV would stretch them to their largest value, labels too."""
    magic, *numbers = re.sub(rb"#[^\n]*", b"", path.read_bytes()).split()
    width, height, largest = map(int, numbers[:3])
    bands = 3 if magic == b"P3" else 1
    values = np.array(numbers[3:]).astype(np.uint16 if largest > 255 else np.uint8)
    if values.size < width * height * bands:
        raise OSError(f"{values.size} values for {width} x {height} pixels of {bands}")
    return np.moveaxis(values[: width * height * bands].reshape(height, width, bands), -1, 0)
