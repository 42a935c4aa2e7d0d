"""How far a figure of a data set would move with other images of the same kind. numpy only.

Percentile bootstrap over images (Efron, 1979): images are drawn with replacement, the figure is computed of each draw,
and the interval holds the middle of them. Pixels of one image are not independent, so images are what is drawn.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


def interval(
    matrices: NDArray[np.int64],
    figure: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Low and high end for a figure of the sum of `matrices`, (image, classes, classes); NaN for one image."""
    if len(matrices) < 2:
        return float("nan"), float("nan")
    values = figure(np.tensordot(draws(len(matrices), seed), matrices, axes=1))
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def draws(images: int, seed: int) -> NDArray[np.int64]:
    """How often each image was drawn, (draw, image)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=DRAWS)
