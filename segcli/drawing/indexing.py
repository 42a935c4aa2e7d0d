"""From colours back to class indices. numpy only."""

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from segcli.classes import ClassTable
from segcli.colors import Color, color_codes
from segcli.validity import Valid

UNKNOWN, NEW = -1, -2
LISTED = 12

MOST_COLORS = 100_000
"""A picture with more colours that are in no class is none of classes."""


class ColorIndex:
    """The index of each colour of a class table, and of colours near one: at most `tolerance` away in RGB.

    A table of all colours there are is filled in as they come. `foreign` counts pixels by colours that are in no class.
    Of two classes in one colour it is the first.
    """

    def __init__(self, classes: ClassTable, tolerance: float = 0.0, empty: int = 0) -> None:
        known: dict[Color, int] = {}
        for entry in classes.entries:
            known.setdefault(entry.color, entry.index)
        if classes.ignore_color is not None:
            known.setdefault(classes.ignore_color, empty)
        self._colors = np.array(list(known), np.float64)  # (color, band)
        self._indices = np.array(list(known.values()), np.int16)
        self._tolerance, self._empty = tolerance, empty
        self._table = np.full(1 << 24, NEW, np.int16)
        self.foreign: Counter[int] = Counter()

    @property
    def is_hopeless(self) -> bool:
        """Whether there are so many colours in no class that nobody would list them."""
        return len(self.foreign) > MOST_COLORS

    def indices(self, pixels: NDArray[np.uint8], valid: Valid = None) -> NDArray[np.uint8]:
        """Of colours (3, row, col), (row, col); 0 for those in no class, which are counted; `empty` without data."""
        codes = color_codes(pixels)
        found = self._table[codes]
        if (new := _where(found == NEW, valid)).any():
            self._learn(np.unique(codes[new]))
            found = self._table[codes]
        if valid is not None:
            found[~valid] = self._empty
        if (found == UNKNOWN).any():
            values, counts = np.unique(codes[found == UNKNOWN], return_counts=True)
            self.foreign.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        return found.clip(0).astype(np.uint8)

    def _learn(self, codes: NDArray[np.int32]) -> None:
        nearest, least = self._nearest(codes)
        self._table[codes] = np.where(least <= self._tolerance, self._indices[nearest], UNKNOWN)

    def _nearest(self, codes: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The class that is nearest to each colour, and how far it is."""
        colors = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1).astype(np.float64)
        nearest, least = np.zeros(len(codes), np.int64), np.full(len(codes), np.inf)
        for n, color in enumerate(self._colors):
            distance = np.linalg.norm(colors - color, axis=1)
            nearer = distance < least
            nearest[nearer], least[nearer] = n, distance[nearer]
        return nearest, least

    def farthest(self) -> float:
        """How far those colours are from a class that are in none: a tolerance that would take all."""
        return float(self._nearest(np.array(list(self.foreign), np.int32))[1].max())

    def listed(self) -> str:
        """The colours in no class, the most frequent first, with their pixels."""
        listed = ", ".join(f"#{code:06X} ({count} pixels)" for code, count in self.foreign.most_common(LISTED))
        more = len(self.foreign) - LISTED
        return f"{listed} and {more} more colours" if more > 0 else listed


def _where(found: NDArray[np.bool_], valid: Valid) -> NDArray[np.bool_]:
    return found if valid is None else found & valid
