"""Crops to learn from, read as windows, each fixed by (seed, epoch, number) alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from segcli.classes import ClassTable
from segcli.errors import InputError
from segcli.network.normalise import Normalisation
from segcli.raster.fit import match_bands
from segcli.raster.source import Source
from segcli.training.augmentation import augment
from segcli.training.pairs import Pair


@dataclass(frozen=True)
class Crops:
    """Square crops of `size` pixels from `pairs`, as many an epoch as it takes to cover the images once.

    `heights` and `widths` are those of the pairs, in their order.
    """

    pairs: tuple[Pair, ...]
    heights: tuple[int, ...]
    widths: tuple[int, ...]
    size: int
    classes: ClassTable
    normalisation: Normalisation
    seed: int

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which pair each crop of an epoch comes from, shuffled."""
        areas = np.array(self.heights, np.float64) * np.array(self.widths)
        times = np.maximum(1, np.round(areas / self.size**2)).astype(np.int64)
        return np.random.default_rng((self.seed, epoch)).permutation(np.repeat(np.arange(len(self.pairs)), times))

    def batches(self, epoch: int, batch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images (image, band, row, col) float32 and targets (image, row, col) int64, -1 without a label.

        Crops that do not fill a batch are left to the next epoch's shuffle, unless there is no full batch at all.
        """
        order = self.order(epoch)
        last = max(1, len(order) // batch) * batch
        for first in range(0, last, batch):
            crops = [self.crop(int(pair), epoch, first + n) for n, pair in enumerate(order[first : first + batch])]
            images, targets = zip(*crops, strict=True)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets)).long()

    def crop(self, pair: int, epoch: int, number: int) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """One augmented crop; mirrored at the borders (without labels there) where the image is smaller."""
        rng = np.random.default_rng((self.seed, epoch, number))
        row = int(rng.integers(max(0, self.heights[pair] - self.size) + 1))
        col = int(rng.integers(max(0, self.widths[pair] - self.size) + 1))
        image, target = read_pair(self.pairs[pair], row, col, self.size, self.size, self.classes, self.normalisation)
        bottom, right = self.size - target.shape[0], self.size - target.shape[1]
        if bottom or right:
            image = np.pad(image, ((0, 0), (0, bottom), (0, right)), "symmetric")
            target = np.pad(target, ((0, bottom), (0, right)), constant_values=-1)
        return augment(image, target, rng)


def read_pair(
    pair: Pair, row: int, col: int, height: int, width: int, classes: ClassTable, constants: Normalisation
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Normalised image (band, row, col) and class positions (row, col), -1 without a label, of one window.

    The window is cut at the image's borders. Raises InputError on a mask value that is no class.
    """
    with Source(pair.image) as source, Source(pair.mask, "mask") as mask:
        height, width = min(height, source.grid.height - row), min(width, source.grid.width - col)
        bands = match_bands(source, len(constants.mean))
        pixels = source.window(row, col, height, width, bands)
        indices = mask.window(row, col, height, width, (0,))[0]
    mean = np.array(constants.mean, np.float32)[:, None, None]
    deviation = np.array(constants.deviation, np.float32)[:, None, None]
    target = classes.positions()[indices]
    if (target == -2).any():
        values = sorted({int(value) for value in indices[target == -2]})
        raise InputError(pair.mask, f"values {values[:10]} are no class", f"expected {classes.indices.tolist()}")
    return (pixels.astype(np.float32) - mean) / deviation, target
