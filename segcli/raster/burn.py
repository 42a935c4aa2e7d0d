"""Polygons as the pixels of a mask: GeoJSON, GeoPackage and what else pyogrio reads, burnt window by window."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.features import rasterize
from rasterio.transform import Affine
from rasterio.warp import transform_geom

from segcli.classes import ClassEntry, ClassTable, check_name
from segcli.colors import distinct_colors
from segcli.errors import InputError, UsageError
from segcli.raster.contents import Contents, faults_of
from segcli.raster.ellipsoid import around
from segcli.raster.gdal import deaf_to
from segcli.raster.grid import Grid
from segcli.raster.longitudes import in_degrees, polygons_in, single_parts, turns_onto
from segcli.raster.source import Source

VECTORS = frozenset({".geojson", ".json", ".gpkg", ".fgb", ".shp"})

COLUMNS = ("class", "label", "class_id", "classification", "category", "name")
"""Attributes that are looked for, in this order, to say what a polygon is."""


FAR = 1e9
"""Columns and rows; GDAL loses polygons that have corners much farther away."""

EDGES = 64
"""So many edges at least lie along an image: of one that is 100 km wide the earth bends each by less than a metre."""


def is_vector(path: Path) -> bool:
    return path.suffix.lower() in VECTORS


def burnt(
    path: Path, grid: Grid, classes: ClassTable, ignored: frozenset[str] = frozenset(), attribute: str | None = None
) -> Source:
    """A mask of the polygons of a file on an image's grid; later polygons lie over earlier ones.

    Where there are none it holds 0, or what marks no label if no class has that index. Polygons are transformed to the
    image's reference system; for an image without one, their coordinates are columns and rows (of the whole size, where
    it is a level of a pyramid). Polygons of an `ignored` name have no label. `attribute` says what a polygon is; left
    out, one of COLUMNS does. InputError where the file cannot be read or a polygon is of no class.
    """
    return Source(path, "mask", Contents((BurntReader(path, grid, classes, ignored, attribute),)))


class BurntReader:
    """As `readers.Reader`: one band of class indices. Of the file's `polygons`, so many may lie `inside` the image."""

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
        if grid.transform is None and grid.is_georeferenced and crs is not None and geometries:
            raise InputError(path, f"polygons in {crs}", "the image has control points alone, which place no polygons",
                             "warp it (gdalwarp), and label that")  # fmt: skip
        self.polygons = len(geometries)
        if grid.transform is None and grid.level_step != (1, 1):  # they are drawn on the whole size
            geometries = _at_level(geometries, *grid.level_step)
        with faults_of(path, "expected polygons that lie on the image"):
            there = _elsewhere(crs, grid)
            placed = [(shape, values[kind]) for polygon, kind in zip(geometries, kinds, strict=True)
                      if (shape := _in_pixels(polygon, crs, grid, there)) is not None]  # fmt: skip
            bounds = [_bounds(shape) for shape, _ in placed]
            for n in (n for n, ends in enumerate(bounds) if max(map(abs, ends)) > FAR):
                placed[n] = _cut(placed[n][0], grid), placed[n][1]
                bounds[n] = _bounds(placed[n][0])
        self._shapes = placed
        self._bounds = np.array(bounds).reshape(-1, 4)  # left, top, right, bottom
        self.inside = int(np.count_nonzero(self._near(0, 0, grid.height, grid.width)))

    def read(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> NDArray[Any]:
        near = np.flatnonzero(self._near(row, col, height, width))
        out = np.full((height, width), self._nothing, np.uint8)
        if near.size:
            with deaf_to(NotGeoreferencedWarning):  # pixels are meant
                rasterize([self._shapes[n] for n in near], out=out, transform=Affine.translation(col, row))
        return np.repeat(out[None], len(bands), axis=0)

    def _near(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which polygons may reach into a rectangle."""
        left, top, right, bottom = self._bounds.T
        found: NDArray[np.bool_] = (left < col + width) & (right > col) & (top < row + height) & (bottom > row)
        return found

    def valid(self, bands: Sequence[int], row: int, col: int, height: int, width: int) -> None:
        return None

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass


def kinds_in(path: Path, attribute: str | None = None) -> set[str]:
    """What polygons in a file are said to be."""
    return set(_read(path, attribute)[2])


def table_of_kinds(kinds: Sequence[str]) -> ClassTable:
    """Background, which may be a kind itself, and a class for each other kind; numbers are their own indices."""
    if len(kinds) > 254:
        raise UsageError("polygons", f"{len(kinds)} classes", "expected at most 254", "give --classes")
    background = next((kind for kind in kinds if kind.lower() == "background"), "background")
    names = [kind for kind in kinds if not _is_number(kind) and kind != background]
    numbers = sorted(int(kind) for kind in kinds if _is_number(kind) and kind != "0")
    if numbers and numbers[-1] > 254:
        raise UsageError("polygons", f"class {numbers[-1]}", "expected 0 to 254, or names",
                         "give --classes, a table with such codes for names: 4,300")  # fmt: skip
    free = iter(n for n in range(1, 255) if n not in numbers)
    entries = [
        (0, background),
        *((n, f"class {n}" if f"class {n}" not in names else str(n)) for n in numbers),
        *((next(free), name) for name in sorted(names)),
    ]
    colors = distinct_colors(len(entries))
    return ClassTable(tuple(ClassEntry(n, name, color) for (n, name), color in zip(entries, colors, strict=True)))


def _read(path: Path, attribute: str | None) -> tuple[Any, list[Any], list[str]]:
    """The reference system, polygons, and what each is."""
    try:
        import pyogrio.raw
        import shapely
    except ImportError as error:
        raise UsageError(path, f"{error.name} is not installed", "", "pip install 'segcli[polygons]'") from error
    with faults_of(path, "expected polygons"), deaf_to(RuntimeWarning):  # what GDAL warns of, shapely refuses
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]  # None: a table alone
    if len(layers) > 1:
        raise InputError(path, f"layers {', '.join(layers[:8])}", "expected one layer of polygons",
                         f"write one alone: ogr2ogr one.gpkg {path.name} {layers[0]!r}")  # fmt: skip
    with faults_of(path, "expected polygons"), deaf_to(RuntimeWarning):
        meta, _, shapes, columns = pyogrio.raw.read(path, layer=layers[0] if layers else None)
        geometries = shapely.from_wkb(shapes)
    names = [str(name).lower() for name in meta["fields"]]
    wanted = COLUMNS if attribute is None else (attribute.lower(),)
    column = next((name for name in wanted if name in names), None)
    if column is None and attribute is not None and len(shapes):
        raise InputError(path, f"attributes {', '.join(names[:8]) or 'none'}", f"--attribute names {attribute}")
    if column is None:
        if len(shapes) and names:
            raise InputError(path, f"attributes {', '.join(names[:8])}", f"expected one of {', '.join(COLUMNS)}",
                             "rename the one that says it, or cut with tile --attribute")  # fmt: skip
        kinds = ["1"] * len(shapes)
    else:
        kinds = [_kind(value) for value in columns[names.index(column)]]
    if odd := sum(shape is not None and not np.isfinite(shapely.get_coordinates(shape)).all() for shape in geometries):
        raise InputError(path, f"{odd} polygons with corners that are no numbers", "expected coordinates",
                         "take them out")  # fmt: skip
    for kind in {*kinds}:
        try:
            check_name(kind)
        except ValueError as error:
            raise InputError(path, f"polygons of {error}", "expected names of classes", "rename them") from error
    parts = [None if shape is None else _parts(shape) for shape in geometries]
    if flat := parts.count([]):
        raise InputError(path, f"{flat} lines, points or empty shapes", "expected polygons", "take them out")
    unnamed = sum(kind == "" for kind in kinds)
    if unnamed:
        raise InputError(path, f"{unnamed} polygons with nothing in {column!r}", "expected a class for each")
    found = [(part, kind) for of_shape, kind in zip(parts, kinds, strict=True) for part in of_shape or ()]
    return meta["crs"], [part for part, _ in found], [kind for _, kind in found]


def _parts(shape: Any) -> list[Any]:
    """Its polygons, valid ones: outlines cross themselves, and some are there twice, which would burn nothing. What is
    inside an odd number of times is inside, as where GDAL burns it."""
    import shapely

    found: list[Any] = []
    for part in single_parts(shape):
        if part.is_valid:
            found += [part] if part.area != 0 else []  # NaN: too large for a number
        else:
            with np.errstate(all="ignore"):
                found += polygons_in(shapely.make_valid(part))
    return found


def _is_number(kind: str) -> bool:
    """Whether it is an index; 01 is a name in somebody's list of codes, and ² is no number at all."""
    return kind.isascii() and kind.isdigit() and len(kind) < 19 and kind == str(int(kind))


def _kind(value: Any) -> str:
    """As text; nothing for what is missing. Of an object, as QuPath writes ({"name": "Tumor", ...}), its name."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with suppress(ValueError, AttributeError, TypeError):
            said = json.loads(value)
            return str(said.get("name") or ": ".join(said.get("names") or ()))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


@dataclass(frozen=True)
class Elsewhere:
    """Where an image lies in the polygons' reference system, west, south, east and north, if anybody can tell; and the
    whole circle of its longitudes, 0 where it has none."""

    place: tuple[float, float, float, float] | None
    circle: float


def _elsewhere(crs: Any, grid: Grid) -> Elsewhere | None:
    """None where coordinates of polygons are the image's as they are."""
    if grid.transform is None or grid.crs is None or crs is None:
        return None
    found = Elsewhere(grid.bounds_in(crs), around(crs))
    half = found.circle / 2
    goes_on = half > 0 and found.place is not None and (found.place[0] < -half or found.place[2] > half)
    return found if goes_on or CRS.from_user_input(crs) != grid.crs else None


def _in_pixels(polygon: Any, crs: Any, grid: Grid, there: Elsewhere | None) -> dict[str, Any] | None:
    """As GeoJSON has it, with columns and rows for coordinates; None where it lies far from the image."""
    if grid.transform is None:
        return _mapping(polygon)
    if there is not None:
        polygon = _fine(polygon, there)
        if polygon.is_empty:
            return None
        shape = _in_the_system_of(grid, polygon, crs)
        if not shape["coordinates"]:
            return None
    else:
        shape = _mapping(polygon)
    back = ~grid.transform

    def moved(part: Any) -> Any:
        return back @ tuple(part[:2]) if isinstance(part[0], int | float) else [moved(inner) for inner in part]

    return {"type": shape["type"], "coordinates": moved(shape["coordinates"])}


def _at_level(polygons: list[Any], down: float, across: float) -> list[Any]:
    """In pixels of a level of a pyramid, of which each spans so many."""
    import shapely

    return list(shapely.transform(np.array(polygons, object), lambda points: points / (across, down)))


def _in_the_system_of(grid: Grid, polygon: Any, crs: Any) -> dict[str, Any]:
    """As GeoJSON has it. Longitudes are counted as those of the image are, which may go on after 180."""
    import shapely

    if circle := around(grid.crs):
        placed = [in_degrees(part, CRS.from_user_input(crs), grid.crs) for part in shapely.get_parts(polygon)]
        bounds = grid.bounds_in(grid.crs)
        if bounds is not None and all(part is not None for part in placed):
            parts = [turned for shape in placed for part in polygons_in(shape)
                     for turned in turns_onto(bounds, part, circle)]  # fmt: skip
            return _mapping(shapely.MultiPolygon(parts))
    found: dict[str, Any] = transform_geom(crs, grid.crs, _mapping(polygon))
    return found


def _fine(polygon: Any, there: Elsewhere) -> Any:
    """What of a polygon lies near an image, in short edges: an edge that is straight in one reference system is bent in
    another, and corners far away may have no place there at all. Longitudes may be counted from another place."""
    import shapely

    if there.place is None:
        return polygon
    (west, south, east, north), circle = there.place, there.circle
    # By each axis: near a pole an image that is not high has all longitudes, and no more than these.
    corner, size = np.array([west, south]), np.array([east - west, north - south])
    aside = min(1.0, (circle / size[0] - 1) / 2) if circle else 1.0
    parts = []
    for turn in sorted({-circle, 0.0, circle}):
        if circle and (polygon.bounds[2] + turn < west - size[0] or polygon.bounds[0] + turn > east + size[0]):
            continue
        moved = shapely.transform(polygon, lambda points, turn=turn: (points + np.array([turn, 0]) - corner) / size)
        near = shapely.clip_by_rect(moved, -aside, -1, 1 + aside, 2)
        parts += [part for part in shapely.get_parts(near) if part.area > 0]
    fine = shapely.segmentize(shapely.MultiPolygon(parts), 1 / EDGES)
    return shapely.transform(fine, lambda points: points * size + corner)


def _mapping(polygon: Any) -> dict[str, Any]:
    """As GeoJSON has it."""
    import shapely

    found: dict[str, Any] = shapely.geometry.mapping(polygon)
    return found


def _cut(shape: dict[str, Any], grid: Grid) -> dict[str, Any]:
    """What of a shape lies on an image or next to it."""
    import shapely

    box = shapely.box(-1, -1, grid.width + 1, grid.height + 1)
    with np.errstate(all="ignore"):
        near = shapely.intersection(shapely.make_valid(shapely.geometry.shape(shape)), box)
    return _mapping(shapely.MultiPolygon(polygons_in(near)))


def _bounds(shape: dict[str, Any]) -> tuple[float, float, float, float]:
    points = np.array(list(_points(shape["coordinates"])) if shape["coordinates"] else [(np.nan, np.nan)])
    return (*points.min(0), *points.max(0))


def _points(part: Any) -> Any:
    if isinstance(part[0], int | float):
        yield part[:2]
    else:
        for inner in part:
            yield from _points(inner)
