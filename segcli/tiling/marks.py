"""What rasters and labels are recognised by, so that tiles of others are not gone on with."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from segcli.files import sha256_of
from segcli.raster.names import Name
from segcli.raster.sidecars import sidecars
from segcli.tiling.manifest import Scene

DIGEST_BYTES = 2**28
"""Files up to this size are read once more before they are cut, so that a new time alone (a copy, a checkout) makes no
other raster of them. Larger ones go by size and time."""


def changed(name: Name) -> tuple[int, int]:
    """Bytes and time of a file, and of those beside it that say what it means, each added up; zeros for what is none of
    this machine."""
    with suppress(OSError):
        if isinstance(name, Path):
            found = [path.stat() for path in (name, *sidecars(name))]
            return sum(one.st_size for one in found), sum(one.st_mtime_ns for one in found)
    return 0, 0


def digest(names: Sequence[Name]) -> str:
    """Of the contents of files and of those beside them; nothing where they are large, or one is none of this
    machine."""
    paths = [path for name in names if isinstance(name, Path) for path in (name, *sidecars(name))]
    with suppress(OSError):
        if all(isinstance(name, Path) for name in names) and sum(p.stat().st_size for p in paths) <= DIGEST_BYTES:
            return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()[:32]
    return ""


def unchanged(scene: Scene, names: Sequence[Name]) -> bool:
    """Whether a raster, and its labels if there are any, are what the tiles of a scene were cut from: of the same sizes
    and times, or, where the times alone are other ones, of the same contents, where these are known."""
    before = [scene.changed, *([scene.mask[1:]] if scene.mask is not None else [])]
    now = list(map(changed, names))
    if before == now:
        return True
    same_sizes = [size for size, _ in before] == [size for size, _ in now]
    return same_sizes and scene.digest != "" and scene.digest == digest(names)
