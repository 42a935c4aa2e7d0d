"""Where pixels lie."""

from dataclasses import dataclass, field, replace
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels lie: size in pixels, and, where known, how they lie on earth or under the microscope.

    `calibration` has the size of a step along X, Y and Z in micrometres and along T in seconds, where the file says so.
    """

    height: int
    width: int
    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()
    gcps_crs: Any = None
    rpcs: Any = None
    calibration: dict[str, float] = field(default_factory=dict)

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None or self.transform is not None or bool(self.gcps) or self.rpcs is not None

    def at(self, height: int, width: int) -> "Grid":
        """The same place in other pixels, such as those of a pyramid level."""
        down, across = self.height / height, self.width / width
        transform = self.transform @ self.transform.scale(across, down) if self.transform is not None else None
        points = tuple(GroundControlPoint(p.row / down, p.col / across, p.x, p.y, p.z, p.id, p.info) for p in self.gcps)
        steps = {"X": across, "Y": down}
        return replace(
            self, height=height, width=width, transform=transform, gcps=points, rpcs=_scaled(self.rpcs, down, across),
            calibration={axis: size * steps.get(axis, 1.0) for axis, size in self.calibration.items()},
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
    transform = None if dataset.transform.is_identity else dataset.transform
    return Grid(dataset.height, dataset.width, dataset.crs, transform, tuple(gcps), gcps_crs, dataset.rpcs, calibration)


def _scaled(rpcs: Any, down: float, across: float) -> Any:
    """Rational polynomials for pixels so many times as large: they take normalised lines and samples."""
    if rpcs is None:
        return None
    values = rpcs.to_dict()
    for name, factor in (("line_off", down), ("line_scale", down), ("samp_off", across), ("samp_scale", across)):
        values[name] /= factor
    return RPC(**values)
