"""What was made of what: files by their contents, sources by where they lie."""

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from segcli.files import part_of, sha256_of, size_and_time


@dataclass(frozen=True, slots=True)
class Mark:
    """What identifies a file's contents. A size and a time that are the same are believed, as make believes them."""

    size: int
    mtime_ns: int
    sha256: bytes  # half of what its text takes

    @classmethod
    def of(cls, path: Path) -> Self:
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, bytes.fromhex(sha256_of(path)))

    @classmethod
    def read(cls, size: int, mtime_ns: int, sha256: str) -> Self:
        return cls(size, mtime_ns, bytes.fromhex(sha256))

    def to_json(self) -> list[int | str]:
        return [self.size, self.mtime_ns, self.sha256.hex()]

    def holds(self, path: Path, digest: Callable[[Path], str] = sha256_of, is_that_file: bool = True) -> bool:
        """Whether a file has these contents; of another file than the one that was looked at its time says nothing."""
        try:
            found = path.stat()
            if is_that_file and (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns):
                return True
            return found.st_size == self.size and bytes.fromhex(digest(path)) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Begun:
    """Outputs that were about to be written, by name below the folder, with size and time of what was there, and when
    that was, in ns: by this its other lines name it. Lines of older versions say nothing of either."""

    names: dict[str, tuple[int, int] | None]
    at: int | None

    @classmethod
    def now(cls, names: Iterable[str], folder: Path) -> Self:
        return cls({name: size_and_time(folder / name) for name in names}, time.time_ns())

    @classmethod
    def read(cls, names: Iterable[str], there: dict[str, list[int]], at: int | None) -> Self:
        return cls({name: (there[name][0], there[name][1]) if name in there else None for name in names}, at)

    def to_json(self) -> dict[str, Any]:
        there = {name: list(before) for name, before in self.names.items() if before is not None}
        return {"begun": list(self.names), "at": self.at, **({"there": there} if there else {})}

    def has_part(self, folder: Path) -> bool:
        """Whether any of them is on its way."""
        return any(part_of(folder / name).exists() for name in self.names)

    def may_have_placed(self, name: str, folder: Path) -> bool:
        """Whether what is there now may have come into place since, without a line that says so."""
        found = size_and_time(folder / name)
        # What was being written is still there: it would have become the file.
        return found is not None and found != self.names[name] and not part_of(folder / name).exists()


@dataclass(frozen=True, slots=True)
class Done:
    """A finished line: the outputs of one source, by name below the folder, and the files they were made of. Pairs,
    because there may be a hundred thousand of these, and a dictionary of one takes four times as much."""

    source: str
    key: str
    outputs: tuple[tuple[str, Mark], ...]
    sources: tuple[tuple[str, Mark], ...]

    def mark(self, output: str) -> Mark:
        """What identifies one of its outputs."""
        return next(mark for name, mark in self.outputs if name == output)

    def is_of(self, source: object, files: Sequence[Path], digest: Callable[[Path], str]) -> bool:
        """Whether it was made of these contents, in this order, and of the same part of them."""
        if len(self.sources) != len(files) or not self._has_name_behind(source, files):
            return False
        return all(_holds(known, path, digest) for known, path in zip(self.sources, files, strict=True))

    def other_than(self, source: object, files: Sequence[Path], digest: Callable[[Path], str]) -> str | None:
        """The name of what it was made of, if that is neither this source nor gone by now, nor has its contents."""
        if not self.sources or not files:
            before, now = place_of(self.source), place_of(str(source))
            is_here = before.startswith("/") and not before.startswith("/vsi")
            return None if before == now or (is_here and is_gone(before)) else self.source
        before = self.sources[0][0]
        if is_gone(before):
            return None
        if self._has_name_behind(source, files):
            with suppress(OSError):
                if absolute(before) == absolute(files[0]) or os.path.samefile(before, files[0]):  # noqa: PTH121
                    return None
            if _holds(self.sources[0], files[0], digest):  # what lies beside it may be new
                return None
        is_named = os.path.basename(before) in self.source  # noqa: PTH119
        return self.source if is_named and behind_file(self.source, before) else before

    def _has_name_behind(self, source: object, files: Sequence[Path]) -> bool:
        """Whether what the two names say beyond their files is the same: a member of an archive, a data set."""
        before = self.sources[0][0] if self.sources else None
        return behind_file(self.source, before) == behind_file(str(source), str(files[0]) if files else None)


def behind_file(source: str, file: str | None) -> str:
    """What a source's name says beyond the file that it leads to; all of it where there is none."""
    name = "" if file is None else os.path.basename(file)  # noqa: PTH119
    if not name or name not in source:
        return source
    return "" if source.endswith(name) else source.partition(name)[2]


def absolute(path: Path | str) -> str:
    """As a file is called from any folder; links stay as they are."""
    return os.path.abspath(path)  # noqa: PTH100  # Path.absolute leaves .. standing


def _holds(known: tuple[str, Mark], path: Path, digest: Callable[[Path], str]) -> bool:
    name, mark = known
    return mark.holds(path, digest, is_that_file=absolute(name) == absolute(path))


def is_gone(path: str) -> bool:
    """Whether it is surely not there: a share that fails tonight is another matter."""
    try:
        os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def place_of(name: str) -> str:
    """What a source without files of its own is called from any folder: a Zarr's folder, or a URL without what signs
    it, which may be another one each night."""
    return _SIGNATURE.sub("", name).rstrip("?&") if ":" in name or name.startswith("/vsi") else absolute(name)


_SIGNATURE = re.compile(
    r"(?<=[?&])(x-(amz|goog|ms)-[^=&]*|awsaccesskeyid|googleaccessid|signature|expires|key-pair-id|policy|token|"
    r"access_token|sig|se|sp|st|sv|sr|spr|ske|sks|skt|skv|skoid|sktid)=[^&/]*&?",
    re.IGNORECASE,
)
"""Of Amazon's, Google's and Azure's stores and those that do as they do."""
