"""A look at every image and mask before the first step: what they are, what is wrong with them, and the constants that
normalise them. Each file is read once, strip by strip."""

import hashlib
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import Flag, shared
from segcli.band_names import only_count, plain
from segcli.classes import IGNORE, ClassTable, check_colors
from segcli.errors import InputError, UsageError
from segcli.machine import cores
from segcli.options import Band
from segcli.raster.align import is_elsewhere
from segcli.raster.bands import match_bands
from segcli.raster.burn import BurntReader, is_vector
from segcli.raster.images import Images, check_alike, stack_text
from segcli.raster.labels import check_labels
from segcli.raster.names import is_folder
from segcli.raster.rows import Strip, in_step
from segcli.raster.source import Source
from segcli.training.files import Files
from segcli.training.labels import Labels
from segcli.training.pairs import Pair, Splits, in_planes, named
from segcli.validity import Valid, written_out

CELL = 64
"""Side of the squares for which it is noted which classes occur there, in pixels."""

SAMPLED, MOST_SAMPLED = 2**14, 2**23
"""Pixels, about so many, of an image that stand for it where percentiles are asked for, and of all images together:
they are in memory as long as the training goes on."""

WGS_84 = "EPSG:4326"


@dataclass(frozen=True)
class Facts:
    """What was seen of one pair. `pixels` counts labelled ones by class; `present` says where classes occur, (row, col,
    class) in cells. Both are of pixels where the image has data.

    `content` is a hash of the image's pixels, which files of other formats or compression may share, and `labels` one
    of what is learnt of each: its class, and the number of its object.
    `marked` counts pixels of the mask that are 255, where that is no class; `unlabelled` those without a label where
    the image has data; `hidden` those of them that are no data by the mask's `nodata`, where that is 0 or the value of
    a class and nobody asked for it to be ignored (else it is None). `bounds` are west, south, east and north of
    an image that lies on earth, in degrees. `sums` are, by band, the number of values that are data, of the values and
    of squares; `sample` has a pixel of every `step`th row and column, NaN where a band has no data. `stray_polygons`
    counts those of a mask that has none on the image. `has_channels` is the image's; `names` are those of its
    bands, none if they only count these.
    `volume` is the number, in its file, of the one that it is a depth of. `objects` are, of pixels with a label, how
    many belong to an object by its numbers, how many of these are background by the mask, and how many neither have a
    number nor are background."""

    height: int
    width: int
    bands: int
    dtype: str
    content: str
    labels: str
    bounds: tuple[float, float, float, float] | None
    pixels: NDArray[np.int64]
    marked: int
    unlabelled: int
    hidden: int
    nodata: int | None
    present: NDArray[np.bool_]
    low: float
    high: float
    sums: NDArray[np.float64]  # (band, 3)
    sample: NDArray[np.float32]  # (band, pixel)
    step: int
    has_channels: bool = False
    stray_polygons: int = 0
    names: tuple[str, ...] = ()
    volume: int = 0
    objects: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Survey:
    """Facts by pair, in the order of `splits`, and what they have in common."""

    splits: Splits
    facts: dict[Pair, Facts]
    dtype: str
    bands: int
    chosen: tuple[Band, ...] | None = None

    @property
    def called(self) -> tuple[str, ...]:
        """The names of the bands that are learnt from, if all images give them the same ones, each once."""
        first, *others = {tuple(map(plain, fact.names)): fact.names for fact in self.facts.values()}.items()
        is_of_all = len(first[0]) == self.bands or (len(first[0]), self.bands) == (1, 3)  # else nobody chose among them
        is_said = is_of_all and len(set(first[0]) - {""}) == len(first[0])
        return first[1] if is_said and not others else ()


def survey(
    splits: Splits, labels: Labels, fail: Callable[[InputError], None], chosen: tuple[Band, ...] | None = None,
    with_ranges: bool = False, files: Files | None = None,
) -> Survey:  # fmt: skip
    """Look at everything once: of images at the `chosen` bands, or at all. `fail` is told of each pair
    that cannot be used; UsageError if there is one. `with_ranges`: each image is to have a range of its own, so that
    dtypes may differ. `files` keep stacks at hand for what comes after."""
    by_pair: dict[Pair, dict[Pair, Facts]] = {}
    missing = 0
    files = files or Files()
    look = _Look(labels, files, chosen, MOST_SAMPLED // len(splits.all), with_ranges)
    with closing(shared(look.at_pair, splits.all, cores(), stopping=look.stop.set)) as found:
        for pair, seen in zip(splits.all, found, strict=True):
            if isinstance(seen, InputError):
                missing += 1
                fail(seen)
            else:
                by_pair[pair] = seen
    if missing:
        raise UsageError("", f"{missing} of {len(splits.all)} pairs cannot be used", "nothing was started", "see above")
    facts = {pair: fact for images in by_pair.values() for pair, fact in images.items()}
    splits = in_planes(splits, by_pair, [fact.volume for fact in facts.values()])
    dtypes, bands = ({getattr(fact, name): pair for pair, fact in facts.items()} for name in ("dtype", "bands"))
    if len(dtypes) > 1 and not with_ranges:
        raise UsageError("", f"dtypes differ: {', '.join(f'{pair.image} has {name}' for name, pair in dtypes.items())}",
                         "expected one", "convert them, train on each kind by itself, or give --input-range 1%,99%"
                         )  # fmt: skip
    count = max(bands)
    for pair in bands.values() if len(bands) > 1 else ():
        with files.image(pair) as image:
            try:
                match_bands(image, count)
            except InputError as error:
                listed = ", ".join(f"{one.image} has {number}" for number, one in sorted(bands.items()))
                raise UsageError("", f"band counts differ: {listed}", "expected one, or grey among colours") from error
    if len(labels.classes.entries) < 2:
        raise UsageError(splits.train[0].mask.parent, f"one class alone, {labels.classes.names[0]}",
                         "expected at least two to tell apart")  # fmt: skip
    for name, pairs in (("training", splits.train), ("validation", splits.val)):
        if not sum(facts[pair].pixels.sum() for pair in pairs):
            raise UsageError(pairs[0].mask.parent, f"not one labelled pixel in the {name} masks",
                             "expected some where the images have data")  # fmt: skip
    _check_classes(splits, facts, labels.classes)
    for pair in splits.val if len(labels.classes.entries) == 256 else ():
        if facts[pair].pixels.sum() < facts[pair].height * facts[pair].width:  # their masks have no value for these
            raise UsageError(pair.image, "pixels without data or label, and all 256 values are classes",
                             "expected validation images without", "take a value out of the class table")  # fmt: skip
    if chosen is None and all(fact.has_channels and fact.bands == count for fact in facts.values()):
        chosen = tuple(range(1, count + 1))  # so that predict knows channels that the weights learnt from
    return Survey(splits, facts, next(iter(dtypes)), count, chosen)


def _check_classes(splits: Splits, facts: dict[Pair, Facts], classes: ClassTable) -> None:
    """UsageError where one class alone is labelled and 255 may well be the other."""
    pixels, marked = sum(fact.pixels for fact in facts.values()), sum(fact.marked for fact in facts.values())
    if np.count_nonzero(pixels) == 1 and marked:
        alone = classes.names[int(np.argmax(pixels))]
        raise UsageError(
            splits.train[0].mask.parent, f"no class but {alone}, and {marked} pixels of {IGNORE}, which is no label",
            f"the class table has {', '.join(f'{entry.index} {entry.name}' for entry in classes.entries[:12])}",
            f"if {IGNORE} is one of them, write that as its index (in JSON with \"ignore\": null)",
        )  # fmt: skip


@dataclass(frozen=True)
class _Look:
    """A look at pairs, until it is to `stop`: of images at the `chosen` bands, or at all. Of each file `sampled` pixels
    are kept at most, of bytes only `with_ranges`."""

    labels: Labels
    files: Files
    chosen: tuple[Band, ...] | None
    sampled: int
    with_ranges: bool
    stop: Flag = field(default_factory=Flag)

    def at_pair(self, pair: Pair) -> dict[Pair, Facts] | InputError:
        """The facts of a pair, or of each image of the stack that it is."""
        try:
            for path in (pair.image, pair.mask):
                if is_folder(path):
                    raise InputError(path, "a folder", "expected a file, or a Zarr")
            with closing(self.files.images(pair.image)) as images:
                count, volumes = len(images.planes), images.volumes
                sampled = max(1, min(SAMPLED, self.sampled // count))
                if count == 1:
                    return {pair: self.at_image(pair, images.planes[0], sampled)}
                self._check_stack(pair, images)
                pairs = [replace(pair, plane=n) for n in range(count)]
                return {
                    one: self.at_image(one, image, sampled, volume)
                    for one, image, volume in zip(pairs, images.planes, volumes, strict=True)
                }
        except InputError as error:
            return error

    def _check_stack(self, pair: Pair, images: Images) -> None:
        """InputError unless what belongs to a stack are stacks, too, in its order."""
        if is_vector(pair.mask):
            raise InputError(pair.mask, "polygons", f"its image has {stack_text(images)}, each with labels of its own",
                             "make a stack of masks")  # fmt: skip
        for path in filter(None, (pair.mask, pair.instances)):
            with self.files.stack(path, "mask") as others:
                check_alike(path, others, pair.image, images)

    def at_image(self, pair: Pair, image: Source, sampled: int, volume: int = 0) -> Facts:
        """The facts of one image and its labels."""
        labels = self.labels
        with labels.open(pair, self.files) as mask, self._numbers(pair) as numbers:
            check_labels(mask)
            if mask.bands >= 3:
                known = [*labels.classes.entries, *(entry for entry in labels.ignored if entry.name)]
                check_colors(known, pair.mask)
                check_colors(labels.classes.entries, pair.mask, labels.classes.ignore_color)
            _check_sizes(pair, image, mask, numbers)
            bands = range(image.bands) if self.chosen is None else match_bands(image, len(self.chosen), self.chosen)
            height, width, dtype = image.grid.height, image.grid.width, image.dtype_of(bands)
            classes = len(labels.classes.entries)
            present = np.zeros((-(-height // CELL), -(-width // CELL), classes), bool)
            pixels, marked, unlabelled, hidden = np.zeros(classes, np.int64), 0, 0, 0
            nodata = None if is_vector(pair.mask) else labels.hidden_by(mask)
            may_mark = mask.bands == 1 and not is_vector(pair.mask) and IGNORE not in labels.classes.indices
            step = max(1, math.isqrt(height * width // sampled))
            found = _Values((height, width), len(bands), dtype, step, self.with_ranges or dtype != "uint8")
            objects = None if numbers is None else _Objects(pair, labels.classes.background)
            learnt = hashlib.sha256()
            files = [mask.strips(CELL), image.strips(CELL, bands), *([] if numbers is None else [numbers.strips(CELL)])]
            for (first_row, values, there), (_, strip, valid), *others in in_step(*files):
                if self.stop.is_set:
                    raise KeyboardInterrupt
                found.add(first_row, strip, valid)
                places = labels.positions(named(pair.mask, pair), values, there)
                if may_mark:
                    marked += int(np.count_nonzero((values[0] == IGNORE) & written_out(there, places.shape)))
                if valid is not None:
                    places[~valid] = -1
                learnt.update(np.ascontiguousarray(places).data)
                if objects is not None:
                    objects.add(others[0], places)
                    learnt.update(np.ascontiguousarray(others[0].pixels).data)
                none = (places < 0) & written_out(valid, places.shape)
                unlabelled += int(np.count_nonzero(none))
                if nodata is not None:
                    hidden += int(np.count_nonzero(none & (values[0] == nodata)))
                for col in range(0, width, CELL):
                    counts = np.bincount((places[:, col : col + CELL] + 1).ravel(), minlength=classes + 1)
                    present[first_row // CELL, col // CELL] = counts[1:] > 0
                    pixels += counts[1:]
            none = np.empty((len(bands), 0), np.float32)
            return Facts(
                height, width, len(bands), dtype, found.content.hexdigest(), learnt.hexdigest(),
                image.grid.bounds_in(WGS_84), pixels, marked, unlabelled, hidden, nodata, present,
                found.low, found.high, found.sums, np.concatenate([none, *found.samples], axis=1), found.step,
                image.has_channels,
                burnt.polygons if isinstance(burnt := mask.reader, BurntReader) and not burnt.inside else 0,
                () if only_count(image.band_names) else tuple(image.band_names[n] for n in bands), volume,
                (0, 0, 0) if objects is None else objects.counts,
            )  # fmt: skip

    def _numbers(self, pair: Pair) -> AbstractContextManager[Source | None]:
        return nullcontext() if pair.instances is None else self.files.numbers(pair)


class _Objects:
    """Strip by strip, how the numbers of objects go with the mask: see `Facts.objects`."""

    def __init__(self, pair: Pair, background: int | None) -> None:
        self._pair, self._background = pair, background
        self.counts = (0, 0, 0)

    def add(self, strip: Strip, places: NDArray[np.int16]) -> None:
        """InputError on a number that is not whole."""
        values = strip.pixels[0]
        there = written_out(strip.valid, values.shape)
        if values.dtype.kind == "f":
            there = there & np.isfinite(values)
            if (odd := values[there & (values != np.trunc(values))]).size:
                raise InputError(str(self._pair.instances), f"{odd[0]} among its values", "expected whole numbers, one "
                                 "an object", "is it a map of distances or scores?")  # fmt: skip
        if self._background is None:
            return
        is_object, is_background = there & (values > 0), places == self._background
        parts = is_object & (places >= 0), is_object & is_background, (places >= 0) & ~is_object & ~is_background
        one, two, three = (n + int(np.count_nonzero(part)) for n, part in zip(self.counts, parts, strict=True))
        self.counts = one, two, three


def _check_sizes(pair: Pair, image: Source, mask: Source, numbers: Source | None) -> None:
    """InputError where what belongs together is not of one size."""
    height, width = image.grid.height, image.grid.width
    if (height, width) != (mask.grid.height, mask.grid.width):
        raise InputError(
            pair.mask, f"{mask.grid.height} x {mask.grid.width} pixels (height x width)",
            f"its image has {height} x {width}",
        )  # fmt: skip
    if is_elsewhere(image.grid, mask.grid):
        raise InputError(pair.mask, "lies elsewhere than its image", "expected one place", "is it of another image?")
    if numbers is not None and (numbers.grid.height, numbers.grid.width, numbers.bands) != (height, width, 1):
        raise InputError(str(pair.instances), "another size than its image, or several bands",
                         "expected one number a pixel")  # fmt: skip


class _Values:
    """Strip by strip, lowest and highest value, sums for mean and deviation, and samples, of what is data in a band; of
    all that is data a hash. Every `step`th row and column is sampled, unless sums are all that is needed."""

    def __init__(self, size: tuple[int, int], bands: int, dtype: str, step: int, is_sampled: bool) -> None:
        self._bands, self._dtype, self.step, self._is_sampled = bands, dtype, step, is_sampled
        self.content = hashlib.sha256(repr((*size, dtype)).encode())
        self.sums = np.zeros((bands, 3))
        self.low, self.high = math.inf, -math.inf
        self.samples: list[NDArray[np.float32]] = []

    def add(self, first_row: int, strip: NDArray[np.generic], valid: Valid) -> None:
        """The next rows, as many at a time of each file."""
        data = strip if valid is None else np.where(valid, strip, strip.dtype.type(0))
        # Strips are floats where a band has holes, and then more of them in files of higher blocks.
        data = data if data.dtype == self._dtype else np.nan_to_num(data).astype(self._dtype)
        self.content.update(np.ascontiguousarray(data).data)
        for n, band in enumerate(strip):
            known = band.ravel() if valid is None else band[valid]
            known = known if known.dtype.kind != "f" else known[np.isfinite(known)]
            if known.size:
                self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
            values = known.astype(np.float64)
            self.sums[n] += values.size, values.sum(), np.square(values).sum()
        if not self._is_sampled:
            return
        rows = slice(-first_row % self.step, None, self.step)
        part = strip[:, rows, :: self.step].reshape(self._bands, -1).astype(np.float32)
        part[~np.isfinite(part)] = np.nan
        self.samples.append(part[:, written_out(valid, strip.shape[1:])[rows, :: self.step].ravel()])


def digest(found: Survey) -> dict[str, Any]:
    """What the weights were trained on: counts, and one SHA-256 over the pixels of images and their labels, in order,
    whatever files they come from: a VRT names others, and where polygons lie is said beside an image."""
    total = hashlib.sha256()
    for pair in found.splits.all:
        total.update(bytes.fromhex(found.facts[pair].content + found.facts[pair].labels))
    return {"train": len(found.splits.train), "val": len(found.splits.val), "sha256": total.hexdigest()}
