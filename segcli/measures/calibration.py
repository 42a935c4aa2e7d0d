"""Whether scores mean what they say, and how well they part the classes. numpy only.

Probabilities are counted in 65 536 steps, so that memory does not follow the pixels; what was stored in 250 steps keeps
every difference.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEVELS = 2**16
BINS = 15
"""Of confidence, as in Guo et al. (2017), "On Calibration of Modern Neural Networks"."""

CURVE_POINTS = 101

Packed = tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
"""Of each array of `ScoreCounts` the places that are not zero, and what is counted there."""


def levels(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    """Which step each probability falls on: the nearest one, and of two the upper."""
    return (np.clip(probabilities, 0, 1) * (LEVELS - 1) + 0.5).astype(np.int64)


@dataclass
class ScoreCounts:
    """Pixels by step of a class's probability, where the class is true and where not, (class, LEVELS); and of the
    highest probability, where its class is the true one and where not, (LEVELS,)."""

    classes: int
    positive: NDArray[np.int64] = field(init=False)
    negative: NDArray[np.int64] = field(init=False)
    right: NDArray[np.int64] = field(init=False)
    wrong: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.positive, self.negative = np.zeros((2, self.classes, LEVELS), np.int64)
        self.right, self.wrong = np.zeros((2, LEVELS), np.int64)

    def add(self, truth: NDArray[np.integer], steps: NDArray[np.integer]) -> None:
        """Pixels: class positions, (pixel,), and `levels` of probabilities, (class, pixel)."""
        for n in range(self.classes):
            is_class = truth == n
            hits = np.bincount(steps[n][is_class], minlength=LEVELS)
            self.positive[n] += hits
            self.negative[n] += np.bincount(steps[n], minlength=LEVELS) - hits
        top = steps.argmax(0)
        highest, is_right = steps.max(0), top == truth
        hits = np.bincount(highest[is_right], minlength=LEVELS)
        self.right += hits
        self.wrong += np.bincount(highest, minlength=LEVELS) - hits

    @property
    def _arrays(self) -> tuple[NDArray[np.int64], ...]:
        return self.positive, self.negative, self.right, self.wrong

    def packed(self) -> Packed:
        """Without the zeros: one image has few steps, and all of them for 24 classes are 25 MB, of which those of many
        images would wait for each other."""
        return tuple((places := np.flatnonzero(array), array.ravel()[places]) for array in self._arrays)

    def merge(self, other: Packed) -> None:
        """Count what another one has counted, too."""
        for array, (places, counts) in zip(self._arrays, other, strict=True):
            array.reshape(-1)[places] += counts

    def reliability(self, bins: int = BINS) -> list[tuple[int, float, float]]:
        """Of each bin of confidence, the upper end belonging to it: pixels, mean confidence, share that is right."""
        values = np.arange(LEVELS) / (LEVELS - 1)
        places = np.clip(np.ceil(values * bins).astype(int) - 1, 0, bins - 1)
        counted = self.right + self.wrong
        pixels = np.bincount(places, counted, bins)
        with np.errstate(invalid="ignore"):
            confidence = np.bincount(places, counted * values, bins) / pixels
            accuracy = np.bincount(places, self.right, bins) / pixels
        return [(int(n), float(c), float(a)) for n, c, a in zip(pixels, confidence, accuracy, strict=True)]

    def expected_calibration_error(self, bins: int = BINS) -> float:
        """Mean distance of confidence and accuracy over the bins, weighted by their pixels (Guo et al., 2017)."""
        total = int((self.right + self.wrong).sum())
        if not total:
            return float("nan")
        return sum(n * abs(c - a) for n, c, a in self.reliability(bins) if n) / total

    def curves(self, n: int) -> "Curves":
        """Class `n` against all others, at every threshold, from the highest down."""
        hits, misses = self.positive[n][::-1].cumsum(), self.negative[n][::-1].cumsum()
        used = (self.positive[n] + self.negative[n])[::-1] > 0
        # A step begins half a step below its middle; a little less, because probabilities are rounded to float32.
        begins = ((np.arange(LEVELS) - 0.51) / (LEVELS - 1)).clip(0)
        return Curves(begins[::-1][used], hits[used], misses[used])


@dataclass(frozen=True)
class Curves:
    """At each threshold, from the highest down: pixels of the class, and of others, with at least that probability."""

    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    false: NDArray[np.int64]

    @property
    def precision(self) -> NDArray[np.float64]:
        return self.hits / (self.hits + self.false)

    @property
    def recall(self) -> NDArray[np.float64]:
        return self.hits / self.hits[-1]

    @property
    def false_positive_rate(self) -> NDArray[np.float64]:
        return self.false / self.false[-1]

    @property
    def is_defined(self) -> bool:
        """Whether there are pixels of the class, and of others."""
        return len(self.hits) > 0 and self.hits[-1] > 0 and self.false[-1] > 0

    @property
    def average_precision(self) -> float:
        """Area under precision over recall, as a sum of steps."""
        if not self.is_defined:
            return float("nan")
        return float((np.diff(self.recall, prepend=0.0) * self.precision).sum())

    @property
    def roc_auc(self) -> float:
        """Area under recall over false positive rate, by trapezoids."""
        if not self.is_defined:
            return float("nan")
        return float(np.trapezoid(np.append(0.0, self.recall), np.append(0.0, self.false_positive_rate)))

    def best_threshold(self) -> tuple[float, float]:
        """The threshold of the highest F1, and that F1."""
        if not self.is_defined:
            return float("nan"), float("nan")
        f1 = 2 * self.hits / (self.hits + self.false + self.hits[-1])
        best = int(f1.argmax())
        return float(self.thresholds[best]), float(f1[best])

    def sampled(self, points: int = CURVE_POINTS) -> list[tuple[float, float, float, float]]:
        """About so many points for drawing: threshold, precision, recall, false positive rate."""
        if not self.is_defined:
            return []
        # Evenly along both axes that are drawn, so that steep parts keep their points.
        along = (self.recall + self.false_positive_rate) / 2
        kept = np.unique(np.searchsorted(along, np.linspace(along[0], 1, points)).clip(0, len(along) - 1))
        columns = self.thresholds[kept], self.precision[kept], self.recall[kept], self.false_positive_rate[kept]
        return [tuple(map(float, row)) for row in zip(*columns, strict=True)]  # type: ignore[misc]
