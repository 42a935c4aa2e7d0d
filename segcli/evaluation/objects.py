"""Objects of two masks over strips: how many, and which belong to which."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segcli.components import Components, Numbers
from segcli.measures.objects import COLUMNS, ObjectCounts, match_objects

DENSE = 2**24
"""Up to so many possible pairs of numbers are counted in a table, more by sorting."""


class ObjectMatcher:
    """Counts what true and predicted objects have in common; `counted` says of which classes there are objects.

    Objects are connected components of classes, or, on the sides that `labels` says, the true one and the found one,
    pixels of one number above 0. Found ones are those of the whole prediction; their pixels where the truth has no
    label are void: they are in no IoU, and an object that is mostly void is no false one (see `match_objects`).
    """

    def __init__(self, counted: Sequence[bool], labels: tuple[bool, bool]) -> None:
        self._classes, self._labels = len(counted), labels
        self._counted = np.zeros(256, bool)
        self._counted[: len(counted)] = counted
        self._counts = np.zeros((len(counted), COLUMNS))
        self._begin()

    def _begin(self) -> None:
        self._true, self._found = map(self._side, self._labels)
        self._common: list[tuple[Numbers, Numbers]] = []
        self._void: list[tuple[Numbers, Numbers]] = []  # numbers of found ones, and how many pixels of each

    def _side(self, is_labels: bool) -> "Components | _LabelMap":
        return _LabelMap() if is_labels else Components(self._counted)

    def add(
        self, true: NDArray[np.integer], found: NDArray[np.integer], labelled: NDArray[np.bool_],
        predicted: NDArray[np.bool_],
    ) -> None:  # fmt: skip
        """The next rows, (row, col): class positions or numbers of objects, and where there may be true and found ones.
        What is predicted and not labelled is void."""
        one, other = (
            side.add(np.where(known, part, 0) if is_labels else np.where(known, part, 255).astype(np.uint8))
            for side, part, known, is_labels in zip(
                (self._true, self._found), (true, found), (labelled, predicted), self._labels, strict=True
            )
        )
        if not labelled.all():
            void = other[~labelled]
            self._void.append(np.unique(void[void >= 0], return_counts=True))
            other = np.where(labelled, other, -1)
        self._common.append(joint_counts(one, other))

    def end_image(self) -> None:
        """No more rows of this image: match its objects."""
        pairs = np.concatenate([pair for pair, _ in self._common], axis=1)
        pixels = np.concatenate([count for _, count in self._common])
        objects = [side.objects() for side in (self._true, self._found)]
        merged = [np.append(numbers, -1)[part] for (numbers, _), part in zip(objects, pairs, strict=True)]
        areas = [
            np.bincount(part[part >= 0], pixels[part >= 0], len(values)).astype(np.int64)
            for part, (_, values) in zip(merged, objects, strict=True)
        ]
        shared = (merged[0] >= 0) & (merged[1] >= 0)
        common, where = np.unique(np.stack([part[shared] for part in merged]), axis=1, return_inverse=True)
        together = np.bincount(where.reshape(-1), pixels[shared], common.shape[1]).astype(np.int64)
        (_, true), (places, found) = objects
        void = np.zeros(len(found), np.int64)
        for numbers, count in self._void:
            np.add.at(void, places[numbers], count)
        self._counts += match_objects(common, together, areas[0], areas[1], void, true, found, self._classes)
        self._begin()

    @property
    def counts(self) -> ObjectCounts:
        """(class, COLUMNS); of one without objects nothing is counted."""
        return self._counts


class _LabelMap:
    """As `Components`, for pixels that bear their object's number; all objects are of class 1."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def add(self, labels: NDArray[np.integer]) -> Numbers:
        found, where = np.unique(labels, return_inverse=True)
        numbers = [-1 if n <= 0 else self._numbers.setdefault(n, len(self._numbers)) for n in found.tolist()]
        return np.array(numbers, np.int64)[where].reshape(labels.shape)

    def objects(self) -> tuple[Numbers, NDArray[np.uint8]]:
        return np.arange(len(self._numbers)), np.ones(len(self._numbers), np.uint8)


def joint_counts(one: Numbers, other: Numbers) -> tuple[Numbers, Numbers]:
    """Which pairs of numbers, from -1, lie on one pixel, (2, pair), and on how many; pairs of -1 are left out."""
    low_one, low_other = _lowest(one), _lowest(other)
    # Numbers of one strip lie close together: as a table, with 0 for -1.
    a, b = (np.where(part < 0, 0, part - low + 1) for part, low in ((one, low_one), (other, low_other)))
    across = int(b.max()) + 1
    codes = (a * across + b).ravel()
    if (int(a.max()) + 1) * across <= DENSE:
        counts = np.bincount(codes)
        found = np.flatnonzero(counts)
        counts = counts[found]
    else:
        found, counts = np.unique(codes, return_counts=True)
    found, counts = found[found > 0], counts[found > 0]
    first, second = np.divmod(found, across)
    pairs = np.stack([np.where(first == 0, -1, first - 1 + low_one), np.where(second == 0, -1, second - 1 + low_other)])
    return pairs, counts


def _lowest(numbers: Numbers) -> int:
    inside = numbers[numbers >= 0]
    return int(inside.min()) if inside.size else 0
