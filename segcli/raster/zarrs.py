"""Which folders are Zarrs, and which of these are OME-Zarr images. Knows their attributes alone, no arrays.

Source: the OME-Zarr specification (ngff.openmicroscopy.org), versions 0.1 to 0.5; bioformats2raw's layout, version 3.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

ENDING = ".zarr"

MOST_BYTES = 2**24
"""Of a file of metadata; a longer one is not believed."""

_MARKERS = (".zarray", ".zgroup", "zarr.json")


def is_zarr(path: Path) -> bool:
    """Whether a folder is one, OME's or not."""
    return any(os.path.isfile(path / marker) for marker in _MARKERS)  # noqa: PTH113  # Path's raise


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file of metadata. Raises OSError, ValueError."""
    if path.stat().st_size > MOST_BYTES:
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
            found = read_json(group / ".zattrs")
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
    if "bioformats2raw.layout" in said and not os.path.isdir(path / "1"):  # noqa: PTH112
        return path / "0" if "multiscales" in attributes(path / "0") else None
    return None


def is_image(path: Path) -> bool:
    """Whether a Zarr is an image; also one whose attributes cannot be read, so that it is not passed over."""
    try:
        return image_at(path) is not None
    except (OSError, ValueError, RecursionError):
        return True


def holds_images(path: Path) -> bool:
    """Whether a Zarr holds images that are Zarrs each: the fields of a plate or of a well, or bioformats2raw's
    series."""
    with suppress(OSError, ValueError, RecursionError):
        said = attributes(path)
        return not said.keys().isdisjoint({"plate", "well", "bioformats2raw.layout"}) and image_at(path) is None
    return False
