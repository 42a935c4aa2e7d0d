"""How well objects were found: average precision, panoptic quality, counts. numpy only.

An object of the prediction is matched with one of the truth, of the same class, if their IoU is above a threshold of at
least 0.5: then no other can match either of the two (Kirillov et al., 2019, "Panoptic Segmentation").

Counts are an array (..., COLUMNS): true objects, predicted ones, the sum of IoU over pairs above 0.5, and the number of
pairs above each of THRESHOLDS. They add up over images; every figure takes any number of them at once.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from segcli.components import Numbers

THRESHOLDS = np.arange(50, 100, 5) / 100
"""Of IoU, as in COCO and in the Data Science Bowl of 2018: 0.5 to 0.95."""

COLUMNS = 3 + len(THRESHOLDS)
TRUE, PREDICTED, IOUS, HITS = 0, 1, 2, 3

ObjectCounts = NDArray[np.float64]
Figures = NDArray[np.float64]


def match_objects(
    pairs: Numbers, pixels: Numbers, true_areas: Numbers, predicted_areas: Numbers, void: Numbers,
    true_values: NDArray[np.integer], predicted_values: NDArray[np.integer], classes: int,
) -> ObjectCounts:  # fmt: skip
    """Counts by class, (class, COLUMNS), from what two masks have in common.

    `pairs`, (2, pair), are numbers of a true and a predicted object that share `pixels`; areas and classes by object.
    Areas are of pixels with a true label; `void` are pixels of the predicted objects without one. Those that lie mostly
    there and match nothing at 0.5 are left out: nobody knows whether they are right (Kirillov et al., 2019, 4.2).
    """
    one, other = pairs
    ious = pixels / (true_areas[one] + predicted_areas[other] - pixels)
    alike = true_values[one] == predicted_values[other]
    counts = np.zeros((classes, COLUMNS))
    counts[:, TRUE] = np.bincount(true_values[true_areas > 0], minlength=classes)
    matched = alike & (ious > THRESHOLDS[0])
    known = predicted_areas >= np.maximum(void, 1)
    known[other[matched]] = True
    counts[:, PREDICTED] = np.bincount(predicted_values[known], minlength=classes)
    counts[:, IOUS] = np.bincount(true_values[one[matched]], ious[matched], minlength=classes)
    for n, threshold in enumerate(THRESHOLDS):
        counts[:, HITS + n] = np.bincount(true_values[one[alike & (ious > threshold)]], minlength=classes)
    return counts


def average_precision(counts: ObjectCounts) -> Figures:
    """TP / (TP + FP + FN) at IoU 0.5 (Caicedo et al., 2019, "Nucleus segmentation across imaging experiments")."""
    return _average_precision(counts)[..., 0]


def mean_average_precision(counts: ObjectCounts) -> Figures:
    """Of that the mean over THRESHOLDS."""
    return _average_precision(counts).mean(-1)


def precision(counts: ObjectCounts) -> Figures:
    """Share of predicted objects that match one of the truth at 0.5."""
    return _ratio(counts[..., HITS], counts[..., PREDICTED])


def recall(counts: ObjectCounts) -> Figures:
    """Share of true objects that were found at 0.5."""
    return _ratio(counts[..., HITS], counts[..., TRUE])


def recognition_quality(counts: ObjectCounts) -> Figures:
    """F1 of objects at 0.5."""
    return _ratio(2 * counts[..., HITS], counts[..., TRUE] + counts[..., PREDICTED])


def segmentation_quality(counts: ObjectCounts) -> Figures:
    """Mean IoU of the objects that match at 0.5."""
    return _ratio(counts[..., IOUS], counts[..., HITS])


def panoptic_quality(counts: ObjectCounts) -> Figures:
    """The product of the two: sum of IoU over TP + FP / 2 + FN / 2."""
    return _ratio(2 * counts[..., IOUS], counts[..., TRUE] + counts[..., PREDICTED])


FIGURES: dict[str, Callable[[ObjectCounts], Figures]] = {
    "average_precision_50": average_precision,
    "mean_average_precision": mean_average_precision,
    "object_precision": precision,
    "object_recall": recall,
    "panoptic_quality": panoptic_quality,
    "segmentation_quality": segmentation_quality,
    "recognition_quality": recognition_quality,
}


def _average_precision(counts: ObjectCounts) -> Figures:
    hits = counts[..., HITS:]
    return _ratio(hits, (counts[..., TRUE] + counts[..., PREDICTED])[..., None] - hits)


def _ratio(part: Figures, whole: Figures) -> Figures:
    """NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)
