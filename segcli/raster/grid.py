"""Where pixels lie."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.errors import CRSError
from rasterio.rpc import RPC
from rasterio.warp import transform_bounds

from segcli.raster.ellipsoid import around, degrees_on, ellipsoid_of, in_other_degrees, in_space, transformed
from segcli.raster.gdal import transform_of

TRUE = 0.01
"""By how much the scale of a projection may be off where its metres are taken for those on the ground: those of UTM are
by a thousandth, those of the web's Mercator by a factor of two at 60 degrees north."""

LOOKS = 21
"""Places along each side of a raster at which it is seen where it lies."""


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels lie: size in pixels, and, where known, how they lie on earth or under the microscope.

    `calibration` has the size of a step along X, Y and Z in micrometres and along T in seconds, where the file says so.
    `level_step` is how many pixels of the whole size one of a pyramid level spans, down and across.
    """

    height: int
    width: int
    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()
    gcps_crs: Any = None
    rpcs: Any = None
    calibration: dict[str, float] = field(default_factory=dict)
    level_step: tuple[float, float] = (1.0, 1.0)

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None or self.transform is not None or bool(self.gcps) or self.rpcs is not None

    def pixel_size_m(self) -> tuple[float, float] | None:
        """Height and width of a pixel in metres, where they are known and, but for what a projection does to them, the
        same all over the raster: what the reference system says, or, where that is off by more than TRUE, what it is
        on the ground in the middle."""
        if self.transform is not None and self.crs is not None and self.crs.is_projected:
            factor = float(self.crs.linear_units_factor[1])
            place = self.transform
            said = math.hypot(place.b, place.e) * factor, math.hypot(place.a, place.d) * factor
            found = self._middle_m()
            is_off = found is not None and any(abs(one / two - 1) > TRUE for one, two in zip(found, said, strict=True))
            return found if is_off else said
        if self.is_calibrated and "Y" in self.calibration:
            return self.calibration["Y"] / 1e6, self.calibration["X"] / 1e6
        return None

    def pixel_um(self) -> tuple[float, float] | None:
        """Width and height in micrometres of a pixel under the microscope, where both are known."""
        if self.is_georeferenced or not {"X", "Y"} <= self.calibration.keys():
            return None
        return self.calibration["X"], self.calibration["Y"]

    def pixels_per_cm(self) -> tuple[float, float] | None:
        """Along X and Y, as resolution tags of TIFF say it, where it is known under the microscope."""
        sizes_um = [self.calibration.get(axis, 0.0) for axis in "XY"]  # 0 by who does not know it
        if not all(1e-5 < size < 1e5 for size in sizes_um):
            return None
        return 1e4 / sizes_um[0], 1e4 / sizes_um[1]

    def middle_pixel_m(self) -> float | None:
        """How wide the pixel in the middle is on the ground, or under the microscope, in metres; None if unknown."""
        if self.is_calibrated:
            return self.calibration["X"] / 1e6
        found = self._middle_m()
        return None if found is None else found[1]

    @property
    def is_calibrated(self) -> bool:
        """Whether the calibration is of the pixels: of what lies on earth it says how large a print is to be."""
        is_placed = self.crs is not None or bool(self.gcps) or self.rpcs is not None
        return "X" in self.calibration and not is_placed

    def _middle_m(self) -> tuple[float, float] | None:
        """Height and width of the pixel in the middle on the ground; None if unknown."""
        if self.transform is None or self.crs is None:
            return None
        row, col = self.height / 2, self.width / 2
        ends = ((col, row - 0.5), (col, row + 0.5), (col - 0.5, row), (col + 0.5, row))
        body = ellipsoid_of(self.crs)
        placed = np.array([self.transform @ end for end in ends])
        places = in_space(transformed(placed, self.crs, degrees_on(self.crs, body)), body)
        down, across = (float(np.linalg.norm(places[n + 1] - places[n])) for n in (0, 2))
        return (down, across) if 0 < down < math.inf and 0 < across < math.inf else None

    def bounds_in(self, crs: Any) -> tuple[float, float, float, float] | None:
        """West, south, east and north of it in a reference system; None where nobody can tell. Over the meridian where
        longitudes begin anew, east is larger than any longitude there."""
        if self.transform is None or self.crs is None:
            return None
        x, y = zip(*(self.transform @ (c, r) for c in (0, self.width) for r in (0, self.height)), strict=True)
        edges = [(a, b) for a in np.linspace(min(x), max(x), LOOKS) for b in np.linspace(min(y), max(y), LOOKS)]
        if (placed := in_other_degrees(np.array(edges), self.crs, crs)) is not None:
            # GDAL takes longitudes beyond 180 for others.
            west, south, east, north = map(float, (*placed.min(0), *placed.max(0)))
        else:
            try:
                west, south, east, north = transform_bounds(self.crs, crs, min(x), min(y), max(x), max(y))
            except (CRSError, CPLE_BaseError):
                return None
        if east < west:
            east += around(crs)
        is_there = all(map(math.isfinite, (west, south, east, north))) and west < east and south < north
        return (west, south, east, north) if is_there else None

    def at(self, height: int, width: int) -> "Grid":
        """The same place in other pixels, such as those of a pyramid level."""
        down, across = self.height / height, self.width / width
        transform = self.transform @ self.transform.scale(across, down) if self.transform is not None else None
        points = tuple(GroundControlPoint(p.row / down, p.col / across, p.x, p.y, p.z, p.id, p.info) for p in self.gcps)
        steps = {"X": across, "Y": down}
        return replace(
            self, height=height, width=width, transform=transform, gcps=points, rpcs=_scaled(self.rpcs, down, across),
            calibration={axis: size * steps.get(axis, 1.0) for axis, size in self.calibration.items()},
            level_step=(self.level_step[0] * down, self.level_step[1] * across),
        )  # fmt: skip

    def window(self, row: int, col: int, height: int, width: int) -> "Grid":
        """The place of one rectangle, which may reach over the border."""
        transform = self.transform @ self.transform.translation(col, row) if self.transform is not None else None
        points = tuple(GroundControlPoint(p.row - row, p.col - col, p.x, p.y, p.z, p.id, p.info) for p in self.gcps)
        rpcs = self.rpcs
        if rpcs is not None:
            values = rpcs.to_dict()
            rpcs = RPC(**(values | {"line_off": values["line_off"] - row, "samp_off": values["samp_off"] - col}))
        return replace(self, height=height, width=width, transform=transform, gcps=points, rpcs=rpcs)


def grid_of(dataset: Any, calibration: dict[str, float]) -> Grid:
    """Of a dataset of GDAL's."""
    gcps, gcps_crs = dataset.gcps
    transform = transform_of(dataset)
    return Grid(dataset.height, dataset.width, dataset.crs, transform, tuple(gcps), gcps_crs, dataset.rpcs, calibration)


def _scaled(rpcs: Any, down: float, across: float) -> Any:
    """Rational polynomials for pixels so many times as large: they take normalised lines and samples, which are counted
    from the middle of the first pixel, not from its corner."""
    if rpcs is None:
        return None
    values = rpcs.to_dict()
    for axis, factor in (("line", down), ("samp", across)):
        values[f"{axis}_off"] = (values[f"{axis}_off"] + 0.5) / factor - 0.5
        values[f"{axis}_scale"] /= factor
    return RPC(**values)
