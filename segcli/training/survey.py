"""A look at every image and mask before the first step: what they are, what is wrong with them, and the constants that
normalise them. Each file is read once, strip by strip."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.errors import InputError, UsageError
from segcli.files import sha256_of
from segcli.network.normalise import Normalisation
from segcli.raster.fit import match_bands
from segcli.raster.source import Source
from segcli.training.labels import Labels, check_mask
from segcli.training.pairs import Pair, Splits
from segcli.validity import written_out

CELL = 64
"""Side of the squares for which it is noted which classes occur there, in pixels."""

SAMPLED = 2**14
"""Pixels of an image that stand for it where percentiles are asked for."""

CLIPPED = (1.0, 99.0)
"""Percentiles between which the mean and the deviation of 16-bit and float images are taken: a few dead or saturated
pixels would else set them."""


@dataclass(frozen=True)
class Facts:
    """What was seen of one pair. `pixels` counts labelled ones by class; `present` says where classes occur, (row, col,
    class) in cells; `sums` are the number of valid pixels and, by band, of values and of squares."""

    height: int
    width: int
    bands: int
    dtype: str
    digest: str
    bounds: tuple[float, float, float, float] | None
    pixels: NDArray[np.int64]
    unlabelled: int
    present: NDArray[np.bool_]
    low: float
    high: float
    sums: tuple[int, NDArray[np.float64], NDArray[np.float64]]
    sample: NDArray[np.float32]  # (band, pixel)


@dataclass(frozen=True)
class Survey:
    """Facts by pair, in the order of `splits`, and what they have in common."""

    splits: Splits
    facts: dict[Pair, Facts]
    dtype: str
    bands: int


def survey(splits: Splits, labels: Labels, fail: Callable[[InputError], None]) -> Survey:
    """Look at everything once. `fail` is told of each pair that cannot be used; UsageError if there is one."""
    facts: dict[Pair, Facts] = {}
    missing = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for pair, seen in zip(splits.all, pool.map(lambda pair: _attempt(pair, labels), splits.all), strict=True):
            if isinstance(seen, InputError):
                missing += 1
                fail(seen)
            else:
                facts[pair] = seen
    if missing:
        raise UsageError("", f"{missing} of {len(splits.all)} pairs cannot be used", "nothing was started", "see above")
    dtypes, bands = ({getattr(fact, name): pair.image for pair, fact in facts.items()} for name in ("dtype", "bands"))
    if len(dtypes) > 1:
        raise UsageError("", f"dtypes differ: {', '.join(f'{path} has {name}' for name, path in dtypes.items())}",
                         "expected one", "convert them, or train on each kind by itself")  # fmt: skip
    count = max(bands)
    for path in bands.values():
        with Source(path) as image:
            try:
                match_bands(image, count)
            except InputError as error:
                listed = ", ".join(f"{path} has {number}" for number, path in sorted(bands.items()))
                raise UsageError("", f"band counts differ: {listed}", "expected one, or grey among colours") from error
    if len(labels.classes.entries) < 2:
        raise UsageError(splits.train[0].mask.parent, f"one class alone, {labels.classes.names[0]}",
                         "expected at least two to tell apart")  # fmt: skip
    for name, pairs in (("training", splits.train), ("validation", splits.val)):
        if not sum(facts[pair].pixels.sum() for pair in pairs):
            raise UsageError(pairs[0].mask.parent, f"not one labelled pixel in the {name} masks")
    return Survey(splits, facts, next(iter(dtypes)), count)


def _attempt(pair: Pair, labels: Labels) -> Facts | InputError:
    try:
        return _look(pair, labels)
    except InputError as error:
        return error


def _look(pair: Pair, labels: Labels) -> Facts:
    with Source(pair.image) as image, labels.open(pair) as mask:
        check_mask(mask)
        height, width = image.grid.height, image.grid.width
        if (height, width) != (mask.grid.height, mask.grid.width):
            raise InputError(
                pair.mask, f"{mask.grid.height} x {mask.grid.width} pixels (height x width)",
                f"its image has {height} x {width}",
            )  # fmt: skip
        if pair.instances is not None:
            with Source(pair.instances, "mask") as numbers:
                if (numbers.grid.height, numbers.grid.width, numbers.bands) != (height, width, 1):
                    raise InputError(
                        pair.instances, "another size than its image, or several bands", "expected one number a pixel"
                    )
        classes = len(labels.classes.entries)
        present = np.zeros((-(-height // CELL), -(-width // CELL), classes), bool)
        pixels, unlabelled = np.zeros(classes, np.int64), 0
        for first_row, values, valid in mask.strips(CELL):
            places = labels.positions(pair.mask, values, valid)
            for col in range(0, width, CELL):
                counts = np.bincount((places[:, col : col + CELL] + 1).ravel(), minlength=classes + 1)
                present[first_row // CELL, col // CELL] = counts[1:] > 0
                pixels += counts[1:]
                unlabelled += int(counts[0])
        low, high, sums, sample = _values(image)
        return Facts(
            height, width, image.bands, image.dtype, sha256_of(pair.image), _bounds(image), pixels, unlabelled, present,
            low, high, sums, sample,
        )  # fmt: skip


def _values(image: Source) -> tuple[float, float, Any, NDArray[np.float32]]:
    """Lowest and highest value, sums for mean and deviation, and a sample, of pixels that are data."""
    number, total, squares = 0, np.zeros(image.bands), np.zeros(image.bands)
    low, high = math.inf, -math.inf
    step = max(1, math.isqrt(image.grid.height * image.grid.width // SAMPLED))
    samples = []
    for first_row, strip, valid in image.strips(CELL):
        known = strip.reshape(image.bands, -1) if valid is None else strip[:, valid]
        known = known if known.dtype.kind != "f" else known[:, np.isfinite(known).all(0)]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
        values = known.astype(np.float64)
        number += values.shape[1]
        total += values.sum(1)
        squares += np.square(values).sum(1)
        rows = slice(-first_row % step, None, step)
        part = strip[:, rows, ::step].reshape(image.bands, -1).astype(np.float32)
        seen = written_out(valid, strip.shape[1:])[rows, ::step].ravel() & np.isfinite(part).all(0)
        samples.append(part[:, seen])
    return low, high, (number, total, squares), np.concatenate(samples, axis=1)


def _bounds(image: Source) -> tuple[float, float, float, float] | None:
    """Left, bottom, right, top of an image that lies on earth; None for others."""
    grid = image.grid
    if grid.crs is None or grid.transform is None:
        return None
    corners = [grid.transform @ (col, row) for col in (0, grid.width) for row in (0, grid.height)]
    x, y = zip(*corners, strict=True)
    return min(x), min(y), max(x), max(y)


def normalisation(found: Survey) -> Normalisation:
    """Mean and deviation of each band over the training images' data; of 16-bit and float values without the outliers.

    A grey image among others counts for every band.
    """
    facts = [found.facts[pair] for pair in found.splits.train]
    if found.dtype == "uint8":
        number = sum(fact.sums[0] for fact in facts)
        total, squares = (np.sum([np.resize(fact.sums[n], found.bands) for fact in facts], axis=0) for n in (1, 2))
        mean = total / max(1, number)
        deviation = np.sqrt(np.maximum(squares / max(1, number) - np.square(mean), 0))
    else:
        sample = np.concatenate([np.resize(fact.sample, (found.bands, fact.sample.shape[1])) for fact in facts], axis=1)
        if not sample.size:
            raise UsageError(found.splits.train[0].image.parent, "not one pixel of data in the training images")
        low, high = np.percentile(sample, CLIPPED, axis=1, keepdims=True)
        clipped = np.clip(sample, low, high).astype(np.float64)
        mean, deviation = clipped.mean(1), clipped.std(1)
        deviation = np.where(deviation == 0, sample.astype(np.float64).std(1), deviation)
    # A constant band stays where it is: dividing by its zero deviation would make NaN.
    deviation = np.where(deviation == 0, 1, deviation)
    return Normalisation(found.dtype, tuple(map(float, mean)), tuple(map(float, deviation)))


def warnings(found: Survey, names: tuple[str, ...]) -> Iterator[str]:
    """What is odd about the data set, in lines for people."""
    splits, facts = found.splits, found.facts
    for pair, fact in facts.items():
        if fact.low >= fact.high:
            yield f"{pair.image}: constant, or no data at all"
        if not fact.pixels.any():
            yield f"{pair.mask}: not one labelled pixel"
    for n, name in enumerate(names):
        if not any(facts[pair].pixels[n] for pair in splits.train):
            yield f"class {name} is in no training mask: it will never be predicted"
        elif not any(facts[pair].pixels[n] for pair in splits.val):
            yield f"class {name} is in no validation mask: its IoU stays unknown"
    by_digest: dict[str, list[Pair]] = {}
    for pair, fact in facts.items():
        by_digest.setdefault(fact.digest, []).append(pair)
    learnt = set(splits.train)
    for same in by_digest.values():
        sides = {pair in learnt for pair in same}
        if len(sides) == 2:
            yield f"the same image is in training and in validation: {', '.join(str(p.image) for p in same[:4])}"
    yield from _neighbours(splits, facts)


def _neighbours(splits: Splits, facts: dict[Pair, Facts]) -> Iterator[str]:
    """Tiles of one scene on both sides: validation figures would be too good."""
    placed = [[(pair, box) for pair in part if (box := facts[pair].bounds)] for part in (splits.train, splits.val)]
    boxes = np.array([box for _, box in placed[0]]).reshape(-1, 4)
    touching = []
    for pair, (left, bottom, right, top) in placed[1]:
        near = (boxes[:, 0] <= right) & (boxes[:, 2] >= left) & (boxes[:, 1] <= top) & (boxes[:, 3] >= bottom)
        if near.any():
            touching.append((pair, placed[0][int(near.argmax())][0]))
    if touching:
        one, other = touching[0]
        yield (f"{len(touching)} validation images touch training images on earth, such as {one.image.name} and "
               f"{other.image.name}; {_KEEP}")  # fmt: skip
        return
    names = [{_scene(pair) for pair in part if not pair.group} for part in (splits.train, splits.val)]
    counts = Counter(map(_scene, splits.all))
    both = sorted(scene for scene in names[0] & names[1] if scene and counts[scene] > 1)
    if both and len(names[0] | names[1]) > 1:  # with one name for all, the numbers are no parts of anything
        yield f"parts of {both[0]} are in training and in validation, by their names; {_KEEP}"


_KEEP = "--group-by keeps the parts of a scene together"


def _scene(pair: Pair) -> str:
    return _SERIAL.sub("", pair.image.stem)


_SERIAL = re.compile(r"([-_ ]?(r|c|x|y|row|col|tile|part|patch)?\d+)+$", re.IGNORECASE)


def tables(found: Survey, names: tuple[str, ...]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """What the data set holds: title, head and rows."""
    rows = []
    for name, pairs in (("train", found.splits.train), ("val", found.splits.val)):
        facts = [found.facts[pair] for pair in pairs]
        heights, widths = sorted(f.height for f in facts), sorted(f.width for f in facts)
        sizes = f"{heights[0]} x {widths[0]} to {heights[-1]} x {widths[-1]}"
        megapixels = sum(f.height * f.width for f in facts) / 1e6
        rows.append([name, str(len(pairs)), sizes, f"{megapixels:.2f}", f"{found.bands} of {found.dtype}"])
    yield "data", ["split", "images", "height x width", "Mpx", "bands"], rows
    lines = [[name] for name in names]
    for pairs in (found.splits.train, found.splits.val):
        counts = np.stack([found.facts[pair].pixels for pair in pairs])
        total = max(1, int(counts.sum()))
        for n, line in enumerate(lines):
            line += [f"{counts[:, n].sum() / total:.2%}", str(int((counts[:, n] > 0).sum()))]
    yield "labelled pixels", ["class", "train", "in images", "val", "in images"], lines


def digest(found: Survey) -> dict[str, Any]:
    """What the weights were trained on: counts, and one SHA-256 over images and masks, in order."""
    total = hashlib.sha256()
    for pair in found.splits.all:
        total.update(bytes.fromhex(found.facts[pair].digest))
        total.update(bytes.fromhex(sha256_of(pair.mask)))
    return {"train": len(found.splits.train), "val": len(found.splits.val), "sha256": total.hexdigest()}
