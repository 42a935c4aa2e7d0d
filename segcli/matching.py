"""Which file belongs to which: by name without ending, also where one side adds a word or writes accents otherwise."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from segcli.errors import UsageError, some
from segcli.raster.names import SUFFIXES, path_below, rasters_in

_WORDS = r"masks?|gt|labels?|labelids|groundtruth|truth|annotations?|seg|pred|manual\d*"
_ADDED = re.compile(rf"[-_. ]({_WORDS})$", re.IGNORECASE)
"""What data sets put behind a name to tell an image's labels from it."""

_OME = re.compile(r"(?<=[^/])\.ome$", re.IGNORECASE)
"""Of an ending in two parts."""


@dataclass(frozen=True)
class Matched:
    """Pairs, in the order of their names, and what is left without a partner on either side."""

    pairs: tuple[tuple[str, Path, Path], ...]
    left: tuple[Path, ...]
    right: tuple[Path, ...]


def match(left: Mapping[str, Path], right: Mapping[str, Path]) -> Matched:
    """Files by name (a relative path without ending): equal names first, then those that only write accents otherwise
    (macOS, as letters of their own), then those that only end in .ome, then names equal but for an added word."""
    pairs = {name: (left[name], right[name]) for name in left.keys() & right.keys()}
    for form in (_composed, _without_ome, _bare):
        taken = {path for pair in pairs.values() for path in pair}
        rest_left, rest_right = _by_form(left, taken, form), _by_form(right, taken, form)
        for name in rest_left.keys() & rest_right.keys():
            one, other = rest_left[name], rest_right[name]
            if len(one) == len(other) == 1:  # else nobody knows which
                # a.png may have its partner, and a_mask.png another
                pairs[name if name not in pairs else one[0]] = left[one[0]], right[other[0]]
    taken = {path for pair in pairs.values() for path in pair}
    return Matched(
        tuple((name, *pairs[name]) for name in sorted(pairs)),
        tuple(path for _, path in sorted(left.items()) if path not in taken),
        tuple(path for _, path in sorted(right.items()) if path not in taken),
    )


def match_folders(
    left: Path,
    right: Path,
    recursive: bool = False,
    more: frozenset[str] = frozenset(),
    without: frozenset[Path] = frozenset(),
) -> tuple[tuple[str, Path, Path], ...]:
    """The rasters in two folders, paired by name; none where no name is in both. `more` are endings on the right,
    `without` files that are passed over.

    Raises UsageError where some of them have no partner, or two of them one name.
    """
    matched = matched_folders(left, right, recursive, more, without)
    alone = [*matched.left, *matched.right]
    if matched.pairs and alone:
        sides = [(right, matched.left), (left, matched.right)]
        listed = "; ".join(f"{place} has none for {some(files)}" for place, files in sides if files)
        raise UsageError(left, f"files without a partner: {listed}", "", "move them away, or list pairs in a CSV file")
    return matched.pairs


def matched_folders(
    left: Path,
    right: Path,
    recursive: bool = False,
    more: frozenset[str] = frozenset(),
    without: frozenset[Path] = frozenset(),
) -> Matched:
    """The same where some may have no partner. UsageError where two of one side have one name."""
    return match(one_each(left, recursive, SUFFIXES, without), one_each(right, recursive, SUFFIXES | more, without))


def one_each(
    folder: Path, recursive: bool, suffixes: frozenset[str], without: frozenset[Path] = frozenset()
) -> dict[str, Path]:
    """The files below a folder by name. UsageError where two have one."""
    found = named((path for path in rasters_in(folder, recursive, suffixes) if path not in without), folder)
    for name, paths in found.items():
        if len(paths) > 1:
            raise UsageError(folder, f"{len(paths)} files of the name {name}", "expected one file a name")
    return {name: path for name, (path,) in found.items()}


def named(files: Iterable[Path], folder: Path) -> dict[str, list[Path]]:
    """Files below `folder` by relative path without ending; several where only their endings differ."""
    found: dict[str, list[Path]] = {}
    for path in sorted(files):
        found.setdefault(path_below(folder, path).with_suffix("").as_posix(), []).append(path)
    return found


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _without_ome(name: str) -> str:
    return _OME.sub("", _composed(name))


def _bare(name: str) -> str:
    return _ADDED.sub("", _without_ome(name))


def _by_form(files: Mapping[str, Path], taken: Collection[Path], form: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, path in files.items():
        if path not in taken:
            found.setdefault(form(name), []).append(name)
    return found
