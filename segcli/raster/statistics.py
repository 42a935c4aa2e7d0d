"""What GDAL keeps with a band: least, greatest, mean, deviation and share of valid pixels, counted on the way."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PIECE = 2**17


class Statistics:
    """Of every band of a raster, from strips in any order. Pixels of `nodata`, or that are no numbers, do not count."""

    def __init__(self, bands: int, nodata: float | None) -> None:
        self._bands, self._nodata = bands, nodata
        self.restart()

    def restart(self) -> None:
        """Forget what came."""
        self._seen = 0
        self._count, self._sum, self._squares = np.zeros((3, self._bands))
        self._low, self._high = np.full(self._bands, math.inf), np.full(self._bands, -math.inf)

    def add(self, pixels: NDArray[Any]) -> None:
        """(band, row, col)."""
        self._seen += pixels[0].size
        # So many rows at a time as are about PIECE pixels: counting makes numbers of 8 bytes of them.
        rows = max(1, PIECE // max(1, pixels.shape[2]))
        for n, band in enumerate(pixels):
            for first in range(0, len(band), rows):
                self._count_values(n, band[first : first + rows])

    def _count_values(self, n: int, values: NDArray[Any]) -> None:
        if values.dtype == np.uint8:
            self._add(n, np.arange(256.0), np.bincount(values.ravel(), minlength=256))
        else:
            values = values[np.isfinite(values)].astype(np.float64)
            self._add(n, values, np.ones(values.shape))

    def _add(self, n: int, values: NDArray[np.float64], weights: NDArray[Any]) -> None:
        kept = weights > 0
        if self._nodata is not None:
            kept &= values != self._nodata
        values, weights = values[kept], weights[kept].astype(np.float64)
        if not values.size:
            return
        self._count[n] += weights.sum()
        self._sum[n] += (values * weights).sum()
        self._squares[n] += (values * values * weights).sum()
        self._low[n], self._high[n] = min(self._low[n], values.min()), max(self._high[n], values.max())

    def tags(self, n: int) -> dict[str, str]:
        """Of band `n`, from 0, by GDAL's names; none where nothing is valid."""
        if not self._count[n]:
            return {}
        mean = self._sum[n] / self._count[n]
        deviation = math.sqrt(max(0.0, self._squares[n] / self._count[n] - mean * mean))
        return {
            "STATISTICS_MINIMUM": f"{self._low[n]:.12g}",
            "STATISTICS_MAXIMUM": f"{self._high[n]:.12g}",
            "STATISTICS_MEAN": f"{mean:.12g}",
            "STATISTICS_STDDEV": f"{deviation:.12g}",
            "STATISTICS_VALID_PERCENT": f"{100 * self._count[n] / self._seen:.4g}",
        }
