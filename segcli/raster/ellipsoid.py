"""Lengths and areas on the ellipsoid that a reference system lies on, whatever a projection makes of them."""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform

EQUATOR_M, FLATTENING = 6_378_137.0, 1 / 298.257223563
"""Of WGS 84."""

STEADY = 0.01
"""By how much of the circle longitudes are moved more here than there by another datum, but close to the poles."""

Body = tuple[float, float]
"""Radius at the equator in metres, and flattening."""


def ellipsoid_of(crs: Any) -> Body:
    """That of a reference system; of WGS 84 where it does not say."""
    found = re.search(
        r'(?:SPHEROID|ELLIPSOID)\["[^"]*",\s*([\d.]+),\s*([\d.]+)', crs.to_wkt() if crs is not None else ""
    )
    if found is None or float(found[1]) <= 0:
        return EQUATOR_M, FLATTENING
    return float(found[1]), 1 / float(found[2]) if float(found[2]) > 0 else 0.0  # which stands for a sphere


def transformed(points: NDArray[np.float64], crs: Any, other: Any) -> NDArray[np.float64]:
    """Points (point, x and y) of one reference system in another; NaN where nobody can tell."""
    try:
        found = np.array(transform(crs, other, points[:, 0], points[:, 1])).T
    except (CRSError, CPLE_BaseError):
        return np.full_like(points, np.nan)
    return np.where(np.isfinite(found).all(1, keepdims=True), found, np.nan)


def in_other_degrees(points: NDArray[np.float64], crs: Any, other: Any) -> NDArray[np.float64] | None:
    """The same of longitudes and latitudes in others, of another datum or meridian: those that go on where longitudes
    begin anew do so there, too. None where these are none, have other poles, or nobody can tell."""
    if not (around(crs) and around(other)):
        return None
    found = transformed(points, crs, other)
    turns = points[:, 0] / around(crs) - found[:, 0] / around(other)
    whole = np.rint(turns - turns[0] % 1)
    if not np.ptp(turns - whole) < STEADY:
        return None
    return found + np.stack([whole * around(other), np.zeros(len(whole))], axis=1)


def around(crs: Any) -> float:
    """The whole circle in units of a reference system's coordinates; 0 where these are no angles."""
    system = CRS.from_user_input(crs)
    return 2 * math.pi / float(system.units_factor[1]) if system.is_geographic else 0.0


def is_on_earth(crs: Any) -> bool:
    """Whether anybody can tell longitudes and latitudes of it: of the grid of a building site nobody can."""
    try:
        transform(crs, "EPSG:4326", [0.0], [0.0])
    except (CRSError, CPLE_BaseError):
        return False
    return True


def degrees_on(crs: Any, body: Body) -> Any:
    """The reference system of longitudes and latitudes on its `body`, which have no datum to be shifted by."""
    radius, flattening = body
    return CRS.from_proj4(f"+proj=longlat +a={radius!r} +b={radius * (1 - flattening)!r} +no_defs")


def in_space(degrees: NDArray[np.float64], body: Body) -> NDArray[np.float64]:
    """Longitudes and latitudes (point, 2) as metres from the middle of the body (point, 3)."""
    radius, flattening = body
    squared = flattening * (2 - flattening)
    longitude, latitude = np.radians(degrees).T
    normal = radius / np.sqrt(1 - squared * np.sin(latitude) ** 2)
    out = normal * np.cos(latitude)
    up = normal * (1 - squared) * np.sin(latitude)
    return np.stack([out * np.cos(longitude), out * np.sin(longitude), up], axis=1)


def length(degrees: NDArray[np.float64], body: Body) -> float:
    """Of a line through longitudes and latitudes, which lie close to each other: chords count for arcs."""
    return float(np.linalg.norm(np.diff(in_space(degrees, body), axis=0), axis=1).sum())


def signed_area(ring: NDArray[np.float64], body: Body) -> float:
    """Of a closed ring of longitudes and latitudes, which lie close to each other: positive if it goes round the area
    counterclockwise, and known but for the whole surface. It may hold a pole.

    On the sphere of the same area, by authalic latitudes (Snyder 1987, "Map Projections", eq. 3-11 to 3-13), from
    the excesses of the triangles that edges make with the first corner (Eriksson 1990, "On the measure of solid
    angles").
    """
    around, latitude = np.radians(ring).T
    gap = _to_the_pole(latitude, body[1])
    out = np.sqrt(gap * (2 - gap))
    up = np.copysign(1 - gap, latitude)
    places = np.stack([out * np.cos(around), out * np.sin(around), up], axis=1)
    first, one, other = places[0] + 0.37 * (places[1] - places[0]), places[:-1], places[1:]
    first /= np.linalg.norm(first)  # no corner, since opposite of that of a map of the world there is another
    volumes = np.cross(one - first, other - first) @ first  # so that small rings do not lose their digits
    excesses = 2 * np.arctan2(volumes, 1 + (one * other).sum(1) + one @ first + other @ first)
    return float(excesses.sum()) * surface(body) / (4 * math.pi)


def surface(body: Body) -> float:
    """The area of all of it."""
    return 2 * math.pi * body[0] ** 2 * float(bulged(np.ones(1), body[1])[0])


def _to_the_pole(latitude: NDArray[np.float64], flattening: float) -> NDArray[np.float64]:
    """1 less the sine of the authalic latitude, north or south, without the digits that a difference would lose near
    the pole."""
    squared = flattening * (2 - flattening)
    e, sine = math.sqrt(squared), np.abs(np.sin(latitude))
    gap = np.cos(latitude) ** 2 / (1 + sine)
    bent = (1 - squared) / e * np.arctanh(e * gap / (1 - squared * sine)) if e > 0 else gap
    found: NDArray[np.float64] = gap * (1 + squared * sine) / (1 - squared * sine**2) + bent
    return found / bulged(np.ones(1), flattening)


def bulged(sine: NDArray[np.float64], flattening: float) -> NDArray[np.float64]:
    """Snyder's q (eq. 3-12) of sines of latitudes: twice the sine on a sphere."""
    e = math.sqrt(flattening * (2 - flattening))
    tail = np.log((1 - e * sine) / (1 + e * sine)) / (2 * e) if e > 0 else -sine
    found: NDArray[np.float64] = (1 - e * e) * (sine / (1 - (e * sine) ** 2) - tail)
    return found
