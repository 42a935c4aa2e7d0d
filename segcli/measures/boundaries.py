"""How well the outlines of classes agree. numpy and OpenCV only.

A boundary pixel of a class has a neighbour, by edge, that is not of the class; the border of the image is no boundary.
Distances are Euclidean between pixel centres.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


@dataclass
class BoundaryCounts:
    """Sums over any number of images, of one class.

    `band_hits` and `band_union` count pixels within the tolerance of both, or either, class's outline, inside it;
    `true_found` of `true_total` boundary pixels of the truth have a predicted one within the tolerance, and
    `predicted_found` of `predicted_total` the other way round.
    """

    band_hits: int = 0
    band_union: int = 0
    true_found: int = 0
    true_total: int = 0
    predicted_found: int = 0
    predicted_total: int = 0

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def boundary_iou(self) -> float:
        """Boundary IoU of Cheng et al. (2021): IoU of the parts of both masks that lie near their own outlines."""
        return self.band_hits / self.band_union if self.band_union else float("nan")

    @property
    def f_score(self) -> float:
        """Boundary F1 (Csurka et al., 2013): harmonic mean of the shares of outline found within the tolerance."""
        if not self.true_total and not self.predicted_total:
            return float("nan")
        if not self.true_total or not self.predicted_total:
            return 0.0
        recall, precision = self.true_found / self.true_total, self.predicted_found / self.predicted_total
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_counts(
    truth: Mask, predicted: Mask, tolerance: float, known: Mask | None = None, rows: slice = slice(None)
) -> BoundaryCounts:
    """Counts for a tolerance in pixels; pixels that are not `known` are left out, masks are (row, col).

    `rows` are those to be counted, where the masks are a strip with the rows around it: `margin_of` them on either
    side that is not the image's border.
    """
    kept = np.zeros(truth.shape, bool)
    kept[rows] = True if known is None else known[rows]
    seen = np.ones(truth.shape, bool) if known is None else known
    true_edge, found_edge = outline(truth) & seen, outline(predicted) & seen
    to_true, to_found = distance_to(true_edge), distance_to(found_edge)
    # In the band is what is nearer to the outline than the tolerance; the outline itself is at distance 0.
    true_band, found_band = truth & (to_true < tolerance) & kept, predicted & (to_found < tolerance) & kept
    true_edge, found_edge = true_edge & kept, found_edge & kept
    return BoundaryCounts(
        int((true_band & found_band).sum()), int((true_band | found_band).sum()),
        int((to_found[true_edge] <= tolerance).sum()), int(true_edge.sum()),
        int((to_true[found_edge] <= tolerance).sum()), int(found_edge.sum()),
    )  # fmt: skip


def margin_of(tolerance: float) -> int:
    """Rows around a strip that its counts need: outlines within the tolerance, and one more to see them."""
    return math.ceil(tolerance) + 1


def outline(mask: Mask) -> Mask:
    """Boundary pixels of a mask, (row, col)."""
    padded = np.pad(mask, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    return inner & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])


def distance_to(edge: Mask) -> NDArray[np.float32]:
    """Distance of every pixel to the nearest one of `edge`; infinite where there is none."""
    if not edge.any():
        return np.full(edge.shape, np.inf, np.float32)
    found: NDArray[Any] = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return found
