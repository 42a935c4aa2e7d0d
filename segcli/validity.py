"""Where rows that are on their way through the network hold data. Rows come and go in strips of different heights."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Noted = tuple[int, NDArray[Any], NDArray[np.bool_] | None]


class Validity:
    """A queue of (image, row, col), or a number of rows that are valid everywhere."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, NDArray[np.bool_] | None]] = deque()

    def noted(self, strips: Iterable[Noted]) -> Iterator[Noted]:
        """The strips as they come; what their third part says is kept until it is taken."""
        for strip in strips:
            _, pixels, valid = strip
            self._waiting.append((pixels.shape[2], valid))
            yield strip

    def take(self, count: int) -> NDArray[np.bool_] | None:
        """Where the next `count` rows are data; None for everywhere."""
        parts: list[tuple[int, NDArray[np.bool_] | None]] = []
        missing = count
        while missing:
            rows, valid = self._waiting.popleft()
            if rows > missing:
                self._waiting.appendleft((rows - missing, None if valid is None else valid[:, missing:]))
                rows, valid = missing, None if valid is None else valid[:, :missing]
            parts.append((rows, valid))
            missing -= rows
        known = [valid for _, valid in parts if valid is not None]
        if not known:
            return None
        images, _, columns = known[0].shape
        return np.concatenate(
            [np.ones((images, rows, columns), bool) if valid is None else valid for rows, valid in parts], axis=1
        )
