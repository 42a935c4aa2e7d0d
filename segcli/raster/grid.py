"""Where pixels lie."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Grid:
    """Where a raster's pixels lie: size in pixels, and, where known, how they lie on earth or under the microscope."""

    height: int
    width: int
    crs: Any = None
    transform: Any = None
    gcps: tuple[Any, ...] = ()
    gcps_crs: Any = None
    rpcs: Any = None
    pixel_um: float | None = None

    @property
    def is_georeferenced(self) -> bool:
        return self.crs is not None or self.transform is not None or bool(self.gcps) or self.rpcs is not None
