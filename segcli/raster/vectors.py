"""Class polygons from a finished mask: GDAL traces them row by row; how sure the network was comes from its own file.

Nothing here holds the whole mask. The polygons are in memory while they are traced, about 400 bytes each.
"""

import importlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError, TransformError
from rasterio.features import shapes

from segcli.errors import InputError, SegcliError, UsageError
from segcli.files import destination, part_of, to_disk
from segcli.options import PolygonFormat
from segcli.raster.ellipsoid import EQUATOR_M, ellipsoid_of, is_on_earth
from segcli.raster.facts import dataset_of
from segcli.raster.faults import faults_of_writing
from segcli.raster.gdal import deaf_to, gdal
from segcli.raster.grid import Grid
from segcli.raster.images import Images
from segcli.raster.longitudes import within_180
from segcli.raster.measuring import in_plane, measure_of, signed_area_in_plane
from segcli.raster.names import Name
from segcli.raster.objects import Objects
from segcli.raster.source import Source

POLYGONS = "polygons"
"""The folder inside the output folder."""

BATCH = 5000
DRIVERS = {"gpkg": "GPKG", "geojson": "GeoJSON", "fgb": "FlatGeobuf"}

STRAY = 0.02
"""Of a pixel: how far an edge in GeoJSON, which is straight in degrees, may be from where the mask has it."""


@dataclass(frozen=True)
class Shapes:
    """What to write: polygons of at least `min_area`, with corners moved by at most `simplify` (0: every pixel edge).

    Areas are square metres where the raster lies on earth, else pixels, of a pyramid those of the whole size;
    `simplify` is in units of the coordinates.
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
    if not is_on_earth(crs):
        raise InputError(path, "lies in a reference system without longitudes and latitudes",
                         "GeoJSON has no others", "--polygons gpkg")  # fmt: skip


def _check_system(output: Path, part: Path, crs: Any) -> None:
    """InputError where a file of vectors has lost from which meridian longitudes are counted, or in which units: GDAL's
    drivers take some systems for others of the same datum."""
    import pyogrio

    if crs is None or not (crs.is_geographic or crs.is_projected):
        return
    told = pyogrio.read_info(part).get("crs")
    found = CRS.from_user_input(told) if told else None
    meridian, (unit, size) = _meridian(crs.to_wkt()), crs.units_factor
    odd = ""
    if crs.is_geographic and not math.isclose(meridian, _meridian(found.to_wkt()) if found else 0.0, abs_tol=1e-6):
        odd = f"longitudes from a meridian at {meridian:g}"
    elif found is not None and not math.isclose(size, found.units_factor[1], rel_tol=1e-9):
        odd = f"coordinates in {unit}, which it takes for {found.units_factor[0]}"
    if odd:
        raise InputError(destination(output), odd, "GDAL stores it as another system here", "--polygons geojson")


def _meridian(wkt: str) -> float:
    found = re.search(r'PRIMEM\["[^"]*",\s*([-+.\deE]+)', wkt)
    return float(found[1]) if found else 0.0


def write_polygons(
    masks: Sequence[Source], objects: Sequence[Objects], output: Path, images: Images, wanted: Shapes
) -> None:
    """Polygons of the masks' `objects`, with number (from 1), class, name, area, perimeter and mean confidence; of a
    stack also which image it is of along the axes, from 0.

    Where they lie `images` say: a mask may not be able to, nor of which level of a pyramid it is. The file is there
    when it is whole.
    """
    grid = images.planes[0].grid
    # Drivers look at the ending, and some cannot write a name with a newline.
    name = output.name if output.name.isprintable() else ascii(output.name)[1:-1].replace("\\", "_")
    part = part_of(output.with_name(name))
    part = part.with_name(f"{part.name}{output.suffix}")
    with faults_of_writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        _remove(part)
        try:
            with gdal():
                features = _features(masks, objects, images, wanted)
                crs = None if grid.transform is None else grid.crs  # then it is columns and rows
                if wanted.format == "geojson":
                    pixel = 1.0 if grid.transform is None else math.sqrt(abs(grid.transform.determinant))
                    _write_geojson(part, output, features, crs, STRAY * pixel)
                else:
                    left_out = UNDER_THE_MICROSCOPE if _pixel_um(grid) is None else ()
                    types = dict.fromkeys(images.axis_names, np.int32) | TYPES
                    types = {name: dtype for name, dtype in types.items() if name not in left_out}
                    _write_by_pyogrio(part, features, types, crs, wanted.format)
                    _check_system(output, part, crs)
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
    """One polygon, in the raster's system, and its attributes; those of `UNDER_THE_MICROSCOPE` where a pixel's size is
    known there."""

    geometry: dict[str, Any]
    attributes: dict[str, Any]


TYPES = {
    "object": np.int64, "class": np.int32, "name": object, "area": np.float64, "perimeter": np.float64,
    "area_um2": np.float64, "perimeter_um": np.float64, "confidence": np.float64,
}  # fmt: skip
"""Of the attributes, in their order."""

UNDER_THE_MICROSCOPE = ("area_um2", "perimeter_um")


def _pixel_um(grid: Grid) -> NDArray[np.float64] | None:
    """Width and height in micrometres of a pixel of the whole size, where these are known."""
    size = grid.pixel_um()
    return None if size is None else np.array(size) / grid.level_step[::-1]


def _features(masks: Sequence[Source], objects: Sequence[Objects], images: Images, wanted: Shapes) -> Iterator[Feature]:
    for place, mask, one, image in zip(images.places, masks, objects, images.planes, strict=True):
        yield from _features_of(mask, one, image.grid, wanted, dict(zip(images.axis_names, place, strict=True)))
        mask.rest()  # a system lets a process have about a thousand files open


def _features_of(
    mask: Source, objects: Objects, grid: Grid, wanted: Shapes, place: dict[str, int]
) -> Iterator[Feature]:
    import shapely

    names = objects.names
    measured = measure_of(grid)
    pixel_um = _pixel_um(grid)
    dataset = dataset_of(mask.reader)
    to_pixels = ~dataset.transform  # GDAL has applied it
    for traced, value in shapes(rasterio.band(dataset, 1), connectivity=4):
        if int(value) not in names:
            continue
        rings = [_in_pixels(np.array(ring), to_pixels) for ring in traced["coordinates"]]
        top = rings[0][rings[0][:, 1] == rings[0][:, 1].min()]
        number = objects.at(int(top[0, 1]), int(top[:, 0].min()))
        if number is None:
            continue
        placed = [_placed(ring, grid) for ring in rings]
        area, perimeter = measured(placed)
        if area < wanted.min_area:
            continue
        values: dict[str, Any] = place | {
            "object": number + 1, "class": int(value), "name": names[int(value)], "area": area, "perimeter": perimeter
        }  # fmt: skip
        if pixel_um is not None:
            measures = in_plane([ring * pixel_um for ring in placed])
            values |= dict(zip(UNDER_THE_MICROSCOPE, measures, strict=True))
        if wanted.simplify:
            polygon = _simplified(shapely.Polygon(placed[0], placed[1:]), wanted.simplify)
            placed = [np.array(ring.coords) for ring in (polygon.exterior, *polygon.interiors)]
        geometry = {"type": "Polygon", "coordinates": [ring.tolist() for ring in placed]}
        yield Feature(geometry, values | {"confidence": round(float(objects.confidence[number]), 4)})


def _simplified(polygon: Any, most: float) -> Any:
    """With fewer corners, none of which lay more than `most` from what is left: GEOS forgets about the first one."""
    import shapely

    corners = shapely.points(shapely.get_coordinates(polygon))
    for step in (most, most / 2, most / 4, most / 8):
        found = shapely.simplify(polygon, step)
        if shapely.distance(corners, found.boundary).max() <= most * (1 + 1e-9):
            return found
    return polygon


def _placed(ring: NDArray[np.int64], grid: Grid) -> NDArray[np.float64]:
    """Corners of pixels, (column, row), in the raster's system; where it has none, in pixels of the whole size: viewers
    of slides lay polygons over that."""
    x, y, transform = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64), grid.transform
    if transform is None:
        return np.stack([x * grid.level_step[1], y * grid.level_step[0]], axis=1)
    return np.stack(
        [transform.a * x + transform.b * y + transform.c, transform.d * x + transform.e * y + transform.f], axis=1
    )


def _in_pixels(ring: NDArray[np.float64], to_pixels: Any) -> NDArray[np.int64]:
    """Corners in the raster's system as those of pixels, (column, row)."""
    x, y = ring[:, 0], ring[:, 1]
    columns = to_pixels.a * x + to_pixels.b * y + to_pixels.c
    rows = to_pixels.d * x + to_pixels.e * y + to_pixels.f
    return np.rint(np.stack([columns, rows], axis=1)).astype(np.int64)


def _write_geojson(part: Path, output: Path, features: Iterator[Feature], crs: Any, stray: float) -> None:
    """RFC 7946: longitude and latitude, cut where they begin anew, outlines counterclockwise and holes clockwise; of a
    raster that lies nowhere on earth, column and row of the whole size."""
    with part.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            geometry = feature.geometry if crs is None else _placed_on_earth(output, feature.geometry, crs, stray)
            geometry = geometry | {"coordinates": _oriented(geometry["coordinates"])}
            properties = feature.attributes
            if crs is None:
                geometry, properties = _of_qupath(geometry, properties)
            record = {"type": "Feature", "properties": properties, "geometry": geometry}
            file.write(",\n" if number else "\n")
            file.write(json.dumps(record))
        file.write("\n]}\n")


def _of_qupath(geometry: dict[str, Any], attributes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What makes detections of them in QuPath: their class, measurements, and, of a stack, the plane. Source:
    QuPath's GeoJSON (QuPathTypeAdapters and ROITypeAdapters, version 0.5)."""
    measured = {name: attributes[name] for name in (*UNDER_THE_MICROSCOPE, "confidence") if name in attributes}
    more = {"objectType": "detection", "classification": {"name": attributes["name"]}, "measurements": measured}
    if {"Z", "T"} & attributes.keys():
        geometry = geometry | {"plane": {"c": -1, "z": attributes.get("Z", 0), "t": attributes.get("T", 0)}}
    return geometry, attributes | more


def _placed_on_earth(output: Path, geometry: dict[str, Any], crs: Any, stray: float) -> dict[str, Any]:
    """InputError where a corner is no place on earth, as beside the disk that a satellite sees."""
    try:
        return within_180(geometry, crs, stray)
    except (CPLE_BaseError, CRSError, TransformError) as error:
        raise InputError(destination(output), "a polygon that lies partly where its projection has no place",
                         "GeoJSON has longitudes and latitudes alone", "--polygons gpkg") from error  # fmt: skip


def _oriented(coordinates: Any) -> Any:
    """Of a polygon or several: the outline counterclockwise, holes clockwise."""
    if not isinstance(coordinates[0][0][0], int | float):
        return [_oriented(polygon) for polygon in coordinates]
    rings = []
    for n, ring in enumerate(coordinates):
        is_left = signed_area_in_plane(np.array(ring)) > 0
        rings.append(ring if is_left == (n == 0) else ring[::-1])
    return rings


def _write_by_pyogrio(
    path: Path, features: Iterator[Feature], types: dict[str, Any], crs: Any, chosen: PolygonFormat
) -> None:
    size = BATCH if chosen == "gpkg" else None
    group = list(islice(features, size))
    _write_batch(path, group, types, crs, chosen, append=False)  # an empty one, too, makes a file
    while size is not None and (group := list(islice(features, size))):
        _write_batch(path, group, types, crs, chosen, append=True)


def _write_batch(
    path: Path, group: list[Feature], types: dict[str, Any], crs: Any, chosen: PolygonFormat, append: bool
) -> None:
    import pyogrio.raw
    import shapely

    polygons = [shapely.Polygon(f.geometry["coordinates"][0], f.geometry["coordinates"][1:]) for f in group]
    columns = {name: np.array([feature.attributes[name] for feature in group], dtype) for name, dtype in types.items()}
    with deaf_to(UserWarning):  # that there is no reference system, where the image has none
        pyogrio.raw.write(
            path, np.array(shapely.to_wkb(polygons), object), list(columns.values()), list(columns),
            geometry_type="Polygon", crs=crs.to_wkt() if crs is not None else None, driver=DRIVERS[chosen],
            layer=POLYGONS, append=append,
        )  # fmt: skip
