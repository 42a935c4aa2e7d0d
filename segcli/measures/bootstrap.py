"""How far a figure of a data set would move with other images of the same kind. numpy only.

Percentile bootstrap over images (Efron, 1979): images are drawn with replacement, the figure is computed of each draw,
and the interval holds the middle of them. Pixels of one image are not independent, so images are what is drawn.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
AT_ONCE = 2**23
"""Numbers, how often which image was drawn, that are in memory together: the draws of many images would be more than
their counts."""

Figures = NDArray[np.float64]


def resampled(counts: NDArray[np.number], seed: int = 0) -> Figures:
    """Sums over drawn images of `counts`, (image, ...), as (draw, ...); no draw from fewer than two images.

    The same number of images and the same seed give the same draws, so that two sets of counts of them are paired.
    """
    images = len(counts)
    if images < 2:
        return np.zeros((0, *counts.shape[1:]))
    rows = counts.reshape(images, -1).astype(np.float64)
    sums = np.concatenate([weights @ rows for weights in draws(images, seed)])
    return sums.reshape(-1, *counts.shape[1:])


def interval(values: Figures, confidence: float = 0.95) -> tuple[Figures, Figures]:
    """Low and high end for a figure from its `values`, (draw, ...); NaN where no draw defines it."""
    low, high = np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    known = ~np.isnan(values).all(axis=0) if len(values) else np.zeros(values.shape[1:], bool)
    if known.any():
        share = (1 - confidence) / 2
        low[known], high[known] = np.nanquantile(values[:, known], [share, 1 - share], axis=0)
    return low, high


def draws(images: int, seed: int) -> Iterator[Figures]:
    """How often each image was drawn, (draw, image), some draws at a time."""
    rng = np.random.default_rng(seed)
    some = max(1, AT_ONCE // images)
    for first in range(0, DRAWS, some):
        yield rng.multinomial(images, np.full(images, 1 / images), size=min(some, DRAWS - first)).astype(np.float64)
