"""What an OME-Zarr image says of itself: its arrays from the whole size to the smallest, what their axes are, how large
pixels are, how channels are called. Pixels are not read here.

Source: the OME-Zarr specification (ngff.openmicroscopy.org), versions 0.1 to 0.5.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from segcli.raster import pixel_size
from segcli.raster.ifd import MAX_PAGES
from segcli.raster.zarrs import attributes, read_json

_BEFORE_AXES = "tczyx"
"""What the axes are in versions that do not say it."""

_METADATA = frozenset({".zarray", ".zattrs", "zarr.json"})


class BrokenZarrError(Exception):
    """What is wrong with the metadata of an OME-Zarr, in words for people."""


@dataclass(frozen=True)
class Array:
    """One array of a Zarr, of `format` 2 or 3: `dtype` is a numpy name, `chunks` the shape of what is decoded at once,
    `stored` of what a file holds (chunks of shards are less), `separator` what stands between the numbers in its name.
    """

    path: Path
    format: int
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    stored: tuple[int, ...]
    dtype: str
    separator: str

    @property
    def files(self) -> int:
        """How many files of chunks there are where none is left out."""
        return math.prod(-(-length // size) for length, size in zip(self.shape, self.stored, strict=True))

    def is_empty(self) -> bool:
        """Whether no chunk is there: labels may be all of one number, an image is not."""
        with os.scandir(self.path) as entries:
            return all(entry.name in _METADATA for entry in entries)

    def missing(self) -> int:
        """How many of them are not there: programs leave out chunks of zeros, and copies are cut off."""
        return self.files - _count(self.path)


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
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        found = f"{type(error).__name__} {error}"
        raise BrokenZarrError(f"its metadata are not as OME-Zarr has them: {found}") from None


def _multiscale(group: Path, said: dict[str, Any]) -> Multiscale:
    scales = said["multiscales"]
    if len(scales) != 1:
        raise BrokenZarrError(f"{len(scales)} multiscale images in one group; split them")
    (found,) = scales
    levels = tuple(_array(group, level["path"]) for level in found["datasets"])
    whole = levels[0]
    names, units = _axes(found.get("axes"), len(whole.shape))
    for level in levels:
        if level.shape[:-2] != whole.shape[:-2] or level.dtype != whole.dtype:
            raise BrokenZarrError(
                f"its array {level.path.name} is {level.dtype} of {_by(level.shape)}, and {whole.path.name} "
                f"{whole.dtype} of {_by(whole.shape)}; of a smaller version rows and columns alone differ"
            )
    lengths = dict(zip(names, whole.shape, strict=True))
    leading = [name for name in names[:-2] if name != "c"]
    kept = [name for name in leading if lengths[name] > 1]
    count = math.prod(lengths[name] for name in kept)
    if count * lengths.get("c", 1) > MAX_PAGES:
        raise BrokenZarrError(f"{_by(whole.shape)} pixels, which are more than {MAX_PAGES} planes")
    places = tuple(
        tuple(_place(names[:-2], dict(zip(leading, at, strict=True)), band) for band in range(lengths.get("c", 1)))
        for at in np.ndindex(*(lengths[name] for name in leading))
    )
    axes = "".join(name.upper() if name in "tz" else "Q" for name in kept)
    shape = tuple(lengths[name] for name in kept)
    return Multiscale(levels, places, axes, shape, _steps(found, names, units), _channels(said, lengths.get("c", 1)))


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


def _place(names: str, at: dict[str, int], band: int) -> tuple[int, ...]:
    return tuple(band if name == "c" else at[name] for name in names)


def _steps(found: dict[str, Any], names: str, units: list[str]) -> dict[str, float]:
    """The size of a step along X, Y, Z and T at level 0, where a unit says what the numbers mean."""
    factors = [1.0] * len(names)
    for transform in (*found["datasets"][0].get("coordinateTransformations", ()),
                      *found.get("coordinateTransformations", ())):  # fmt: skip
        if transform.get("type") == "scale" and len(transform.get("scale", ())) == len(names):
            factors = [one * float(other) for one, other in zip(factors, transform["scale"], strict=True)]
    sizes = {name: pixel_size.step(name.upper(), factor, unit)
             for name, factor, unit in zip(names, factors, units, strict=True) if name in "xyzt"}  # fmt: skip
    return {name.upper(): size for name, size in sizes.items() if size is not None}


def _channels(said: dict[str, Any], count: int) -> tuple[str, ...]:
    known = (said.get("omero") or {}).get("channels") or ()
    names = tuple(str(channel.get("label", "")) for channel in known)
    return names if len(names) == count else ()


def _array(group: Path, name: str) -> Array:
    """The array at a path below the group."""
    below = PurePosixPath(name)
    if below.is_absolute() or ".." in below.parts:
        raise BrokenZarrError(f"its metadata name {name}, which is not in it")
    path = group / below
    try:
        found = read_json(path / ".zarray")
        kind, format_ = np.dtype(found["dtype"]), 2
        chunks = stored = found["chunks"]
        separator = found.get("dimension_separator", ".")
    except FileNotFoundError:
        try:
            found = read_json(path / "zarr.json")
        except FileNotFoundError:
            raise BrokenZarrError(f"its metadata name an array {name}, which is not there") from None
        kind, format_ = np.dtype(found["data_type"]), 3
        stored, separator = found["chunk_grid"]["configuration"]["chunk_shape"], "/"
        shards = [codec["configuration"] for codec in found["codecs"] if codec["name"] == "sharding_indexed"]
        chunks = shards[0]["chunk_shape"] if shards else stored
    shape, chunks, stored = (tuple(map(int, lengths)) for lengths in (found["shape"], chunks, stored))
    if (
        kind.kind not in "buifc"
        or not len(shape) == len(chunks) == len(stored) >= 2
        or min(shape + chunks + stored) < 1
    ):
        raise BrokenZarrError(f"its array {name} is {kind} of {_by(shape)} in chunks of {_by(chunks)}")
    dtype = "uint8" if kind.kind == "b" else kind.newbyteorder("=").name
    return Array(path, format_, shape, chunks, stored, dtype, separator)


def _count(folder: Path) -> int:
    """Files in a folder and those below, but for metadata."""
    with os.scandir(folder) as entries:
        return sum(_count(Path(entry.path)) if entry.is_dir() else entry.name not in _METADATA for entry in entries)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
