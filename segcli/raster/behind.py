"""Which file of this machine a name leads to that GDAL takes: of a data set, of an archive's member, of a page."""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from segcli.raster.zarrs import is_zarr

_INSIDE = re.compile(r"(/vsi(zip|tar|gzip|7z|rar)/)+")

MOST_PARTS = 8
"""Colons in the name of a data set, of which there are three or so."""


def behind(text: str, folder: str = "") -> Path | None:
    """The file, or the Zarr, that such a name leads to, seen from a folder."""
    if text.startswith("file://"):
        return Path(unquote(text.removeprefix("file://").removeprefix("localhost")))
    return next((path for piece in _pieces(text) if (path := _at(piece, folder)) is not None), None)


def _pieces(text: str) -> list[str]:
    """Where a file may stand in a name, the likeliest first: the whole, what is quoted, what is between colons. Drivers
    have the parts in different orders (NETCDF:FILE:NAME, GTIFF_DIR:NUMBER:FILE)."""
    parts = text.split(":", MOST_PARTS)
    pairs = ((first, last) for first in range(1, len(parts)) for last in range(first + 1, len(parts) + 1))
    between = sorted(pairs, key=lambda pair: (pair[0], -pair[1]))
    return [text, *re.findall(r'"([^"]+)"', text), *(":".join(parts[first:last]) for first, last in between)]


def _at(place: str, folder: str) -> Path | None:
    """The file or the Zarr at a path, or at one that GDAL takes a part of."""
    place = place.removeprefix("vrt://").partition("?")[0] if place.startswith("vrt://") else place
    place = place.partition(",")[2] if place.startswith("/vsisubfile/") else place
    archive = _INSIDE.match(place)
    if archive is None:
        place = os.path.join(folder, place)  # noqa: PTH118  # "" is no file, and Path("") would be the folder
        return Path(place) if os.path.isfile(place) or is_zarr(Path(place)) else None  # noqa: PTH113
    path = Path(re.sub(r"[{}]", "", place[archive.end() :]))
    return next((file for file in (path, *path.parents) if os.path.isfile(file)), None)  # noqa: PTH113
