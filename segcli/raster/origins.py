"""Which files of this machine a raster is read from: who asks whether it has changed, or may be written, asks here."""

import glob
import os
from contextlib import closing, suppress
from pathlib import Path
from xml.etree.ElementTree import ParseError

from rasterio.errors import RasterioError

from segcli.raster import vrt
from segcli.raster.behind import behind
from segcli.raster.gdal import of_drivers
from segcli.raster.names import SUFFIXES, Name
from segcli.raster.ngff import multiscale
from segcli.raster.sidecars import sidecars
from segcli.raster.zarrs import METADATA, UNREADABLE, image_at, is_zarr


def origins(name: Name) -> tuple[Path, ...] | None:
    """The file itself, or the one behind a data set or an archive's member; what lies beside it and says what it means;
    what a VRT names, in the same way; of a Zarr its folder, which stands for all that lies in it, but of an OME-Zarr
    image its metadata and arrays alone: labels may come beside them. None of what is elsewhere. None where nobody can
    tell: what a VRT names may be missing."""
    path = name if isinstance(name, Path) else behind(name)
    if path is None:
        return ()
    if os.path.isdir(path):  # noqa: PTH112  # Path's raise for names that cannot be looked at
        return _of_zarr(path) if is_zarr(path) else ()
    if not os.path.isfile(path):  # noqa: PTH113
        return ()
    found = [path, *sidecars(path)]
    if path.suffix.lower() not in SUFFIXES:  # what a folder is searched for is no VRT, and there may be 100 000 of it
        with suppress(OSError, ParseError), path.open("rb") as file:  # what is wrong is said when it is opened
            named = vrt.files_of(path, file.read(4096))
            if named is None:
                return None
            found += [file for one in named for file in (one, *sidecars(one))]
        found += _pixels_of(path)
    return tuple(dict.fromkeys(found))


_APART = ("ERS", "GenBin", "ILWIS", "ISCE", "ISIS3", "MFF", "MRF", "PAux", "PDS4", "RRASTER", "RST", "SAGA", "VICAR")
"""Formats of GDAL's whose header is a file, and the pixels another one; ENVI and its like are named by the latter."""


def _pixels_of(header: Path) -> list[Path]:
    """The other files of such a format."""
    with suppress(RasterioError, OSError), closing(of_drivers(header, _APART)) as dataset:
        files = [Path(name) for name in dataset.files]
        if dataset.driver in ("MRF", "ILWIS"):  # GDAL does not name them all
            files += sorted(header.parent.glob(f"{glob.escape(header.stem)}.*"))
        return [path for path in files if path != header and os.path.isfile(path)]  # noqa: PTH113
    return []


def _of_zarr(path: Path) -> tuple[Path, ...]:
    with suppress(*UNREADABLE):  # what is wrong is said when it is opened
        if (group := image_at(path)) is not None:
            said = [folder / name for folder in dict.fromkeys((path, group)) for name in METADATA]
            arrays = [array.path for array in multiscale(group).levels]
            return (*(file for file in said if os.path.isfile(file)), *arrays)  # noqa: PTH113
    return (path,)
