"""The confusion matrix and what is read off it. numpy only."""

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Pixels by (true class, predicted class), shape (classes, classes); pixels of negative truth are left out.

    Both arrays have one shape and hold positions in the class table. Raises ValueError on a value of `classes` or more.
    """
    labelled = truth >= 0
    pairs = truth[labelled].astype(np.int64) * classes + predicted[labelled]
    if pairs.size and not 0 <= pairs.max() < classes * classes:
        raise ValueError(f"a class of {classes} or more")
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def intersection_over_union(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU (Jaccard index) of each class, shape (classes,); NaN where a class is neither in the truth nor predicted."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    values = np.full(len(hits), np.nan)
    np.divide(hits, union, out=values, where=union > 0)
    return values


def mean_iou(matrix: NDArray[np.int64]) -> float:
    """Mean over the classes that occur in the truth or the prediction; NaN where none does."""
    values = intersection_over_union(matrix)
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
