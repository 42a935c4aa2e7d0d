"""Crops to learn from, read as windows, each fixed by (seed, epoch, number) alone."""

import math
import threading
from collections import deque
from collections.abc import Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.network.frame import beyond
from segcli.network.normalise import Normalisation
from segcli.network.unet import NetworkConfig
from segcli.options import Augment, Band
from segcli.raster.bands import match_bands
from segcli.raster.fit import Range
from segcli.raster.source import Source
from segcli.training.augmentation import Crop, augment
from segcli.training.borders import REACH, border_weights, numbered, parted
from segcli.training.constants import brought_to_its_own
from segcli.training.files import Files
from segcli.training.labels import Labels
from segcli.training.pairs import Pair, named
from segcli.training.survey import CELL, Survey
from segcli.validity import Valid

CACHE_BYTES = 2**31
"""Decoded images are kept in memory up to this; of those beyond it the windows are read each time."""

SIGHT = REACH + 3
"""Pixels around a crop whose objects move its border weights: `parted` looks as far, in its four steps."""

BALANCED = 0.5
"""Share of crops that are placed by class where `balance` is asked for."""


BY_ITSELF = 0.5
"""Share of crops that are brought to percentiles of their own where images are: as a tile would be that is cut there,
of which many show nothing but noise."""


@dataclass(frozen=True)
class Batch:
    """Images (image, band, row, col), targets (image, row, col), -1 without a label, weights of pixels (or None)."""

    images: Tensor
    targets: Tensor
    weights: Tensor | None


@dataclass(frozen=True)
class Example:
    """A normalised image (band, row, col), class positions (row, col), -1 without a label, weights of pixels."""

    image: NDArray[np.float32]
    target: NDArray[np.int16]
    weights: NDArray[np.float32] | None


Kind = Literal["image", "mask", "instances"]


class Reading:
    """Windows of images and their labels as the network sees them; small files are decoded once and kept."""

    def __init__(
        self, labels: Labels, constants: Normalisation, chosen: tuple[Band, ...] | None = None,
        ranges: Mapping[Pair, Range] | None = None, cache_bytes: int = CACHE_BYTES, files: Files | None = None,
    ) -> None:  # fmt: skip
        """`chosen` are the bands to read; None: all. `ranges` are those of values that images have of
        their own; None: they are taken as they are."""
        self.labels, self.constants, self.ranges, self._chosen = labels, constants, ranges or {}, chosen
        self.files = files or Files()
        self._left = cache_bytes
        self._kept: dict[tuple[Pair, Kind], tuple[NDArray[np.generic], Valid]] = {}
        self._reserved: set[tuple[Pair, Kind]] = set()
        self._lock = threading.Lock()

    def window(
        self, pair: Pair, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
        """Normalised image (band, row, col) and class positions (row, col) of a window, cut at the image's borders.

        Where the image has no data it is 0, the mean, and has no label. InputError on a mask value that is no class.
        """
        image, target, _ = self.seen(pair, row, col, height, width)
        return image, target

    def seen(
        self, pair: Pair, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.bool_] | None]:
        """The same, and where the image is 0 for want of data: (band, row, col), or one plane for all bands."""
        pixels, valid = self._patch(pair, "image", row, col, height, width)
        target = self.target(pair, row, col, height, width)
        factor, summand = (
            part.astype(np.float32)[:, None, None] for part in self.constants.of_values(self.ranges.get(pair))
        )
        with np.errstate(over="ignore"):  # what is no number then is no data, as in predict
            image = pixels.astype(np.float32) * factor + summand
        void = None if valid is None else ~valid[None]
        if pixels.dtype.kind == "f":
            odd = ~np.isfinite(image)
            void = odd if void is None else odd | void
        if void is not None:
            image = np.where(void, np.float32(0), image)
        if (bounds := self.constants.cut()) is not None:
            image = np.clip(image, *(bound[:, None, None] for bound in bounds))
        if valid is not None:
            target = np.where(valid, target, np.int16(-1))
        return image, target, void

    def bands_of(self, image: Source) -> tuple[int, ...]:
        """Those that the network sees, from 0."""
        return match_bands(image, len(self.constants.mean), self._chosen)

    def target(self, pair: Pair, row: int, col: int, height: int, width: int) -> NDArray[np.int16]:
        """Class positions of a window, (row, col), -1 without a label."""
        values, valid = self._patch(pair, "mask", row, col, height, width)
        return self.labels.positions(named(pair.mask, pair), values, valid)

    def objects(self, pair: Pair, row: int, col: int, height: int, width: int) -> NDArray[np.int32]:
        """Objects of a window, (row, col), numbered from 1 on; 0 where there is none: below 0, or without data."""
        (numbers,), valid = self._patch(pair, "instances", row, col, height, width)
        there = numbers > 0 if valid is None else valid & (numbers > 0)
        return numbered(np.where(there, numbers, numbers.dtype.type(0)))

    def _open(self, pair: Pair, kind: Kind) -> AbstractContextManager[Source]:
        if kind == "mask":
            return self.labels.open(pair, self.files)
        return self.files.image(pair) if kind == "image" else self.files.numbers(pair)

    def _patch(
        self, pair: Pair, kind: Kind, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.generic], Valid]:
        kept = self._kept.get((pair, kind))
        if kept is None:
            with self._open(pair, kind) as source:
                bands = self.bands_of(source) if kind == "image" else None
                share = 1.0 if bands is None else len(bands) / source.bands  # repeated ones, too
                if not self._reserve((pair, kind), math.ceil(source.size_bytes * share)):
                    height, width = min(height, source.grid.height - row), min(width, source.grid.width - col)
                    return source.patch(row, col, height, width, bands)
                kept = source.patch(0, 0, source.grid.height, source.grid.width, bands)
            self._kept[pair, kind] = kept
        pixels, valid = kept
        place = slice(row, row + height), slice(col, col + width)
        return pixels[:, *place], None if valid is None else valid[place]

    def _reserve(self, key: tuple[Pair, Kind], size_bytes: int) -> bool:
        """Whether this thread is to decode the whole file: there is room, and no other thread is at it."""
        with self._lock:
            if key in self._reserved or size_bytes > self._left:
                return False
            self._reserved.add(key)
            self._left -= size_bytes
            return True


@dataclass(frozen=True)
class Crops:
    """Square crops of `size` pixels of the training pairs, as many an epoch as it takes to cover the images once.

    Images come with `context` pixels more on each side.
    """

    found: Survey
    reading: Reading
    size: int
    seed: int
    augment: Augment = "light"
    upright: bool = False
    keep_values: bool = False
    balance: bool = False
    border_weight: float = 0.0
    border_gap: int = 2
    context: int = 0
    _places: list[tuple[int, NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not self.balance:
            return
        present = [self.found.facts[pair].present for pair in self.pairs]
        for n in range(present[0].shape[2]):
            cells = [np.argwhere(where[..., n]) for where in present]
            numbers = np.repeat(np.arange(len(cells)), [len(part) for part in cells])
            if len(numbers):
                self._places.append((n, numbers, np.concatenate(cells)))

    @property
    def pairs(self) -> tuple[Pair, ...]:
        return self.found.splits.train

    @cached_property
    def _times(self) -> NDArray[np.int64]:
        """How many crops an epoch takes of each pair. Of an image that is narrower than a crop, all around is mirrored,
        and counts for nothing."""
        facts = [self.found.facts[pair] for pair in self.pairs]
        sides = np.array([(fact.height, fact.width) for fact in facts], np.float64)
        of_image = np.minimum(sides, self.size)
        return np.maximum(1, np.round((sides / of_image).prod(1))).astype(np.int64)

    @cached_property
    def _count(self) -> int:
        return int(self._times.sum())

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Which pair each crop of an epoch comes from, shuffled."""
        numbers = np.repeat(np.arange(len(self._times)), self._times)
        return np.random.default_rng((self.seed, epoch)).permutation(numbers)

    def steps(self, batch: int) -> int:
        """Batches an epoch. Crops that fill none are left to the next shuffle, unless there is no full batch at all."""
        return max(1, self._count // batch)

    def in_step(self, batch: int) -> int:
        """Crops of each step, of all processes."""
        return min(batch, self._count)

    def batches(
        self, epoch: int, batch: int, first_step: int = 0, part: tuple[int, int] = (0, 1), workers: int = 1
    ) -> Generator[Batch, None, None]:
        """The batches of an epoch from `first_step` on; of each the share `part[0]` of `part[1]`, for one process.

        `workers` threads make them ahead. Close the generator when stopping early.
        """
        order = self.order(epoch)
        pool = ThreadPoolExecutor(workers, "segcli-crops")
        waiting: deque[list[Future[Example]]] = deque()
        try:
            for step in range(first_step, self.steps(batch)):
                numbers = range(step * batch, min((step + 1) * batch, len(order)))[part[0] :: part[1]]
                waiting.append([pool.submit(self.crop, int(order[n]), epoch, n) for n in numbers])
                if len(waiting) > 2:
                    yield _stacked(waiting.popleft())
            while waiting:
                yield _stacked(waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def crop(self, number_of_pair: int, epoch: int, number: int) -> Example:
        """One augmented crop; mirrored (without labels there) where it reaches over the image's border."""
        rng = np.random.default_rng((self.seed, epoch, number))
        pair, row, col = self._place(number_of_pair, rng)
        margin = max(self.context, SIGHT) if self.border_weight else self.context
        top, left = max(0, row - margin), max(0, col - margin)
        bottom, right = row + self.size + margin, col + self.size + margin
        image, target, void = self.reading.seen(pair, top, left, bottom - top, right - left)
        objects = None
        if self.border_weight and pair.instances is not None:
            objects = self.reading.objects(pair, top, left, *target.shape)
        around = (
            (top - row + margin, bottom - top - target.shape[0]),
            (left - col + margin, right - left - target.shape[1]),
        )
        if np.any(around):
            image = np.pad(image, ((0, 0), *around), "symmetric")
            void = None if void is None else np.pad(void, ((0, 0), *around), "symmetric")
            target = np.pad(target, around, constant_values=-1)
            objects = None if objects is None else np.pad(objects, around)
        if self.reading.ranges and rng.random() < BY_ITSELF:
            image = brought_to_its_own(image, void, self.reading.constants)
        crop = augment(Crop(image, target, objects, void), rng, self.augment, self.upright, self.keep_values)
        target, weights = self._with_borders(crop)
        seen = (slice(margin - self.context, margin + self.size + self.context),) * 2
        inner = (slice(margin, margin + self.size),) * 2
        return Example(crop.image[:, *seen], target[inner], None if weights is None else weights[inner])

    def _with_borders(self, crop: Crop) -> tuple[NDArray[np.int16], NDArray[np.float32] | None]:
        """The target with background where objects touch, and the weights of pixels (None: all alike).

        Of the crop as the network sees it: a gap that is drawn before would be as wide, and as straight, as the warp
        makes it.
        """
        if not self.border_weight:
            return crop.target, None
        if crop.objects is None:
            return crop.target, np.ones(crop.target.shape, np.float32)
        apart = parted(crop.objects, self.border_gap)
        between = self.reading.labels.classes.background  # None where nothing is to part
        gaps = (apart != crop.objects) & (crop.target >= 0)
        target = np.where(gaps, np.int16(-1 if between is None else between), crop.target)
        return target, 1 + border_weights(apart, self.border_weight)

    def _place(self, number_of_pair: int, rng: np.random.Generator) -> tuple[Pair, int, int]:
        """Where a crop lies: anywhere in its image; with `balance` every other one over a pixel of a class that is
        drawn from all, in a cell that is drawn from those that have it."""
        if not (self.balance and rng.random() < BALANCED):
            pair = self.pairs[number_of_pair]
            free = self._free(pair)
            return pair, int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))
        n, numbers, cells = self._places[int(rng.integers(len(self._places)))]
        chosen = int(rng.integers(len(numbers)))
        pair, (top, left) = self.pairs[int(numbers[chosen])], cells[chosen] * CELL
        inside = np.argwhere(self.reading.target(pair, int(top), int(left), CELL, CELL) == n)
        pixel = inside[int(rng.integers(len(inside)))] + (top, left)
        row, col = (int(at) - int(rng.integers(self.size)) for at in pixel)
        free = self._free(pair)
        return pair, min(max(row, 0), free[0]), min(max(col, 0), free[1])

    def _free(self, pair: Pair) -> tuple[int, int]:
        """The last row and column where a crop can begin."""
        fact = self.found.facts[pair]
        return max(0, fact.height - self.size), max(0, fact.width - self.size)


def crop_side(wanted: int, found: Survey, config: NetworkConfig) -> int:
    """The side of crops that fits the network: no larger than the largest image, which would be mirrored on and on."""
    stride = config.total_stride
    largest = max(max(found.facts[pair].height, found.facts[pair].width) for pair in found.splits.train)
    side = max(2 * stride, min(wanted, -(-largest // stride) * stride))
    return side + beyond(side, stride, config.context)


def _stacked(crops: list[Future[Example]]) -> Batch:
    done = [crop.result() for crop in crops]
    images = torch.from_numpy(np.stack([crop.image for crop in done]))
    targets = torch.from_numpy(np.stack([crop.target for crop in done])).long()
    weights = [crop.weights for crop in done if crop.weights is not None]
    return Batch(images, targets, torch.from_numpy(np.stack(weights)) if weights else None)
