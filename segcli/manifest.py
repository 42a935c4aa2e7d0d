"""`segcli.jsonl` in the output folder: what was made, of what and how, so that a second run does only what is missing
or stale, and touches nothing that segcli did not write.

A line before a file is begun, a line when it is done, and one for each run that had other options. What a killed run
has left half done is known by its first line. Runs that share the work of one folder (shards) write a record each,
`segcli.2-of-8.jsonl`, and read all of them.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from functools import cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import segcli
from segcli.errors import BusyError, InputError, NothingDoneError
from segcli.files import lock, name_held, remove_parts, sha256_of
from segcli.made import Begun, Done, Mark, absolute
from segcli.shard import Shard

MANIFEST = "segcli.jsonl"

IDLE = frozenset({
    "inputs", "out", "recursive", "overwrite", "jobs", "memory_bytes", "device", "dry_run", "verify", "on_error",
    "shard", "quiet", "debug", "weights",
})  # fmt: skip
"""Options that change nothing in an output; weights count by what is in the file."""


def key_of(verb: str, options: Any, files: Sequence[Path] = ()) -> tuple[str, dict[str, Any]]:
    """What tells runs apart whose outputs may differ, and what stands behind it: the options that matter, as text, and
    the contents of files that serve all inputs, such as weights."""
    wanted = {name: str(value) for name, value in asdict(options).items() if name not in IDLE}
    contents = {str(path): sha256_of(path) for path in files}
    stated = {"verb": verb, "options": wanted, "files": contents}
    # A file counts by what is in it, not by where it lies.
    counted = {**stated, "files": sorted(contents.values())}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:16], stated


class Manifest:
    """The record of an output folder at `path`, for a run with this `key`, which goes on in `file`; `others` are only
    read. `common` is open for all runs that write there."""

    def __init__(
        self, path: Path, key: str, file: BinaryIO, others: Sequence[Path] = (), common: BinaryIO | None = None
    ) -> None:
        self.path, self._folder, self._key, self._file, self._common = path, path.parent, key, file, common or file
        self._done: dict[str, list[Done]] = {}  # by the name of the first output
        self._beside: dict[str, list[Done]] = {}  # by the name of any other output
        self._begun: dict[str, list[Begun]] = {}  # what earlier runs did not finish, by the name of the first output
        self._at_work: dict[str, Begun] = {}  # and what this one has not finished yet
        self._left: set[tuple[str, int]] = set()  # what was begun and came to nothing, by name and time
        self.keys: set[str] = set()
        for other in others:
            with suppress(OSError), other.open("rb") as lines:
                self._read(lines)
        self.keys = set()  # of this record alone
        file.seek(0)
        last = self._read(file)
        self._torn = not last.endswith(b"\n")  # by a kill; what is added must not be appended to it
        for first, known in self._begun.items():  # in whichever order records are read
            known[:] = [begun for begun in known if begun.at is None or (first, begun.at) not in self._left]

    def _read(self, lines: Iterable[bytes]) -> bytes:
        """Take all lines of a record, and give the last."""
        line, begun = b"\n", dict[str, list[Begun]]()
        for line in lines:
            try:
                self._take(json.loads(line), begun)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # that file counts as not written
        for first, known in begun.items():
            self._begun.setdefault(first, []).extend(known)
        return line

    def _take(self, record: dict[str, Any], begun: dict[str, list[Begun]]) -> None:
        """Take a line; `begun` is what its record has begun by then and not finished."""
        if "run" in record:
            self.keys.add(record["key"])
        elif "begun" in record:
            names = list(filter(_is_inside, record["begun"]))
            found = Begun.read(names, record.get("there", {}), record.get("at"))
            begun.setdefault(record["begun"][0], []).append(found)
        elif "failed" in record and "at" in record:
            self._left.add((record["failed"], record["at"]))
        elif "failed" in record:  # before it was begun, or by an older version
            first = record["failed"]
            begun[first] = [known for known in begun.get(first, ()) if known.at is not None]
        else:
            outputs = tuple((name, Mark.read(*mark)) for name, mark in record["outputs"].items() if _is_inside(name))
            sources = tuple((name, Mark.read(*mark)) for name, mark in record["of"].items())
            self._finish(Done(record["source"], sys.intern(record["key"]), outputs, sources))
            begun.pop(next(iter(record["outputs"]), ""), None)

    def _finish(self, done: Done) -> None:
        if not done.outputs:
            return
        self._done.setdefault(done.outputs[0][0], []).append(done)
        for name, _ in done.outputs[1:]:
            self._beside.setdefault(name, []).append(done)

    def why(
        self, source: object, output: Path, sources: Sequence[Path], digest: Callable[[Path], str] | None = None
    ) -> str | None:
        """Why `output` is to be made, in a few words; None if all that was made of `source` is there, of these files as
        they are now, with these options. Files count by their contents, wherever they lie; what has none by its name.
        """
        found = self._done.get(self._name(output), [])
        digest = digest or cache(sha256_of)  # there may be a line for each night, and the file be large
        known = [done for done in found if done.key == self._key and done.is_of(source, sources, digest)]
        if not known:
            same = [done for done in found if done.source == str(source)]
            is_stale = any(done.key == self._key for done in same)
            return "source changed" if is_stale else "options or weights changed" if same else "new"
        if any(all(mark.holds(self._folder / name) for name, mark in done.outputs) for done in known):
            return None
        return (
            "output changed"
            if all((self._folder / name).exists() for name, _ in known[-1].outputs)
            else "output missing"
        )

    def companions(self) -> frozenset[Path]:
        """Outputs beside those that name them, as they were written: what was changed since is the user's own."""
        known = {name: self._folder / name for name in self._beside}
        return frozenset(path for name, path in known.items() if any(d.mark(name).holds(path) for d in self._of(name)))

    def is_made_of(self, output: Path, sources: Collection[str]) -> bool:
        """Whether `output` is as it was made of one of these."""
        known = self._done.get(self._name(output), ())
        return any(done.source in sources and done.outputs[0][1].holds(output) for done in known)

    def guard(self, output: Path, digest: Callable[[Path], str] = sha256_of) -> None:
        """InputError where `output` exists and is not as segcli wrote it."""
        name = self._name(output)
        if not os.path.exists(output) or self._may_be_left(name):  # noqa: PTH110  # Path's raises for names too long
            return
        if not any(done.mark(name).holds(output, digest) for done in self._of(name)):
            raise InputError(
                output, "exists, and segcli did not write it", "", "choose another --out or give --overwrite"
            )

    def guard_another(
        self, source: object, output: Path, sources: Sequence[Path], digest: Callable[[Path], str] = sha256_of
    ) -> None:
        """InputError where `output` is as it was made of another source than this one, and that is still there: two
        folders may have files of one name. What was moved or copied is no other, nor one that has changed."""
        name, other = self._name(output), None
        for done in self._of(name):
            if done.mark(name).holds(output, digest):
                known = done.other_than(source, sources, digest)
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

    def _may_be_left(self, name: str) -> bool:
        """Whether a killed run may have put an output into place and not said so; not if it was made again since."""
        made = max((done.mark(name).mtime_ns for done in self._of(name)), default=0)
        return any(
            name in begun.names and begun.may_have_placed(name, self._folder) and (begun.at is None or begun.at > made)
            for known in self._begun.values() for begun in known
        )  # fmt: skip

    def begin(self, outputs: Sequence[Path]) -> None:
        """Say that these files are about to be written, so that they are known if this run is killed."""
        names = [self._name(output) for output in outputs]
        self._at_work[names[0]] = begun = Begun.now(names, self._folder)
        self._write(begun.to_json(), to_disk=False)

    def fail(self, source: object, output: Path, reason: str) -> None:
        """Record what could not be done, and why."""
        begun = self._at_work.pop(self._name(output), None)
        when = {} if begun is None else {"at": begun.at}
        self._write({"failed": self._name(output), "source": str(source), "reason": reason, **when}, to_disk=False)

    def add(self, source: object, outputs: Sequence[Path], sources: Sequence[Path]) -> None:
        """Record what was made of a source; the output that names it comes first. Not kept here: no job comes twice."""
        self._at_work.pop(self._name(outputs[0]), None)
        self._write({
            "source": str(source), "key": self._key, "segcli": segcli.__version__,
            "outputs": {self._name(path): Mark.of(path).to_json() for path in outputs},
            "of": {absolute(path): Mark.of(path).to_json() for path in sources},
        }, to_disk=True)  # fmt: skip

    def settle(self) -> None:
        """Say of what this run has begun and neither finished nor touched that it was left: what is there is not of it,
        whoever changes it from now on."""
        for first, begun in self._at_work.items():
            if not begun.has_part(self._folder):  # which the next run is to find
                self._leave(first, begun)

    def _leave(self, first: str, begun: Begun) -> bool:
        """Say so of one, if nothing of it came into place."""
        if any(begun.may_have_placed(name, self._folder) for name in begun.names):
            return False
        if begun.at is not None:
            self._write({"failed": first, "reason": "interrupted", "at": begun.at}, to_disk=False)
        return True

    def remove_leftovers(self) -> None:
        """Remove what runs that were killed have left of files that they had begun, and settle what came of these."""
        for first, known in self._begun.items():
            names = list(dict.fromkeys(name for begun in known for name in begun.names))
            with suppress(BusyError), self.alone_with([self._folder / name for name in names]):  # else in work
                known[:] = [begun for begun in known if not self._leave(first, begun)]  # before what tells so is gone
                for name in names:
                    place = (self._folder / name).parent
                    if place.is_dir():
                        for part in {Path(name).name, Path(name).stem}:  # drivers of vectors look at the ending
                            remove_parts(place, part)

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
        return output.relative_to(self._folder).as_posix()


def _is_inside(name: str) -> bool:
    """Whether a name from a record stays in the folder: it may have come from elsewhere."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def records(folder: Path) -> list[Path]:
    """The records of an output folder."""
    return sorted(folder.glob("segcli*.jsonl"))


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


def seen(folder: Path, verb: str, options: Any, files: Sequence[Path] = ()) -> Manifest:
    """What is known of an output folder, to look at; nothing is created, locked or removed."""
    return Manifest(folder / MANIFEST, key_of(verb, options, files)[0], BytesIO(), records(folder))


@contextmanager
def opened(
    folder: Path, verb: str, options: Any, files: Sequence[Path] = (), alone: bool = True, shard: Shard | None = None
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
        manifest = Manifest(path, key, file, [other for other in records(folder) if other != path], common)
        if alone and shard is None:
            manifest.remove_leftovers()
        if key not in manifest.keys:
            manifest._write({"run": stated, "key": key, "segcli": segcli.__version__}, to_disk=False)
        try:
            yield manifest
        finally:
            with suppress(NothingDoneError):  # where there is no room for it the error that is on its way says so
                manifest.settle()


def _open(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+b")
    except OSError as error:
        raise NothingDoneError(path, f"cannot be opened: {error.strerror}", "", "give permission, or choose another "
                               "--out") from error  # fmt: skip
