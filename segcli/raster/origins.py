"""Which files of this machine a raster is read from: who asks whether it has changed, or may be written, asks here."""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import ParseError

from segcli.raster import vrt
from segcli.raster.names import SUFFIXES, Name, is_zarr
from segcli.raster.sidecars import sidecars


def origins(name: Name) -> tuple[Path, ...]:
    """The file itself, or the one behind a data set or an archive's member; what lies beside it and says what it means;
    what a VRT names; of a Zarr its folder, which stands for all that lies in it. None of what is elsewhere."""
    path = name if isinstance(name, Path) else _behind(name)
    if path is None:
        return ()
    if os.path.isdir(path):  # noqa: PTH112  # Path's raise for names that cannot be looked at
        return (path,) if is_zarr(path) else ()
    if not os.path.isfile(path):  # noqa: PTH113
        return ()
    found = [path, *sidecars(path)]
    if path.suffix.lower() not in SUFFIXES:  # what a folder is searched for is no VRT, and there may be 100 000 of it
        with suppress(OSError, ParseError), path.open("rb") as file:  # what is wrong is said when it is opened
            found += vrt.files_of(path, file.read(4096))
    return tuple(dict.fromkeys(found))


_INSIDE = re.compile(r"(/vsi(zip|tar|gzip|7z|rar)/)+")


MOST_PARTS = 8
"""Colons in the name of a data set, of which there are three or so."""


def _behind(text: str) -> Path | None:
    """The file, or the Zarr, of this machine that such a name leads to."""
    if text.startswith("file://"):
        return Path(unquote(text.removeprefix("file://").removeprefix("localhost")))
    return next((path for piece in _pieces(text) if (path := _at(piece)) is not None), None)


def _pieces(text: str) -> list[str]:
    """Where a file may stand in a name, the likeliest first: the whole, what is quoted, what is between colons. Drivers
    have the parts in different orders (NETCDF:FILE:NAME, GTIFF_DIR:NUMBER:FILE)."""
    parts = text.split(":", MOST_PARTS)
    pairs = ((first, last) for first in range(1, len(parts)) for last in range(first + 1, len(parts) + 1))
    between = sorted(pairs, key=lambda pair: (pair[0], -pair[1]))
    return [text, *re.findall(r'"([^"]+)"', text), *(":".join(parts[first:last]) for first, last in between)]


def _at(place: str) -> Path | None:
    """The file or the Zarr at a path, or at one that GDAL takes a part of."""
    place = place.removeprefix("vrt://").partition("?")[0] if place.startswith("vrt://") else place
    place = place.partition(",")[2] if place.startswith("/vsisubfile/") else place
    archive = _INSIDE.match(place)
    if archive is None:
        return Path(place) if os.path.isfile(place) or is_zarr(Path(place)) else None  # noqa: PTH113
    path = Path(re.sub(r"[{}]", "", place[archive.end() :]))
    return next((file for file in (path, *path.parents) if os.path.isfile(file)), None)  # noqa: PTH113
