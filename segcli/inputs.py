"""Inputs as they stand on the command line, to names: paths, patterns that the shell left alone, lists on stdin; and to
the rasters that folders among them hold."""

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import BinaryIO

from segcli.errors import NothingDoneError, UsageError
from segcli.files import Places, matching
from segcli.manifest import companions, made_of_each_other
from segcli.raster.names import SUFFIXES, Name, is_folder, parse, path_below, rasters_in, relative_name
from segcli.raster.zarrs import check_outside

STDIN = "-"
"""Stands for the names that come on standard input."""


def named(texts: Sequence[str], null: bool = False, stdin: BinaryIO | None = None) -> tuple[Name, ...]:
    """A name for each text, in order; `*`, `?`, `[...]` and `**` are matched where there is no file of that very name.
    A file that is named twice comes once.

    For `-` they are read from standard input, a line each, or with `null` as `find -print0` writes them; those are
    never patterns. Raises NothingDoneError where a pattern matches nothing.
    """
    if null and STDIN not in texts:
        raise UsageError("-0", "without -", "it says how names on standard input end", "give - as the input")
    found: list[Name] = []
    for text in texts:
        if text == STDIN:
            found.extend(_listed(stdin or sys.stdin.buffer, b"\0" if null else b"\n"))
        elif glob.has_magic(text) and isinstance(parse(text), Path) and not os.path.exists(text):  # noqa: PTH110
            found.extend(matching(text, "expected names of files, folders, or a pattern for them"))
        else:
            found.append(parse(text))
    return _once(found)


def _once(names: Sequence[Name]) -> tuple[Name, ...]:
    """Without files that were there before under another path. A link is a file of its own: so is its output."""
    folder = cache(os.path.realpath)
    places: dict[Name, Name] = {}
    for name in names:
        is_path = isinstance(name, Path) and name.name not in ("", "..")
        places.setdefault(Path(folder(Path(name).parent), Path(name).name) if is_path else name, name)
    return tuple(places.values())


def _listed(stream: BinaryIO, end: bytes) -> Iterator[Name]:
    names = [name for name in stream.read().split(end) if name.strip()]
    if end == b"\n":
        if any(b"\0" in name for name in names):
            raise UsageError("-", "names with NUL", "expected one a line", "-0 takes them as find -print0 writes them")
        names = [name.removesuffix(b"\r") for name in names]
    if not names:
        raise NothingDoneError("-", "no names came on standard input", "expected one a line")
    # As the system names files, whatever the bytes mean.
    yield from (parse(name.decode(sys.getfilesystemencoding(), "surrogateescape")) for name in names)


def find(inputs: Iterable[Name], out: Path | None, recursive: bool) -> dict[Name, Path]:
    """Each input with its path relative to the folder it was found in; nothing inside an output folder is one."""
    if out is not None:
        check_outside(out)
    inputs = list(inputs)
    where = Places()
    found: dict[Name, Path] = {}
    for path in inputs:
        if isinstance(path, Path) and is_folder(path):
            ours = out.resolve() if out is not None else None
            apart = ours is not None and not path.resolve().is_relative_to(ours)  # a link in it may lead to the outputs
            others = companions(path)
            for entry in rasters_in(path, recursive):
                if entry not in others and not (apart and ours is not None and where.of(entry).is_relative_to(ours)):
                    found.setdefault(entry, path_below(path, entry))
        else:
            found.setdefault(path, relative_name(path))
    if out is not None:  # what an earlier run of the same command made is none of its inputs
        for made in made_of_each_other(out, [path for path in found if isinstance(path, Path)]):
            del found[made]
    if not found:
        named = ", ".join(map(str, inputs))
        raise NothingDoneError(named, "no images", f"expected files ending in {', '.join(sorted(SUFFIXES))}")
    return found
