"""How far a figure of a data set would move with other images of the same kind. numpy only.

Percentile bootstrap over images (Efron, 1979): images are drawn with replacement, the figure is computed of each draw,
and the interval holds the middle of them. Pixels of one image are not independent, so images are what is drawn.
"""

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000
Figures = NDArray[np.float64]


def resampled(counts: NDArray[np.number], seed: int = 0) -> Figures:
    """Sums over drawn images of `counts`, (image, ...), as (draw, ...); no draw from fewer than two images.

    The same number of images and the same seed give the same draws, so that two sets of counts of them are paired.
    """
    images = len(counts)
    if images < 2:
        return np.zeros((0, *counts.shape[1:]))
    weights = draws(images, seed).astype(np.float64)
    return (weights @ counts.reshape(images, -1).astype(np.float64)).reshape(-1, *counts.shape[1:])


def interval(values: Figures, confidence: float = 0.95) -> tuple[Figures, Figures]:
    """Low and high end for a figure from its `values`, (draw, ...); NaN where no draw defines it."""
    low, high = np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    known = ~np.isnan(values).all(axis=0) if len(values) else np.zeros(values.shape[1:], bool)
    if known.any():
        share = (1 - confidence) / 2
        low[known], high[known] = np.nanquantile(values[:, known], [share, 1 - share], axis=0)
    return low, high


def draws(images: int, seed: int) -> NDArray[np.int64]:
    """How often each image was drawn, (draw, image)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(images, np.full(images, 1 / images), size=DRAWS)
