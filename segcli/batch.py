"""From what stands on the command line to jobs, and from jobs to a count and an exit code. One for all verbs."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

from segcli.ahead import Flag, ahead, shared
from segcli.console import Console, Progress
from segcli.counts import Report
from segcli.errors import BusyError, InputError, NothingDoneError, SegcliError, UsageError
from segcli.files import Digests, Places, Watched
from segcli.inputs import find
from segcli.manifest import Manifest
from segcli.options import OnError
from segcli.raster.faults import check_open
from segcli.raster.names import Name, is_file_name, is_folder
from segcli.raster.origins import origins
from segcli.raster.sidecars import placed
from segcli.raster.zarrs import check_outside
from segcli.shard import Shard

OVERLAYS = "overlays"
"""The folder, inside the output folder, that takes blended pictures."""


class Beside(NamedTuple):
    """Another file of each job: its folder inside the output folder, its ending if that is not the one of the output,
    and the ending of those outputs that have it, where not all do."""

    folder: str = ""
    ending: str | None = None
    of: str | None = None


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Job:
    """One input and where its output goes; other files that it may write, and what all are made of: files of this
    machine, none for what is known by its name alone, None where nobody can tell what they are, or there are none."""

    source: Name
    output: Path
    beside: tuple[Path, ...] = ()
    made_of: tuple[Path, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return self.output, *self.beside

    def moved(self, folder: Path, to: Path) -> "Job":
        """With its files at the same places below another folder."""
        output, *beside = (to / path.relative_to(folder) for path in self.files)
        return replace(self, output=output, beside=tuple(beside))


@dataclass(frozen=True)
class Steps(Generic[Item]):
    """What a verb does with its jobs: `prepare` each, ahead in a thread; `work` on groups of them; `finish` each, which
    gives the files that were written. Both are given jobs whose files lie where they wait until all are whole. `alike`
    says what jobs must have in common to be worked on together, and how many at most; a group is a run of neighbours.
    `stopping` tells `prepare`, where it takes long, that nothing more is to be prepared."""

    prepare: Callable[[Job], Item]
    alike: Callable[[Item], tuple[Hashable, int]]
    work: Callable[[list[tuple[Job, Item]]], None]
    finish: Callable[[Job, Item], Sequence[Path]]
    stopping: Flag = field(default_factory=Flag)


def plan(
    inputs: Iterable[Name], out: Path, output_suffix: Callable[[Name], str], recursive: bool,
    beside: Sequence[Beside] = (),
) -> tuple[Path, list[Job]]:  # fmt: skip
    """The output folder and a job for each input, in order.

    A folder gives the rasters in it, and an output keeps its path below that folder; nothing inside an output folder
    below it is an input. `out` is a file name where there is one input, a file, and it has the ending of one. `beside`
    are the other files that each job writes.
    Raises UsageError where two files would have one name or an input be overwritten, NothingDoneError without inputs.
    """
    if len(inputs := list(inputs)) == 1 and not is_folder(inputs[0]) and is_file_name(out):
        check_outside(out)
        if out.suffix.lower() != output_suffix(inputs[0]):
            can_be = f", or give --format {out.suffix[1:]}" if out.suffix in (".png", ".tif") else ""
            raise UsageError(out, "wrong ending", f"the output for {inputs[0]} ends in {output_suffix(inputs[0])}",
                             f"name it so{can_be}")  # fmt: skip
        return out.parent, _without_clashes({inputs[0]: out}, out.parent, beside)
    if out.is_file() or is_file_name(out):
        raise UsageError(out, "a file", "expected a folder for the outputs", "a file name is for one input")
    found = find(inputs, out, recursive)
    places = {source: out / relative.with_suffix(output_suffix(source)) for source, relative in found.items()}
    return out, _without_clashes(places, out, beside)


def of_shard(jobs: Sequence[Job], folder: Path, shard: Shard | None) -> list[Job]:
    """Those jobs that are this run's part."""
    return [job for job in jobs if shard is None or shard.holds(_stem(job.output.relative_to(folder)))]


def _stem(path: Path) -> str:
    return path.with_suffix("").as_posix()


def output_beside(folder: Path, output: Path, beside: Beside) -> Path:
    """Another file of a job."""
    path = folder / beside.folder / output.relative_to(folder)
    return path.with_suffix(beside.ending) if beside.ending else path


def _without_clashes(places: Mapping[Name, Path], folder: Path, beside: Sequence[Beside]) -> list[Job]:
    """A job for each source, if no two files that they write have one name and none is an input; else UsageError."""
    jobs = []
    written: dict[Path, Name] = {}
    for source, place in places.items():
        others = (other for other in beside if other.of in (None, place.suffix))
        job = Job(source, place, tuple(output_beside(folder, place, other) for other in others), origins(source))
        for output in job.files:
            if output in written:
                raise UsageError(
                    source, f"would write {output}, as {written[output]} does", "", "rename one, or run them apart"
                )
            written[output] = source
        jobs.append(job)
    sources = (source for source in places if isinstance(source, Path))
    spare(jobs, chain(sources, *(job.made_of or () for job in jobs)))
    return jobs


def spare(jobs: Sequence[Job], used: Iterable[Path]) -> None:
    """UsageError where a job would write what is read, whatever --overwrite says."""
    where = Places()
    taken = {where.of(path) for path in used}
    for output in (output for job in jobs for output in job.files):
        if where.of(output) in taken:
            raise UsageError(output, "is an input, and would be overwritten", "", "choose another --out")


def run(
    jobs: Sequence[Job],
    steps: Steps[Item],
    console: Console,
    manifest: Manifest | None = None,
    overwrite: bool = False,
    debug: bool = False,
    on_error: OnError = "skip",
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Do all jobs, but those that are up to date by the manifest, which keeps account of the others. One that fails is
    named and the others go on, unless `on_error` is to stop; what NothingDoneError says ends the run. `workers` threads
    prepare what comes next, and `progress` is told which are not to come."""
    waited = progress or Progress(len(jobs))
    work = _Run(steps, console, manifest, debug, on_error, Report(len(jobs)), waited, dict.fromkeys(jobs))
    steps.stopping.is_set = False
    try:
        made = shared(lambda job: _prepared(job, steps, console, manifest, overwrite), jobs, workers, depth=1)
        with closing(made), closing(ahead(made, stopping=steps.stopping.set)) as prepared:
            work.all(prepared)
    except NothingDoneError:
        work.report.ended = work.report.left - len(work.left)
        with suppress(NothingDoneError):  # of stdout that takes no more
            work.tell_left()
        work.report.tell(console)  # the error says why there is no more
        raise
    except _Stop:
        work.tell_left()
    return work.report


@dataclass(frozen=True)
class _Run(Generic[Item]):
    """What is counted and told while jobs are done; `left` are those of which nothing was told yet."""

    steps: Steps[Item]
    console: Console
    manifest: Manifest | None
    debug: bool
    on_error: OnError
    report: Report
    progress: Progress
    left: dict[Job, None]

    def all(self, prepared: "Iterable[tuple[Job, Ready[Item] | Exception | None]]") -> None:
        """In groups of neighbours that are alike."""
        waiting: list[Ready[Item]] = []
        for job, ready in prepared:
            if ready is None:
                self.report.up_to_date += 1
                self.progress.leave_out()
                self._record(job, "up to date", outputs=[str(job.output)])
                continue
            if isinstance(ready, Exception):
                self.attempt(waiting)  # what came before it is done before it is told
                waiting = []
                self.fail(job, ready)
                continue
            kind, most = self.steps.alike(ready.item)
            if waiting and (kind != self.steps.alike(waiting[0].item)[0] or len(waiting) >= most):
                self.attempt(waiting)
                waiting = []
            waiting.append(ready)
        self.attempt(waiting)

    def attempt(self, group: "list[Ready[Item]]") -> None:
        """Work on those of a group whose files no other run writes just now."""
        with ExitStack() as held:
            free = []
            for ready in group:
                try:
                    if self.manifest is not None:
                        files = (*ready.job.files, self.manifest.stage_of(ready.job.output))
                        held.enter_context(self.manifest.alone_with(files))
                except BusyError as error:
                    self.fail(ready.job, error)
                    continue
                free.append(ready)
            self.work(free)

    def work(self, group: "list[Ready[Item]]") -> None:
        """Work on a group, and finish each of it; where the group fails, on each alone."""
        if not group:
            return
        began = monotonic()
        alone: list[Ready[Item]] = []
        with ExitStack() as stages:
            try:
                waiting = [stages.enter_context(self.staged(ready.job)) for ready in group]
                self.steps.work([(job, ready.item) for job, ready in zip(waiting, group, strict=True)])
            except Exception as error:
                if len(group) == 1 or isinstance(error, NothingDoneError):
                    self.fail(group[0].job, error)
                    return
                alone = group  # one of them is to blame; the others are not
            else:
                for job, ready in zip(waiting, group, strict=True):
                    self.finish(ready, job, began, len(group))
        for one in alone:  # not above, where the error still keeps what it came from
            self.work([one])

    @contextmanager
    def staged(self, job: Job) -> Iterator[Job]:
        """The job with its files where they wait until all are whole; what is left there in the end goes."""
        if self.manifest is None:
            yield job
            return
        with self.manifest.stage(job.output) as stage:
            for folder in {path.parent for path in job.files}:
                check_open(folder)
            yield job.moved(self.manifest.folder, stage)

    def finish(self, ready: "Ready[Item]", waiting: Job, began: float, together: int) -> None:
        """Finish one of a group: its files get their names when all are whole, and recorded, and none before."""
        try:
            written = self.steps.finish(waiting, ready.item)
            if self.manifest is None:
                ready.sources.check()
            else:
                if left := self.manifest.add(ready.job.source, written, ready.sources.paths, ready.sources.check):
                    self.console.say(f"{left}: of an earlier {ready.job.output.name}; remove or make it again")
                written = placed(written, self.manifest.folder)
        except Exception as error:
            self.fail(ready.job, error)
            return
        self.report.done += 1
        self.left.pop(ready.job, None)
        self.console.detail(f"{ready.job.source}: {(seconds := (monotonic() - began) / together):.2f} s")
        if written:
            self.console.result(written[0])
        self._record(ready.job, "done", outputs=[*map(str, written or [ready.job.output])], seconds=round(seconds, 3))

    def fail(self, job: Job, error: Exception) -> None:
        """Name a job that failed; raises what ends the run."""
        if isinstance(error, NothingDoneError):  # the end of the run says it to people
            self._record(job, "failed", reason=str(error))
            if self.manifest is not None:
                with suppress(NothingDoneError):  # it may be for lack of room
                    self.manifest.fail(job.source, job.output, error.reason)
            raise error
        if isinstance(error, BrokenPipeError) or (self.debug and not isinstance(error, SegcliError)):
            raise error
        if not isinstance(error, SegcliError):  # one file must not take the night's run with it
            error = InputError(job.source, f"{type(error).__name__}: {error}", "", "run with --debug to see where")
        self.report.failures.append(str(error))
        self.report.busy += isinstance(error, BusyError)
        self.progress.leave_out()
        self.console.fail(error)
        self._record(job, "failed", reason=str(error))
        if self.manifest is not None and not isinstance(error, BusyError):  # it is the other's to tell
            self.manifest.fail(job.source, job.output, error.reason)
        if self.on_error == "stop":
            raise _Stop

    def tell_left(self) -> None:
        """Of the jobs that the end of the run left, one by one."""
        for job in list(self.left):
            self._record(job, "left")

    def _record(self, job: Job, status: str, **more: object) -> None:
        self.left.pop(job, None)
        self.console.record({"source": str(job.source), "status": status, **more})


class _Stop(Exception):
    """The end of a run that is to stop at the first failure."""


@dataclass(frozen=True)
class Ready(Generic[Item]):
    """A job that is prepared, and its sources as they were before."""

    job: Job
    item: Item
    sources: Watched


def due(job: Job, manifest: Manifest, overwrite: bool) -> str | None:
    """Why a job is to be done; None if it is up to date. InputError where it would replace what segcli did not make of
    its source."""
    if overwrite:
        return "--overwrite"
    digest = Digests()  # large files are read once
    why = "new" if job.made_of is None else manifest.why(job.source, job.output, job.made_of, digest)
    if why is None:
        return None
    for output in job.files:
        manifest.guard(output, digest)
        manifest.guard_another(job.source, output, job.made_of or (), digest)
    return why


def _prepared(
    job: Job, steps: Steps[Item], console: Console, manifest: Manifest | None, overwrite: bool
) -> tuple[Job, Ready[Item] | Exception | None]:
    """A job that is ready to be worked on, or what is wrong with it; None if it is up to date."""
    try:
        if manifest is not None:
            if (why := due(job, manifest, overwrite)) is None:
                return job, None
            console.detail(f"{job.source}: {why}")
        sources = Watched(job.made_of or ())
        return job, Ready(job, steps.prepare(job), sources)
    except Exception as error:
        return job, error
