"""How far the outlines of two masks lie apart. numpy and scipy.

Distances from every boundary pixel of one mask to the nearest one of the other, both ways, between pixel centres. As in
"Metrics Reloaded" (Maier-Hein et al., 2024): the Hausdorff distance at a percentile is the larger of the two one-way
percentiles, the average symmetric surface distance is the mean over both sets together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True)
class SurfaceDistances:
    """From one image and class: each boundary pixel of the truth to the prediction, and the other way round."""

    to_predicted: NDArray[np.float64]
    to_true: NDArray[np.float64]

    def hausdorff(self, percentile: float = 95) -> float:
        """The larger of the two one-way distances, at a percentile; NaN where one of the outlines is empty."""
        if not len(self.to_predicted) or not len(self.to_true):
            return float("nan")
        return float(max(np.percentile(self.to_predicted, percentile), np.percentile(self.to_true, percentile)))

    @property
    def average(self) -> float:
        """Average symmetric surface distance; NaN where one of the outlines is empty."""
        if not len(self.to_predicted) or not len(self.to_true):
            return float("nan")
        return float((self.to_predicted.sum() + self.to_true.sum()) / (len(self.to_predicted) + len(self.to_true)))


def surface_distances(true: Points, predicted: Points) -> SurfaceDistances:
    """Between boundary pixels, (point, 2), in the unit that the result is to have."""
    from scipy.spatial import cKDTree

    if not len(true) or not len(predicted):
        nothing = np.zeros(0)
        return SurfaceDistances(nothing, nothing)
    return SurfaceDistances(cKDTree(predicted).query(true)[0], cKDTree(true).query(predicted)[0])
