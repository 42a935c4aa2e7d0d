"""From what stands on the command line to jobs, and from jobs to a count and an exit code. One for all verbs."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import segcli
from segcli.ahead import ahead
from segcli.console import Console
from segcli.errors import InputError, NothingDoneError, SegcliError, UsageError
from segcli.files import sha256_of
from segcli.raster.names import SUFFIXES, Name, is_folder, rasters_in, relative_name

MANIFEST = "segcli.jsonl"
OVERLAYS = "overlays"
"""The folder, inside the output folder, that takes blended pictures."""


Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """One input and where its output goes."""

    source: Name
    output: Path


@dataclass
class Report:
    """Counts, and the exit code that they come to."""

    done: int = 0
    failed: int = 0

    @property
    def exit_code(self) -> int:
        return 1 if self.failed else 0

    def __str__(self) -> str:
        return f"done {self.done}  failed {self.failed}"


def plan(
    inputs: Iterable[Name],
    out: Path,
    output_suffix: Callable[[Name], str],
    recursive: bool,
    beside: Mapping[str, str | None] = MappingProxyType({}),
) -> tuple[Path, list[Job]]:
    """The output folder and a job for each input, in order.

    A folder gives the rasters in it, and an output keeps its path below that folder; nothing inside an output folder
    below it is an input. `out` is a file name where there is one input, a file, and it has a suffix. `beside` names
    folders in the output folder where each job writes another file of that name, and its ending there.
    Raises UsageError where two files would have one name or an input be overwritten, NothingDoneError without inputs.
    """
    inputs = list(inputs)
    if len(inputs) == 1 and not is_folder(inputs[0]) and out.suffix and not out.is_dir():
        if out.suffix.lower() != output_suffix(inputs[0]):
            raise UsageError(out, "wrong ending", f"the output for {inputs[0]} ends in {output_suffix(inputs[0])}")
        return out.parent, _without_clashes([Job(inputs[0], out)], out.parent, beside)
    found = find(inputs, out, recursive)
    jobs = [Job(source, out / relative.with_suffix(output_suffix(source))) for source, relative in found.items()]
    return out, _without_clashes(jobs, out, beside)


def find(inputs: Iterable[Name], out: Path | None, recursive: bool) -> dict[Name, Path]:
    """Each input with its path relative to the folder it was found in; nothing inside an output folder is one."""
    inputs = list(inputs)
    found: dict[Name, Path] = {}
    for path in inputs:
        if isinstance(path, Path) and is_folder(path):
            ours = out.resolve() if out is not None else None
            nested = ours is not None and path.resolve() in ours.parents
            for entry in rasters_in(path, recursive):
                if not (nested and ours is not None and entry.resolve().is_relative_to(ours)):
                    found.setdefault(entry, entry.relative_to(path))
        else:
            found.setdefault(path, relative_name(path))
    if not found:
        named = ", ".join(map(str, inputs))
        raise NothingDoneError(named, "no images", f"expected files ending in {', '.join(sorted(SUFFIXES))}")
    return found


def output_beside(folder: Path, job: Job, name: str, ending: str | None) -> Path:
    """The file of a job in the folder `name` of the output folder; with the mask's ending where none is given."""
    path = folder / name / job.output.relative_to(folder)
    return path.with_suffix(ending) if ending else path


def _without_clashes(jobs: list[Job], folder: Path, beside: Mapping[str, str | None]) -> list[Job]:
    """The jobs, if no two files that they write have one name and none is an input; else UsageError."""
    sources = {job.source.resolve() for job in jobs if isinstance(job.source, Path)}
    written: dict[Path, Name] = {}
    for job in jobs:
        outputs = [job.output, *(output_beside(folder, job, name, ending) for name, ending in beside.items())]
        for output in outputs:
            if output in written:
                raise UsageError(
                    job.source, f"would write {output}, as {written[output]} does", "", "rename one, or run them apart"
                )
            if output.resolve() in sources:
                raise UsageError(output, "is an input, and would be overwritten", "", "choose another --out")
            written[output] = job.source
    return jobs


def run(
    jobs: list[Job],
    prepare: Callable[[Job], Item],
    alike: Callable[[Item], tuple[Hashable, int]],
    work: Callable[[list[tuple[Job, Item]]], None],
    finish: Callable[[Job, Item], None],
    console: Console,
    debug: bool = False,
) -> Report:
    """Do all jobs: `prepare` each, ahead in a thread, `work` on groups of them, and `finish` each.

    `alike` says what jobs must have in common to be worked on together, and how many at most; a group is a run of
    neighbours. One job that fails is named and the others go on. What NothingDoneError says ends the run.
    """
    report = Report()

    def fail(job: Job, error: Exception) -> None:
        if isinstance(error, NothingDoneError | BrokenPipeError) or (debug and not isinstance(error, SegcliError)):
            raise error
        if not isinstance(error, SegcliError):  # one file must not take the night's run with it
            error = InputError(job.source, f"{type(error).__name__}: {error}", "", "run with --debug to see where")
        report.failed += 1
        console.fail(error)

    def attempt(group: list[tuple[Job, Item]]) -> None:
        try:
            work(group)
        except Exception as error:
            if len(group) == 1 or isinstance(error, NothingDoneError):
                fail(group[0][0], error)
            else:  # one of them is to blame; the others are not
                for one in group:
                    attempt([one])
            return
        for job, item in group:
            try:
                finish(job, item)
            except Exception as error:
                fail(job, error)
            else:
                report.done += 1

    waiting: list[tuple[Job, Item]] = []
    with closing(ahead(_prepared(jobs, prepare))) as prepared:
        for job, item in prepared:
            if isinstance(item, Exception):
                fail(job, item)
                continue
            if waiting and (alike(item) != alike(waiting[0][1]) or len(waiting) >= alike(item)[1]):
                attempt(waiting)
                waiting = []
            waiting.append((job, item))
        if waiting:
            attempt(waiting)
    return report


def _prepared(jobs: list[Job], prepare: Callable[[Job], Item]) -> Iterator[tuple[Job, Item | Exception]]:
    for job in jobs:
        try:
            yield job, prepare(job)
        except Exception as error:
            yield job, error


class Manifest:
    """`segcli.jsonl` in the output folder: one line for each finished file, so that segcli knows what it wrote."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MANIFEST
        self._folder = folder
        self._written: dict[str, str] = {}
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else [b""]
        except OSError as error:
            raise NothingDoneError(self.path, f"cannot be read: {error.strerror}", "", "give permission") from error
        self._torn = lines[-1] != b""  # by a kill; what is added must not be appended to it
        for line in lines:
            try:
                record = json.loads(line)
                self._written[record["output"]] = record["sha256"]
            except (ValueError, KeyError, TypeError):
                continue  # that file counts as not written

    def guard(self, output: Path, overwrite: bool) -> None:
        """InputError where `output` exists and is not as segcli wrote it, unless `overwrite`."""
        if overwrite or not output.exists():
            return
        if self._written.get(self._name(output)) != sha256_of(output):
            raise InputError(
                output, "exists, and segcli did not write it", "", "choose another --out or give --overwrite"
            )

    def add(self, source: Name, output: Path) -> None:
        """Record a finished file."""
        name, digest = self._name(output), sha256_of(output)
        record = {"output": name, "sha256": digest, "source": str(source), "segcli": segcli.__version__}
        self._written[name] = digest
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._torn + json.dumps(record) + "\n")
        self._torn = False

    def _name(self, output: Path) -> str:
        return output.relative_to(self._folder).as_posix()
