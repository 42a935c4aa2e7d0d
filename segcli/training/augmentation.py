"""Changes that keep an image and its labels true: the same move for both, other light for the image alone.

Everything follows from the generator that is given, so that a crop is the same in whichever thread it is made.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segcli.options import Augment

MOST_TURN_DEGREES, UPRIGHT_TURN_DEGREES, SCALES = 180.0, 10.0, (0.7, 1.4)
ELASTIC_STEP, ELASTIC_SHIFT = 64, 6.0
"""Pixels between the points that elastic deformation moves, and the deviation of their shifts (Ronneberger et al.,
2015, moved a grid of 3 x 3 by 10 pixels)."""


@dataclass(frozen=True)
class Crop:
    """A normalised image (band, row, col), class positions (row, col), -1 without a label, numbers of objects (row,
    col), 0 where there is none, and where the image has no data, (band, row, col) or one plane for all bands; None: it
    has some everywhere."""

    image: NDArray[np.float32]
    target: NDArray[np.int16]
    objects: NDArray[np.int32] | None = None
    void: NDArray[np.bool_] | None = None


def augment(
    crop: Crop, rng: np.random.Generator, level: Augment, upright: bool = False, keep_values: bool = False
) -> Crop:
    """A square crop changed at random.

    light: one of the eight symmetries of the square; contrast and brightness, the same for all bands. geometric: also
    turned by any angle, scaled and deformed (mirrored at the border). full: also more or less colour, gain by band,
    blur and noise.
    `upright` is for images that have an up: mirrored left to right only, and turned by a few degrees. `keep_values` is
    for pixels that measure something: they are moved, and no light is changed.
    Where there are no data the image is 0 again in the end, the mean, as the network will see it in predicting.
    """
    if level == "none":
        return crop
    crop = turned(crop, 0 if upright else int(rng.integers(4)), bool(rng.integers(2)))
    if level in ("geometric", "full") and rng.random() < 0.7:
        crop = warped(crop, rng, UPRIGHT_TURN_DEGREES if upright else MOST_TURN_DEGREES)
    image = crop.image if keep_values else relit(crop.image, rng, level)
    if crop.void is not None:
        image = np.where(crop.void, np.float32(0), image)
    return Crop(image, crop.target, crop.objects, crop.void)


def relit(image: NDArray[np.float32], rng: np.random.Generator, level: Augment) -> NDArray[np.float32]:
    """An image (band, row, col) as another exposure, instrument or day might have it."""
    contrast, brightness = rng.uniform(0.75, 1.25), rng.uniform(-0.25, 0.25)
    image = image * np.float32(contrast) + np.float32(brightness)
    if level == "full":
        grey = image.mean(0, keepdims=True)
        image = grey + np.float32(rng.uniform(0.6, 1.4)) * (image - grey)
        image *= rng.normal(1, 0.1, (len(image), 1, 1)).astype(np.float32)
        if rng.random() < 0.2:
            sigma = rng.uniform(0.3, 1.2)
            image = np.stack([cv2.GaussianBlur(np.ascontiguousarray(band), (0, 0), sigma) for band in image])
        if rng.random() < 0.3:
            image = image + rng.normal(0, rng.uniform(0.02, 0.15), image.shape).astype(np.float32)
    return image


def turned(crop: Crop, turns: int, flip: bool) -> Crop:
    """By quarter turns to the left, then mirrored left to right if asked for."""

    def move(array: NDArray[np.generic]) -> NDArray[np.generic]:
        array = np.rot90(array, turns, (-2, -1))
        return array[..., ::-1] if flip else array

    objects, void = (None if array is None else move(array) for array in (crop.objects, crop.void))
    return Crop(move(crop.image), move(crop.target), objects, void)  # type: ignore[arg-type]


def warped(crop: Crop, rng: np.random.Generator, most_degrees: float) -> Crop:
    """Turned, scaled and deformed by one map, so that the image is resampled once; labels and objects by nearest
    neighbour."""
    side = crop.target.shape[0]
    angle = np.radians(rng.uniform(-most_degrees, most_degrees))
    scale = float(np.exp(rng.uniform(*np.log(SCALES))))
    rows, cols = np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2
    across = (np.cos(angle) * cols - np.sin(angle) * rows) / scale + (side - 1) / 2
    down = (np.sin(angle) * cols + np.cos(angle) * rows) / scale + (side - 1) / 2
    between = _interpolation(side, 3 + side // ELASTIC_STEP)
    for moved in (across, down):
        shifts = rng.normal(0, ELASTIC_SHIFT, (between.shape[1],) * 2)
        moved += between @ shifts @ between.T
    across, down = across.astype(np.float32), down.astype(np.float32)

    def sample(array: NDArray[np.generic], how: int) -> NDArray[np.generic]:
        return cv2.remap(np.ascontiguousarray(array), across, down, how, borderMode=cv2.BORDER_REFLECT)

    image = np.stack([sample(band, cv2.INTER_LINEAR) for band in crop.image])
    objects = None if crop.objects is None else sample(crop.objects, cv2.INTER_NEAREST)
    void = crop.void
    if void is not None:
        void = np.stack([sample(plane.view(np.uint8), cv2.INTER_NEAREST) for plane in void]).astype(bool)
    return Crop(image, sample(crop.target, cv2.INTER_NEAREST), objects, void)  # type: ignore[arg-type]


def _interpolation(side: int, points: int) -> NDArray[np.float64]:
    """The matrix (side, points) that brings so many points to so many pixels by cubic splines. They are separable, so
    that of a grid of points it is enough to multiply from both sides."""
    units = np.eye(points)
    return ndimage.zoom(units, (side / points, 1), order=3, grid_mode=True, mode="nearest")[:side]
