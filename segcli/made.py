"""What was made of what: files by their contents, sources by where they lie."""

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import segcli
from segcli.files import Places, sha256_of, size_and_time


@dataclass(frozen=True, slots=True)
class Mark:
    """What identifies a file's contents. A size and a time that are the same are believed, as make believes them, where
    `link`, the file that a name led to by a link, is the same, too."""

    size: int
    mtime_ns: int
    sha256: bytes  # half of what its text takes
    link: str | None = None

    @classmethod
    def of(cls, path: Path, link: str | None = None) -> Self:
        """Who looks at the file again, and finds this size and this time, knows that it did not change meanwhile."""
        size, mtime_ns = size_and_time(path) or (0, 0)  # then there is nothing to read, either
        return cls(size, mtime_ns, bytes.fromhex(sha256_of(path)), link)

    @classmethod
    def read(cls, size: int, mtime_ns: int, sha256: str, link: str | None = None) -> Self:
        return cls(size, mtime_ns, bytes.fromhex(sha256), link)

    def to_json(self) -> list[int | str]:
        return [self.size, self.mtime_ns, self.sha256.hex(), *([] if self.link is None else [self.link])]

    def now(self, path: Path, digest: Callable[[Path], str] = sha256_of, is_that_file: bool = True) -> Self | None:
        """The mark of a file that has these contents, with the time that it has by now; None where it has others. Of
        another file than the one that was looked at its time says nothing."""
        found = size_and_time(path)
        if is_that_file and found == (self.size, self.mtime_ns):
            return self
        with suppress(OSError):
            if found is not None and found[0] == self.size and bytes.fromhex(digest(path)) == self.sha256:
                return replace(self, mtime_ns=found[1])
        return None

    def holds(self, path: Path, digest: Callable[[Path], str] = sha256_of) -> bool:
        """Whether the file that was looked at has these contents still."""
        return self.now(path, digest) is not None


Marked = tuple[tuple[str, Mark], ...]
"""Files by their names. Pairs, because there may be a hundred thousand lines with one each, and a dictionary of one
takes four times as much."""


@dataclass(frozen=True, slots=True)
class Done:
    """A line of the record: the outputs of one source, by name below the folder, and the files they were made of."""

    source: str
    key: str
    outputs: Marked
    sources: Marked

    @classmethod
    def read(cls, line: dict[str, Any], is_inside: Callable[[str], bool]) -> Self:
        """ValueError, KeyError, TypeError or AttributeError where it is none."""
        outputs = tuple((name, Mark.read(*mark)) for name, mark in line["outputs"].items() if is_inside(name))
        sources = tuple((name, Mark.read(*mark)) for name, mark in line["of"].items())
        return cls(str(line["source"]), sys.intern(line["key"]), outputs, sources)

    def to_json(self) -> dict[str, Any]:
        outputs, sources = ({name: mark.to_json() for name, mark in files} for files in (self.outputs, self.sources))
        return {
            "source": self.source, "key": self.key, "segcli": segcli.__version__, "outputs": outputs, "of": sources
        }  # fmt: skip

    def mark(self, output: str) -> Mark:
        """What identifies one of its outputs."""
        return next(mark for name, mark in self.outputs if name == output)

    def sources_now(
        self, source: object, files: Sequence[Path], digest: Callable[[Path], str], places: Places
    ) -> Marked | None:
        """The files it was made of as they are called and marked now; None unless they have these contents, in this
        order, and it was made of the same part of them."""
        if len(self.sources) != len(files) or not self._has_name_behind(source, files):
            return None
        found = [_now(known, path, digest, places) for known, path in zip(self.sources, files, strict=True)]
        return tuple(one for one in found if one is not None) if None not in found else None

    def outputs_now(self, folder: Path, digest: Callable[[Path], str]) -> Marked | None:
        """Its outputs as they are marked now; None where one is missing or was changed."""
        found = [(name, mark.now(folder / name, digest)) for name, mark in self.outputs]
        kept = tuple((name, mark) for name, mark in found if mark is not None)
        return kept if len(kept) == len(found) else None

    def other_than(
        self, source: object, files: Sequence[Path], digest: Callable[[Path], str], places: Places
    ) -> str | None:
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
            if _now(self.sources[0], files[0], digest, places):  # what lies beside it may be new
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


def link_of(path: Path, places: Places) -> str | None:
    """The file that a name leads to where it, or a folder in it, is a link: it may lead elsewhere tomorrow."""
    found = str(places.of(path))
    return None if found == absolute(path) else found


def _now(known: tuple[str, Mark], path: Path, digest: Callable[[Path], str], places: Places) -> tuple[str, Mark] | None:
    name, mark = known
    place, link = absolute(path), link_of(path, places)
    found = mark.now(path, digest, is_that_file=(name, mark.link) == (place, link))
    return None if found is None else (place, found if found.link == link else replace(found, link=link))


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
