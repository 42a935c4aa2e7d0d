"""A gap between touching objects, and more weight for narrow background. numpy and scipy."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segcli.measures.boundaries import distance_to

SIGMA = 5.0
REACH = 20
"""Pixels around an object in which distances to it are measured: beyond, the weight is under exp(-8)."""


LOOKED_UP = 2**20
"""Numbers of objects below this are found in a table, of which sorting all pixels takes twenty times the time."""


def numbered(instances: NDArray[np.generic]) -> NDArray[np.int32]:
    """Numbers from 1 on without gaps, in the order of those given; 0 stays 0. Numbers below 0 are none."""
    if instances.dtype.kind != "f" and instances.size and instances.min() >= 0 and instances.max() < LOOKED_UP:
        is_there = np.zeros(int(instances.max()) + 1, bool)
        is_there[instances] = True
        is_there[0] = False
        return np.cumsum(is_there, dtype=np.int32)[instances]
    found, numbers = np.unique(instances, return_inverse=True)
    numbers = numbers.reshape(instances.shape).astype(np.int32) + 1 - np.int32(np.count_nonzero(found <= 0))
    return np.maximum(numbers, 0)


def parted(instances: NDArray[np.generic], gap: int = 2) -> NDArray[np.generic]:
    """`instances`, (row, col), with a gap of `gap` pixels between objects that touch, by an edge or a corner, as
    Ronneberger et al. (2015, section 3) put one there.

    2: 0 wherever a pixel touches another object's. 1: of two that touch the one further up, or further to the left,
    becomes 0, which is enough to keep the objects apart; at slanted borders pixels of both do, and what is one pixel
    wide may be gone. 0: as they are.
    """
    if gap == 0:
        return instances
    if gap == 1:
        rows, cols = instances.shape
        around = np.pad(instances, 1)
        left = around[1:-1, 1:-1]
        for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):  # corners last, when edges have parted most of them
            other = around[1 + down : 1 + down + rows, 1 + right : 1 + right + cols]
            left[(other != 0) & (other != left)] = 0
        return left
    given = instances
    if instances.dtype.itemsize == 8:  # the filters count in float64
        instances = np.unique(instances, return_inverse=True)[1].reshape(instances.shape) + (instances.min() != 0)
    highest = ndimage.maximum_filter(instances, 3)
    lowest = ndimage.minimum_filter(np.where(instances == 0, instances.max(), instances), 3)
    return np.where((highest == instances) & (lowest == instances), given, np.zeros_like(given))


def border_weights(instances: NDArray[np.generic], weight: float, sigma: float = SIGMA) -> NDArray[np.float32]:
    """Extra weight of each pixel, (row, col): w0 exp(-(d1 + d2)^2 / 2 sigma^2), on pixels of no object.

    d1 and d2 are the distances to the nearest and the second nearest object (Ronneberger et al., 2015, eq. 2).
    `instances` holds a number for each object, 0 elsewhere.
    """
    first = np.full(instances.shape, np.inf, np.float32)
    second = first.copy()
    numbers = numbered(instances)
    for number, place in enumerate(ndimage.find_objects(numbers), start=1):
        if place is None:
            continue
        rows, cols = (
            slice(max(0, part.start - REACH), min(size, part.stop + REACH))
            for part, size in zip(place, instances.shape, strict=True)
        )
        distance = distance_to(numbers[rows, cols] == number)
        nearest = first[rows, cols]
        second[rows, cols] = np.minimum(second[rows, cols], np.maximum(nearest, distance))
        first[rows, cols] = np.minimum(nearest, distance)
    extra = weight * np.exp(-np.square(first + second) / (2 * sigma**2))
    return np.where(numbers == 0, extra, 0).astype(np.float32)
