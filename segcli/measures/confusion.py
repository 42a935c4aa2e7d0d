"""The confusion matrix and what is read off it.

A matrix counts pixels by (true class, predicted class), shape (..., classes, classes). Every figure is of its diagonal
and its sums alone, `Totals`, of any number of matrices at once: 150 classes have 22 500 cells, and 450 of these. A
figure is NaN where it is undefined, 0 / 0: the IoU of a class that is neither there nor predicted, the precision of one
never predicted, the recall of one not in the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segcli.options import Absent

Matrix = NDArray[Any]
"""Counts: integers, or float64 where they are sums over drawn images."""
Figures = NDArray[np.float64]


@dataclass(frozen=True)
class Totals:
    """Pixels of each class that are right, true and predicted: `counts`, (..., 3, class)."""

    counts: NDArray[Any]

    @classmethod
    def of(cls, matrix: Matrix, missed: NDArray[Any] | int = 0) -> "Totals":
        """Of matrices, (..., class, class), and the true pixels of each class that are predicted as nothing."""
        hits = np.diagonal(matrix, axis1=-2, axis2=-1)
        return cls(np.stack([hits, matrix.sum(-1) + missed, matrix.sum(-2)], axis=-2))

    @property
    def hits(self) -> NDArray[Any]:
        """Pixels of each class that are predicted as it, (..., class)."""
        return self.counts[..., 0, :]

    @property
    def true(self) -> NDArray[Any]:
        """Pixels of each class in the truth, (..., class)."""
        return self.counts[..., 1, :]

    @property
    def predicted(self) -> NDArray[Any]:
        """Pixels predicted as each class, (..., class)."""
        return self.counts[..., 2, :]

    @property
    def pixels(self) -> NDArray[Any]:
        """All of them, (...)."""
        return self.true.sum(-1)

    def sum(self) -> "Totals":
        """Of all images together; the first axis is theirs."""
        return Totals(self.counts.sum(0))


_EXACT = 2**23
"""Pixels that are counted at once: OpenCV counts in float32, which is exact up to twice that."""


def count_values(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> Matrix:
    """Pixels by (true value, predicted value), shape (256, 256), whatever the values mean.

    By OpenCV's joint histogram, which is about twice as fast as numpy's bincount of pairs.
    """
    total = np.zeros((256, 256), np.int64)
    true, found = truth.reshape(-1, 1), predicted.reshape(-1, 1)
    for first in range(0, true.size, _EXACT):
        part = [true[first : first + _EXACT], found[first : first + _EXACT]]
        total += cv2.calcHist(part, [0, 1], None, [256, 256], [0, 256, 0, 256]).astype(np.int64)
    return total


def confusion_matrix(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> Matrix:
    """Pixels by (true class, predicted class), shape (classes, classes); pixels of negative truth are left out.

    Both arrays have one shape and hold positions in the class table. Raises ValueError on a value of `classes` or more.
    """
    labelled = truth >= 0
    pairs = truth[labelled].astype(np.int64) * classes + predicted[labelled]
    if pairs.size and not 0 <= pairs.max() < classes * classes:
        raise ValueError(f"a class of {classes} or more")
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def intersection_over_union(totals: Totals) -> Figures:
    """IoU (Jaccard index) of each class, shape (..., class)."""
    return _ratio(totals.hits, totals.true + totals.predicted - totals.hits)


def dice(totals: Totals) -> Figures:
    """Dice coefficient of each class, which is its F1, shape (..., class)."""
    return _ratio(2 * totals.hits, totals.true + totals.predicted)


def precision(totals: Totals) -> Figures:
    """Share of what was predicted as a class that is right, shape (..., class)."""
    return _ratio(totals.hits, totals.predicted)


def recall(totals: Totals) -> Figures:
    """Share of a class's pixels that were found, shape (..., class)."""
    return _ratio(totals.hits, totals.true)


def mean_over_classes(figure: Callable[[Totals], Figures], totals: Totals, absent: Absent = "skip") -> Figures:
    """Mean of a figure over the classes, (...,); NaN where nothing counts.

    Where it is undefined, a class that is in the truth counts 0: the precision of one that was missed altogether. One
    that is neither there nor predicted counts nothing (skip), 1 or 0; the recall of one that is only predicted nothing.
    """
    values = figure(totals)
    undefined, is_true, is_found = np.isnan(values), totals.true > 0, totals.predicted > 0
    counted = ~undefined | is_true | ((absent != "skip") & ~is_found)
    values = np.where(undefined & ~is_true & (absent == "one"), 1.0, np.nan_to_num(values))
    return _ratio((values * counted).sum(-1), counted.sum(-1))


def mean_iou(matrix: Matrix) -> float:
    """Of one matrix, the mean over the classes that occur in the truth or the prediction; NaN where none does."""
    return float(mean_over_classes(intersection_over_union, Totals.of(matrix)))


def pixel_accuracy(totals: Totals) -> Figures:
    """Share of pixels that are right."""
    return _ratio(totals.hits.sum(-1), totals.pixels)


def frequency_weighted_iou(totals: Totals) -> Figures:
    """IoU of each class weighted by its share of the truth (Long, Shelhamer and Darrell, 2015)."""
    share = _ratio(totals.true, totals.pixels[..., None])
    # A class that is not in the truth has no weight, whatever its IoU.
    return np.where(np.isnan(share).all(-1), np.nan, np.nansum(share * intersection_over_union(totals), axis=-1))


def cohens_kappa(totals: Totals) -> Figures:
    """Agreement above chance (Cohen, 1960): (p_o - p_e) / (1 - p_e)."""
    pixels = totals.pixels.astype(np.float64)
    observed = pixel_accuracy(totals)
    chance = _ratio((totals.true * totals.predicted.astype(np.float64)).sum(-1), pixels * pixels)
    return _ratio(observed - chance, 1 - chance)


def matthews_correlation(totals: Totals) -> Figures:
    """MCC for any number of classes, R_K of Gorodkin (2004); 0 where truth or prediction is one class alone. Nothing,
    where pixels are predicted as that, is one more class, which the truth lacks: other figures are the same with it."""
    pixels = totals.pixels.astype(np.float64)
    true, found = totals.true.astype(np.float64), totals.predicted.astype(np.float64)
    above = totals.hits.sum(-1) * pixels - (true * found).sum(-1)
    of_found = (found**2).sum(-1) + (pixels - found.sum(-1)) ** 2
    spread = np.sqrt(pixels**2 - (true**2).sum(-1)) * np.sqrt(pixels**2 - of_found)
    found = np.clip(_ratio(above, spread), -1, 1)  # the last digit may lie beyond
    return np.where(pixels == 0, np.nan, np.where(spread == 0, 0.0, found))


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Figures:
    """`part / whole`, NaN for 0 / 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
