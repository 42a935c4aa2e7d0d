"""Writing stacks: planes in, one TIFF with the axes of its source at the end; OME from OME, ImageJ from ImageJ."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import tifffile
from numpy.typing import NDArray

from segcli.colors import hex_color
from segcli.files import part_of
from segcli.machine import make_room
from segcli.raster.faults import faults_of_writing
from segcli.raster.grid import Grid
from segcli.raster.images import Images
from segcli.raster.pyramid import smaller_versions
from segcli.raster.sidecars import replacing_both
from segcli.raster.sink import OVERVIEW_SIDE, Encoding, Layout, Sink, create

TILE = 512
BIG = 2**32 - 2**25
"""Bytes from which on a file must be a BigTIFF."""


class PlaneSink:
    """One image of the stack; rows may come in column panels, as for `sink.Sink`."""

    def __init__(self, plane: NDArray[Any]) -> None:
        self._plane = plane  # (band, row, col), mapped from a scratch file
        self._written = 0

    def write(self, first_row: int, pixels: NDArray[Any], first_col: int = 0) -> None:
        """Take (band, row, col), or (row, col) for one band."""
        strip = pixels[None] if pixels.ndim == 2 else pixels
        rows, columns = strip.shape[1:]
        self._plane[:, first_row : first_row + rows, first_col : first_col + columns] = strip
        self._written += rows * columns

    def restart(self) -> None:
        """Forget what came."""
        self._written = 0

    def finish(self) -> None:
        """ValueError where pixels are missing."""
        if self._written != self._plane[0].size:
            raise ValueError(f"{self._written} of {self._plane[0].size} pixels came")


@contextmanager
def create_for(
    images: Images,
    path: Path,
    layout: Layout,
    encoding: Encoding,
    ome: bool = False,
    grids: Sequence[Grid] | None = None,
) -> Iterator[Sequence[Sink | PlaneSink]]:
    """A sink for each of the images, on its grid or another one, in one file: a stack of a stack, a raster of a single
    one, but with `ome` of OME's again an OME-TIFF. The file is there, whole, when the block has ended well."""
    grids = grids or [plane.grid for plane in images.planes]
    if images.in_pages and (ome or images.axes):
        with create_stack(path, grids, layout, images.axes, images.shape, images.dialect, images.names) as sinks:
            yield sinks
    else:
        with create(path, grids[0], layout, encoding) as sink:
            yield [sink]


@contextmanager
def create_stack(
    path: Path, grids: Sequence[Grid], layout: Layout, axes: str, shape: tuple[int, ...], dialect: str,
    names: tuple[str, ...] = (),
) -> Iterator[list[PlaneSink]]:  # fmt: skip
    """A sink for each plane of a stack; the file is there, whole, when the block has ended well.

    Planes wait in a scratch file beside it, uncompressed. Raises InputError or NothingDoneError as `sink.create`.
    """
    with replacing_both(path, faults_of_writing) as part:
        scratch = part_of(part)
        smaller = part_of(scratch)
        try:
            with faults_of_writing(path):
                planes = _mapped(scratch, grids, layout)
            sinks = [PlaneSink(plane) for plane in planes]
            yield sinks
            for sink in sinks:
                sink.finish()
            with faults_of_writing(path):
                _write(part, planes, grids[0], layout, axes, shape, dialect, names, smaller)
        finally:
            for path in (scratch, smaller):
                path.unlink(missing_ok=True)


def _mapped(scratch: Path, grids: Sequence[Grid], layout: Layout) -> list[NDArray[Any]]:
    """(band, row, col) of each plane; a picture lies in the file pixel by pixel."""
    dtype = np.dtype(np.float16 if layout.half else layout.dtype)
    sizes = [layout.bands * grid.height * grid.width for grid in grids]
    with scratch.open("wb") as file:
        # Room for all of it now: a full disk under a mapped file ends the program.
        make_room(file, sum(sizes) * dtype.itemsize)
    whole = np.memmap(scratch, dtype, "r+", shape=(sum(sizes),))
    ends = np.cumsum(sizes)
    parts = [whole[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    if layout.is_rgb:
        return [part.reshape(g.height, g.width, -1).transpose(2, 0, 1) for part, g in zip(parts, grids, strict=True)]
    return [part.reshape(layout.bands, g.height, g.width) for part, g in zip(parts, grids, strict=True)]


def _write(
    part: Path, planes: list[NDArray[Any]], first: Grid, layout: Layout, axes: str, shape: tuple[int, ...],
    dialect: str, names: tuple[str, ...], scratch: Path,
) -> None:  # fmt: skip
    total = sum(plane.nbytes for plane in planes)
    most = total * 4 // 3 if dialect == "ome" else total  # with smaller versions
    alike = all(plane.shape == planes[0].shape for plane in planes)
    said = _said(layout)
    before, after = ("", "S") if layout.is_rgb else ("C" if layout.bands > 1 else "", "")
    is_known = layout.dtype != "uint32" and not layout.half  # to ImageJ
    imagej = dialect == "imagej" and set(axes) <= set("TZ") and alike and total < BIG and is_known
    ome = dialect == "ome" and alike and len({*axes}) == len(axes)  # OME knows but one axis of any other name
    metadata: dict[str, Any] = {"axes": f"{axes}{before}YX{after}"}
    options: dict[str, Any] = {
        "photometric": "rgb" if layout.is_rgb else "minisblack", "extratags": _of_gdal(layout)
    }  # fmt: skip
    if layout.is_rgb and layout.bands == 4:
        options["extrasamples"] = ["unassalpha"]
    if ome:
        metadata["Description"] = json.dumps(said)
        if before:
            metadata["Channel"] = {"Name": list(layout.names)}
        for axis, step in first.calibration.items():
            name, unit = ("TimeIncrement", "s") if axis == "T" else (f"PhysicalSize{axis}", "µm")
            metadata |= {name: step, f"{name}Unit": unit}
    elif imagej:
        metadata["Info"] = json.dumps(said)
        if before:
            metadata["Labels"] = [*layout.names] * len(planes)  # of its slices, channels of one place together
        if layout.colors is not None:
            metadata["LUTs"] = [_colormap(layout.colors, np.uint8)]
        steps = first.calibration
        if "X" in steps and "Y" in steps:
            metadata["unit"] = "um"
            options["resolution"] = (1 / steps["X"], 1 / steps["Y"])
        metadata |= _in_names_of_imagej(steps)
    else:
        metadata |= said | _in_names_of_imagej(first.calibration)
        if (pixels_per_cm := first.pixels_per_cm()) is not None:
            options |= {"resolution": pixels_per_cm, "resolutionunit": "CENTIMETER"}
        if layout.colors is not None:
            options |= {"photometric": "palette", "colormap": _colormap(layout.colors, np.uint16)}
    if not imagej:  # ImageJ reads its own stacks uncompressed; for a predictor of floats tifffile needs another package
        options |= {"compression": "zlib", "predictor": layout.dtype == "uint8" and layout.colors is None}
    with tifffile.TiffWriter(part, bigtiff=most > BIG, ome=ome, imagej=imagej) as file:
        if alike:
            size = planes[0].shape[1:]
            if min(size) > TILE and not imagej:
                options["tile"] = (TILE, TILE)
            samples = [layout.bands]
            inner = [*(samples if before else []), *size, *(samples if after else [])]
            data = planes[0].base.reshape(*shape, *inner)  # type: ignore[union-attr]
            if not ome:
                file.write(data, metadata=metadata, **options)
                return
            levels = []
            if layout.overviews and not layout.is_rgb and min(size) > OVERVIEW_SIDE:
                levels = smaller_versions(planes, TILE, layout.overviews == "mode", scratch)
            levels = [level.reshape(*shape, *(samples if before else []), *level.shape[2:]) for level in levels]
            _write_ome(file, [data, *levels], axes, names, metadata, options)
        else:
            for plane in planes:
                pixels = plane.transpose(1, 2, 0) if after else plane if before else plane[0]
                file.write(pixels, metadata={"axes": f"{before}YX{after}"} | said, **options)


def _write_ome(
    file: tifffile.TiffWriter, levels: list[NDArray[Any]], axes: str, names: tuple[str, ...],
    metadata: dict[str, Any], options: dict[str, Any],
) -> None:  # fmt: skip
    """With smaller versions in SubIFDs; positions of a stage are images of their own, which keep their names."""
    images = [levels]
    if axes[:1] == "I":
        metadata = metadata | {"axes": metadata["axes"][1:]}
        images = [list(image) for image in zip(*levels, strict=True)]
    metadata = metadata | {"UUID": f"urn:uuid:{_uuid_of([image[0] for image in images], metadata)}"}
    for number, (whole, *smaller) in enumerate(images):
        name = {"Name": names[number]} if names and names[number] else {}
        file.write(whole, subifds=len(smaller), metadata=metadata | name, **options)
        for level in smaller:
            file.write(level, subfiletype=1, metadata=None, **options)


def _uuid_of(pixels: Sequence[NDArray[Any]], metadata: dict[str, Any]) -> UUID:
    """By what is in the file: the same again has the same bytes, where tifffile would draw another one each time."""
    digest = blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for image in pixels:
        digest.update(np.ascontiguousarray(image).data)
    return UUID(bytes=digest.digest(), version=5)


def _in_names_of_imagej(steps: dict[str, float]) -> dict[str, Any]:
    """Steps that no tag of TIFF has, as `pixel_size.imagej` reads them. The unit of Z is its own: that of X and Y would
    make a size of what the tags say where nobody knows it."""
    unit: dict[str, Any] = {"zunit": "um"} if "Z" in steps else {}
    return unit | {name: steps[axis] for axis, name in (("Z", "spacing"), ("T", "finterval")) if axis in steps}


def _said(layout: Layout) -> dict[str, Any]:
    """Names and colours of the classes, by value, and what marks no label, as `labels.embedded_table` reads them; of
    other pixels the names of their bands, and what a value means."""
    colors = {str(value): hex_color(color) for value, color in (layout.colors or {}).items()}
    ignore = {"ignore": None if layout.nodata is None else int(layout.nodata)} if layout.class_names else {}
    classes = {"classes": {str(value): name for value, name in layout.class_names.items()}, "colors": colors} | ignore
    names = {"names": list(layout.names)} if layout.bands > 1 and layout.names else {}
    scale = {"scale": layout.scale} if layout.scale != 1.0 else {}
    nodata = {"nodata": layout.nodata} if layout.nodata is not None and math.isfinite(layout.nodata) else {}
    return (classes if layout.colors is not None else {}) | names | scale | nodata


def _of_gdal(layout: Layout) -> list[tuple[int, str, int, str, bool]]:
    """Of each page, which has one band: what stands for no data, and what a value is to be multiplied with. Source:
    GDAL's GTiff driver, the tags GDAL_METADATA and GDAL_NODATA."""
    tags = [] if layout.nodata is None else [(42113, "s", 0, f"{layout.nodata:g}", False)]
    if layout.scale != 1.0:
        items = {"offset": 0.0, "scale": layout.scale}
        said = "".join(f'<Item name="{k.upper()}" sample="0" role="{k}">{v}</Item>' for k, v in items.items())
        tags.append((42112, "s", 0, f"<GDALMetadata>{said}</GDALMetadata>", False))
    return tags


def _colormap(colors: dict[int, tuple[int, int, int]], dtype: type[np.integer[Any]]) -> NDArray[Any]:
    table = np.zeros((3, 256), dtype)
    for value, color in colors.items():
        table[:, value] = np.array(color) * (257 if dtype is np.uint16 else 1)
    return table
