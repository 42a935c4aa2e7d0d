"""Outlines of classes over strips: what lies near them, and how far they are apart."""

import numpy as np
from numpy.typing import NDArray

from segcli.measures.boundaries import BoundaryCounts, boundary_counts, margin_of, outline
from segcli.measures.surfaces import SurfaceDistances, surface_distances

Places = NDArray[np.int16]


class Outlines:
    """Of `classes` classes: boundary counts within `width` pixels, distances with pixels of `steps`, or both.

    Rows are held until all that they need has come; of outlines the points are kept until the end of the image.
    """

    def __init__(self, classes: int, width: float | None, steps: tuple[float, float] | None) -> None:
        self._classes, self._width, self._steps = classes, width, steps
        self._margin = max(1, margin_of(width) if width is not None else 1)
        self._boundaries = [BoundaryCounts() for _ in range(classes)]
        self._distances: list[list[SurfaceDistances]] = [[] for _ in range(classes)]
        self._begin()

    def _begin(self) -> None:
        self._held: tuple[Places, Places, NDArray[np.bool_]] | None = None
        self._first_row = 0  # of the image, of what is held
        self._due = 0  # the first held row that is not counted
        self._points: list[tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]] = [
            ([], []) for _ in range(self._classes)
        ]

    def add(self, true: Places, found: Places, known: NDArray[np.bool_]) -> None:
        """The next rows, (row, col): class positions, and where there is a true and a predicted label."""
        strip = true, found, known
        self._held = (
            strip if self._held is None else tuple(map(np.concatenate, zip(self._held, strip, strict=True)))  # type: ignore[assignment]
        )
        assert self._held is not None
        self._count(len(self._held[0]) - self._margin)

    def _count(self, end: int) -> None:
        """Held rows up to `end`; those that later ones need are kept."""
        if self._held is None or end <= self._due:
            return
        true, found, known = self._held
        rows = slice(self._due, end)
        for n in range(self._classes):
            one, other = true == n, found == n
            if self._width is not None:
                self._boundaries[n] += boundary_counts(one, other, self._width, known, rows)
            if self._steps is not None:
                for mask, points in zip((one, other), self._points[n], strict=True):
                    found_at = np.argwhere(outline(mask, known)[rows])
                    points.append(found_at + np.array([self._first_row + self._due, 0]))
        kept = max(0, end - self._margin)
        self._held, self._due = (true[kept:], found[kept:], known[kept:]), end - kept
        self._first_row += kept

    def end_image(self) -> None:
        """No more rows of this image: count what is held, and measure between the outlines."""
        if self._held is not None:
            self._count(len(self._held[0]))
        if self._steps is not None:
            for n, (true, found) in enumerate(self._points):
                one, other = (np.concatenate(points).astype(np.float64) * self._steps for points in (true, found))
                self._distances[n].append(surface_distances(one, other))
        self._begin()

    @property
    def boundaries(self) -> NDArray[np.float64] | None:
        """The fields of `BoundaryCounts` by class, (class, 6); None where no width was given."""
        if self._width is None:
            return None
        return np.array([list(vars(counts).values()) for counts in self._boundaries], np.float64)

    @property
    def distances(self) -> NDArray[np.float64] | None:
        """Hausdorff 95 and average symmetric surface distance, (class, 2); means over images of a stack that have them.

        NaN where a class is missing on one side. None where they were not asked for.
        """
        if self._steps is None:
            return None
        found = np.array([[(d.hausdorff(), d.average) for d in measured] for measured in self._distances])
        known = ~np.isnan(found)  # (class, image, 2)
        return np.divide(
            np.where(known, found, 0).sum(1), known.sum(1), out=np.full((self._classes, 2), np.nan),
            where=known.any(1),
        )  # fmt: skip
