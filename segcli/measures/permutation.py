"""Whether one of two models is better on the same images, or chance made it look so. numpy only.

The paired permutation test (Fisher, 1935, "The Design of Experiments", section 21): if neither is better, either may
have made either mask of an image, and the two may be swapped on any of the images. The p-value is the share of all
swaps whose difference is at least as large as the one that was found, in either direction. It holds for any figure and
any number of images, other than a percentile bootstrap, whose intervals are too narrow for few. Of many images random
swaps are looked at, with the found one among them, so that the p-value is never too small (Phipson and Smyth, 2010).
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from segcli.measures.bootstrap import AT_ONCE

EXACT = 12
"""Up to so many images all swaps are looked at, beyond as many random ones as there are of these."""

Figures = NDArray[np.float64]


def swapped(ours: NDArray[np.number], theirs: NDArray[np.number], seed: int = 0) -> tuple[Figures, Figures]:
    """Sums over images of two sets of counts, (image, ...), with the two swapped on some images, as (swap, ...) each;
    the first has none swapped."""
    images = len(ours)
    one, other = (side.reshape(images, -1).astype(np.float64) for side in (ours, theirs))
    change = np.concatenate([swaps @ (other - one) for swaps in _swaps(images, seed)])
    shape = (-1, *ours.shape[1:])
    return (one.sum(0) + change).reshape(shape), (other.sum(0) - change).reshape(shape)


def p_value(differences: Figures) -> float:
    """From the differences by swap, the found one first; NaN where that is undefined. One that is undefined may be as
    large as any."""
    found = abs(float(differences[0]))
    rounding = 1e-12  # sums in another order
    return math.nan if math.isnan(found) else 1 - float((np.abs(differences) < found - rounding).mean())


def fewest_images(most: float) -> int:
    """How many images it takes until a p-value can be as low as `most`: all images one way have 2 of 2^n swaps."""
    return math.ceil(math.log2(2 / most))


def _swaps(images: int, seed: int) -> Iterator[Figures]:
    """Where the two are swapped, 1, and where not, 0, (swap, image), some swaps at a time."""
    if images <= EXACT:
        yield (np.arange(2**images)[:, None] >> np.arange(images) & 1).astype(np.float64)
        return
    rng = np.random.default_rng(seed)
    some = max(1, AT_ONCE // images)
    for first in range(0, 2**EXACT, some):
        swaps = rng.integers(0, 2, (min(some, 2**EXACT - first), images)).astype(np.float64)
        if first == 0:
            swaps[0] = 0
        yield swaps
