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
Figures = NDArray[np.float64]


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
        return float(boundary_iou(np.array(list(vars(self).values()), np.float64)))

    @property
    def f_score(self) -> float:
        return float(f_score(np.array(list(vars(self).values()), np.float64)))


def boundary_iou(counts: Figures) -> Figures:
    """Boundary IoU of Cheng et al. (2021): IoU of the parts of both masks that lie near their own outlines.

    `counts`, (..., 6), are the fields of `BoundaryCounts`, of any number of images; NaN where there is no outline.
    """
    return _ratio(counts[..., 0], counts[..., 1])


def f_score(counts: Figures) -> Figures:
    """Boundary F1 (Csurka et al., 2013): harmonic mean of the shares of outline found within the tolerance.

    0 where one side alone has an outline, NaN where neither has.
    """
    recall, precision = (np.nan_to_num(_ratio(counts[..., n], counts[..., n + 1])) for n in (2, 4))
    score = np.nan_to_num(_ratio(2 * precision * recall, precision + recall))
    return np.where(counts[..., 3] + counts[..., 5] == 0, np.nan, score)


def _ratio(part: Figures, whole: Figures) -> Figures:
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def boundary_counts(
    truth: Mask, predicted: Mask, tolerance: float, known: Mask | None = None, rows: slice = slice(None)
) -> BoundaryCounts:
    """Counts for a tolerance in pixels; pixels that are not `known` are left out, masks are (row, col).

    `rows` are those to be counted, where the masks are a strip with the rows around it: `margin_of` them on either
    side that is not the image's border.
    """
    kept = np.zeros(truth.shape, bool)
    kept[rows] = True if known is None else known[rows]
    true_edge, found_edge = outline(truth, known), outline(predicted, known)
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


def outline(mask: Mask, known: Mask | None = None) -> Mask:
    """Boundary pixels of a mask, (row, col); towards pixels that are not `known` there is no boundary."""
    inside = mask if known is None else mask | ~known
    padded = np.pad(inside, 1, mode="edge")
    edge = mask & ~(padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:])
    return edge if known is None else edge & known


def distance_to(edge: Mask) -> NDArray[np.float32]:
    """Distance of every pixel to the nearest one of `edge`; infinite where there is none.

    The same for the same pixels, whatever memory they lie in: a root that OpenCV takes may differ in its last bit from
    one place in memory to another, the whole number under it does not (below some 1400 pixels).
    """
    if not edge.any():
        return np.full(edge.shape, np.inf, np.float32)
    found: NDArray[Any] = cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.rint(np.square(found, out=found), out=found)
    return np.sqrt(found, out=found)
