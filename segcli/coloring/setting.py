"""What is the same for all masks of a run of colorize, and which other file belongs to each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segcli.batch import Job
from segcli.classes import ClassTable
from segcli.console import Console
from segcli.errors import InputError, UsageError
from segcli.evaluation.meaning import Meaning
from segcli.matching import match, named
from segcli.options import ColorizeOptions
from segcli.raster.names import Name, rasters_in
from segcli.raster.sink import Encoding

LEGEND = ".legend.png"
"""How the file of a legend ends."""


@dataclass(frozen=True)
class Setting:
    """`given` is the palette that was asked for; `images` and `truths` are files by mask; `meaning` is that of masks
    that are compared."""

    options: ColorizeOptions
    encoding: Encoding
    given: ClassTable | None
    images: Mapping[Name, Path]
    truths: Mapping[Name, Path]
    meaning: Meaning | None
    console: Console

    def sources_of(self, job: Job) -> tuple[Path, ...]:
        """The files of this machine that the picture of a mask is made of."""
        others = [known[job.source] for known in (self.images, self.truths) if job.source in known]
        return *(job.made_of or ()), *others

    def image_of(self, job: Job) -> Path | None:
        """The image to draw over; InputError where one is missed."""
        return _partner(job, self.options.over, self.images, "image")

    def truth_of(self, job: Job) -> Path:
        """The true mask; InputError where there is none."""
        found = _partner(job, self.options.compare, self.truths, "true mask")
        assert found is not None
        return found


def _partner(job: Job, place: Path | None, known: Mapping[Name, Path], kind: str) -> Path | None:
    if place is None:
        return None
    if job.source not in known:
        raise InputError(job.source, f"no {kind} of that name in {place}", "", "move it away, or give another folder")
    return known[job.source]


def partners(option: str, place: Path | None, jobs: Sequence[Job], folder: Path) -> dict[Name, Path]:
    """The file in `place` that belongs to each mask, by name; or `place` itself, where there is one mask."""
    if place is None:
        return {}
    if place.is_file():
        if len(jobs) > 1:
            raise UsageError(option, f"{place} is one file for {len(jobs)} masks", "expected a folder")
        return {jobs[0].source: place}
    if not place.is_dir():
        raise UsageError(option, f"{place}: no such file or folder")
    outputs = {job.output.relative_to(folder).with_suffix("").as_posix(): job for job in jobs}
    files = {name: paths[0] for name, paths in named(rasters_in(place, recursive=True), place).items()
             if len(paths) == 1}  # fmt: skip
    matched = match({name: job.output for name, job in outputs.items()}, files)
    by_output = {job.output: job.source for job in jobs}
    return {by_output[output]: path for _, output, path in matched.pairs}


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
