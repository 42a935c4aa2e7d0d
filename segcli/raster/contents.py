"""From the name of a file to readers of the images in it; what must not be followed or cannot be right is refused here.

Nothing is trusted that a header says: lists that loop, planes that are not there, sources outside a VRT's folder.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError

from segcli.errors import InputError, SegcliError
from segcli.raster import chunks, ifd, netcdf, trial, vrt
from segcli.raster.behind import behind
from segcli.raster.gdal import gdal
from segcli.raster.grid import Grid, grid_of
from segcli.raster.levels import counted, nearest
from segcli.raster.names import Name, gdal_name, is_stream, rasters_in
from segcli.raster.ngff import Array, multiscale
from segcli.raster.pixel_size import is_level
from segcli.raster.readers import ArrayReader, GdalReader, JoinedReader, Reader, picture, plane_reader
from segcli.raster.tiffs import Plane, Structure, structure
from segcli.raster.zarrs import BrokenZarrError, holds_images, image_at, is_torn, is_zarr

EXPECTED = "expected an image that GDAL can open"
BELIEVED_BYTES, INFLATED, SPARSE = 2**31, 2**17, 2**20
"""Pixels up to so many bytes are read in seconds. A file that claims more has a byte for every so many of them; a TIFF
for more, because it may be empty: then each of its blocks has a place in a list, and that is all."""

TURNED_BYTES = 2**30
"""Photographs that are not stored upright are read whole up to this size, when it is their turn: else across their
rows, with much decoding over again."""


@dataclass(frozen=True)
class Contents:
    """The images of one file, all open. A stack has `axes` and `shape`, such as TZ and (7, 5); a single image none.

    `whole` is where the pixels of the whole size lie, where a level of a pyramid was chosen; `orientation` counts as
    EXIF; `calibration` is `Grid`'s; `names` are those of OME's images. `channels` are names of bands that pages do not
    say themselves: of OME's images in turn, or of the file whose overview this is. `chunked` is the array
    of a Zarr that is read.
    """

    readers: tuple[Reader, ...]
    axes: str = ""
    shape: tuple[int, ...] = ()
    dialect: str = "tiff"
    calibration: dict[str, float] = field(default_factory=dict)
    whole: Grid | None = None
    orientation: int = 1
    names: tuple[str, ...] = ()
    channels: tuple[tuple[str, ...], ...] = ()
    chunked: Array | None = None

    def close(self) -> None:
        for reader in self.readers:
            reader.close()


def open_contents(name: Name, level: int | None = None, mpp: float | None = None) -> Contents:
    """Open all images of a file, at a pyramid level, or at that with about `mpp` micrometres a pixel.

    Raises InputError, naming the file, what was found and what was expected.
    """
    if isinstance(name, Path) and not os.path.exists(name):  # noqa: PTH110  # Path's raises for names too long
        raise InputError(name, "no such file or folder", "expected an image")
    if is_stream(name):
        raise InputError(name, "a pipe or a device", "expected an image", "write what comes of it to a file first")
    with faults_of(name, EXPECTED):
        if isinstance(name, Path) and os.path.isdir(name):  # noqa: PTH112
            return _of_folder(name, level, mpp)
        found = structure(name) if isinstance(name, Path) and name.is_file() else None
        if found is None or isinstance(name, str):
            return _by_gdal(name, level, mpp)
        # Of a slide's pages GDAL takes the label and the macro picture for overviews.
        if len(found.levels) == 1 and found.first_page and found.dialect != "slide" and (level or mpp):
            return _overview(name, found, level, mpp)
        chosen = _level(name, found, level, mpp)
        readers: list[Reader] = []
        try:
            for plane in found.levels[chosen]:
                readers.append(plane_reader(name, plane, found.first_page))
                if len(found.levels[chosen]) > 1:
                    readers[-1].rest()  # a system lets a process have about a thousand files open
            _check_inflation(name, readers, SPARSE)
            whole = _whole_grid(name, found) if chosen else None
            return Contents(
                tuple(readers), found.axes, found.shape, found.dialect, found.calibration, whole, found.orientation,
                found.names, found.channels,
            )  # fmt: skip
        except BaseException:
            for reader in readers:
                reader.close()
            raise


def _whole_grid(path: Path, found: Structure) -> Grid:
    """Of level 0."""
    reader = plane_reader(path, Plane(found.levels[0][0].offsets[:1]), found.first_page)
    grid = Grid(reader.height, reader.width, calibration=found.calibration)
    if isinstance(reader, GdalReader):
        grid = grid_of(reader.dataset, found.calibration)
    reader.close()
    return grid


def _of_folder(path: Path, level: int | None, mpp: float | None) -> Contents:
    """A Zarr, or what else GDAL opens that is a folder."""
    if (group := image_at(path)) is not None:
        return _of_zarr(path, group, level, mpp)
    if is_torn(path):
        raise InputError(path, "its own metadata (.zattrs and .zgroup, or zarr.json) are not there", EXPECTED,
                         "fetch or export it again")  # fmt: skip
    if is_zarr(path) and holds_images(path):
        inside = rasters_in(path)
        raise InputError(path, f"an OME-Zarr of {len(inside)} images", "expected one",
                         f"name one, such as {inside[0]}" if inside else "")  # fmt: skip
    return _by_gdal(path, level, mpp)


def _of_zarr(path: Path, group: Path, level: int | None, mpp: float | None) -> Contents:
    """An OME-Zarr."""
    found = multiscale(group)
    widths = [array.shape[-1] for array in found.levels]
    if mpp is None:
        chosen = counted(path, level or 0, len(widths))
    else:
        chosen = nearest(path, [widths[0] / width for width in widths], found.calibration.get("X"), mpp)
    array = found.levels[chosen]
    try:
        planes = chunks.readers(array, found.places)
    except ImportError as error:
        raise InputError(path, f"{error}", "its pixels need the package zarr", "pip install 'segcli[zarr]'") from error
    height, width = found.levels[0].shape[-2:]
    whole = Grid(height, width, calibration=found.calibration) if chosen else None
    return Contents(
        tuple(bands[0] if len(bands) == 1 else JoinedReader(bands) for bands in planes), found.axes, found.shape, "ome",
        found.calibration, whole, channels=(found.channels,) if found.channels else (), chunked=array,
    )  # fmt: skip


@contextmanager
def faults_of(name: Name, expected: str) -> Iterator[None]:
    """What goes wrong in opening or reading, said of the file; GDAL's own messages are not printed beside it."""
    try:
        with gdal():
            yield
    except (SegcliError, MemoryError):
        raise
    except UnicodeEncodeError as error:
        raise InputError(name, "its name is no UTF-8", "GDAL opens no other", "rename it") from error
    except Exception as error:  # decoders and parsers of damaged files raise anything
        raise InputError(name, reason(error), expected, "fetch or export it again") from error


def reason(error: Exception) -> str:
    """GDAL's own words: rasterio keeps them in the cause."""
    text = getattr(error, "strerror", None) or str(error.__cause__ or error).strip()
    is_told = isinstance(error, RasterioError | OSError | ifd.BrokenTiffError | BrokenZarrError)
    if not is_told and type(error).__module__.partition(".")[0] != "pyogrio":
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split()) or type(error).__name__


def _by_gdal(name: Name, level: int | None, mpp: float | None) -> Contents:
    """Another format than TIFF, or a name that is no file of this machine."""
    file_behind = name if isinstance(name, Path) else behind(name)
    if file_behind is not None and not os.path.isfile(file_behind):  # noqa: PTH113  # a Zarr
        file_behind = None
    if file_behind is not None:
        netcdf.check_header(file_behind)
        with file_behind.open("rb") as file:
            if trial.is_hdf5(file.read(4096)):
                trial.check_opens(str(gdal_name(name)), file_behind)
    if isinstance(name, Path) and name.is_file():
        with name.open("rb") as file:
            head = file.read(4096)
        if head[:6] in (b"GIF87a", b"GIF89a"):
            raise OSError("GIF, which may be a film and has a palette for each frame; save it as PNG")
        if head[:3] == b"\xff\xd8\xff" and ifd.jpeg_is_blank(name):
            raise OSError("a JPEG whose pixels are zero bytes")
        if _is_opencv_s(head):
            if level or mpp:
                raise InputError(name, "no pyramid", "--level and --mpp need one")
            pixels = picture(name)
            return Contents((ArrayReader(lambda: pixels),), dialect="picture")
        vrt.files_of(name, head)
    option, whole, names = _overview_option(name, level, mpp, {})
    reader = GdalReader(gdal_name(name), **option)
    try:
        _check_size(reader)
        if file_behind is not None and reader.dataset.driver in _ONE_FILE:
            _check_inflation(file_behind, [reader], SPARSE if reader.dataset.driver == "GTiff" else INFLATED)
        if reader.dataset.driver == "WMS" or (isinstance(name, Path) and reader.dataset.driver in _ELSEWHERE):
            raise OSError(vrt.SERVER)
        inside = reader.dataset.subdatasets
        if reader.dataset.count == 0 or (reader.dataset.driver in _CONTAINERS and len(inside) > 1):
            named = ", ".join(inside[:4]) or "none"
            raise InputError(name, f"holds {len(inside)} data sets", "expected one", f"name one: {named}")
    except BaseException:
        reader.close()
        raise
    dialect = "picture" if reader.dataset.driver in _PICTURES else "raster"
    return Contents((reader,), dialect=dialect, whole=whole, orientation=_orientation(name, reader), channels=names)


def _orientation(name: Name, reader: GdalReader) -> int:
    """As EXIF counts; in archives and behind URLs that of a JPEG, which GDAL tells."""
    if isinstance(name, Path) and gdal_name(name) == name:
        return ifd.exif_orientation(name) if name.is_file() else 1
    said = reader.dataset.tags().get("EXIF_Orientation", "1")
    return int(said) if said in set("12345678") else 1


def _check_inflation(path: Path, readers: Sequence[Reader], most: int) -> None:
    """OSError where no file of that size can hold so much: zeros, compressed and compressed again, fill a disk."""
    found = path.stat().st_size
    claimed = sum(r.height * r.width * sum(np.dtype(dtype).itemsize for dtype in r.dtypes) for r in readers)
    if claimed >= BELIEVED_BYTES and claimed > most * found:
        size = f"{readers[0].width} x {readers[0].height}"
        raise OSError(f"{found} bytes that claim {claimed / 1e9:.0f} GB of pixels, {size} in the first image")


def _check_size(reader: GdalReader) -> None:
    """OSError where pixels that are not compressed would need more bytes than there are: GDAL gives zeros for them."""
    if reader.dataset.driver not in _RAW:
        return
    files = [Path(name) for name in reader.dataset.files]
    if not all(path.is_file() for path in files):
        return
    if reader.dataset.tags(ns="ENVI").get("file_compression", "0") != "0":
        return  # by gzip
    needed = reader.height * reader.width * sum(np.dtype(dtype).itemsize for dtype in reader.dtypes)
    if reader.dataset.driver == "PCRaster":
        needed += 256  # its header, which has one length
    if reader.dataset.driver == "PCIDSK":
        needed = _end_of_pcidsk(files[0])
    sizes = [path.stat().st_size for path in files]
    found = sum(sizes[1:]) if reader.dataset.driver == "MFF" else max(sizes)  # a header, and a file for each band
    if found < needed:
        raise OSError(f"{found} bytes, and its pixels alone are {needed}")


def _end_of_pcidsk(path: Path) -> int:
    """How many bytes there are up to the end of the pixels, by the header; 0 where they lie in tiles. The header also
    says how many the file has in all, but counts room that was never written. Source: PCIDSK, image data header."""
    with path.open("rb") as file:
        head = file.read(512)
    start, count = (int(text) if (text := head[at : at + 16].strip()).isdigit() else 0 for at in (304, 320))
    return (start - 1 + count) * 512 if count else 0


_RAW = ("PNM", "ENVI", "EHdr", "GenBin", "MFF", "ROI_PAC", "SNODAS", "KRO", "PCRaster", "PCIDSK")
_ONE_FILE = ("GTiff", "PNG", "JPEG", "WEBP", "JP2OpenJPEG", "netCDF", "HDF5", "HDF5Image")
_CONTAINERS = ("netCDF", "HDF5", "Zarr", "GTiff", "NITF")
_ELSEWHERE = ("WMTS", "WCS", "GTI", "STACIT", "STACTA", "PLMOSAIC", "DAAS", "EEDAI", "OGCAPI", "NGW")
_PICTURES = ("PNG", "JPEG", "WEBP", "BMP", "PNM")


def _is_opencv_s(head: bytes) -> bool:
    """Formats that OpenCV reads and GDAL does not: PNM in digits or bits, run-length encoded BMP (GDAL may turn it)."""
    if head[:2] in (b"P1", b"P2", b"P3", b"P4"):
        return True
    if head[8:16] == b"WEBPVP8X" and len(head) > 20 and head[20] & 2:  # a film, of which the first picture is taken
        return True
    return head[:2] == b"BM" and int.from_bytes(head[30:34], "little") in (1, 2)


def _level(path: Path, found: Structure, level: int | None, mpp: float | None) -> int:
    if mpp is None:
        return counted(path, level or 0, len(found.levels))
    widths = []
    for planes in found.levels:
        reader = plane_reader(path, Plane(planes[0].offsets[:1], planes[0].raw[:1]), False)
        widths.append(reader.width)
        reader.close()
    return nearest(path, [widths[0] / width for width in widths], found.calibration.get("X"), mpp)


def _overview(name: Path, found: Structure, level: int | None, mpp: float | None) -> Contents:
    """A level of a pyramid that GDAL knows: overviews, as COGs have them, of a file with one image."""
    option, whole, names = _overview_option(name, level, mpp, found.calibration)
    return Contents(
        (GdalReader(name, **option),), dialect=found.dialect, calibration=found.calibration, whole=whole,
        orientation=found.orientation, channels=names or found.channels,
    )  # fmt: skip


def _overview_option(
    name: Name, level: int | None, mpp: float | None, calibration: dict[str, float]
) -> tuple[dict[str, int], Grid | None, tuple[tuple[str, ...], ...]]:
    """How to open the level, and where the whole lies and how its bands are called: GDAL says neither of overviews."""
    if not level and mpp is None:
        return {}, None, ()
    whole = GdalReader(gdal_name(name))
    numbers, factors, grid = *_overviews(name, whole), grid_of(whole.dataset, calibration)
    called = tuple(name or "" for name in whole.dataset.descriptions)
    whole.close()
    if mpp is not None:
        size = grid.middle_pixel_m()
        level = nearest(name, [1.0, *factors], size * 1e6 if size is not None else None, mpp)
    level = level or 0
    if level > len(factors):
        raise InputError(name, f"pyramid levels 0 to {len(factors)}", f"no level {level}")
    return ({"overview_level": numbers[level - 1]}, grid, (called,)) if level else ({}, None, ())


def _overviews(name: Name, whole: GdalReader) -> tuple[list[int], list[float]]:
    """GDAL's numbers of the overviews that show the whole image, and how many times as wide their pixels are: it also
    counts every page that is said to be smaller, whatever that shows, and the thumbnail in a JPEG."""
    numbers, factors = [], []
    for number in range(len(whole.dataset.overviews(1))):
        smaller = GdalReader(gdal_name(name), overview_level=number)
        if is_level((smaller.height, smaller.width), (whole.height, whole.width)):
            numbers.append(number)
            factors.append(whole.width / smaller.width)
        smaller.close()
    return numbers, factors
