"""Class polygons from a finished mask: GDAL traces them row by row; how sure the network was comes from its own file.

Nothing here holds the whole mask. The polygons are in memory while they are traced, about 400 bytes each.
"""

import importlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.warp import transform_geom

from segcli.classes import ClassTable
from segcli.components import Components
from segcli.errors import InputError, SegcliError, UsageError
from segcli.files import part_of, to_disk
from segcli.options import PolygonFormat
from segcli.raster.faults import faults_of_writing
from segcli.raster.gdal import deaf_to, gdal, opened
from segcli.raster.grid import Grid
from segcli.raster.names import Name
from segcli.raster.source import Source

POLYGONS = "polygons"
"""The folder inside the output folder."""

BATCH = 5000
STRIP_PIXELS = 2**20
DRIVERS = {"gpkg": "GPKG", "geojson": "GeoJSON", "fgb": "FlatGeobuf"}
WGS84 = "EPSG:4326"
EQUATOR_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Of WGS 84."""


@dataclass(frozen=True)
class Shapes:
    """What to write: polygons of at least `min_area`, with corners moved by at most `simplify` (0: every pixel edge).

    Areas are square metres where the raster lies on earth, else pixels; `simplify` is in units of the coordinates.
    """

    format: PolygonFormat
    min_area: float = 0.0
    simplify: float = 0.0


def check_polygons(chosen: PolygonFormat) -> None:
    """UsageError where a library for that format is missing."""
    for library in ("shapely", *(["pyogrio"] if chosen != "geojson" else [])):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise UsageError(
                "--polygons", f"{library} is not installed", "", "pip install 'segcli[polygons]'"
            ) from error
    if chosen == "fgb":
        import pyogrio

        if "w" not in pyogrio.list_drivers().get("FlatGeobuf", ""):
            raise UsageError("--polygons", "this GDAL has no FlatGeobuf", "expected gpkg or geojson")


def check_on_earth(path: Name, crs: Any) -> None:
    """InputError where GeoJSON, which knows longitudes and latitudes on earth alone, cannot say where a raster lies."""
    axis, _ = ellipsoid_of(crs)
    if abs(axis / EQUATOR_M - 1) > 0.01:
        raise InputError(path, f"lies on a body of {axis / 1000:.0f} km radius", "GeoJSON is of the earth",
                         "--polygons gpkg")  # fmt: skip


def ellipsoid_of(crs: Any) -> tuple[float, float]:
    """Radius at the equator in metres, and flattening, of a reference system; of WGS 84 where it does not say."""
    found = re.search(
        r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.]+),\s*([\d.]+)', crs.to_wkt() if crs is not None else ""
    )
    if found is None or float(found[1]) <= 0:
        return EQUATOR_M, FLATTENING
    return float(found[1]), 1 / float(found[2]) if float(found[2]) > 0 else 0.0  # which stands for a sphere


def write_polygons(mask: Path, confidence: Path, output: Path, classes: ClassTable, grid: Grid, wanted: Shapes) -> None:
    """Polygons of every class but the background, with class, name, area, perimeter and mean confidence.

    A polygon is a set of pixels of one class that touch at edges. `grid` is the image's: a mask may not be able to say
    where it lies. The file is there when it is whole.
    """
    names = {entry.index: entry.name for entry in classes.entries if not entry.is_background}
    sure = mean_confidence(mask, confidence, names)
    part = part_of(output)
    part = part.with_name(f"{part.name}{output.suffix}")  # drivers look at the ending
    with faults_of_writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        try:
            with gdal(), opened(mask) as dataset:
                features = _features(dataset, grid, names, sure, wanted)
                if wanted.format == "geojson":
                    _write_geojson(part, features, grid.crs)
                else:
                    _write_by_pyogrio(part, features, grid.crs, wanted.format)
            to_disk(part)
            part.replace(output)
        except (SegcliError, MemoryError, OSError):
            raise
        except Exception as error:  # of the libraries that write and transform vectors
            raise OSError(f"{type(error).__name__}: {str(error).splitlines()[0]:.200}") from error
        finally:
            _remove(part)


def _remove(part: Path) -> None:
    """And what drivers write beside it. By their names: to look for them in a folder of 100 000 takes for ever."""
    for path in (
        part,
        *(Path(f"{part}{end}") for end in ("-journal", "-wal", "-shm")),
        Path(f"{part.with_suffix('')}_temp.fgb"),
    ):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Feature:
    """One polygon, in the raster's system, and its attributes."""

    geometry: dict[str, Any]
    value: int
    name: str
    area: float
    perimeter: float
    confidence: float

    def attributes(self) -> dict[str, Any]:
        return {
            "class": self.value, "name": self.name, "area": self.area, "perimeter": self.perimeter,
            "confidence": round(self.confidence, 4),
        }  # fmt: skip


def _features(
    dataset: Any, grid: Grid, names: dict[int, str], sure: "MeanConfidence", wanted: Shapes
) -> Iterator[Feature]:
    import shapely

    body = ellipsoid_of(grid.crs) if grid.crs is not None and grid.crs.is_geographic else None
    metres = grid.crs.linear_units_factor[1] if grid.crs is not None and grid.crs.is_projected else 1.0
    to_pixels = ~dataset.transform  # GDAL has applied it
    for traced, value in shapes(rasterio.band(dataset, 1), connectivity=4):
        if int(value) not in names:
            continue
        rings = [_in_pixels(np.array(ring), to_pixels) for ring in traced["coordinates"]]
        top = rings[0][rings[0][:, 1] == rings[0][:, 1].min()]
        mean = sure.of(int(top[0, 1]), int(top[:, 0].min()))
        placed = [_placed(ring, grid.transform) for ring in rings]
        area, perimeter = _measures(placed, body)
        area, perimeter = area * metres**2, perimeter * metres
        if area < wanted.min_area:
            continue
        if wanted.simplify:
            polygon = shapely.simplify(shapely.Polygon(placed[0], placed[1:]), wanted.simplify)
            placed = [np.array(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
        geometry = {"type": "Polygon", "coordinates": [ring.tolist() for ring in placed]}
        yield Feature(geometry, int(value), names[int(value)], area, perimeter, mean)


def _placed(ring: NDArray[np.int64], transform: Any) -> NDArray[np.float64]:
    """Corners of pixels, (column, row), in the raster's system."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    if transform is None:
        return np.stack([x, y], axis=1)
    return np.stack(
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f], axis=1
    )


def _in_pixels(ring: NDArray[np.float64], to_pixels: Any) -> NDArray[np.int64]:
    """Corners in the raster's system as those of pixels, (column, row)."""
    x, y = ring[:, 0], ring[:, 1]
    columns = to_pixels.a * x + to_pixels.b * y + to_pixels.c
    rows = to_pixels.d * x + to_pixels.e * y + to_pixels.f
    return np.rint(np.stack([columns, rows], axis=1)).astype(np.int64)


def _measures(rings: list[NDArray[np.float64]], body: tuple[float, float] | None) -> tuple[float, float]:
    """Area and perimeter; of degrees in metres on the ellipsoid, of a `body` with that radius and flattening.

    Areas on the ellipsoid by the cylindrical equal-area projection (Snyder 1987, "Map Projections", eq. 3-12, 10-14,
    10-15), which is exact for pixel edges along meridians and parallels; lengths by the radii of curvature.
    """
    areas, lengths = [], []
    for ring in rings:
        # Around its own corner, so that small polygons far from the origin do not lose their digits.
        flat = ring - ring[0] if body is None else _equal_area(ring, *body)
        x, y = flat[:, 0], flat[:, 1]
        areas.append(abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2)
        steps = np.diff(ring, axis=0)
        if body is not None:
            steps = steps * _metres_per_degree((ring[:-1, 1] + ring[1:, 1]) / 2, *body)
        lengths.append(float(np.hypot(steps[:, 0], steps[:, 1]).sum()))
    return areas[0] - sum(areas[1:]), sum(lengths)


def _equal_area(ring: NDArray[np.float64], radius: float, flattening: float) -> NDArray[np.float64]:
    e = math.sqrt(flattening * (2 - flattening))
    sine = np.sin(np.radians(ring[:, 1]))
    tail = np.log((1 - e * sine) / (1 + e * sine)) / (2 * e) if e > 0 else -sine
    q = (1 - e * e) * (sine / (1 - (e * sine) ** 2) - tail)
    east = np.radians(ring[:, 0] - ring[0, 0])
    return np.stack([radius * east, radius * (q - q[0]) / 2], axis=1)


def _metres_per_degree(latitude: NDArray[np.float64], radius: float, flattening: float) -> NDArray[np.float64]:
    """(edge, 2): east and north."""
    squared = flattening * (2 - flattening)
    bend = 1 - squared * np.sin(np.radians(latitude)) ** 2
    north = radius * (1 - squared) / bend**1.5
    east = radius / np.sqrt(bend) * np.cos(np.radians(latitude))
    return np.radians(np.stack([east, north], axis=1))


def _write_geojson(path: Path, features: Iterator[Feature], crs: Any) -> None:
    """RFC 7946: longitude and latitude; of a raster that lies nowhere on earth, column and row."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            geometry = feature.geometry if crs is None else transform_geom(crs, WGS84, feature.geometry, precision=8)
            record = {"type": "Feature", "properties": feature.attributes(), "geometry": geometry}
            file.write(",\n" if number else "\n")
            file.write(json.dumps(record))
        file.write("\n]}\n")


def _write_by_pyogrio(path: Path, features: Iterator[Feature], crs: Any, chosen: PolygonFormat) -> None:
    size = BATCH if chosen == "gpkg" else None
    group = list(islice(features, size))
    _write_batch(path, group, crs, chosen, append=False)  # an empty one, too, makes a file
    while size is not None and (group := list(islice(features, size))):
        _write_batch(path, group, crs, chosen, append=True)


def _write_batch(path: Path, group: list[Feature], crs: Any, chosen: PolygonFormat, append: bool) -> None:
    import pyogrio.raw
    import shapely

    polygons = [shapely.Polygon(f.geometry["coordinates"][0], f.geometry["coordinates"][1:]) for f in group]
    columns = {
        "class": np.array([f.value for f in group], np.int32),
        "name": np.array([f.name for f in group], object),
        "area": np.array([f.area for f in group], np.float64),
        "perimeter": np.array([f.perimeter for f in group], np.float64),
        "confidence": np.array([round(f.confidence, 4) for f in group], np.float64),
    }
    with deaf_to(UserWarning):  # that there is no reference system, where the image has none
        pyogrio.raw.write(
            path, np.array(shapely.to_wkb(polygons), object), list(columns.values()), list(columns),
            geometry_type="Polygon", crs=crs.to_wkt() if crs is not None else None, driver=DRIVERS[chosen],
            layer=POLYGONS, append=append,
        )  # fmt: skip


@dataclass(frozen=True)
class MeanConfidence:
    """Means by the first pixel, in reading order, of each set of pixels."""

    width: int
    first: NDArray[np.int64]  # ascending
    mean: NDArray[np.float64]

    def of(self, row: int, col: int) -> float:
        """Of the set whose topmost row is `row`, and in it the leftmost pixel `col`."""
        return float(self.mean[np.searchsorted(self.first, row * self.width + col)])


def mean_confidence(mask: Path, confidence: Path, names: dict[int, str]) -> MeanConfidence:
    """Mean top probability of each set of pixels of one class that touch at edges, strip by strip."""
    counted = np.zeros(256, bool)
    counted[list(names)] = True
    components = Components(counted)
    counts: list[NDArray[Any]] = []
    sums: list[NDArray[Any]] = []
    firsts: list[NDArray[Any]] = []
    with Source(mask, "mask") as labels, Source(confidence, "mask") as sure:
        width = labels.grid.width
        strip_height = max(1, STRIP_PIXELS // width)
        for (first_row, values), (_, shares) in zip(
            labels.rows(strip_height), sure.rows(strip_height, [0]), strict=True
        ):
            flat = components.add(values[0]).ravel()
            inside = np.flatnonzero(flat >= 0)
            base = int(flat[inside].min()) if inside.size else 0  # numbers of a strip are its own
            numbers = flat[inside] - base
            weights = np.nan_to_num(shares[0].ravel()[inside].astype(np.float64)) * sure.scales[0]
            counts.append(np.bincount(numbers))
            sums.append(np.bincount(numbers, weights))
            first = np.zeros(len(counts[-1]), np.int64)
            first[numbers[::-1]] = inside[::-1]  # the last one written is the first pixel
            firsts.append(first + first_row * width)
    objects, values_of = components.objects()
    first = np.full(len(values_of), np.iinfo(np.int64).max)
    np.minimum.at(first, objects, np.concatenate(firsts))
    means = np.bincount(objects, np.concatenate(sums)) / np.maximum(1, np.bincount(objects, np.concatenate(counts)))
    order = np.argsort(first)
    return MeanConfidence(width, first[order], means[order])
