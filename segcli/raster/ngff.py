"""What an OME-Zarr image says of itself: its arrays from the whole size to the smallest, what their axes are, how large
pixels are, how channels are called. Pixels are not read here.

Source: the OME-Zarr specification (ngff.openmicroscopy.org), versions 0.1 to 0.5.
"""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segcli.raster import pixel_size
from segcli.raster.ifd import MAX_PAGES
from segcli.raster.zarrs import BrokenZarrError, attributes, below, read_json

_BEFORE_AXES = "tczyx"
"""What the axes are in versions that do not say it."""

MOST_DECODED = 2**30
"""Bytes of a chunk; GDAL has the same bound."""


@dataclass(frozen=True)
class Array:
    """One array of a Zarr, of `format` 2 or 3: `dtype` is a numpy name, `chunks` the shape of what is decoded at once,
    `stored` of what a file holds (chunks of shards are less). `prefix` and `separator` make the names of files."""

    path: Path
    format: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    stored: tuple[int, ...]
    dtype: str
    prefix: str
    separator: str

    def file(self, numbers: Iterable[int]) -> Path:
        """That of the chunk, or the shard, with these numbers along the axes."""
        return self.path / self.separator.join(map(str, (*filter(None, [self.prefix]), *numbers)))

    @property
    def counts(self) -> tuple[int, ...]:
        """How many files of chunks there are along each axis where none is left out."""
        return tuple(-(-length // size) for length, size in zip(self.shape, self.stored, strict=True))

    def is_empty(self) -> bool:
        """Whether no chunk is there: labels may be all of one number, an image is not."""
        return next(self._present(), None) is None

    def missing(self) -> int:
        """How many files are not there: programs leave out chunks of zeros, and copies are cut off. Raises OSError."""
        return math.prod(self.counts) - sum(1 for _ in self._present())

    def _present(self) -> Iterator[str]:
        """The files of chunks that are there, by the last part of their names."""
        if self.separator == "/":
            yield from _nested(self.path / self.prefix, self.counts)
            return
        before = f"{self.prefix}." if self.prefix else ""
        with os.scandir(self.path) as entries:
            for entry in entries:
                if _are_below(entry.name.removeprefix(before).split("."), self.counts):
                    yield entry.name


def _nested(folder: Path, counts: tuple[int, ...]) -> Iterator[str]:
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if not _are_below([entry.name], counts[:1]):
                continue
            if len(counts) == 1:
                yield entry.name
            else:
                yield from _nested(folder / entry.name, counts[1:])


def _are_below(numbers: list[str], counts: tuple[int, ...]) -> bool:
    """Whether these are numbers of chunks."""
    return len(numbers) == len(counts) and all(
        text.isdecimal() and text == str(int(text)) and int(text) < count
        for text, count in zip(numbers, counts, strict=True)
    )


@dataclass(frozen=True)
class Multiscale:
    """One image at each of its `levels`, from the whole size down. `places[plane][band]` are the numbers along all axes
    but the last two, rows and columns; planes are in the order of `axes` and `shape`, which leave out channels and what
    is one long. `calibration` is `Grid`'s, of level 0; `channels` are their names, none where they are not all said."""

    levels: tuple[Array, ...]
    places: tuple[tuple[tuple[int, ...], ...], ...]
    axes: str
    shape: tuple[int, ...]
    calibration: dict[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()


def multiscale(group: Path) -> Multiscale:
    """The image of a group. Raises BrokenZarrError with what is wrong, OSError."""
    try:
        return _multiscale(group, attributes(group))
    except BrokenZarrError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        found = f"{type(error).__name__} {error}"
        raise BrokenZarrError(f"its metadata are not as OME-Zarr has them: {found}") from None


def _multiscale(group: Path, said: dict[str, Any]) -> Multiscale:
    scales = said["multiscales"]
    if len(scales) != 1:
        raise BrokenZarrError(f"{len(scales)} multiscale images in one group, expected one")
    (found,) = scales
    levels = tuple(_array(group, level["path"]) for level in found["datasets"])
    sizes = [math.prod(level.shape[-2:]) for level in levels]
    if sizes != sorted(sizes, reverse=True):
        raise BrokenZarrError(f"its arrays, of {', '.join(_by(level.shape) for level in levels)}, do not run from the "
                              "largest to the smallest")  # fmt: skip
    whole = levels[0]
    if not found.get("axes") and whole.format != 2:
        raise BrokenZarrError("its metadata do not say what its axes are; versions of OME-Zarr up to 0.5 are read")
    names, units = _axes(found.get("axes"), len(whole.shape))
    for level in levels:
        if level.shape[:-2] != whole.shape[:-2] or level.dtype != whole.dtype:
            raise BrokenZarrError(
                f"its array {level.path.name} is {level.dtype} of {_by(level.shape)}, and {whole.path.name} "
                f"{whole.dtype} of {_by(whole.shape)}; of a smaller version rows and columns alone differ"
            )
    along = list(zip(names[:-2], whole.shape, strict=False))  # an axis of any other name may be there twice
    bands = next((length for name, length in along if name == "c"), 1)
    kept = [(name, length) for name, length in along if name != "c" and length > 1]
    if math.prod(length for _, length in along) > MAX_PAGES:
        raise BrokenZarrError(f"{_by(whole.shape)} pixels, which are more than {MAX_PAGES} planes")
    others = np.ndindex(*(length for name, length in along if name != "c"))
    places = tuple(tuple(_place(at, names.find("c"), band) for band in range(bands)) for at in others)
    axes = "".join(name.upper() if name in "tz" else "Q" for name, _ in kept)
    return Multiscale(levels, places, axes, tuple(length for _, length in kept), _steps(found, names, units),
                      _channels(said, bands))  # fmt: skip


def _place(others: tuple[int, ...], of_channels: int, band: int) -> tuple[int, ...]:
    """The numbers along all axes, of which that of channels, if any, is the one with that number."""
    return others if of_channels < 0 else (*others[:of_channels], band, *others[of_channels:])


def _axes(said: Any, count: int) -> tuple[str, list[str]]:
    """A letter for each axis, and its unit, if any."""
    axes = [{"name": axis} if isinstance(axis, str) else axis for axis in (said or _BEFORE_AXES)]
    letters = [_letter(axis) for axis in axes]
    names = "".join(letters)
    if len(names) != count:
        raise BrokenZarrError(f"{len(names)} axes ({names}) for an array of {count}")
    if names[-2:] != "yx" or any(names.count(letter) > 1 for letter in "tczyx"):
        raise BrokenZarrError(f"its axes are {names}; expected y and x last, and each once")
    return names, [str(axis.get("unit", "")) for axis in axes]


def _letter(axis: dict[str, Any]) -> str:
    """What an axis is by its name, else by its type; q for any other."""
    name = str(axis["name"]).lower()
    if len(name) == 1 and name in "tczyx":
        return name
    return {"time": "t", "channel": "c"}.get(str(axis.get("type", "")), "q")


def _steps(found: dict[str, Any], names: str, units: list[str]) -> dict[str, float]:
    """The size of a step along X, Y, Z and T at level 0, where a unit says what the numbers mean."""
    factors = [1.0] * len(names)
    for transform in (*found["datasets"][0].get("coordinateTransformations", ()),
                      *found.get("coordinateTransformations", ())):  # fmt: skip
        if transform.get("type") == "scale" and len(transform.get("scale") or ()) == len(names):
            factors = [one * _number(other) for one, other in zip(factors, transform["scale"], strict=True)]
    sizes = {name: pixel_size.step(name.upper(), factor, unit)
             for name, factor, unit in zip(names, factors, units, strict=True) if name in "xyzt"}  # fmt: skip
    return {name.upper(): size for name, size in sizes.items() if size is not None}


def _number(value: object) -> float:
    """NaN, which is no size, for what is none."""
    return float(value) if isinstance(value, int | float) else math.nan


def _channels(said: dict[str, Any], count: int) -> tuple[str, ...]:
    known = (said.get("omero") or {}).get("channels") or ()
    names = tuple(str(channel.get("label") or "") for channel in known)
    return names if len(names) == count else ()


def _array(group: Path, name: str) -> Array:
    """The array at a path below the group."""
    path = below(group, name)
    try:
        found = read_json(path / ".zarray")
        kind, format_ = np.dtype(found["dtype"]), 2
        chunks = stored = found["chunks"]
        prefix, separator = "", found.get("dimension_separator", ".")
    except FileNotFoundError:
        try:
            found = read_json(path / "zarr.json")
        except FileNotFoundError:
            raise BrokenZarrError(f"its metadata name an array {name}, which is not there") from None
        kind, format_ = np.dtype(found["data_type"]), 3
        stored, said = found["chunk_grid"]["configuration"]["chunk_shape"], found["chunk_key_encoding"]
        prefix, separator = ("c", "/") if said["name"] == "default" else ("", ".")
        separator = said.get("configuration", {}).get("separator", separator)
        shards = [codec["configuration"] for codec in found["codecs"] if codec["name"] == "sharding_indexed"]
        chunks = shards[0]["chunk_shape"] if shards else stored
    shape, chunks, stored = (tuple(map(int, lengths)) for lengths in (found["shape"], chunks, stored))
    if (
        kind.kind not in "buifc"
        or not len(shape) == len(chunks) == len(stored) >= 2
        or min(shape + chunks + stored) < 1
    ):
        raise BrokenZarrError(f"its array {name} is {kind} of {_by(shape)} in chunks of {_by(chunks)}")
    if (size := math.prod(chunks) * kind.itemsize) > MOST_DECODED:
        raise BrokenZarrError(f"its array {name} has chunks of {_by(chunks)}, {size / 1e9:.1f} GB each, which are "
                              "decoded at once; expected at most 1 GB")  # fmt: skip
    dtype = "uint8" if kind.kind == "b" else kind.newbyteorder("=").name
    return Array(path, format_, shape, chunks, stored, dtype, prefix, separator)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
