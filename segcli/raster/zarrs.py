"""Which folders are Zarrs, and which of these are, or hold, OME-Zarr images. Knows their attributes alone, no arrays.

Source: the OME-Zarr specification (ngff.openmicroscopy.org), versions 0.1 to 0.5; bioformats2raw's layout, version 3.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from segcli.errors import UsageError
from segcli.files import is_below

ENDING = ".zarr"

MOST_BYTES = 2**24
"""Of a file of metadata; a longer one is not believed."""

METADATA = (".zarray", ".zgroup", ".zattrs", "zarr.json")
"""Names of files, of which at least one is in each group and each array."""

_LABELS = "labels"
"""The group, in an image's, of masks that are images, too."""


class BrokenZarrError(ValueError):
    """What is wrong with the metadata of an OME-Zarr, in words for people."""


UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What is raised for attributes that are none, or not as they should be."""


def is_zarr(path: Path) -> bool:
    """Whether a folder is one, OME's or not: an array, or a group of them."""
    return any(os.path.isfile(path / name) for name in METADATA)  # noqa: PTH113  # Path's raise


def check_outside(out: Path) -> None:
    """UsageError where outputs would go into a Zarr."""
    place = Path(os.path.realpath(out))
    if inside := next((folder for folder in (place, *place.parents) if is_zarr(folder) or is_torn(folder)), None):
        raise UsageError(out, f"lies in {inside}, a Zarr", "expected a folder for the outputs", "choose another --out")


def is_torn(path: Path) -> bool:
    """Whether a folder is called a Zarr, but has lost its own metadata: it has folders alone, of chunks or of other
    Zarrs, or nothing."""
    if not path.name.lower().endswith(ENDING) or is_zarr(path) or not os.path.isdir(path):  # noqa: PTH112
        return False
    with os.scandir(path) as entries:
        return all(entry.is_dir() for entry in entries if entry.name[0] != ".")


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file of metadata. Raises OSError, ValueError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for
        raise ValueError(f"{path.name} is no file")
    if status.st_size > MOST_BYTES:
        raise ValueError(f"{path.name} has over {MOST_BYTES >> 20} MB")
    found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return found


def attributes(group: Path) -> dict[str, Any]:
    """What OME says of a group; empty where it says nothing, or there is no group. Raises OSError, ValueError."""
    try:
        found = read_json(group / "zarr.json").get("attributes", {}).get("ome", {})
    except (FileNotFoundError, NotADirectoryError):
        try:
            found = {} if os.path.isfile(group / ".zarray") else read_json(group / ".zattrs")  # noqa: PTH113
        except (FileNotFoundError, NotADirectoryError):
            return {}
    except AttributeError as error:
        raise ValueError("zarr.json has no attributes as OME-Zarr has them") from error
    if not isinstance(found, dict):
        raise ValueError("OME's attributes are no JSON object")
    return found


def image_at(path: Path) -> Path | None:
    """The group of the one image that a Zarr is: its own, or that of the only series which bioformats2raw has put into
    it; None where it is none, or holds several. Raises OSError, ValueError."""
    said = attributes(path)
    if "multiscales" in said:
        return path
    if "bioformats2raw.layout" in said and len(series := _series(path)) == 1:
        return series[0]
    return None


def _series(path: Path) -> list[Path]:
    """Those of bioformats2raw's layout, as it lists them, there or not; without a list the folders that are counted.
    Raises OSError, ValueError."""
    if "series" in (said := attributes(path / "OME")):
        return [below(path, name) for name in said["series"]]
    return sorted((folder for folder in _folders_in(path) if folder.name.isdecimal()), key=lambda one: int(one.name))


def is_image(path: Path) -> bool:
    """Whether a Zarr is an image; also one whose attributes cannot be read, so that it is not passed over."""
    try:
        return image_at(path) is not None
    except UNREADABLE:
        return True


def below(group: Path, name: str) -> Path:
    """What attributes name in a group. BrokenZarrError where it is not in there."""
    if not is_below(name):
        raise BrokenZarrError(f"its metadata name {name}, which is not in it")
    return group / PurePosixPath(name)


def images_in(path: Path, above: frozenset[tuple[int, int]] = frozenset()) -> list[Path]:
    """The images of a Zarr, in order: itself; the fields of a plate or a well, and bioformats2raw's series, as these
    list them, there or not; what lies in other groups, but for labels, and links to those `above`. Raises OSError where
    a folder cannot be listed."""
    if is_image(path):
        return [path]
    with suppress(*UNREADABLE):
        said = attributes(path)
        if "plate" in said:
            return [field for well in said["plate"]["wells"] for field in _fields(below(path, well["path"]))]
        if "well" in said:
            return _fields(path)
        if "bioformats2raw.layout" in said:
            return _series(path)
    status = os.stat(path)  # noqa: PTH116
    if is_array(path) or (here := (status.st_dev, status.st_ino)) in above:
        return []
    inside = [folder for folder in _folders_in(path) if folder.name != _LABELS and is_zarr(folder)]
    return [image for folder in sorted(inside) for image in images_in(folder, above | {here})]


def holds_images(path: Path) -> bool:
    """Whether a Zarr is no image, but holds some, or cannot be looked through."""
    try:
        return not is_image(path) and bool(images_in(path))
    except OSError:
        return True


def is_array(path: Path) -> bool:
    """Whether a Zarr is one array."""
    with suppress(*UNREADABLE):
        return read_json(path / "zarr.json").get("node_type") == "array"
    return os.path.isfile(path / ".zarray")  # noqa: PTH113


def _fields(well: Path) -> list[Path]:
    """The images of a well; the well itself where it does not say which, so that it is named."""
    with suppress(*UNREADABLE):
        return [below(well, image["path"]) for image in attributes(well)["well"]["images"]]
    return [well]


def _folders_in(path: Path) -> Iterator[Path]:
    with os.scandir(path) as entries:
        yield from (path / entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
