"""`segcli.jsonl` in the output folder: what was made, of what and how, so that a second run does only what is missing
or stale, and touches nothing that segcli did not write.

A line for each source that is done, one for each that failed, for people, and one for each run that had other options.
What is made of a source waits in a folder of its own until all of it is whole; then comes its line, and only then its
files get their names. So a file that is not as a line says is none of segcli's, wherever a run was killed; and what
still waits is a leftover. Runs that share the work of one folder (shards) write a record each, `segcli.2-of-8.jsonl`,
and read all of them.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import segcli
from segcli.errors import BusyError, InputError, NothingDoneError, some
from segcli.files import Digests, Places, destination, is_below, is_stage, lock, name_held, sha256_of, stage_of
from segcli.keys import LATER, NONE, Contents, key_of
from segcli.made import Done, Mark, absolute, link_of
from segcli.shard import Shard

MANIFEST = "segcli.jsonl"


class Manifest:
    """The record of an output folder at `path`, for a run with this `key`, which goes on in `file`; `others` are only
    read. `common` is open for all runs that write there. What stands behind the key is `stated`."""

    def __init__(
        self, path: Path, key: str, file: BinaryIO, others: Sequence[Path] = (), common: BinaryIO | None = None,
        stated: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.path, self.folder, self._key, self._file, self._common = path, path.parent, key, file, common or file
        self._done: dict[str, list[Done]] = {}  # by the name of the first output
        self._beside: dict[str, list[Done]] = {}  # by the name of any other output
        self._places = Places()
        self._stated = stated
        self._runs: dict[str, Mapping[str, Any]] = {}  # what stood behind the keys of earlier ones
        self._renewed: list[Done] = []  # of the same contents, which have other times or lie elsewhere
        self.keys: set[str] = set()
        for other in others:
            with suppress(OSError), other.open("rb") as lines:
                self._read(lines)
        self.keys = set()  # of this record alone
        file.seek(0)
        last = self._read(file)
        self._torn = not last.endswith(b"\n")  # by a kill; what is added must not be appended to it

    def _read(self, lines: Iterable[bytes]) -> bytes:
        """Take all lines of a record, and give the last."""
        line = b"\n"
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # that file counts as not written
        return line

    def _take(self, record: dict[str, Any]) -> None:
        if "run" in record:
            self.keys.add(record["key"])
            self._runs[record["key"]] = record["run"]
        elif "failed" not in record:
            done = Done.read(record, is_below)
            for number, (name, _) in enumerate(done.outputs):
                (self._beside if number else self._done).setdefault(name, []).append(done)

    def why(
        self, source: object, output: Path, sources: Sequence[Path], digest: Callable[[Path], str] | None = None
    ) -> str | None:
        """Why `output` is to be made, in a few words; None if all that was made of `source` is there, of these files as
        they are now, with these options. Files count by their contents, wherever they lie; what has none by its name.
        """
        found = self._done.get(self._name(output), [])
        digest = digest or Digests()  # there may be a line for each night, and the file be large
        states = []  # newest first, whose times are the likeliest
        for done in reversed(found):
            now = done.sources_now(source, sources, digest, self._places) if done.key == self._key else None
            if now is None:
                continue
            if (outputs := done.outputs_now(self.folder, digest)) is not None:
                if (outputs, now) != (done.outputs, done.sources):  # or all would be read again tomorrow
                    self._renewed.append(replace(done, outputs=outputs, sources=now))
                return None
            states.append(self._of_outputs(done, digest))
        if states:
            return states[0]
        same = [done for done in found if done.source == str(source)]
        is_stale = any(done.key == self._key for done in same)
        return "source changed" if is_stale else self._of_options(same[-1]) if same else "new"

    def _of_outputs(self, done: Done, digest: Callable[[Path], str]) -> str:
        """What is wrong with the files that were made, of which one at least is missing or changed."""
        # Path's raise where a folder is closed.
        missing = [name for name, _ in done.outputs if not os.path.exists(self.folder / name)]  # noqa: PTH110
        changed = [name for name, mark in done.outputs if not mark.holds(self.folder / name, digest)]
        first = done.outputs[0][0]
        name = [*missing, *changed, first][0]
        return f"{'output' if name == first else name} {'missing' if missing else 'changed'}"

    def _of_options(self, done: Done) -> str:
        """What is other than when it was made, as far as the record tells."""
        before, now = self._runs.get(done.key), self._stated
        with suppress(KeyError, TypeError, AttributeError):  # a line that somebody else wrote
            if before is not None and now is not None and before["verb"] == now["verb"]:
                then, wanted = ({**LATER, **run["options"]} for run in (before, now))
                names = [f"--{name.replace('_', '-')}" for name in wanted if then.get(name) != wanted[name]]
                if list(before["files"].values()) != list(now["files"].values()):
                    names.append("weights" if now["verb"] == "predict" else "palette")
                if names:
                    return f"{', '.join(names)} changed"
        return "options or weights changed"

    def companions(self) -> frozenset[Path]:
        """Outputs beside those that name them, as they were written: what was changed since is the user's own."""
        known = {name: self.folder / name for name in self._beside}
        return frozenset(path for name, path in known.items() if any(d.mark(name).holds(path) for d in self._of(name)))

    def is_made_of(self, output: Path, sources: Collection[str]) -> bool:
        """Whether `output` is as it was made of one of these."""
        known = self._done.get(self._name(output), ())
        return any(done.source in sources and done.outputs[0][1].holds(output) for done in known)

    def guard(self, output: Path, digest: Callable[[Path], str] = sha256_of) -> None:
        """InputError where `output` exists and is not as segcli wrote it."""
        name = self._name(output)
        if not os.path.lexists(output):  # a link that leads nowhere is somebody's, too
            return
        if not any(done.mark(name).holds(output, digest) for done in self._of(name)):
            found = "exists, and is not as segcli wrote it" if self._of(name) else "exists, and segcli did not write it"
            raise InputError(output, found, "", "choose another --out or give --overwrite")

    def guard_another(
        self, source: object, output: Path, sources: Sequence[Path], digest: Callable[[Path], str] = sha256_of
    ) -> None:
        """InputError where `output` is as it was made of another source than this one, and that is still there: two
        folders may have files of one name. What was moved or copied is no other, nor one that has changed."""
        name, other = self._name(output), None
        for done in self._of(name):
            if done.mark(name).holds(output, digest):
                known = done.other_than(source, sources, digest, self._places)
                if known is None:
                    return
                other = other or known
        if other is not None:
            raise InputError(output, f"was made of {other}", f"not of {source}", "choose another --out or give "
                             "--overwrite")  # fmt: skip

    def _of(self, name: str) -> list[Done]:
        """What is known of an output, newest first."""
        return [*self._done.get(name, ()), *self._beside.get(name, ())][::-1]

    @contextmanager
    def alone_with(self, outputs: Sequence[Path]) -> Iterator[None]:
        """Keep other runs from these files while the block lasts. BusyError where one writes any of them."""
        with ExitStack() as names:
            for output in outputs:
                names.enter_context(name_held(self._common, self._name(output), output))
            yield

    def stage_of(self, output: Path) -> Path:
        """The folder in which what belongs to an output waits."""
        return stage_of(self.folder, self._name(output))

    @contextmanager
    def stage(self, output: Path) -> Iterator[Path]:
        """That folder, empty, while the block lasts, in which nobody else may write this output. NothingDoneError where
        there can be none."""
        place = self.stage_of(output)
        try:
            if os.path.lexists(place):  # by a kill
                shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        except OSError as error:
            raise NothingDoneError(self.folder, f"cannot be written to: {error.strerror}", "", "make room or give "
                                   "permission, or choose another --out") from error  # fmt: skip
        try:
            yield place
        finally:
            try:
                place.rmdir()  # which it is most often fit for
            except OSError:
                shutil.rmtree(place, ignore_errors=True)

    def fail(self, source: object, output: Path, reason: str) -> None:
        """Record what could not be done, and why."""
        self._write({"failed": self._name(output), "source": str(source), "reason": reason}, to_disk=False)

    def add(
        self, source: object, outputs: Sequence[Path], sources: Sequence[Path], check: Callable[[], None] = lambda: None
    ) -> str:
        """Record what is made of a source, before it gets its names; the output that names it comes first. `check` is
        called when all files have been looked at, and raises where the sources are not any more what was read. Not kept
        here: no job comes twice. Gives the names of what is left of an earlier version, if anything."""
        made = tuple((self._name(destination(path)), Mark.of(path)) for path in outputs)
        try:
            of = tuple((absolute(path), Mark.of(path, link_of(path, self._places))) for path in sources)
        except OSError:  # it is gone
            check()
            raise
        check()
        left = self._left_beside(outputs) if outputs else ""
        self._write(Done(str(source), self._key, made, of).to_json(), to_disk=True)
        return left

    def _left_beside(self, outputs: Sequence[Path]) -> str:
        """What was made beside an earlier version of the output that names these, is there as it was made, and is not
        made again, the first three by name: it does not belong to what waits here."""
        first, *others = [self._name(destination(path)) for path in outputs]
        digest, known, left = Digests(), set(others), []  # there may be a line for each night, and the file be large
        for done in reversed(self._done.get(first, ())):  # newest first
            for name, mark in done.outputs[1:]:
                if name not in known and mark.holds(self.folder / name, digest):
                    known.add(name)
                    if not done.mark(first).holds(outputs[0], digest):
                        left.append(str(self.folder / name))
        return some(left, 3)

    def renew(self) -> None:
        """Record what was found to be the same though its time, or where it lies, is another."""
        for done in self._renewed:
            self._write(done.to_json(), to_disk=False)

    def remove_leftovers(self) -> None:
        """Remove what runs that were killed have left waiting."""
        for left in [entry for entry in self.folder.iterdir() if is_stage(entry.name)]:
            with suppress(BusyError), self.alone_with([left]):  # else in work
                shutil.rmtree(left, ignore_errors=True)

    def _write(self, record: dict[str, Any], to_disk: bool) -> None:
        try:
            self._file.write(b"\n" * self._torn + json.dumps(record).encode() + b"\n")
            self._file.flush()
            if to_disk:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise NothingDoneError(self.path, f"cannot be written: {error.strerror}", "", "make room") from error
        self._torn = False

    def _name(self, output: Path) -> str:
        return output.relative_to(self.folder).as_posix()


def records(folder: Path) -> list[Path]:
    """The records of an output folder."""
    return sorted(path for path in folder.glob("segcli*.jsonl") if path.is_file())


def companions(folder: Path) -> frozenset[Path]:
    """What segcli wrote there beside its masks, such as overlays and scores: none of them is a mask."""
    found = records(folder)
    return Manifest(folder / MANIFEST, "", BytesIO(), found).companions() if found else frozenset()


def made_of_each_other(folder: Path, files: Collection[Path]) -> frozenset[Path]:
    """Those of some files that segcli made in `folder` of others of them, and that are as it wrote them."""
    inside, names = [path for path in files if path.is_relative_to(folder)], set(map(str, files))
    if not inside or not (found := records(folder)):
        return frozenset()
    record = Manifest(folder / MANIFEST, "", BytesIO(), found)
    return frozenset(path for path in inside if record.is_made_of(path, names))


def seen(folder: Path, verb: str, options: Any, files: Contents = NONE) -> Manifest:
    """What is known of an output folder, to look at; nothing is created, locked or removed."""
    key, stated = key_of(verb, options, files)
    return Manifest(folder / MANIFEST, key, BytesIO(), records(folder), stated=stated)


@contextmanager
def opened(
    folder: Path,
    verb: str,
    options: Any,
    files: Contents = NONE,
    alone: bool = True,
    shard: Shard | None = None,
) -> Iterator[Manifest]:
    """The manifest of an output folder, created where there is none; with `alone`, no other run may have it open, or
    with a `shard`, none but its fellows.

    What killed runs have left unfinished in the folder is removed. Raises BusyError, NothingDoneError.
    """
    key, stated = key_of(verb, options, files)
    path = folder / MANIFEST
    with ExitStack() as open_files:
        common = file = open_files.enter_context(_open(path))
        if alone:
            lock(file, folder, fcntl.LOCK_EX if shard is None else fcntl.LOCK_SH)
        if shard is not None:
            path = folder / f"segcli.{shard}.jsonl"
            for other in records(folder):  # of runs that share the work in another way
                if other != folder / MANIFEST and not other.name.endswith(f"-of-{shard.count}.jsonl"):
                    with _open(other) as theirs:  # its own run holds it alone; fellows look at the same time
                        lock(theirs, folder, fcntl.LOCK_SH)
            file = open_files.enter_context(_open(path))
            lock(file, folder, fcntl.LOCK_EX)
        others = [other for other in records(folder) if other != path]
        manifest = Manifest(path, key, file, others, common, stated)
        if alone and shard is None:
            manifest.remove_leftovers()
        if key not in manifest.keys:
            manifest._write({"run": stated, "key": key, "segcli": segcli.__version__}, to_disk=False)
        try:
            yield manifest
        finally:
            with suppress(NothingDoneError):  # where there is no room for it the error that is on its way says so
                manifest.renew()


def _open(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+b")
    except OSError as error:
        raise NothingDoneError(path, f"cannot be opened: {error.strerror}", "", "give permission, or choose another "
                               "--out") from error  # fmt: skip
