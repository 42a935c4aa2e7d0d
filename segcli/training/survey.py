"""A look at every image before the first step: sizes, band counts, dtypes, and the constants for normalisation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcli.errors import InputError, UsageError
from segcli.network.normalise import Normalisation
from segcli.raster.fit import match_bands
from segcli.raster.source import Source
from segcli.training.pairs import Pair


@dataclass(frozen=True)
class Survey:
    """What the images have in common; `heights` and `widths` follow the order of the pairs."""

    dtype: str
    bands: int
    heights: tuple[int, ...]
    widths: tuple[int, ...]


def survey(pairs: tuple[Pair, ...]) -> Survey:
    """Look at every image and mask once. Raises InputError on the first that does not fit the others."""
    dtypes: dict[str, Path] = {}
    bands: dict[int, Path] = {}
    sizes = []
    for pair in pairs:
        with Source(pair.image) as image, Source(pair.mask, "mask") as mask:
            if (image.grid.height, image.grid.width) != (mask.grid.height, mask.grid.width):
                raise InputError(
                    pair.mask,
                    f"{mask.grid.height} x {mask.grid.width} pixels (height x width)",
                    f"its image has {image.grid.height} x {image.grid.width}",
                )
            if mask.dtype != "uint8" or mask.bands != 1:
                raise InputError(
                    pair.mask, f"{mask.bands} bands of {mask.dtype}", "expected one band of class indices, uint8"
                )
            dtypes.setdefault(image.dtype, pair.image)
            bands.setdefault(image.bands, pair.image)
            sizes.append((image.grid.height, image.grid.width))
    if len(dtypes) > 1:
        raise UsageError("", f"dtypes differ: {', '.join(f'{path} has {name}' for name, path in dtypes.items())}")
    count = max(bands)
    for path in bands.values():
        with Source(path) as image:
            match_bands(image, count)
    heights, widths = zip(*sizes, strict=True)
    return Survey(next(iter(dtypes)), count, heights, widths)


def measure_normalisation(pairs: tuple[Pair, ...], dtype: str, bands: int) -> Normalisation:
    """Mean and standard deviation of each band over all pixels, in one streamed pass."""
    total, squares, pixels = np.zeros(bands), np.zeros(bands), 0
    for pair in pairs:
        with Source(pair.image) as source:
            for _, strip in source.rows(256, match_bands(source, bands)):
                values = strip.astype(np.float64)
                total += values.sum((1, 2))
                squares += np.square(values).sum((1, 2))
                pixels += values[0].size
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - np.square(mean), 0))
    # A constant band stays where it is: dividing by its zero deviation would make NaN.
    deviation[deviation == 0] = 1
    return Normalisation(dtype, tuple(map(float, mean)), tuple(map(float, deviation)))
