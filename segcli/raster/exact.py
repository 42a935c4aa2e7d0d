"""Writing pixels as they were stored elsewhere: bands, dtype, nodata, palette, mask and metadata as `Stored` has them.

A whole small raster at once, or a large one in rows. Nothing is computed here, and no pixel is changed.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.windows import Window

from segcli.errors import InputError
from segcli.files import part_of
from segcli.raster.faults import faults_of_writing
from segcli.raster.gdal import created, opened, settled, without_sidecar
from segcli.raster.grid import Grid
from segcli.raster.names import Name
from segcli.raster.sidecars import remove_aux, replacing_both
from segcli.raster.sink import BLOCK, Encoding, Layout, Sink, check_blocks, convert
from segcli.raster.source import Source
from segcli.raster.stored import Stored, kind_of, lost, stored
from segcli.validity import Valid, written_out

PICTURE_KINDS = (("gray",), ("red", "green", "blue"), ("red", "green", "blue", "alpha"))
"""Pictures without nodata or a palette: OpenCV writes these in a thread of their own, rasterio does not."""


def write_whole(
    path: Path, part: Path, pixels: NDArray[Any], valid: Valid, grid: Grid, like: Stored, compress: str
) -> None:
    """All pixels, (band, row, col), to `part`, in the format that the ending of `path` says. InputError, of `path`."""
    if path.suffix.lower() == ".png":
        with faults_of_writing(path):
            _write_png(part, pixels, like)
        return
    # A raster in memory has nodata as a float, and of one GDAL copies no other domains of metadata than its own.
    if (like.nodata is not None and like.dtype in ("int64", "uint64")) or like.domains_to_write:
        with faults_of_writing(path), without_sidecar(part), _created(part, grid, like, compress) as dataset:
            _fill(dataset, pixels, valid, like)
    else:
        with faults_of_writing(path):
            _copy_whole(part, pixels, valid, grid, like, compress)
    with faults_of_writing(path):
        check_blocks(part, 1 + like.has_mask)


def _copy_whole(part: Path, pixels: NDArray[Any], valid: Valid, grid: Grid, like: Stored, compress: str) -> None:
    """By way of a raster in memory. Other threads go on while GDAL copies; closing a file, which is when it would
    compress otherwise, rasterio stops all."""
    profile = _profile(grid, like, compress)
    in_memory = {key: profile.pop(key) for key in ("height", "width", "count", "dtype", "crs", "transform", "nodata")
                 if key in profile}  # fmt: skip
    with opened("", "w", driver="MEM", **in_memory) as whole:
        _describe(whole, grid, like)
        _fill(whole, pixels, valid, like)
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), without_sidecar(part):
            rasterio.shutil.copy(whole, part, **profile)


def _fill(dataset: Any, pixels: NDArray[Any], valid: Valid, like: Stored) -> None:
    if like.has_mask:
        dataset.write_mask(written_out(valid, pixels.shape[1:]))
    dataset.write(pixels)


@contextmanager
def create_exact(path: Path, grid: Grid, like: Stored, compress: str) -> Iterator["ExactSink"]:
    """A sink for `path`, a GeoTIFF or a PNG by its ending; the file is there, whole, when the block has ended well."""
    with replacing_both(path, faults_of_writing) as part, ExitStack() as scratches:
        is_png = path.suffix.lower() == ".png"
        like = replace(like, has_mask=like.has_mask and not is_png)  # GDAL would put it into a file beside it
        target = part_of(part) if is_png else part
        if is_png:
            scratches.callback(target.unlink, missing_ok=True)
            scratches.callback(remove_aux, target)
        with faults_of_writing(path):
            created = _created(target, grid, like, "NONE" if is_png else compress)
        with created as dataset:
            sink = ExactSink(path, dataset, grid, like)
            yield sink
            sink.finish()
        with faults_of_writing(path):
            check_blocks(target, 1 + like.has_mask)
            if is_png:
                convert(target, part, Layout(like.bands, like.dtype), Encoding())


class ExactSink:
    """Rows from the top, and where they are data, which a mask takes if there is one."""

    def __init__(self, path: Path, dataset: Any, grid: Grid, like: Stored) -> None:
        self._pixels = Sink(path, dataset, grid, Layout(like.bands, like.dtype))
        self._mask = Sink(path, _MaskOf(dataset), grid, Layout(1, "uint8")) if like.has_mask else None

    def write(self, first_row: int, pixels: NDArray[Any], valid: Valid) -> None:
        """Take (band, row, col)."""
        if self._mask is not None:  # first, because GDAL puts a mask behind pixels that are there already elsewhere
            self._mask.write(first_row, written_out(valid, pixels.shape[1:]))
        self._pixels.write(first_row, pixels)

    def finish(self) -> None:
        if self._mask is not None:
            self._mask.finish()
        self._pixels.finish()


class _MaskOf:
    """A dataset's mask, to be written as a band is."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def write(self, pixels: NDArray[Any], window: Window) -> None:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            self._dataset.write_mask(pixels[0], window=window)


def not_kept(name: Name, grid: Grid, like: Stored, ending: str, in_rows: bool = False) -> list[str]:
    """What a file of that ending cannot keep of a raster, in words; found by writing a small one. What is written
    `in_rows` has an .aux.xml for a reference system that the format cannot hold; thousands of tiles have none.

    InputError, of `name`, where it is the pixels.
    """
    if ending == ".png" and (like.dtype not in ("uint8", "uint16") or like.bands > 4):
        raise InputError(name, f"{like.bands} bands of {like.dtype}", "PNG cannot hold them", "choose TIFF")
    if ending == ".png" and like.colors is not None and like.dtype != "uint8":
        raise InputError(name, f"a palette of {like.dtype}", "PNG cannot hold it", "choose TIFF")
    if ending == ".png" and like.white_is_zero:
        raise InputError(name, f"a negative of {like.dtype}, 0 being white", "PNG cannot hold it", "choose TIFF")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"probe{ending}"
        pixels = np.zeros((like.bands, 2, 2), like.dtype)
        write_whole(path, path, pixels, None, grid.window(0, 0, 2, 2), like, "NONE")
        with Source(path, "stored") as source:
            said = lost(like, stored(source))
            found = source.grid
    has_sidecar = in_rows and ending != ".png"
    if (grid.crs != found.crs and not has_sidecar) or (grid.transform is None) != (found.transform is None):
        said.insert(0, "where it lies on earth")
    elif len(grid.gcps) != len(found.gcps) or (grid.rpcs is None) != (found.rpcs is None):
        said.insert(0, "control points")
    return said


def _write_png(part: Path, pixels: NDArray[Any], like: Stored) -> None:
    if like.kinds in PICTURE_KINDS and like.nodata is None:
        order = [2, 1, 0, 3][: len(pixels)] if len(pixels) > 1 else [0]
        done, data = cv2.imencode(".png", np.ascontiguousarray(pixels[order].transpose(1, 2, 0)))
        if not done:
            raise OSError("OpenCV cannot encode it")
        part.write_bytes(data.tobytes())
        return
    profile = {"driver": "PNG", "height": pixels.shape[1], "width": pixels.shape[2], "count": len(pixels)}
    with without_sidecar(part):
        dataset = opened(part, "w", dtype=like.dtype, nodata=like.nodata, **profile)
        with dataset:
            if like.colors is not None:
                dataset.write_colormap(1, dict(like.colors))
            dataset.write(pixels)


@contextmanager
def _created(part: Path, grid: Grid, like: Stored, compress: str) -> Iterator[Any]:
    """A GeoTIFF open for writing, all but its pixels said."""
    if is_moved(grid, like):
        like = replace(like, tags={name: value for name, value in like.tags.items() if name != "AREA_OR_POINT"})
    with ExitStack() as files:
        dataset = files.enter_context(created(part, **_profile(grid, like, compress)))
        _describe(dataset, grid, like)
        if like.has_mask:
            files.enter_context(rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True))
        else:  # a mask must come before its pixels, and its file has one thread
            settled(dataset)
        yield dataset


def is_moved(grid: Grid, like: Stored) -> bool:
    """Whether GDAL would write the control points a pixel from where they lie, because pixels are said to be points:
    it does unless it copies a whole raster."""
    return bool(grid.gcps) and grid.transform is None and like.tags.get("AREA_OR_POINT") == "Point"


def _profile(grid: Grid, like: Stored, compress: str) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": grid.height, "width": grid.width, "count": like.bands, "dtype": like.dtype,
        "compress": compress, "bigtiff": "IF_SAFER",
    }  # fmt: skip
    if like.colors is None:  # else it is a palette
        profile["photometric"] = "MINISWHITE" if like.white_is_zero else "MINISBLACK"
    given = {"crs": grid.crs, "transform": grid.transform, "nodata": like.nodata, "nbits": like.bits}
    profile |= {key: value for key, value in given.items() if value is not None}
    kind = np.dtype(like.dtype).kind
    half = kind == "f" and like.bits is not None
    if compress in ("DEFLATE", "ZSTD", "LZW") and like.colors is None and kind != "c" and (half or like.bits is None):
        profile["predictor"] = 3 if kind == "f" and not half else 2
    if min(grid.height, grid.width) > BLOCK:
        profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    if like.kinds[:3] == ("red", "green", "blue"):
        profile["photometric"] = "RGB"
    if like.has_alpha:
        profile["alpha"] = "YES"
    return profile


def _describe(dataset: Any, grid: Grid, like: Stored) -> None:
    if like.colors is not None and like.dtype in ("uint8", "uint16"):  # of others a TIFF would claim one and have none
        dataset.write_colormap(1, dict(like.colors))
    kinds = tuple(map(kind_of, like.kinds))
    if tuple(dataset.colorinterp) != kinds and like.colors is None and not like.white_is_zero:
        dataset.colorinterp = kinds
    for number, name in enumerate(like.names, start=1):
        if name:
            dataset.set_band_description(number, name)
    if {*like.scales} - {1.0}:
        dataset.scales = like.scales
    if {*like.offsets} - {0.0}:
        dataset.offsets = like.offsets
    if any(like.units):
        dataset.units = like.units
    if like.tags:
        dataset.update_tags(**like.tags)
    for number, tags in enumerate(like.band_tags, start=1):
        if tags:
            dataset.update_tags(number, **tags)
    for number, domain, tags in like.domains_to_write:
        dataset.update_tags(number, ns=domain, **tags)
    if grid.gcps and grid.transform is None:  # GDAL would drop the one for the others
        dataset.gcps = (list(grid.gcps), grid.gcps_crs or CRS())
    if grid.rpcs is not None:
        dataset.rpcs = grid.rpcs
