"""What goes wrong in writing, told apart: one file that cannot be written, or nothing that can be."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from segcli.errors import InputError, NothingDoneError
from segcli.files import destination

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where there is no room, for no other file either."""

LITTLE_ROOM = 2**20
"""Free bytes under which a failed write is put down to a full disk, where GDAL does not say."""


@contextmanager
def faults_of_writing(path: Path, root: Path | None = None) -> Iterator[None]:
    """What goes wrong in writing, said of the file it was meant for. NothingDoneError where nothing else could be
    written either: there is no room, or `root`, by itself the file's folder, is closed; else InputError."""
    try:
        yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        root, path = root or path.parent, destination(path)
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())
        is_said = isinstance(error, OSError) and error.errno in FULL
        is_full = shutil.disk_usage(_existing(path.parent)).free < LITTLE_ROOM
        if is_full and not is_said:  # libraries say what they were at
            reason = f"the disk is full ({reason})"
        if is_said or is_full or _is_closed(root):
            raise NothingDoneError(
                path, f"cannot be written: {reason}", "", "make room or give permission, or choose another --out"
            ) from error
        raise InputError(path, f"cannot be written: {reason}") from error


def check_open(folder: Path) -> None:
    """InputError where nothing can be written in a folder, or where it is to be made, or where it is no folder, as a
    link to a disk that is not there: said before much is computed."""
    if _is_closed(folder):
        raise InputError(folder, "cannot be written to", "", "give permission, or choose another --out")
    there = next((place for place in (folder, *folder.parents) if os.path.lexists(place)), folder)
    if os.path.lexists(there) and not os.path.isdir(there):  # noqa: PTH112
        raise InputError(there, "no folder, or a link that leads to none", "", "move it away, or choose another --out")


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


def _is_closed(folder: Path) -> bool:
    return not os.access(_existing(folder), os.W_OK)
