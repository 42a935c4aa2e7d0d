"""What the pages of a stack are, where who knows it says so: times, depths, or channels, which are bands."""

import math

import numpy as np

from segcli.errors import InputError
from segcli.options import Axes
from segcli.raster.contents import Contents, faults_of
from segcli.raster.gdal import MAX_BANDS
from segcli.raster.names import Name
from segcli.raster.readers import JoinedReader

NAMELESS = frozenset("IQ")
"""Axes of stacks that nothing is said of: pages, and what tifffile calls other."""


def regrouped(name: Name, contents: Contents, axes: Axes | None) -> Contents:
    """The images of a file whose pages, in their order, lie along `axes`. Single images stay as they are, and so do
    stacks whose images have several bands already, and those that say themselves what they are, if `axes` are only for
    others. InputError where the pages do not come out even."""
    readers = contents.readers
    if axes is None or len(readers) == 1 or len(readers[0].dtypes) > 1:
        return contents
    if axes.for_nameless and not set(contents.axes) <= NAMELESS:
        return contents
    letters, lengths = axes.letters, _lengths(name, contents, axes)
    if "C" in letters and lengths[letters.index("C")] > MAX_BANDS:
        raise InputError(name, f"{len(readers)} pages", f"--axes {axes} makes bands of them, at most {MAX_BANDS}")
    numbers = np.arange(len(readers)).reshape(lengths)
    groups = np.moveaxis(numbers, letters.index("C"), -1) if "C" in letters else numbers[..., None]
    kept = [(letter, n) for letter, n in zip(letters, lengths, strict=True) if letter != "C" and n > 1]
    with faults_of(name, f"--axes {axes} takes pages for bands"):
        planes = tuple(
            readers[group[0]] if len(group) == 1 else JoinedReader([readers[n] for n in group])
            for group in groups.reshape(-1, groups.shape[-1])
        )
    return Contents(
        planes, "".join(letter for letter, _ in kept), tuple(n for _, n in kept), contents.dialect,
        contents.calibration, contents.whole, contents.orientation, chunked=contents.chunked,
    )  # fmt: skip


def _lengths(name: Name, contents: Contents, axes: Axes) -> tuple[int, ...]:
    """Of each of the axes: as they say it, as the file does, or what is left."""
    count, own = len(contents.readers), contents.shape
    unknown = axes.lengths.count(None)
    if unknown > 1:
        fits = len(own) == len(axes.lengths) and all(n in (None, m) for n, m in zip(axes.lengths, own, strict=True))
        if not fits:
            raise InputError(name, f"{count} pages", f"--axes {axes} does not say how many there are along each axis",
                             f"say it, such as --axes {axes.letters[:-1]}{axes.letters[-1]}3")  # fmt: skip
        return own
    known = math.prod(n for n in axes.lengths if n is not None)
    if count % known or (not unknown and count != known):
        raise InputError(name, f"{count} pages", f"--axes {axes} expects {'a multiple of ' * unknown}{known}")
    return tuple(count // known if n is None else n for n in axes.lengths)
