"""What rasters and labels are recognised by, so that tiles of others are not gone on with."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from segcli.files import sha256_of
from segcli.raster.names import Name
from segcli.raster.origins import origins
from segcli.tiling.manifest import Scene

DIGEST_BYTES = 2**28
"""Files up to this size are read once more before they are cut, so that a new time alone (a copy, a checkout) makes no
other raster of them. Larger ones go by size and time."""


def changed(name: Name) -> tuple[int, int]:
    """Bytes and time of the files that a raster is read from, each added up; zeros for what is none of this machine."""
    with suppress(OSError):
        found = [path.stat() for path in _files(name)]
        return sum(one.st_size for one in found), sum(one.st_mtime_ns for one in found)
    return 0, 0


def digest(names: Sequence[Name]) -> str:
    """Of the contents of the files that rasters are read from; nothing where they are large, or one is none of this
    machine."""
    files = [_files(name) for name in names]
    paths = [path for of_one in files for path in of_one]
    with suppress(OSError):
        if all(files) and sum(path.stat().st_size for path in paths) <= DIGEST_BYTES:
            return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()[:32]
    return ""


def _files(name: Name) -> Sequence[Path]:
    """Those that it is read from; of a Zarr all that lie in it, however many."""
    found = origins(name)
    return found if found is not None else sorted(path for path in Path(name).rglob("*") if path.is_file())


def unchanged(scene: Scene, names: Sequence[Name]) -> bool:
    """Whether a raster, and its labels if there are any, are what the tiles of a scene were cut from: of the same sizes
    and times, or, where the times alone are other ones, of the same contents, where these are known."""
    before = [scene.changed, *([scene.mask[1:]] if scene.mask is not None else [])]
    now = list(map(changed, names))
    if before == now:
        return True
    same_sizes = [size for size, _ in before] == [size for size, _ in now]
    return same_sizes and scene.digest != "" and scene.digest == digest(names)
