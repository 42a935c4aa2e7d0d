"""Files that appear whole or not at all, and what identifies their contents. Knows no formats."""

import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from segcli.errors import BusyError, InputError, NothingDoneError

Found = TypeVar("Found")

PART = ".segcli-part"
"""What the name of an unfinished file, or of a folder of them, ends with; a run removes such leftovers."""

_LONGEST = 200
"""Bytes of a name to which may still be added what tells that it is a part, even of a part, and a library's ending:
file systems take 255."""

_HASHED = 16
"""Hexadecimal digits that stand for a name."""

_NAMES = 2**40
"""The first of the bytes of a record, far behind its end, that are locked for names."""

TRIALS = 5
"""So often a file is read that changes meanwhile."""

_STAGE = re.compile(rf"\.[0-9a-f]{{{_HASHED}}}{re.escape(PART)}")


def is_below(name: str) -> bool:
    """Whether a name that a file gives stays in that file's folder: it may have come from elsewhere."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole: hidden, beside its final place, so that the move is atomic."""
    name = os.fsencode(path.name)
    text = path.name if len(name) <= _LONGEST else hashlib.sha256(name).hexdigest()
    return path.with_name(f".{text}{PART}")


@contextmanager
def replacing(
    path: Path,
    faults: Callable[[Path], AbstractContextManager[None]] = lambda _: nullcontext(),
    is_swept: bool = False,
) -> Iterator[Path]:
    """Give a temporary name to write to; move it to `path` when the block ends well, remove it when it does not.

    `faults(path)` is put around what is done here, so that the caller can word its errors, and not around the block.
    `is_swept` says that the folder is there and nothing is left in it of an earlier run: who writes thousands of files
    into one looks through it once, not for each of them.
    """
    part = part_of(path)
    if not is_swept:
        with faults(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in (part, part_of(part)):  # by a kill; looking through the folder each time would take for ever
                left.unlink(missing_ok=True)
    try:
        yield part
        with faults(path):
            to_disk(part)
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def restored(path: Path, old: Path) -> Iterator[None]:
    """What lies there when the block begins lies there again when it fails; what lay there not, not. Meanwhile it has
    the name `old`, too, of the same file system: of another, or of one without links, what is new stays."""
    is_there, is_kept = os.path.lexists(path), False
    with suppress(OSError):  # of a folder, of what nobody may touch, or where there are no links
        if is_there:
            old.unlink(missing_ok=True)
            os.link(path, old, follow_symlinks=False)
            is_kept = True
    try:
        yield
    except BaseException:
        with suppress(OSError):
            if is_kept:
                old.replace(path)
            elif not is_there:
                path.unlink(missing_ok=True)
        raise
    finally:
        if is_kept:
            with suppress(OSError):
                old.unlink(missing_ok=True)


def to_disk(path: Path) -> None:
    """What was written to a file is there after a power failure, too."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def stage_of(folder: Path, name: str) -> Path:
    """The folder in which what belongs to an output of that name waits until all of it is whole, each file with its
    path below `folder`: its name is as long as it will be, and a driver sees its ending."""
    return folder / f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:_HASHED]}{PART}"


def is_stage(name: str) -> bool:
    """Whether a folder has the name of one of these."""
    return _STAGE.fullmatch(name) is not None


def destination(path: Path) -> Path:
    """Where a file that waits is to be in the end; any other stays where it is."""
    return Path(*(part for part in path.parts if not is_stage(part)))


def move(waiting: Path, path: Path) -> None:
    """Give a whole file its name; into another file system as a copy that has its time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        waiting.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(path) as part:
            shutil.copy2(waiting, part)
        waiting.unlink()


class Places:
    """Where files truly are, links followed; each folder is looked up once, which counts where there are many files."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def of(self, path: Path) -> Path:
        """As `Path.resolve` has it, but for what cannot be: a link to itself, a name that is too long."""
        if path.name in ("", "..") or os.path.islink(path):  # noqa: PTH114
            return Path(os.path.realpath(path))
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = Path(os.path.realpath(folder))
        return self._folders[folder] / path.name


class Watched:
    """Files as they are when this is made."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.paths = list(paths)
        self._seen = {path: size_and_time(path) for path in self.paths}

    def check(self) -> None:
        """InputError where one is not any more what it was."""
        for path, seen in self._seen.items():
            if size_and_time(path) != seen:
                raise InputError(path, "changed while it was read", "", "run again when it is whole")


def read_steadily(paths: Sequence[Path], read: Callable[[], Found]) -> tuple[Found, dict[Path, str]]:
    """What `read` makes of files, and the SHA-256 of each as it was then: a training may put better weights into their
    place meanwhile. InputError where they change again and again."""
    for trial in reversed(range(TRIALS)):
        watched = Watched(paths)
        found, digests = read(), {path: sha256_of(path) for path in paths}
        try:
            watched.check()
            break
        except InputError:
            if not trial:
                raise
    return found, digests


def files_in(path: Path) -> list[Path]:
    """The file itself, or all that lie in a folder, however many, as in a Zarr; links are followed."""
    return [one for one, _ in _states(path)]


def size_and_time(path: Path) -> tuple[int, int] | None:
    """Bytes, and time in ns; of a folder the bytes of all files in it, and a number that stands for their names, sizes
    and times. None where there is no file."""
    try:
        found = _states(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None
    size = sum(status.st_size for _, status in found)
    if [one for one, _ in found] == [path]:
        return size, found[0][1].st_mtime_ns
    inside = "".join(f"{one.relative_to(path)}\0{status.st_size} {status.st_mtime_ns}\n" for one, status in found)
    return size, int.from_bytes(hashlib.blake2b(os.fsencode(inside), digest_size=7).digest())


def _states(path: Path) -> list[tuple[Path, os.stat_result]]:
    """The file, or those in a folder, in order, and what the system knows of each, which it is asked once. A link that
    leads to a folder that it lies in is none of them, nor is what macOS puts into folders. Raises OSError."""
    status = path.stat()
    if not stat.S_ISDIR(status.st_mode):
        return [(path, status)]
    found = []
    waiting = [(str(path), frozenset({(status.st_dev, status.st_ino)}))]
    while waiting:
        place, above = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name == ".DS_Store" or entry.name.startswith("._"):
                    continue
                try:
                    status = entry.stat()
                except OSError:  # a link that leads nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append((entry.path, status))
                elif stat.S_ISDIR(status.st_mode) and (known := (status.st_dev, status.st_ino)) not in above:
                    waiting.append((entry.path, above | {known}))
    return [(Path(name), status) for name, status in sorted(found, key=lambda one: Path(one[0]).parts)]


def lock(file: BinaryIO | int, folder: Path, kind: int) -> None:
    """Hold an open file, or a folder, as flock has it, until it is closed. BusyError, of the folder that it stands for,
    where another run holds it.

    Of a file one byte is locked, before those of `name_held`: over NFS flock locks all bytes of a file (flock(2)), so
    that runs which share it would keep each other from every name.
    """
    try:
        is_folder = stat.S_ISDIR(os.fstat(file if isinstance(file, int) else file.fileno()).st_mode)
        if is_folder or not _byte_locked(file, kind):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BusyError(
            folder, "another run of segcli writes there", "", "wait for it, or choose another --out"
        ) from error
    except OSError:
        return  # a file system without locks: then nobody can tell


@contextmanager
def name_held(file: BinaryIO, name: str, path: Path) -> Iterator[None]:
    """Keep a name, that of `path`, from other runs while the block lasts. BusyError where another run has it.

    `file` is open for all of them. One byte of it is locked for each name: where a run is killed nothing is left of
    that. Only Linux has such locks that other threads and files do not let go.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        yield
        return
    byte = _NAMES + int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6])
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock_of_one(fcntl.F_WRLCK, byte))
    except BlockingIOError as error:
        raise BusyError(path, "another run of segcli writes it", "", "wait for it, or choose another --out") from error
    except OSError:  # a file system without locks: then nobody can tell
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock_of_one(fcntl.F_UNLCK, byte))


def _byte_locked(file: BinaryIO | int, kind: int) -> bool:
    """Whether the byte that stands for all of a file is locked; not where there are no such locks. BlockingIOError
    where another holds it."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return False
    try:
        kind = fcntl.F_WRLCK if kind == fcntl.LOCK_EX else fcntl.F_RDLCK
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _lock_of_one(kind, _NAMES - 1))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def _lock_of_one(kind: int, byte: int) -> bytes:
    """What fcntl(2) calls a struct flock, of one byte."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder that is there for this run alone. BusyError where another run holds it."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        lock(file, folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes; of a folder, of the names and digests of all that lies in it."""
    if path.is_dir():
        inside = [f"{one.relative_to(path).as_posix()}\0{sha256_of(one)}\n" for one in files_in(path)]
        return hashlib.sha256(os.fsencode("".join(inside))).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """The same of each file as often as it is asked, and read once, as long as its size and time stay."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, tuple[int, int] | None], str] = {}

    def __call__(self, path: Path) -> str:
        seen = path, size_and_time(path)
        if seen not in self._known:
            self._known[seen] = sha256_of(path)
        return self._known[seen]


def matching(pattern: str, expected: str) -> list[Path]:
    """The files of a pattern, `*`, `?`, `[...]` and `**`, in order. Raises NothingDoneError where there is none."""
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # a Path has no patterns that begin at the root
    if not found:
        raise NothingDoneError(pattern, "matches no file", expected)
    return [Path(name) for name in found]
