"""What rasters and labels are recognised by, so that tiles of others are not gone on with."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from segcli.files import files_in, sha256_of
from segcli.made import absolute, is_gone, place_of
from segcli.raster.names import Name
from segcli.raster.origins import origins
from segcli.tiling.manifest import Scene

DIGEST_BYTES = 2**28
"""Files up to this size are read once more before they are cut, so that a new time alone (a copy, a checkout) makes no
other raster of them. Larger ones go by size and time."""


def changed(name: Name) -> tuple[int, int]:
    """Bytes and time of the files that a raster is read from, each added up; zeros for what is none of this machine."""
    with suppress(OSError):
        found = [path.stat() for path in _files(name) or ()]
        return sum(one.st_size for one in found), sum(one.st_mtime_ns for one in found)
    return 0, 0


def digest(names: Sequence[Name]) -> str:
    """Of the contents of the files that rasters are read from; nothing where they are large, or one is none of this
    machine."""
    files = [_files(name) for name in names]
    paths = [path for of_one in files for path in of_one or ()]
    with suppress(OSError):
        if all(files) and sum(path.stat().st_size for path in paths) <= DIGEST_BYTES:
            return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()[:32]
    return ""


def _files(name: Name) -> Sequence[Path] | None:
    """Those that it is read from; of a Zarr all that lie in it, however many. None where nobody can tell."""
    found = origins(name)
    return None if found is None else [one for path in found for one in files_in(path)]


def drawn_from(names: Iterable[str]) -> str:
    """What tells sets of rasters apart: a sample of other ones is another sample."""
    known = sorted(names)
    digest = hashlib.sha256("\n".join(known).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{len(known)} rasters ({digest[:8]})"


def seen_from(folder: Path, name: Name) -> str:
    """What a raster is called in the account of a folder, which may move together with it."""
    return Path(os.path.relpath(name, folder)).as_posix() if isinstance(name, Path) else name


def unchanged(scene: Scene, names: Sequence[Name], folder: Path) -> bool:
    """Whether a raster, and its labels if there are any, are what the tiles of a scene in `folder` were cut from: of
    the same sizes and times, or, where the times are other ones or it is another file, of the same contents, where
    these are known. Never where nobody can tell what it is read from."""
    before = [(scene.file, *scene.changed), *([scene.mask] if scene.mask is not None else [])]
    now = [(seen_from(folder, name), *changed(name)) for name in names]
    is_known = all(_files(name) is not None for name in names)
    if not is_known or [size for _, size, _ in before] != [size for _, size, _ in now]:
        return False
    if all(one[2] == other[2] and _is_that(folder, one[0], other[0]) for one, other in zip(before, now, strict=True)):
        return True
    return scene.digest != "" and scene.digest == digest(names)


def _is_that(folder: Path, before: str, now: str) -> bool:
    """Whether two names, as seen from `folder`, are of one file or address, or the first is of no file any more,
    because that was moved: of another file its time says nothing."""
    if before == now:
        return True
    if _is_address(before) or _is_address(now):
        files = [list(map(absolute, origins(name) or ())) if _is_address(name) else [] for name in (before, now)]
        same_file = files[0] != [] and files[0] == files[1]
        return same_file or place_of(before) == place_of(now)
    # By the names alone, as they were made: the folder may be a link.
    one, other = (Path(absolute(Path(absolute(folder)) / name)) for name in (before, now))
    if is_gone(str(one)):
        return True
    with suppress(OSError):
        return one.samefile(other)
    return False


def _is_address(name: str) -> bool:
    """Whether it is no path: a URL, a data set in a file, a member of an archive."""
    return "://" in name or name.startswith("/vsi") or re.match(r"[A-Za-z][A-Za-z0-9_]+:", name) is not None
