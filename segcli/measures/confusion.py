"""The confusion matrix and what is read off it.

A matrix counts pixels by (true class, predicted class), shape (..., classes, classes); every figure takes any number of
them at once. A figure is NaN where it is undefined, 0 / 0: the IoU of a class that is neither there nor predicted, the
precision of one never predicted, the recall of one not in the truth.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segcli.options import Absent

Matrix = NDArray[Any]
"""Counts: integers, or float64 where they are sums over drawn images."""
Figures = NDArray[np.float64]

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


def intersection_over_union(matrix: Matrix) -> Figures:
    """IoU (Jaccard index) of each class, shape (..., classes)."""
    hits = _hits(matrix)
    return _ratio(hits, matrix.sum(-1) + matrix.sum(-2) - hits)


def dice(matrix: Matrix) -> Figures:
    """Dice coefficient of each class, which is its F1, shape (..., classes)."""
    return _ratio(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def precision(matrix: Matrix) -> Figures:
    """Share of what was predicted as a class that is right, shape (..., classes)."""
    return _ratio(_hits(matrix), matrix.sum(-2))


def recall(matrix: Matrix) -> Figures:
    """Share of a class's pixels that were found, shape (..., classes)."""
    return _ratio(_hits(matrix), matrix.sum(-1))


def mean_over_classes(figure: Callable[[Matrix], Figures], matrix: Matrix, absent: Absent = "skip") -> Figures:
    """Mean of a figure over the classes, (...,); NaN where nothing counts.

    Where it is undefined, a class that is in the truth counts 0: the precision of one that was missed altogether. One
    that is neither there nor predicted counts nothing (skip), 1 or 0; the recall of one that is only predicted nothing.
    """
    values = figure(matrix)
    undefined, is_true, is_found = np.isnan(values), matrix.sum(-1) > 0, matrix.sum(-2) > 0
    counted = ~undefined | is_true | ((absent != "skip") & ~is_found)
    values = np.where(undefined & ~is_true & (absent == "one"), 1.0, np.nan_to_num(values))
    return _ratio((values * counted).sum(-1), counted.sum(-1))


def mean_iou(matrix: Matrix) -> float:
    """Mean over the classes that occur in the truth or the prediction; NaN where none does."""
    return float(mean_over_classes(intersection_over_union, matrix))


def pixel_accuracy(matrix: Matrix) -> Figures:
    """Share of pixels that are right."""
    return _ratio(_hits(matrix).sum(-1), matrix.sum((-1, -2)))


def frequency_weighted_iou(matrix: Matrix) -> Figures:
    """IoU of each class weighted by its share of the truth (Long, Shelhamer and Darrell, 2015)."""
    share = _ratio(matrix.sum(-1), matrix.sum((-1, -2))[..., None])
    # A class that is not in the truth has no weight, whatever its IoU.
    return np.where(np.isnan(share).all(-1), np.nan, np.nansum(share * intersection_over_union(matrix), axis=-1))


def cohens_kappa(matrix: Matrix) -> Figures:
    """Agreement above chance (Cohen, 1960): (p_o - p_e) / (1 - p_e)."""
    total = matrix.sum((-1, -2)).astype(np.float64)
    observed = pixel_accuracy(matrix)
    chance = _ratio((matrix.sum(-1) * matrix.sum(-2).astype(np.float64)).sum(-1), total * total)
    return _ratio(observed - chance, 1 - chance)


def matthews_correlation(matrix: Matrix) -> Figures:
    """MCC for any number of classes, R_K of Gorodkin (2004); 0 where truth or prediction is one class alone."""
    total = matrix.sum((-1, -2)).astype(np.float64)
    true, found = matrix.sum(-1).astype(np.float64), matrix.sum(-2).astype(np.float64)
    above = _hits(matrix).sum(-1) * total - (true * found).sum(-1)
    spread = np.sqrt(total**2 - (true**2).sum(-1)) * np.sqrt(total**2 - (found**2).sum(-1))
    return np.where(total == 0, np.nan, np.where(spread == 0, 0.0, _ratio(above, spread)))


def _hits(matrix: Matrix) -> Matrix:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _ratio(part: NDArray[np.number], whole: NDArray[np.number]) -> Figures:
    """`part / whole`, NaN for 0 / 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)
