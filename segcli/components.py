"""Objects in a mask: sets of pixels of one class that touch, found strip by strip. numpy and OpenCV only.

Sets are labelled within strips and united where they meet at the border of two strips (union-find), so memory follows
the number of sets, not of pixels.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Components:
    """Takes a mask from the top; `counted` says by value, (256,), of which values there are objects.

    Pixels belong together that have one value and touch at edges.
    """

    def __init__(self, counted: NDArray[np.bool_]) -> None:
        self._counted = counted
        self._sets = _Sets()
        self._values: list[NDArray[np.uint8]] = []
        self._above: tuple[Numbers, NDArray[np.uint8]] | None = None

    def add(self, values: NDArray[np.uint8]) -> Numbers:
        """The next rows, (row, col): the number of each pixel's set for now, from 0; -1 where there is no object."""
        found, kinds = self.within(values, self._sets.count)
        self._sets.add(len(kinds))
        self._values.append(kinds)
        if self._above is not None:
            self._unite(*self._above, found[0], values[0])
        self._above = found[-1], values[-1].copy()
        return found

    def within(self, values: NDArray[np.uint8], first: int) -> tuple[Numbers, NDArray[np.uint8]]:
        """The sets of some rows by themselves, numbered from `first` on as `add` would, and the value of each."""
        found = np.full(values.shape, -1, np.int64)
        kinds = [np.zeros(0, np.uint8)]
        for value in np.unique(values):
            if self._counted[value]:
                mask = (values == value).view(np.uint8)
                count, labelled = cv2.connectedComponents(mask, connectivity=4)
                inside = labelled > 0
                found[inside] = labelled[inside] + (first - 1)
                first += count - 1
                kinds.append(np.full(count - 1, value, np.uint8))
        return found, np.concatenate(kinds)

    def _unite(self, ids: Numbers, values: NDArray[np.uint8], below: Numbers, values_below: NDArray[np.uint8]) -> None:
        touching = (values == values_below) & (ids >= 0)
        for one, other in np.unique(np.stack([ids[touching], below[touching]]), axis=1).T.tolist():
            self._sets.unite(one, other)

    def objects(self) -> tuple[Numbers, NDArray[np.uint8]]:
        """The object, from 0, of each number that `add` gave, and the value of each object."""
        roots, objects = np.unique(self._sets.roots(), return_inverse=True)
        values = np.concatenate(self._values) if self._values else np.zeros(0, np.uint8)
        return objects.reshape(-1), values[roots]


class _Sets:
    """Union-find (Galler and Fischer, 1964) with path halving."""

    def __init__(self) -> None:
        self._parent: list[int] = []

    @property
    def count(self) -> int:
        return len(self._parent)

    def add(self, count: int) -> None:
        """So many new ones, numbered on."""
        self._parent.extend(range(self.count, self.count + count))

    def unite(self, one: int, other: int) -> None:
        a, b = self._root(one), self._root(other)
        self._parent[max(a, b)] = min(a, b)

    def roots(self) -> Numbers:
        return np.array([self._root(n) for n in range(len(self._parent))], np.int64)

    def _root(self, n: int) -> int:
        while self._parent[n] != n:
            self._parent[n] = self._parent[self._parent[n]]
            n = self._parent[n]
        return n
