"""The constants that bring values of a data set to what a network learns from."""

import math
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import shared
from segcli.errors import UsageError
from segcli.machine import cores
from segcli.network.normalise import AROUND, Normalisation, scaling
from segcli.options import Percentiles
from segcli.raster.bands import match_bands
from segcli.raster.fit import Range, ends_of, percentiles
from segcli.raster.source import Source
from segcli.training.files import Files
from segcli.training.pairs import Pair
from segcli.training.survey import Facts, Survey

CLIPPED = (1.0, 99.0)
"""Percentiles between which the mean and the deviation of 16-bit and float images are taken: a few dead or saturated
pixels would else set them."""


LEAST = np.float32(1e-6)
"""A part of an image that has less of its range is taken to have so much: the rest is rounding."""


def ranges(found: Survey, wanted: Percentiles, files: Files | None = None) -> dict[Pair, Range]:
    """Those of the values that each image has in the bands that are learnt from, as `predict` takes them: of all depths
    of a volume together; read once more for it."""
    files = files or Files()

    def of_file(pairs: list[Pair]) -> dict[Pair, Range]:
        with closing(files.images(pairs[0].image)) as images:
            volumes, planes = images.volumes, dict[int, list[Source]]()
            for plane, volume in zip(images.planes, volumes, strict=True):
                planes.setdefault(volume, []).append(plane)
            ends = {volume: percentiles(alike, match_bands(alike[0], found.bands, found.chosen), wanted)
                    for volume, alike in planes.items()}  # fmt: skip
            return {pair: ends[volumes[pair.plane or 0]] for pair in pairs}

    by_file: dict[Path, list[Pair]] = {}
    for pair in found.splits.all:
        by_file.setdefault(pair.image, []).append(pair)
    with closing(shared(of_file, by_file.values(), cores())) as parts:
        return {pair: ends for part in parts for pair, ends in part.items()}


def brought_to_its_own(
    image: NDArray[np.float32], void: NDArray[np.bool_] | None, constants: Normalisation
) -> NDArray[np.float32]:
    """Part of an image, (band, row, col), normalised by the image's percentiles, as if it were an image by itself.

    `void` says where there are no data: (band, row, col), or one plane for all bands.
    """
    wanted = constants.percentiles
    assert wanted is not None
    mean, deviation = (np.array(part, np.float32)[:, None, None] for part in (constants.mean, constants.deviation))
    values = image * deviation + mean
    known = np.ones(image.shape, bool) if void is None else np.broadcast_to(~void, image.shape)
    parts = zip(values, known, strict=True) if wanted.per_band else [(values, known)]
    low, high = np.array([ends_of(band[there], wanted) for band, there in parts], np.float32).T[..., None, None]
    share = np.maximum(high - low, LEAST)
    image = (np.clip((values - low) / share, *AROUND) - mean) / deviation
    return image if void is None else np.where(void, np.float32(0), image)


def normalisation(
    found: Survey, wanted: Percentiles | None = None, ends: Mapping[Pair, Range] | None = None
) -> Normalisation:
    """Mean and deviation of each band over the training images' data; of 16-bit and float values, and of those that
    have their own `ends` in each image by the percentiles `wanted`, without the outliers. Pixels count the same,
    whichever image they are of.

    A grey image among others counts for every band. UsageError where a band has no data in any of them.
    """
    facts = [found.facts[pair] for pair in found.splits.train]
    seen = [_seen(found.facts[pair], found.bands, ends[pair] if ends else None) for pair in found.splits.train]
    sums = np.sum([of_image for of_image, _ in seen], axis=0)
    numbers = found.chosen or range(1, found.bands + 1)
    if empty := ", ".join(str(numbers[n % len(numbers)]) for n, (number, _, _) in enumerate(sums) if not number):
        raise UsageError(found.splits.train[0].image.parent, f"no training image has data in band {empty}",
                         "expected some in each")  # fmt: skip
    figures = [_by_sums(*of_band) for of_band in sums]
    if found.dtype != "uint8" or ends:
        sample = np.concatenate([of_image for _, of_image in seen], axis=1)
        stands_for = np.array([fact.step**2 for fact in facts])  # pixels
        weights = None
        if len(set(stands_for)) > 1:  # else, as of tiles, of which there may be very many, nothing is to be sorted
            weights = np.repeat(stands_for, [fact.sample.shape[1] for fact in facts])
        for n, values in enumerate(sample):
            known = ~np.isnan(values)
            if known.any():
                figures[n] = _without_outliers(values[known], None if weights is None else weights[known])
    # A constant band stays where it is: dividing by its zero deviation would make NaN.
    mean, deviation = zip(*((mean, deviation or 1.0) for mean, deviation in figures), strict=True)
    try:
        return Normalisation(found.dtype, mean, deviation, wanted)
    except ValueError as error:
        far = max(found.splits.train, key=lambda pair: max(-found.facts[pair].low, found.facts[pair].high))
        low, high = found.facts[far].low, found.facts[far].high
        raise UsageError(far.image, f"values from {low:g} to {high:g}", "expected numbers that float32 can count in",
                         "mark what is no data (gdal_edit.py -a_nodata)") from error  # fmt: skip


def _seen(fact: Facts, bands: int, ends: Range | None) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Sums (band, 3) and sample (band, pixel) of an image, as they are or with its `ends` brought to 0 and 1."""
    sums, sample = np.resize(fact.sums, (bands, 3)), np.resize(fact.sample, (bands, fact.sample.shape[1]))
    if ends is None:
        return sums, sample
    scale, offset = (np.resize(part, bands) for part in scaling(ends, (0.0, 1.0)))
    number, total, squares = sums.T
    scaled = (
        number,
        scale * total + offset * number,
        scale**2 * squares + 2 * scale * offset * total + offset**2 * number,
    )
    inside = np.clip(sample * scale[:, None] + offset[:, None], *AROUND)
    return np.stack(scaled, axis=1), inside.astype(np.float32)


def _by_sums(number: float, total: float, squares: float) -> tuple[float, float]:
    """Mean and deviation."""
    mean = total / number
    return float(mean), math.sqrt(max(0.0, squares / number - mean * mean))


Weights = NDArray[np.int64] | None
"""How many pixels each sample stands for, (pixel,); None where all stand for as many."""


def _without_outliers(values: NDArray[np.float32], weights: Weights) -> tuple[float, float]:
    """Mean and deviation of values that are cut at percentiles; the whole deviation where that leaves none."""
    mean, deviation = _weighted(np.clip(values, *_percentiles(values, weights)), weights)
    return mean, deviation or _weighted(values, weights)[1]


def _percentiles(values: NDArray[np.float32], weights: Weights) -> tuple[float, float]:
    """Those that values are clipped at: by linear interpolation between the middles of what they stand for."""
    if weights is None:
        low, high = np.percentile(values, CLIPPED)
        return float(low), float(high)
    order = np.argsort(values)
    places = np.cumsum(weights[order]) - weights[order] / 2
    places = (places - places[0]) / max(places[-1] - places[0], 1)
    low, high = np.interp(np.array(CLIPPED) / 100, places, values[order])
    return float(low), float(high)


def _weighted(values: NDArray[np.float32], weights: Weights) -> tuple[float, float]:
    """Mean and deviation."""
    exact = values.astype(np.float64)
    mean = np.average(exact, weights=weights)
    return float(mean), math.sqrt(np.average(np.square(exact - mean), weights=weights))
