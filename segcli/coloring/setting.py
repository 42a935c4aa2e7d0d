"""What is the same for all masks of a run of colorize, and which other file belongs to each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain
from pathlib import Path
from threading import Lock

from segcli.ahead import Flag
from segcli.batch import Job
from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.evaluation.meaning import Meaning
from segcli.known_palettes import is_nameless
from segcli.matching import match, named
from segcli.options import ColorizeOptions
from segcli.raster.labels import table_beside
from segcli.raster.names import Name, is_one, path_below, rasters_in, relative_name
from segcli.raster.origins import origins
from segcli.raster.sidecars import overviews
from segcli.raster.sink import Encoding
from segcli.raster.values import are_black_and_white

LEGEND = ".legend.png"
"""How the file of a legend ends."""


@dataclass(frozen=True)
class Setting:
    """`masks` are all of the run; `given` is the palette that was asked for; `images` and `truths` are files by mask,
    several where nobody knows which; `meaning` is that of masks that are compared. `stop` ends what is being drawn."""

    options: ColorizeOptions
    masks: tuple[Name, ...]
    given: ClassTable | None
    images: Mapping[Name, Sequence[Path]]
    truths: Mapping[Name, Sequence[Path]]
    meaning: Meaning | None
    console: Console
    stop: Flag = field(default_factory=Flag)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False, compare=False)

    @property
    def encoding(self) -> Encoding:
        return Encoding(self.options.compress.upper(), self.options.format == "cog")

    @property
    def is_black_and_white(self) -> bool:
        """Whether masks that nothing says the meaning of are black and white: all of them, or none."""
        with self._lock:  # threads that draw ask at the same time
            return self._is_black_and_white

    @cached_property
    def _is_black_and_white(self) -> bool:
        found = are_black_and_white(self.masks)
        if found:
            self.console.say("masks of 0 and 255 alone: 255 is drawn as foreground")
        return found

    def sources_of(self, job: Job) -> tuple[Path, ...] | None:
        """The files of this machine that the picture of a mask is made of; None where nobody can tell."""
        others = [path for known in (self.images, self.truths) for path in known.get(job.source, ())]
        under = self.images.get(job.source, ())  # at the level that is as large as the mask
        known_of = [job.made_of, *map(origins, others), overviews(under)]
        masks = (job.source, *self.truths.get(job.source, ())) if self.given is None or is_nameless(self.given) else ()
        tables = {table for mask in masks if isinstance(mask, Path) and (table := self._table_beside(mask.parent))}
        found = (*chain(*(files or () for files in known_of)), *sorted(tables))
        return None if None in known_of else tuple(dict.fromkeys(found))  # the record has each once

    @cached_property
    def _table_beside(self) -> Callable[[Path], Path | None]:
        return cache(table_beside)  # masks by the thousand lie in one folder

    def image_of(self, job: Job) -> Path | None:
        """The image to draw over; InputError where one is missed."""
        return _partner(job, self.options.over, self.images, "image")

    def truth_of(self, job: Job) -> Path:
        """The true mask; InputError where there is none."""
        if not isinstance(job.source, Path):
            raise InputError(job.source, "not a file of this machine", "expected one to compare")
        found = _partner(job, self.options.compare, self.truths, "true mask")
        assert found is not None
        return found


def _partner(job: Job, place: Path | None, known: Mapping[Name, Sequence[Path]], kind: str) -> Path | None:
    if place is None:
        return None
    found = known.get(job.source, ())
    if not found:
        raise InputError(job.source, f"no {kind} of that name in {place}", "", "move it away, or give another folder")
    if len(found) > 1:
        raise InputError(job.source, f"several {kind}s of that name: {', '.join(map(str, found))}", "expected one")
    return found[0]


def partners(option: str, place: Path | None, jobs: Sequence[Job], folder: Path) -> dict[Name, Sequence[Path]]:
    """The files in `place` that belong to each mask, by name; or `place` itself, where there is one mask."""
    if place is None:
        return {}
    if is_one(place):
        if len(jobs) > 1:
            raise UsageError(option, f"{place} is one file for {len(jobs)} masks", "expected a folder")
        return {jobs[0].source: [place]}
    if not place.is_dir():
        raise UsageError(option, f"{place}: no such file or folder")
    # By the mask's own name: the output of a single one may have another.
    by_name: dict[str, list[Job]] = {}  # a.png and a.tif have one partner
    for job in jobs:
        name = job.output.relative_to(folder).parent / relative_name(job.source).stem
        by_name.setdefault(name.as_posix(), []).append(job)
    files = {paths[0]: paths for paths in named(rasters_in(place, recursive=True), place).values()}
    firsts = {path_below(place, first).with_suffix("").as_posix(): first for first in files}
    matched = match({name: alike[0].output for name, alike in by_name.items()}, firsts)
    by_output = {alike[0].output: alike for alike in by_name.values()}
    return {job.source: files[first] for _, output, first in matched.pairs for job in by_output[output]}


def shown_values(wanted: Sequence[str] | None, classes: ClassTable, path: Name) -> frozenset[int] | None:
    """The indices of `--classes`, which are values or names; None for all. InputError where a mask has none of it."""
    if wanted is None:
        return None
    by_name = {entry.name: entry.index for entry in classes.entries}
    known = set(by_name.values())
    found = [by_name.get(text, int(text) if text.isdecimal() else -1) for text in wanted]
    odd = [text for text, value in zip(wanted, found, strict=True) if value not in known]
    if odd:
        listed = ", ".join(f"{entry.index} {entry.name}" for entry in classes.entries[:12])
        raise InputError(path, f"has no class {', '.join(odd)}", f"expected of {listed}", "see --classes")
    return frozenset(found)
