"""Which files of this machine a raster is read from: who asks whether it has changed, or may be written, asks here."""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import ParseError

from segcli.raster import vrt
from segcli.raster.names import SUFFIXES, Name, is_zarr, local_file
from segcli.raster.sidecars import sidecars


def origins(name: Name) -> tuple[Path, ...] | None:
    """The file itself, or the one behind a data set or an archive's member; what lies beside it and says what it means;
    what a VRT names. None of what is elsewhere. None where nobody can tell in reasonable time: a Zarr is many files."""
    path = name if isinstance(name, Path) else _behind(name)
    if path is None:
        return ()
    if os.path.isdir(path):  # noqa: PTH112  # Path's raise for names that cannot be looked at
        return None if is_zarr(path) else ()
    if not os.path.isfile(path):  # noqa: PTH113
        return ()
    found = [path, *sidecars(path)]
    if path.suffix.lower() not in SUFFIXES:  # what a folder is searched for is no VRT, and there may be 100 000 of it
        with suppress(OSError, ParseError), path.open("rb") as file:  # what is wrong is said when it is opened
            found += vrt.files_of(path, file.read(4096))
    return tuple(dict.fromkeys(found))


_INSIDE = re.compile(r"(/vsi(zip|tar|gzip|7z|rar)/)+")


def _behind(text: str) -> Path | None:
    """The file of this machine that such a name leads to."""
    if text.startswith("file://"):
        return Path(unquote(text.removeprefix("file://").removeprefix("localhost")))
    if archive := _INSIDE.match(text):
        path = Path(re.sub(r"[{}]", "", text[archive.end() :]))
        return next((place for place in (path, *path.parents) if os.path.isfile(place)), None)  # noqa: PTH113
    return local_file(text) or (Path(text) if is_zarr(Path(text)) else None)
