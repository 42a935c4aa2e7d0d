"""Areas and perimeters of polygons that lie on a grid: in metres on the ellipsoid, where it lies on one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.raster.ellipsoid import (
    Body,
    bulged,
    degrees_on,
    ellipsoid_of,
    in_space,
    length,
    signed_area,
    surface,
    transformed,
)
from segcli.raster.grid import TRUE, Grid

Rings = list[NDArray[np.float64]]
"""The outline of a polygon and those of its holes, each closed, (corner, x and y) in the raster's system."""

LOOKS = 5
"""Places along each side of a raster at which it is seen how true its projection is there."""

EDGES = 64
"""So many edges at least lie along a raster: what is straight in a projection is bent on the ellipsoid."""


def measure_of(grid: Grid) -> Callable[[Rings], tuple[float, float]]:
    """What gives area and perimeter of polygons on a grid. Square metres and metres; without a reference system the
    units of its coordinates. A projection is taken at its word where its scale is nowhere off by more than TRUE."""
    crs = grid.crs
    if crs is None or grid.transform is None:
        return in_plane
    body = ellipsoid_of(crs)
    if crs.is_geographic:
        return partial(in_degrees, body=body, unit=math.degrees(crs.units_factor[1]))
    metres = crs.linear_units_factor[1] if crs.is_projected else 1.0
    ground = Ground(crs, degrees_on(crs, body), body, metres, _step(grid), _hand(grid, body, metres))
    return ground.measured if ground.hand else partial(in_plane, metres=metres)


def in_plane(rings: Rings, metres: float = 1.0) -> tuple[float, float]:
    """Area and perimeter where one unit of the coordinates is so many metres all over."""
    areas = [abs(signed_area_in_plane(ring)) for ring in rings]
    perimeter = sum(float(np.hypot(*np.diff(ring, axis=0).T).sum()) for ring in rings)
    return (areas[0] - sum(areas[1:])) * metres**2, perimeter * metres


def in_degrees(rings: Rings, body: Body, unit: float = 1.0) -> tuple[float, float]:
    """Area and perimeter of longitudes and latitudes, in units of so many degrees.

    Areas by the cylindrical equal-area projection (Snyder 1987, "Map Projections", eq. 3-12, 10-14, 10-15), which is
    exact for pixel edges along meridians and parallels; lengths by the radii of curvature.
    """
    areas, perimeter = [], 0.0
    for ring in (ring * unit for ring in rings):
        areas.append(abs(signed_area_in_plane(_equal_area(ring, *body))))
        steps = np.diff(ring, axis=0) * _metres_per_degree((ring[:-1, 1] + ring[1:, 1]) / 2, *body)
        perimeter += float(np.hypot(steps[:, 0], steps[:, 1]).sum())
    return areas[0] - sum(areas[1:]), perimeter


@dataclass(frozen=True)
class Ground:
    """The ellipsoid under a projection that is not true: its system, that of degrees on its body, metres in one unit of
    coordinates, the length of the longest edge that counts as straight, and 1, or -1 where the projection mirrors."""

    crs: Any
    degrees: Any
    body: Body
    metres: float
    step: float
    hand: float

    def measured(self, rings: Rings) -> tuple[float, float]:
        """Area and perimeter; those of the projection where a corner has no place on earth."""
        placed = [transformed(_fine(ring, self.step), self.crs, self.degrees) for ring in rings]
        if not all(np.isfinite(ring).all() for ring in placed):
            return in_plane(rings, self.metres)
        areas = [  # more than half of the surface where the sign says so
            (self.hand * math.copysign(1, signed_area_in_plane(ring)) * signed_area(bent, self.body))
            % surface(self.body)
            for ring, bent in zip(rings, placed, strict=True)
        ]
        return areas[0] - sum(areas[1:]), sum(length(ring, self.body) for ring in placed)


def _hand(grid: Grid, body: Body, metres: float) -> float:
    """1 where a projection keeps left and right, -1 where it mirrors; 0 where nothing has to be asked of the ellipsoid,
    because the projection is true there, or because nobody knows where it lies."""
    side = _side(grid)
    columns, rows = np.meshgrid(np.linspace(0, grid.width, LOOKS), np.linspace(0, grid.height, LOOKS))
    x, y = grid.transform @ (columns.ravel(), rows.ravel())
    corners = [np.stack([x + right * side, y + up * side], axis=1) for right, up in ((0, 0), (1, 0), (0, 1))]
    degrees = transformed(np.concatenate(corners), grid.crs, degrees_on(grid.crs, body))
    places, right, up = in_space(degrees, body).reshape(3, -1, 3)
    known = np.isfinite(places + right + up).all(1)
    if not known.any():
        return 0.0
    places, right, up = places[known], right[known] - places[known], up[known] - places[known]
    leaning = np.cross(right, up)
    sizes = np.stack([np.linalg.norm(right, axis=1), np.linalg.norm(up, axis=1), np.linalg.norm(leaning, axis=1)])
    nominal = np.array([side * metres, side * metres, (side * metres) ** 2])[:, None]
    if (np.abs(sizes / nominal - 1) <= [[TRUE], [TRUE], [2 * TRUE]]).all():
        return 0.0
    return float(np.sign(np.median((leaning * places).sum(1))))


def _side(grid: Grid) -> float:
    """Of a pixel as square as large, in units of the coordinates."""
    return math.sqrt(abs(grid.transform.determinant))


def _step(grid: Grid) -> float:
    return max(grid.height, grid.width) * _side(grid) / EDGES


def _fine(ring: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """A ring in edges of at most that length."""
    edges = np.diff(ring, axis=0)
    pieces = np.maximum(1, np.ceil(np.hypot(edges[:, 0], edges[:, 1]) / step)).astype(np.int64)
    nth = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    share = (nth / np.repeat(pieces, pieces))[:, None]
    return np.concatenate([np.repeat(ring[:-1], pieces, axis=0) + share * np.repeat(edges, pieces, axis=0), ring[-1:]])


def signed_area_in_plane(ring: NDArray[np.float64]) -> float:
    """Positive if it goes round counterclockwise. Around its own corner, so that small polygons far from the origin do
    not lose their digits."""
    x, y = (ring - ring[0]).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2


def _equal_area(ring: NDArray[np.float64], radius: float, flattening: float) -> NDArray[np.float64]:
    q = bulged(np.sin(np.radians(ring[:, 1])), flattening)
    east = np.radians(ring[:, 0] - ring[0, 0])
    return np.stack([radius * east, radius * (q - q[0]) / 2], axis=1)


def _metres_per_degree(latitude: NDArray[np.float64], radius: float, flattening: float) -> NDArray[np.float64]:
    """(edge, 2): east and north."""
    squared = flattening * (2 - flattening)
    bend = 1 - squared * np.sin(np.radians(latitude)) ** 2
    north = radius * (1 - squared) / bend**1.5
    east = radius / np.sqrt(bend) * np.cos(np.radians(latitude))
    return np.radians(np.stack([east, north], axis=1))
