"""Polygons in degrees. Where longitudes begin anew GDAL takes one of them for one that goes round the other side of the
earth, unless it knows the projection."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_geom

from segcli.raster.ellipsoid import around, in_other_degrees, transformed

EDGES = 64
"""So many edges at least lie along a polygon that may reach over the end of longitudes or a pole."""

HALVINGS = 12
"""At most, of an edge that is bent: what has no place in degrees there has none nearby either."""

WGS84 = "EPSG:4326"
DIGITS = 9
"""Of degrees in GeoJSON: a tenth of a millimetre."""

LONG_M = 5e6
"""No edge under this goes round the earth, but for a few degrees around poles that are drawn as points or short
lines."""


def in_degrees(polygon: Any, crs: Any, degrees: Any) -> Any:
    """One or several polygons in a reference system of longitudes and latitudes, in which they go on over its end, and
    up to a pole that lies in the polygon; None where a corner has no place there."""
    import shapely

    circle = around(degrees)
    rings = [shapely.get_coordinates(ring) for ring in (polygon.exterior, *polygon.interiors)]
    kept = [in_other_degrees(ring, crs, degrees) for ring in rings]
    placed = [ring if ring is not None else transformed(rings[n], crs, degrees) for n, ring in enumerate(kept)]
    if not all(np.isfinite(ring).all() for ring in placed):
        return None
    if all(ring is not None for ring in kept) or (np.ptp(placed[0][:, 0]) < circle / 4 and not _is_long(rings[0], crs)):
        return shapely.Polygon(placed[0], placed[1:])
    west, south, east, north = polygon.bounds
    fine = shapely.segmentize(polygon, max(east - west, north - south) / EDGES)
    outline, *holes = (_closed(ring, crs, degrees, circle) for ring in (fine.exterior, *fine.interiors))
    # Each ring goes on from where it begins.
    turned = [shift for hole in holes for shift in turns_onto(outline.bounds, hole, circle)]
    return shapely.difference(outline, shapely.union_all(turned)) if turned else outline


def within_180(geometry: dict[str, Any], crs: Any, stray: float) -> dict[str, Any]:
    """A polygon of a reference system in longitudes and latitudes, as GeoJSON has them, in parts that do not go on
    after 180 or before -180. Edges are at most `stray`, in units of its coordinates, from where they were."""
    import shapely

    polygon = shapely.geometry.shape(geometry)
    if not around(crs):
        polygon = shapely.Polygon(*_bent_rings(polygon, crs, stray))
    shape = in_degrees(polygon, crs, WGS84)
    if shape is None:
        return dict(transform_geom(crs, WGS84, geometry, precision=DIGITS))
    shape = _rounded(shape)  # what lies on the meridian is on neither side of it
    west, south, east, north = shape.bounds
    parts = [shape] if shape.geom_type == "Polygon" else polygons_in(shape)
    if west < -180 or east > 180:
        whole, parts = shape if shape.is_valid else shapely.make_valid(shape), []
        for turn in range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1):
            found = shapely.intersection(whole, shapely.box(360 * turn - 180, south, 360 * turn + 180, north))
            parts += polygons_in(moved(found, -360 * turn))
        # Around a pole they meet where the ring began, but for the last bits of a turn.
        parts = polygons_in(shapely.union_all(parts, grid_size=10.0**-DIGITS))
    if not parts:  # smaller than the last digit
        return dict(transform_geom(crs, WGS84, geometry, precision=DIGITS))
    cut: dict[str, Any] = shapely.geometry.mapping(
        _rounded(shapely.MultiPolygon(parts) if len(parts) > 1 else parts[0])
    )
    return cut


def _rounded(shape: Any) -> Any:
    import shapely

    return shapely.transform(shape, lambda points: np.round(points, DIGITS))


def _bent_rings(polygon: Any, crs: Any, stray: float) -> tuple[Any, list[Any]]:
    import shapely

    outline, *holes = (
        _bent(shapely.get_coordinates(ring), crs, stray) for ring in (polygon.exterior, *polygon.interiors)
    )
    return outline, holes


def _bent(points: NDArray[np.float64], crs: Any, stray: float) -> NDArray[np.float64]:
    """Corners of a ring, with more of them in the middle of edges that are elsewhere where they are straight in
    degrees: by more than `stray`, in the units of the ring's own system."""
    for _ in range(HALVINGS):
        steps = np.diff(points, axis=0)
        middles = points[:-1] + steps / 2
        both = transformed(np.concatenate([points, middles]), crs, WGS84)
        there, found = both[: len(points)], both[len(points) :]
        straight = _around_zero(np.diff(there, axis=0))
        off = _around_zero(found - there[:-1] - straight / 2)
        narrow = np.stack([np.cos(np.radians(found[:, 1])), np.ones(len(found))], axis=1)  # as degrees of latitude
        along, aside = (np.hypot(*(part * narrow).T) for part in (straight, off))
        is_bent = aside * np.hypot(*steps.T) > stray * along
        if not is_bent.any():
            break
        points = np.insert(points, np.flatnonzero(is_bent) + 1, middles[is_bent], axis=0)
    return points


def _around_zero(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of longitudes the short way round."""
    return np.stack([(differences[:, 0] + 180) % 360 - 180, differences[:, 1]], axis=1)


def _is_long(ring: Any, crs: Any) -> bool:
    """Whether an edge may go all the way around the earth, to the longitude that it comes from."""
    system = CRS.from_user_input(crs)
    longest = LONG_M / system.linear_units_factor[1] if system.is_projected else around(crs) / 4
    return longest > 0 and bool(np.abs(np.diff(ring, axis=0)).max() > longest)


def turns_onto(bounds: tuple[float, float, float, float], shape: Any, circle: float) -> list[Any]:
    """A shape so many times around that it may lie on what has these bounds."""
    first, last = ((bounds[n] - shape.bounds[2 - n]) / circle for n in (0, 2))
    return [moved(shape, turn * circle) for turn in range(math.ceil(first), math.floor(last) + 1)]


def _closed(ring: Any, crs: Any, degrees: Any, circle: float) -> Any:
    """The area inside a ring of a projection."""
    import shapely

    places = shapely.get_coordinates(ring)
    points = transformed(places, crs, degrees)
    for is_there in (points[:, 1] > circle / 4 - 1e-9, points[:, 1] < 1e-9 - circle / 4):
        if is_there.any() and not np.ptp(places[is_there], axis=0).any():  # a pole that is a point has no longitude
            places, points = places[~is_there], points[~is_there]
    points[:, 0] = np.unwrap(points[:, 0], period=circle)
    turn = round((points[-1, 0] - points[0, 0]) / circle) * circle
    if not turn:
        return shapely.make_valid(shapely.Polygon(points))
    # It goes round a pole. One turn of what lies between it and the pole, where arms of the turns beside it reach into
    # this one: where the line to the pole begins and ends, which may cross such arms, is far enough away.
    beside = 2 + int(np.ptp(points[:, 0]) // circle)
    path = np.concatenate([points[:-1] + np.array([n * turn, 0]) for n in range(-beside, beside + 1)])
    ends = path[[-1, 0]]
    ends[:, 1] = math.copysign(circle / 4, points[:, 1].mean())
    band = shapely.make_valid(shapely.Polygon(np.concatenate([path, ends])))
    west = min(points[0, 0], points[-1, 0])
    return shapely.intersection(band, shapely.box(west, -circle / 4, west + circle, circle / 4))


def moved(shape: Any, east: float) -> Any:
    """A shape so far to the east."""
    import shapely

    return shapely.transform(shape, lambda points: points + np.array([east, 0]))


def single_parts(shape: Any) -> Any:
    """What a shape consists of, taken apart as often as there are collections in collections."""
    import shapely

    parts = shapely.get_parts(shape)
    while (shapely.get_type_id(parts) >= shapely.GeometryType.MULTIPOINT).any():
        parts = shapely.get_parts(parts)
    return parts


def polygons_in(shape: Any) -> list[Any]:
    """The polygons among these, without the lines and points that cutting leaves."""
    return [part for part in single_parts(shape) if part.area > 0]
