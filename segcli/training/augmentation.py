"""Changes that keep an image and its labels true: the same turn for both, other light for the image alone."""

import numpy as np
from numpy.typing import NDArray


def augment(
    image: NDArray[np.float32], target: NDArray[np.int16], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """One of the eight symmetries of the square for both; contrast and brightness, the same for all bands.

    `image` is normalised, (band, row, col); `target` (row, col); both square.
    """
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, target = np.rot90(image, turns, (1, 2)), np.rot90(target, turns)
    if flip:
        image, target = image[:, :, ::-1], target[:, ::-1]
    contrast, brightness = rng.uniform(0.75, 1.25), rng.uniform(-0.25, 0.25)
    return image * np.float32(contrast) + np.float32(brightness), target
