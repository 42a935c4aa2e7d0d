"""How the values of a file fit those that a network was trained on."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.errors import InputError
from segcli.options import Percentiles
from segcli.raster.source import Source
from segcli.validity import Valid, written_out

CAMERA_BITS = (8, 10, 12, 14, 16)

SAMPLED = 2**20
"""Pixels of a file, about so many, of which percentiles are taken."""

ROWS, MOST_STRIPS = 256, 64
"""They are read in strips of so many rows, of taller images in so many of these at most, evenly spread: to decode all
of a large slide takes as long as a GPU needs to label it."""


Given = tuple[float, float] | Percentiles | None
"""What was said of the range of values."""

Range = tuple[float, float] | tuple[tuple[float, ...], tuple[float, ...]]
"""Its lowest and its highest value, of all bands or of each."""


EACH_BY_ITSELF = (
    "pages without axes, each brought to percentiles of its own; depths of a volume want --axes Z, or one "
    "--input-range LOW,HIGH"
)
"""What is said of a stack that may be a volume."""


def match_ranges(
    sources: Sequence[Source], bands: tuple[int, ...], trained: str | None, given: Given,
    stopped: Callable[[], bool] = lambda: False, volumes: Sequence[int] | None = None,
) -> tuple[Range | None, ...]:  # fmt: skip
    """For each image of a file, the values that stand for the lowest and the highest of the dtype `trained` on; where
    that is None, of a range that was `given` in training, too.

    None takes values as they are, which those of the same dtype are; floats of any width, where it was floats. Cameras
    of 10, 12 or 14 bits store uint16, so a uint16 file for 8-bit weights is taken to use the fewest of these bits that
    hold its highest value, found in one pass over all its images, unless they are `stopped` meanwhile; so are
    percentiles that are `given`, those of each of the `volumes` that images are of (all of one, if not said). Raises
    InputError where that is no help and `given` is not there.
    """
    wide = check_dtypes(sources, bands, trained, given)
    if given is not None or trained is None or np.dtype(trained).kind == "f":
        if not isinstance(given, Percentiles):
            return (given,) * len(sources)
        volumes = volumes or [0] * len(sources)
        together: dict[int, list[Source]] = {}
        for source, volume in zip(sources, volumes, strict=True):
            together.setdefault(volume, []).append(source)
        ends = {volume: percentiles(images, bands, given, stopped) for volume, images in together.items()}
        return tuple(ends[volume] for volume in volumes)
    highest = max((highest_of(source, bands, stopped) for source in wide), default=0.0)
    bits = next(bits for bits in CAMERA_BITS if highest < 2**bits)
    return tuple((0.0, float(2**bits - 1)) if source in wide else None for source in sources)


def check_dtypes(sources: Sequence[Source], bands: tuple[int, ...], trained: str | None, given: Given) -> list[Source]:
    """InputError where values of these bands cannot be brought to the dtype `trained` on; gives the images of which the
    highest value is to be found for that."""
    if trained is None:  # each file has the range that its own percentiles say
        return []
    found = [(source, source.dtype_of(bands)) for source in sources]
    if np.dtype(trained).kind == "f":
        odd = next(((source, dtype) for source, dtype in found if np.dtype(dtype).kind != "f"), None)
        if given is not None or odd is not None:
            source, dtype = odd or found[0]
            raise InputError(
                source.path, dtype if given is None else "--input-range",
                "the weights expect floats as they are, which have no range of their own",
                "convert it to the values that they were trained on",
            )  # fmt: skip
        return []
    if isinstance(given, Percentiles) and trained != "uint8":  # what others hold of their range nobody knows
        raise InputError(sources[0].path, "--input-range in percentiles", f"the weights expect {trained}, not uint8",
                         "say which values stand for the lowest and the highest of that type")  # fmt: skip
    if given is not None:
        return []
    other = next(((source, dtype) for source, dtype in found if dtype not in (trained, "uint16")), None)
    wide = [source for source, dtype in found if dtype == "uint16" != trained]
    if other is not None or (wide and trained != "uint8"):
        source, dtype = other or (wide[0], "uint16")
        raise InputError(
            source.path,
            dtype,
            f"the weights expect {trained}",
            "say with --input-range which values stand for its range"
            + (", or which percentiles (0%,100%)" if trained == "uint8" else ""),
        )
    return wide


def highest_of(source: Source, bands: Sequence[int], stopped: Callable[[], bool] = lambda: False) -> float:
    """The highest value that is data, 0 where none are; found in one pass over the file, unless it is `stopped`."""
    high = 0.0
    for _, pixels, valid in source.strips(256, bands):
        if stopped():
            break
        data = pixels if valid is None else pixels[:, valid]
        high = max(high, float(np.nanmax(data, initial=0)))
    return high


def percentiles(
    sources: Sequence[Source], bands: Sequence[int], wanted: Percentiles, stopped: Callable[[], bool] = lambda: False
) -> Range:
    """Those of all values that are data in all images together, of these bands or of each; above some million pixels of
    a regular grid, of tall images in strips of it. Where they are the same the lowest and the highest value instead,
    and of an image of one value a range above it, so that all of it is as the lowest."""
    pixels = sum(source.grid.height * source.grid.width / _every(source) for source in sources)
    step = math.ceil(math.sqrt(pixels / SAMPLED))
    read = sorted(set(bands))
    parts = []
    for source in sources:
        for first_row, strip, valid in _spread(source, read):
            if stopped():
                break
            rows = slice(-first_row % step, None, step)
            parts.append(strip[:, rows, ::step][:, written_out(valid, strip.shape[1:])[rows, ::step]])
    values = np.concatenate(parts, axis=1) if parts else np.zeros((len(read), 0))
    if not wanted.per_band:
        return ends_of(values, wanted)
    low, high = zip(*(ends_of(values[read.index(band)], wanted) for band in bands), strict=True)
    return low, high


def _every(source: Source) -> int:
    """Of how many strips one is read."""
    return math.ceil(source.grid.height / ROWS / MOST_STRIPS)


def _spread(source: Source, bands: Sequence[int]) -> Iterator[tuple[int, NDArray[Any], Valid]]:
    """Strips all over an image: the first row, (band, row, col), and where there are data."""
    if _every(source) == 1:
        yield from source.strips(ROWS, bands)
        return
    for row in range(0, source.grid.height, ROWS * _every(source)):
        yield row, *source.patch(row, 0, min(ROWS, source.grid.height - row), source.grid.width, bands)


def written(values: Range) -> str:
    """As --input-range takes it; of each band, as people read it."""
    if not isinstance(values[0], tuple):
        return f"--input-range {values[0]:.9g},{values[1]:.9g}"
    return ", ".join(f"{low:.9g} to {high:.9g}" for low, high in np.array(values).T)


def ends_of(values: NDArray[Any], wanted: Percentiles) -> tuple[float, float]:
    """Percentiles of these values, of which some may be no numbers."""
    values = values[np.isfinite(values)].astype(np.float64)  # half of what a type holds may be more than it can hold
    if not values.size:
        return 0.0, 1.0
    low, high = map(float, np.percentile(values, (wanted.low, wanted.high)))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + max(1.0, abs(low))
