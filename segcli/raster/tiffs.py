"""What a TIFF file holds: one image or a stack of them, of which pages each is made, at which pyramid levels.

tifffile knows the dialects (ImageJ, OME, slide scanners); what they claim is checked against the pages that are there,
before anything is allocated. Pixels are not read here.
"""

import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from segcli.raster import ome, pixel_size
from segcli.raster.ifd import MAX_PAGES, BrokenTiffError, Page, pages

# It reports in the log what is odd about a file; what matters of it becomes an error here.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

SLIDES = frozenset({"svs", "ndpi", "scn", "bif", "philips", "qpi", "avs"})
MICROSCOPES = frozenset({"lsm", "stk", "mmstack", "fluoview", "nih", "micromanager"})
"""Dialects, by tifffile's names: of slide scanners (the first series is the slide), of microscopes (it is a stack)."""


@dataclass(frozen=True)
class Raw:
    """Pixels that lie in the file as they are: (row, col) of `dtype` from byte `offset` on."""

    offset: int
    height: int
    width: int
    dtype: str
    white_is_zero: bool = False


@dataclass(frozen=True)
class Plane:
    """One image: the pages that hold its bands, one after the other, by the offsets of their IFDs; or raw pixels."""

    offsets: tuple[int, ...] = ()
    raw: tuple[Raw, ...] = ()


@dataclass(frozen=True)
class Structure:
    """The images of a file, in the order of `axes` (none for a single one), and their pyramid.

    `levels[k]` has the planes at level k, level 0 being the whole size. `calibration` is `Grid`'s, of level 0.
    `first_page` is true for a single image that any reader finds, which `orientation` says how to turn; `names` are
    those of OME's images, `channels` of the channels of each.
    """

    levels: tuple[tuple[Plane, ...], ...]
    axes: str = ""
    shape: tuple[int, ...] = ()
    dialect: str = "tiff"
    calibration: dict[str, float] = field(default_factory=dict)
    first_page: bool = False
    orientation: int = 1
    names: tuple[str, ...] = ()
    channels: tuple[tuple[str, ...], ...] = ()


def structure(path: Path) -> Structure | None:
    """What the TIFF at `path` holds; None for another format. Raises BrokenTiffError with what is wrong, OSError."""
    found = pages(path)
    if found is None:
        return None
    first = found[0]
    if first.samples <= 0 or first.width <= 0 or first.height <= 0:
        raise BrokenTiffError(f"its header claims {first.width} x {first.height} pixels of {first.samples} bands")
    try:
        with tifffile.TiffFile(path) as file:
            whole = _structure(file, found, path.stat().st_size)
    except (tifffile.TiffFileError, ElementTree.ParseError, IndexError, KeyError, ZeroDivisionError) as error:
        raise BrokenTiffError(f"its metadata cannot be understood: {error}") from error
    if whole.levels != ((Plane((first.offset,)),),):
        return whole
    # Whatever the dialect: what lies beside the file (.aux.xml, .msk), GDAL applies to its first page alone.
    return replace(whole, first_page=True, orientation=first.orientation)


def _structure(file: tifffile.TiffFile, found: list[Page], size: int) -> Structure:
    flags = file.flags
    if "ome" in flags:
        return _ome(file, found)
    if "imagej" in flags:
        return _imagej(file, found, size)
    if flags & SLIDES:
        return _slide(file)
    if flags & MICROSCOPES or ("shaped" in flags and len(file.series) == 1):
        series = file.series[0]
        if len(found) == 1 and series.size > found[0].height * found[0].width * found[0].samples:
            raise BrokenTiffError(f"{series.shape} values behind one page; write a page for each image")
        pairs = zip(series.axes, series.shape, strict=True)
        within = "S" not in series.axes and found[0].samples > 1  # Zeiss's channels are bands of a page
        axes = "".join("S" if within and axis == "C" and n == found[0].samples else axis for axis, n in pairs)
        return _series(series, axes, "shaped", pixel_size.shaped(file.pages.first))
    if "shaped" in flags and any("C" in series.axes and len(series.pages) > 1 for series in file.series):
        return _several(file)
    return _pages(file, found)


def _several(file: tifffile.TiffFile) -> Structure:
    """Several of tifffile's own series, one after the other, in some of which channels are pages."""
    pixel = pixel_size.resolution(file.pages.first)
    kept = [series for series in file.series if not series.keyframe.is_reduced]
    planes = [plane for series in kept for plane in _series(series, series.axes, "tiff", pixel).levels[0]]
    return Structure((tuple(planes),), "I", (len(planes),), calibration=pixel)


def _pages(file: tifffile.TiffFile, found: list[Page]) -> Structure:
    """No dialect: one image, perhaps with a pyramid or a thumbnail; or pages that are images each."""
    images = [page for page in found if page.is_image] or found[:1]
    if not images[0].is_image and images[0].has_more_below:  # as camera raws have it
        raise BrokenTiffError("a thumbnail, and its image lies in SubIFDs; develop it to a TIFF of its own")
    largest = images[0]
    others = images[1:]
    if others and all(page.width < largest.width and page.height < largest.height for page in others):
        tiled = {page.offset for n, page in enumerate(found) if file.pages[n].aspage().is_tiled}
        smaller = [page for page in others if pixel_size.is_level(page.size, largest.size)]
        levels = [page for page in smaller if page.offset in tiled]
        # As slide scanners do it: levels are tiled, thumbnails are not. Beside levels, pages of another shape are the
        # label and the macro picture; without any, they are images like the first.
        if largest.offset in tiled and (levels or len(smaller) == len(others)):
            offsets = [largest.offset, *(page.offset for page in levels)]
            return Structure(
                tuple((Plane((offset,)),) for offset in offsets), calibration=pixel_size.resolution(file.pages.first)
            )
    if not others:
        return Structure(((Plane((largest.offset,)),),), calibration=pixel_size.resolution(file.pages.first))
    pixel = pixel_size.resolution(file.pages.first) if len({page.size for page in images}) == 1 else {}
    return Structure((tuple(Plane((page.offset,)) for page in images),), "I", (len(images),), calibration=pixel)


def _slide(file: tifffile.TiffFile) -> Structure:
    """The largest series: Leica's scanners write the macro picture first."""
    slide, *others = sorted(file.series, key=_size_of_one, reverse=True)
    if others and _size_of_one(others[0]) == _size_of_one(slide):
        raise BrokenTiffError(f"{1 + len(others)} images, two of them of one size; split them")
    page = next(page for page in slide.pages if page is not None).aspage()
    pixel = pixel_size.slide(page, file.pages.first.description if "svs" in file.flags else "")
    focal = set(slide.axes) - set("CYXS")  # several planes, which are images each
    return _series(slide, slide.axes, "shaped" if focal else "slide", pixel)


def _size_of_one(series: tifffile.TiffPageSeries) -> int:
    """Pixels of each of its images."""
    return series.keyframe.imagelength * series.keyframe.imagewidth


def _imagej(file: tifffile.TiffFile, found: list[Page], size: int) -> Structure:
    """Order of pages as ImageJ has it: time, depth, channel. One page may stand for all, the rest following it."""
    data: dict[str, Any] = file.imagej_metadata or {}
    times, depths, channels = (int(data.get(name, 1)) for name in ("frames", "slices", "channels"))
    count = int(data.get("images", 1))
    if times * depths * channels != count:
        times, depths, channels = 1, count, 1
    leading = [(axis, length) for axis, length in zip("TZC", (times, depths, channels), strict=True) if length > 1]
    axes, shape = "".join(axis for axis, _ in leading), tuple(length for _, length in leading)
    page = file.pages.first
    pixel = pixel_size.imagej(page, data)
    if len(found) == count:
        return _stack(axes + "YX", (*shape, 0, 0), [p.offset for p in found], "imagej", pixel)
    plane_bytes = page.nbytes
    if count < 1 or count > MAX_PAGES or plane_bytes < page.imagelength * page.imagewidth:
        raise BrokenTiffError(f"ImageJ's metadata count {count} images of {plane_bytes} bytes")
    if len(found) != 1 or page.compression != 1 or page.dataoffsets[0] + count * plane_bytes > size:
        raise BrokenTiffError(f"ImageJ's metadata count {count} images, the file has {len(found)}")
    if page.dtype is None or page.samplesperpixel != 1:
        raise BrokenTiffError("colour images of ImageJ that lie behind one page are not read")
    dtype, first = np.dtype(file.byteorder + page.dtype.char).str, page.dataoffsets[0]
    white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    raw = [Raw(first + n * plane_bytes, page.imagelength, page.imagewidth, dtype, white_is_zero) for n in range(count)]
    planes = [Plane(raw=tuple(raw[n] for n in group)) for group in _groups(axes, shape)]
    return Structure((tuple(planes),), *_without_bands(axes, shape), "imagej", pixel)


def _ome(file: tifffile.TiffFile, found: list[Page]) -> Structure:
    data = ome.data_set(file.pages.first.description, found)
    if data is None:
        return _pages(file, found)
    levels = _ome_levels(file, [found[n].offset for n in data.pages], data.pages)
    stacks = [_stack(data.axes + "YX", (*data.shape, 0, 0), offsets, "ome") for offsets in levels]
    pixel = pixel_size.resolution(file.pages.first) | data.calibration
    levels_of = tuple(stack.levels[0] for stack in stacks)
    axes, shape = stacks[0].axes, stacks[0].shape
    return Structure(levels_of, axes, shape, "ome", pixel, names=data.names, channels=data.channels)


def _ome_levels(file: tifffile.TiffFile, offsets: list[int], indices: list[int]) -> list[list[int]]:
    """Level 0 and, where every page has smaller versions in SubIFDs, those."""
    below = [file.pages[n].aspage().subifds or () for n in dict.fromkeys(indices)]
    depth = min(len(subs) for subs in below)
    by_index = dict(zip(dict.fromkeys(indices), below, strict=True))
    return [offsets, *([by_index[n][level] for n in indices] for level in range(depth))]


def _series(series: tifffile.TiffPageSeries, axes: str, dialect: str, calibration: dict[str, float]) -> Structure:
    """A series of tifffile's, with its pyramid."""
    offsets = ([page.offset for page in level.pages if page is not None] for level in series.levels)
    stacks = [
        _stack(axes, level.shape, of, dialect, calibration) for level, of in zip(series.levels, offsets, strict=True)
    ]
    return replace(stacks[0], levels=tuple(stack.levels[0] for stack in stacks))


def _stack(
    axes: str, shape: tuple[int, ...], offsets: list[int], dialect: str, calibration: dict[str, float] | None = None
) -> Structure:
    """Planes from pages in the order of the leading axes; C goes into bands, Y, X and S lie within pages."""
    leading = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis not in "YXS"]
    names, lengths = "".join(axis for axis, _ in leading), tuple(length for _, length in leading)
    if math.prod(lengths) != len(offsets):
        raise BrokenTiffError(f"its metadata count {math.prod(lengths)} planes, the file has {len(offsets)}")
    planes = tuple(Plane(tuple(offsets[n] for n in group)) for group in _groups(names, lengths))
    return Structure((planes,), *_without_bands(names, lengths), dialect, calibration or {})


def _groups(axes: str, shape: tuple[int, ...]) -> list[list[int]]:
    """Page numbers of each plane: those along C together, in order of the other axes."""
    numbers = np.arange(math.prod(shape)).reshape(shape)
    if "C" in axes:
        numbers = np.moveaxis(numbers, axes.index("C"), -1)
        return [list(map(int, group)) for group in numbers.reshape(-1, numbers.shape[-1])]
    return [[int(n)] for n in numbers.ravel()]


def _without_bands(axes: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    kept = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis != "C"]
    return "".join(axis for axis, _ in kept), tuple(length for _, length in kept)
