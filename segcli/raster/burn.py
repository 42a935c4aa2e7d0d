"""Polygons as the pixels of a mask: GeoJSON, GeoPackage and what else pyogrio reads, burnt window by window."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from segcli.classes import ClassEntry, ClassTable
from segcli.colors import distinct_colors
from segcli.errors import InputError, UsageError
from segcli.raster.contents import Contents, faults_of
from segcli.raster.gdal import deaf_to
from segcli.raster.grid import Grid
from segcli.raster.source import Source

VECTORS = frozenset({".geojson", ".json", ".gpkg", ".fgb", ".shp"})

COLUMNS = ("class", "label", "class_id", "classification", "category", "name")
"""Attributes that are looked for, in this order, to say what a polygon is."""


def is_vector(path: Path) -> bool:
    return path.suffix.lower() in VECTORS


def burnt(
    path: Path, grid: Grid, classes: ClassTable, ignored: frozenset[str] = frozenset(), attribute: str | None = None
) -> Source:
    """A mask of the polygons of a file on an image's grid; later polygons lie over earlier ones.

    Where there are none it holds 0, or what marks no label if no class has that index. Polygons are transformed to the
    image's reference system; for an image without one, their coordinates are columns and rows. Polygons of an `ignored`
    name have no label. `attribute` says what a polygon is; left out, one of COLUMNS does. InputError where the file
    cannot be read or a polygon is of no class.
    """
    return Source(path, "mask", Contents((BurntReader(path, grid, classes, ignored, attribute),)))


class BurntReader:
    """As `readers.Reader`: one band of class indices."""

    def __init__(
        self, path: Path, grid: Grid, classes: ClassTable, ignored: frozenset[str], attribute: str | None = None
    ) -> None:
        self.height, self.width = grid.height, grid.width
        self.dtypes: tuple[str, ...] = ("uint8",)
        self.block = (min(512, grid.height), grid.width)
        crs, geometries, kinds = _read(path, attribute)
        self._nothing = 0 if 0 in classes.indices else classes.ignore or 0
        values = {entry.name: entry.index for entry in classes.entries} | {
            str(entry.index): entry.index for entry in classes.entries
        }
        if classes.ignore is not None:
            values |= dict.fromkeys(ignored, classes.ignore)
        unknown = sorted({kind for kind in kinds if kind not in values})
        if unknown:
            raise InputError(path, f"polygons of {', '.join(unknown[:5])}", f"expected {', '.join(classes.names)}",
                             "give --classes with all of them")  # fmt: skip
        with faults_of(path, "expected polygons that lie on the image"):
            placed = [_in_pixels(shape, crs, grid) for shape in geometries]
        self._shapes = [(shape, values[kind]) for shape, kind in zip(placed, kinds, strict=True)]
        self._bounds = np.array([_bounds(shape) for shape in placed]).reshape(-1, 4)  # left, top, right, bottom

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        left, top, right, bottom = self._bounds.T
        near = np.flatnonzero((left < col + width) & (right > col) & (top < row + height) & (bottom > row))
        out = np.full((height, width), self._nothing, np.uint8)
        if near.size:
            with deaf_to(NotGeoreferencedWarning):  # pixels are meant
                rasterize([self._shapes[n] for n in near], out=out, transform=Affine.translation(col, row))
        return np.repeat(out[None], len(bands), axis=0)

    def valid(self, row: int, col: int, height: int, width: int) -> None:
        return None

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


def kinds_in(path: Path, attribute: str | None = None) -> set[str]:
    """What polygons in a file are said to be."""
    return set(_read(path, attribute)[2])


def table_of_kinds(kinds: Sequence[str]) -> ClassTable:
    """Background and a class for each kind; numbers are their own indices."""
    if len(kinds) > 254:
        raise UsageError("polygons", f"{len(kinds)} classes", "expected at most 254", "give --classes")
    names = [kind for kind in kinds if not _NUMBER.fullmatch(kind)]
    numbers = sorted(int(kind) for kind in kinds if _NUMBER.fullmatch(kind) and int(kind))
    if numbers and numbers[-1] > 254:
        raise UsageError("polygons", f"class {numbers[-1]}", "expected 0 to 254, or names", "give --classes")
    free = iter(n for n in range(1, 255) if n not in numbers)
    entries = [
        (0, "background"),
        *((n, f"class {n}") for n in numbers),
        *((next(free), name) for name in sorted(names)),
    ]
    colors = distinct_colors(len(entries))
    return ClassTable(tuple(ClassEntry(n, name, color) for (n, name), color in zip(entries, colors, strict=True)))


_NUMBER = re.compile("[0-9]{1,18}")


def _read(path: Path, attribute: str | None) -> tuple[Any, list[dict[str, Any]], list[str]]:
    """The reference system, geometries as GeoJSON has them, and what each is."""
    try:
        import pyogrio.raw
        import shapely
    except ImportError as error:
        raise UsageError(path, f"{error.name} is not installed", "", "pip install 'segcli[polygons]'") from error
    with faults_of(path, "expected polygons"), deaf_to(RuntimeWarning):  # what GDAL warns of, shapely refuses
        meta, _, shapes, columns = pyogrio.raw.read(path)
        geometries = shapely.from_wkb(shapes)
    names = [str(name).lower() for name in meta["fields"]]
    wanted = COLUMNS if attribute is None else (attribute.lower(),)
    column = next((name for name in wanted if name in names), None)
    if column is None and attribute is not None and len(shapes):
        raise InputError(path, f"attributes {', '.join(names[:8]) or 'none'}", f"--attribute names {attribute}")
    if column is None:
        if len(shapes) and names:
            raise InputError(path, f"attributes {', '.join(names[:8])}", f"expected one of {', '.join(COLUMNS)}")
        kinds = ["1"] * len(shapes)
    else:
        kinds = [_kind(value) for value in columns[names.index(column)]]
    flat = sum(shape is not None and shape.area == 0 for shape in geometries)
    if flat:
        raise InputError(path, f"{flat} lines, points or empty shapes", "expected polygons", "take them out")
    unnamed = sum(kind == "" for kind in kinds)
    if unnamed:
        raise InputError(path, f"{unnamed} polygons with nothing in {column!r}", "expected a class for each")
    found = [(part, kind) for shape, kind in zip(geometries, kinds, strict=True) if shape is not None
             for part in shapely.get_parts(shape) if part.area > 0]  # fmt: skip
    return meta["crs"], [shapely.geometry.mapping(part) for part, _ in found], [kind for _, kind in found]


def _kind(value: Any) -> str:
    """As text; nothing for what is missing."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _in_pixels(shape: dict[str, Any], crs: Any, grid: Grid) -> dict[str, Any]:
    """The same with columns and rows for coordinates."""
    if grid.transform is None:
        return shape
    if grid.crs is not None and crs is not None:
        shape = transform_geom(crs, grid.crs, shape)
    back = ~grid.transform

    def moved(part: Any) -> Any:
        return back @ tuple(part[:2]) if isinstance(part[0], int | float) else [moved(inner) for inner in part]

    return {"type": shape["type"], "coordinates": moved(shape["coordinates"])}


def _bounds(shape: dict[str, Any]) -> tuple[float, float, float, float]:
    points = np.array(list(_points(shape["coordinates"])))
    return (*points.min(0), *points.max(0))


def _points(part: Any) -> Any:
    if isinstance(part[0], int | float):
        yield part[:2]
    else:
        for inner in part:
            yield from _points(inner)
