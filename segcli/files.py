"""Files that appear whole or not at all, and what identifies their contents. Knows no formats."""

import fcntl
import hashlib
import os
import re
import shutil
import stat
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from segcli.errors import BusyError, InputError

PART = ".segcli-part"
"""What the name of an unfinished file ends with; a run removes such leftovers of the outputs that it writes."""


def part_of(path: Path) -> Path:
    """Where a file is written until it is whole: hidden, beside its final place, so that the move is atomic."""
    return path.with_name(f".{path.name}{PART}")


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
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class Placed:
    """Those of some files that come into place while the block lasts, and of the .aux.xml beside each; nobody else may
    write them then. They are taken back, and what was there before put back, unless they are accepted."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._earlier = {path: Path(f"{part_of(path)}~") for path in paths}  # a leftover of the output in a kill
        self._earlier |= {_aux(path): _aux(earlier) for path, earlier in self._earlier.items()}
        self._before = {path: _identity(path) for path in self._earlier}

    def __enter__(self) -> Self:
        for path, identity in self._before.items():
            if identity is not None:
                _link(path, self._earlier[path])
        return self

    def undo(self) -> None:
        """As if they had not been made."""
        for path, identity in self._before.items():
            if _identity(path) == identity:
                continue
            try:
                self._earlier[path].replace(path)
            except OSError:  # there was none, or it could not be kept
                path.unlink(missing_ok=True)
        self.accept()

    def accept(self) -> None:
        """Let them stay, and what was there before go."""
        for path, identity in self._before.items():
            if identity is not None:
                with suppress(OSError):
                    self._earlier[path].unlink()
        self._before = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def _aux(path: Path) -> Path:
    return Path(f"{path}.aux.xml")


def _link(path: Path, place: Path) -> None:
    """Keep a file under a second name, too; as a copy where a file system has no links. Neither may be possible."""
    with suppress(OSError):
        place.unlink(missing_ok=True)  # by a kill
        try:
            os.link(path, place, follow_symlinks=False)
        except OSError:
            with replacing(place) as part:
                shutil.copy2(path, part)


@contextmanager
def all_or_none(paths: Iterable[Path]) -> Iterator[None]:
    """Remove those of the files that came into place while the block ran, if it does not end well."""
    before = {file: _identity(file) for path in paths for file in (path, _aux(path))}
    try:
        yield
    except BaseException:
        for path, identity in before.items():
            if _identity(path) != identity:
                path.unlink(missing_ok=True)
        raise


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    # A folder of tiles has an account of its own.
    return None if stat.S_ISDIR(found.st_mode) else (found.st_ino, found.st_mtime_ns)


def remove_parts(folder: Path, name: str) -> None:
    """Remove what a killed run has left of an output, scratch files of scratch files too."""
    sweep(folder, re.escape(name))


def sweep(folder: Path, names: str) -> None:
    """The same of all outputs whose whole names the pattern matches."""
    pattern = re.compile(rf"\.+{names}{re.escape(PART)}.*")
    for path in folder.iterdir():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


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


def size_and_time(path: Path) -> tuple[int, int] | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def lock(file: BinaryIO | int, folder: Path, kind: int) -> None:
    """Hold an open file as flock has it, until it is closed. BusyError, of the folder that it stands for, where another
    run holds it."""
    try:
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

    `file` is open for all of them. One byte of it, far behind its end, is locked for each name: where a run is killed
    nothing is left of that. Only Linux has such locks that other threads and files do not let go.
    """
    if not hasattr(fcntl, "F_OFD_SETLK"):
        yield
        return
    byte = 2**40 + int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6])
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
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
