"""What the pages of a stack are, where who knows it says so: times, depths, or channels, which are bands."""

import math
from dataclasses import replace

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
    """The images of a file whose pages, in their order, lie along `axes`; as it says itself where `axes` are those of
    weights and it says anything. Images of one page stay as they are, and so do bands that are bands of pages already.
    InputError where the pages do not come out even."""
    is_said = contents.dialect == "ome" or not set(contents.axes) <= NAMELESS
    if axes is None or (axes.for_nameless and is_said):
        return contents
    contents = contents if axes.for_nameless else _apart(contents, axes)
    readers, letters = contents.readers, axes.letters
    if len(readers) == 1:
        return contents
    text = f"--axes {axes}" + " of the weights" * axes.for_nameless
    if not _have_one_band(name, contents, text, "C" in letters):
        return contents
    lengths = _lengths(name, contents, axes, text)
    bands = lengths[letters.index("C")] if "C" in letters else 1
    if bands > MAX_BANDS:
        raise InputError(name, f"{len(readers)} pages", f"{text} makes bands of them, at most {MAX_BANDS}")
    numbers = np.arange(len(readers)).reshape(lengths)
    groups = np.moveaxis(numbers, letters.index("C"), -1) if "C" in letters else numbers[..., None]
    kept = [(letter, n) for letter, n in zip(letters, lengths, strict=True) if letter != "C" and n > 1]
    with faults_of(name, f"{text} takes pages for bands"):
        planes = tuple(
            readers[group[0]] if bands == 1 else JoinedReader([readers[n] for n in group])
            for group in groups.reshape(-1, bands)
        )
    along, shape = "".join(letter for letter, _ in kept), tuple(n for _, n in kept)
    names = contents.names if len(contents.names) == 1 else ()  # of positions, which are none any more
    channels = contents.channels if bands == 1 else ()
    return replace(contents, readers=planes, axes=along, shape=shape, names=names, channels=channels)


def _apart(contents: Contents, axes: Axes) -> Contents:
    """One image of which the file says that all pages are bands, as a stack of these, unless they are to be bands."""
    reader = contents.readers[0]
    if len(contents.readers) > 1 or not isinstance(reader, JoinedReader) or axes.letters == "C":
        return contents
    parts = tuple(reader.parts)
    if any(len(part.dtypes) > 1 for part in parts):
        return contents
    return replace(contents, readers=parts, axes="Q", shape=(len(parts),), channels=())


def _have_one_band(name: Name, contents: Contents, text: str, makes_bands: bool) -> bool:
    """Whether there is one band in each image, so that pages can be put together at all; where there are several in
    all, these stay as they are. InputError where that would not be what is meant."""
    counts = {len(reader.dtypes) for reader in contents.readers}
    if counts == {1}:
        return True
    are_channels = any(isinstance(reader, JoinedReader) for reader in contents.readers)
    if makes_bands and not are_channels and (len(counts) > 1 or counts == {2}):
        found = f"pages of {' and of '.join(map(str, sorted(counts)))} bands"
        raise InputError(name, found, f"{text} takes pages of one band for bands", "save them without alpha, or apart")
    if not makes_bands and are_channels:
        raise InputError(name, f"{len(contents.readers)} images of several pages each, which are its channels",
                         f"{text} leaves no page for these", "say where channels are, such as --axes ZC3")  # fmt: skip
    return False


def _lengths(name: Name, contents: Contents, axes: Axes, text: str) -> tuple[int, ...]:
    """Of each of the axes: as they say it, as the file does, or what is left."""
    count, own = len(contents.readers), contents.shape
    unknown = axes.lengths.count(None)
    if unknown > 1:
        fits = len(own) == len(axes.lengths) and all(n in (None, m) for n, m in zip(axes.lengths, own, strict=True))
        if not fits:
            raise InputError(name, f"{count} pages", f"{text} does not say how many there are along each axis",
                             f"say it, such as --axes {axes.letters[:-1]}{axes.letters[-1]}3")  # fmt: skip
        return own
    known = math.prod(n for n in axes.lengths if n is not None)
    if count % known or (not unknown and count != known):
        raise InputError(name, f"{count} pages", f"{text} expects {'a multiple of ' * unknown}{known}",
                         "give --axes, or other weights" if axes.for_nameless else "")  # fmt: skip
    return tuple(count // known if n is None else n for n in axes.lengths)
