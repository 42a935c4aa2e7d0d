"""Polygons in degrees. Where longitudes begin anew GDAL takes one of them for one that goes round the other side of the
earth, unless it knows the projection."""

import math
from typing import Any

import numpy as np
from rasterio.crs import CRS

from segcli.raster.ellipsoid import around, in_other_degrees, transformed

EDGES = 64
"""So many edges at least lie along a polygon that may reach over the end of longitudes or a pole."""

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
    ends = points[[-1, 0]]
    if abs(ends[0, 0] - ends[1, 0]) > circle / 2:  # it goes round a pole
        ends[:, 1] = math.copysign(circle / 4, points[:, 1].mean())
        points = np.concatenate([points, ends])
    return shapely.make_valid(shapely.Polygon(points))


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
