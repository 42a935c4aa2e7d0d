"""What goes wrong in writing, told apart: one file that cannot be written, or nothing that can be."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio.errors import RasterioError

from segcli.errors import InputError, NothingDoneError

HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
"""What the system says where no other file could be written either."""

LITTLE_ROOM = 2**20
"""Free bytes under which a failed write is put down to a full disk, where GDAL does not say."""


@contextmanager
def faults_of_writing(path: Path) -> Iterator[None]:
    """What goes wrong in writing, said of the file it was meant for."""
    try:
        yield
    except (OSError, RasterioError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error.__cause__ or error).split())
        hopeless = isinstance(error, OSError) and error.errno in HOPELESS
        is_full = shutil.disk_usage(_existing(path.parent)).free < LITTLE_ROOM
        if is_full and not hopeless:  # libraries say what they were at
            reason = f"the disk is full ({reason})"
        if hopeless or is_full or _is_closed(path.parent):
            raise NothingDoneError(
                path, f"cannot be written: {reason}", "", "make room or give permission, or choose another --out"
            ) from error
        raise InputError(path, f"cannot be written: {reason}") from error


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())


def _is_closed(folder: Path) -> bool:
    return not os.access(_existing(folder), os.W_OK)
