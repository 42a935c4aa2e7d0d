"""The account of a run on its way, from which the next one goes on; at its end tiles.json takes its place."""

import fcntl
import json
import os
import re
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from segcli.classes import ClassTable
from segcli.errors import BusyError, InputError, UsageError
from segcli.files import PART, Places, lock, replacing
from segcli.raster.faults import faults_of_writing
from segcli.raster.names import Name
from segcli.raster.sidecars import AUX, OTHERS
from segcli.shard import Shard
from segcli.tiling.journal import JOURNAL, journals, lines_of, read_journal
from segcli.tiling.manifest import (
    MANIFEST,
    Manifest,
    Record,
    Scene,
    accounts,
    plain,
    read,
    take_over,
)
from segcli.tiling.marks import unchanged

BESIDE = (AUX, *OTHERS)
"""How the names of files end that say something of the one they lie beside."""


class Ledger:
    """A folder of tiles while they are written: what is there already, and what comes, each line before its files get
    their names. So what lies in the folder and is not in the account is none of segcli's. A shard has an account of its
    own, and reads those of the others."""

    def __init__(
        self, folder: Path, options: dict[str, Any], classes: ClassTable | None, shard: Shard | None = None,
        inputs: frozenset[Path] = frozenset(),
    ) -> None:  # fmt: skip
        self.folder = folder
        self._inputs = inputs  # links followed
        self._parts: dict[Path, list[str]] = {}
        self._beside: set[Path] = set()
        self._shard = shard
        self.account = folder / (MANIFEST if shard is None else f"tiles.{shard}.json")
        self._mine = folder / f".tiles.{shard}.lock"
        self._journal = folder / (JOURNAL if shard is None else f"tiles.{shard}.unfinished.jsonl")
        self.known = Manifest(options, classes)
        self._lock = threading.Lock()
        self._file: Any = None
        self._held: int | None = None
        self._held_shard: int | None = None
        self._made = not folder.exists()
        self._seen = self._state()
        self._others: dict[Path, Manifest] = {}
        self._others = self._read_others()
        found = self._read(self._journal) or self._read(self.account)
        for run in (*self._others.values(), found):
            if run is not None:
                take_over(self.known, run)
        self._found = found
        # The rasters that this account is to tell of.
        self._ours = set(self.known.scenes if shard is None else found.scenes if found is not None else ())

    def check(self) -> None:
        """UsageError where the folder holds tiles of other options."""
        if words := self.other_options():
            raise UsageError(self.folder, f"holds tiles of other options: {words}", "",
                             "choose another --out, or --overwrite to start over")  # fmt: skip

    def other_options(self, is_begun: bool = True) -> str:
        """Which option another run had, by this account and those of others; nothing where none had."""
        ours = json.loads(json.dumps(self.known.head()))
        runs = (run for run in (self._found, *self._others.values()) if run is not None)
        heads = [run.head() for run in runs if run.scenes or not is_begun]
        for theirs in json.loads(json.dumps(heads)):
            if ours["classes"] != theirs["classes"]:
                return "another class table"
            for name, one in ours["options"].items():
                if one != (other := theirs["options"].get(name, one)):  # which an older version did not know
                    return f"{name} {other}, now {one}"
        return ""

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def hold(self) -> None:
        """Keep other runs out of the folder, which is made where there is none, until `rest`. BusyError where one is at
        work, or was since this account was read."""
        with faults_of_writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            folder = os.open(self.folder, os.O_RDONLY)
        self._held = self._locked(folder, fcntl.LOCK_EX if self._shard is None else fcntl.LOCK_SH)
        if self._shard is not None:
            self._hold_shard(self._shard)
        if self._state() != self._seen:
            raise BusyError(self.folder, "another run of segcli wrote there just now", "", "run again")
        if self._shard is not None:
            self._check_fellows()

    def _hold_shard(self, shard: Shard) -> None:
        """BusyError where the same part is at work, or parts of another number."""
        for path in self.folder.glob(".tiles.*-of-*.lock"):
            if not path.name.endswith(f"-of-{shard.count}.lock"):
                with suppress(FileNotFoundError), path.open() as other:
                    lock(other.fileno(), self.folder, fcntl.LOCK_SH)
        with faults_of_writing(self._mine):
            mine = os.open(self._mine, os.O_RDWR | os.O_CREAT, 0o666)
        self._held_shard = self._locked(mine, fcntl.LOCK_EX)

    def _check_fellows(self) -> None:
        """UsageError where another shard that began meanwhile has other options: say ours, then look at theirs."""
        self._begin_journal()
        self._others |= self._read_others()
        if words := self.other_options(is_begun=False):
            self._file.close()
            self._file = None
            if not self._ours:
                self._journal.unlink(missing_ok=True)
            raise UsageError(self.folder, f"holds tiles of other options: {words}", "", "choose another --out")

    def _elsewhere(self) -> list[Path]:
        """What other runs tell of the folder."""
        own = (self.account, self._journal)
        return [path for path in (*accounts(self.folder), *journals(self.folder)) if path not in own]

    def _read_others(self) -> dict[Path, Manifest]:
        """Of these what was not read before."""
        read = {path: self._read(path) for path in self._elsewhere() if path not in self._others}
        return {path: other for path, other in read.items() if other is not None}

    def _locked(self, file: int, kind: int) -> int:
        try:
            lock(file, self.folder, kind)
        except BusyError:
            os.close(file)
            raise
        return file

    def _state(self) -> list[tuple[Path, int, int]]:
        """What tells whether the accounts in the folder are still those that were read."""
        files = [self._journal, self.account, *([] if self._shard is not None else self._elsewhere())]
        return [(path, path.stat().st_ino, path.stat().st_size) for path in files if path.exists()]

    def keep_inputs(self) -> None:
        """UsageError where a tile that may be removed is read."""
        for scene in self.known.scenes.values():
            name = self._input_among(name for record in scene.records.values() for name in record.files)
            if name is not None:
                raise UsageError(self.folder / name, "is an input, and would be removed", "", "choose another --out")

    def remove(self, name: str) -> None:
        """Remove and forget the tiles of a raster; those of all, where they are of other options. Of files that segcli
        does not know that it wrote none goes."""
        is_other = bool(self.other_options())
        for gone in list(self.known.scenes) if is_other else {name} & self.known.scenes.keys():
            for record in self.known.scenes.pop(gone).records.values():
                for file in record.files if self.is_whole(record) else ():
                    self._unlink(self.folder / file)
            self._ours.discard(gone)
        if is_other:
            for path in (self.account, self._journal, *self._elsewhere()):
                self._unlink(path)
            self._found, self._others = None, {}

    def _unlink(self, path: Path) -> None:
        with faults_of_writing(path, self.folder):
            path.unlink(missing_ok=True)

    def begin(self, scene: Scene) -> Scene:
        """The raster with the tiles of it that are there and whole."""
        known = self.known.scenes.get(scene.name)
        if known is not None:
            whole = {place: record for place, record in known.records.items() if self.is_whole(record)}
            known.is_done = known.is_done and len(whole) == len(known.records)
            known.records = whole
        with self._lock:  # the raster before this one may still be on its way
            if known is None:
                self.known.scenes[scene.name] = scene
            if scene.name not in self._ours:
                self._ours.add(scene.name)
                if known is None or self._file is not None:  # else it comes with the first line that is written
                    for line in lines_of(self.known.scenes[scene.name]):
                        self._append(line)
        return self.known.scenes[scene.name]

    def check_source(self, scene: Scene, names: Sequence[Name]) -> None:
        """InputError where the raster, or its labels, are others than those of the tiles that are there."""
        known = self.known.scenes.get(scene.name)
        if known is None:
            return
        if not unchanged(known, names, self.folder):
            now, before = ([one.file, *(one.mask or ())[:1]] for one in (scene, known))
            found = f"was changed since its tiles in {self.folder} were written"
            if now != before:
                found = f"the tiles of that name in {self.folder} were cut from {' and '.join(before)} there"
            raise InputError(names[0], found, "", "choose another --out, or --overwrite to start over")
        known.file, known.changed, known.mask = scene.file, scene.changed, scene.mask

    def is_whole(self, record: Record) -> bool:
        """Whether its files are there as they were written."""
        sizes = zip(record.files, record.bytes, strict=True)
        return all((self.folder / name).is_file() and (self.folder / name).stat().st_size == size
                   for name, size in sizes)  # fmt: skip

    def guard(self, scene: str, names: Iterable[str]) -> None:
        """InputError where a file of one of these names is there and segcli did not write it as it is: names come when
        files are whole, so that a file of another size was changed by somebody."""
        there = self.known.scenes.get(scene)
        records = there.records.values() if there is not None else ()
        known = {name: size for record in records for name, size in zip(record.files, record.bytes, strict=True)}
        for name in names:
            path = self.folder / name
            # A link that leads nowhere is somebody's, too.
            if os.path.lexists(path) and not (path.exists() and path.stat().st_size == known.get(name)):
                found = "was changed since segcli wrote it" if name in known else "exists, and segcli did not write it"
                raise InputError(path, found, "", "choose another --out or give --overwrite")

    def spare(self, names: Iterable[str]) -> None:
        """InputError where a tile would be written over what is read, whatever --overwrite says."""
        name = self._input_among(names)
        if name is not None:
            raise InputError(self.folder / name, "is an input, and would be overwritten", "", "choose another --out")

    def _input_among(self, names: Iterable[str]) -> str | None:
        places = Places()  # folders below may be links to where inputs lie
        return next((name for name in names if places.of(self.folder / name) in self._inputs), None)

    def sweep(self, folder: Path, names: str, coming: Iterable[Path]) -> None:
        """Remove what killed runs have left of tiles of these names, a pattern, and what lies beside the names of those
        that are to come, and would be taken for theirs. A folder is looked through once: there may be tens of thousands
        of rasters, each with its tiles."""
        if folder not in self._parts:
            found = [path.name for path in folder.iterdir()]
            self._parts[folder] = [name for name in found if PART in name]
            self._beside |= {folder / name for name in found if name.endswith(BESIDE)}
        for name in self._parts[folder]:
            if re.fullmatch(rf"\.+{names}{re.escape(PART)}.*", name):
                (folder / name).unlink(missing_ok=True)
        for path in self._beside and {Path(f"{tile}{ending}") for tile in coming for ending in BESIDE} & self._beside:
            path.unlink(missing_ok=True)
            self._beside.discard(path)

    def add(self, scene: Scene, record: Record) -> None:
        """Before the tile's files get their names; by any thread."""
        with self._lock:
            scene.records[record.row, record.col] = record
            self._append({"of": scene.name, "tile": plain(record)})

    def finish(self, scene: Scene) -> None:
        """All tiles of the raster are there."""
        if scene.is_done:
            return
        scene.is_done = True
        with self._lock:
            self._append({"done": scene.name})

    def rest(self) -> None:
        """Let go of the account, as it is, and of the folder."""
        if self._file is not None:
            with suppress(OSError):  # of a full disk, which has been told of when the line was written
                self._file.close()
            self._file = None
        if self._held is None:
            return
        if self._shard is None:  # nobody else is at work
            for left in self.folder.glob(".tiles.*-of-*.lock"):
                left.unlink(missing_ok=True)
        if self._held_shard is not None:
            self._mine.unlink(missing_ok=True)
            os.close(self._held_shard)
            self._held_shard = None
        if self._made:
            with suppress(OSError):  # not empty
                self.folder.rmdir()
        os.close(self._held)
        self._held = None

    def close(self) -> None:
        """Write tiles.json, with all rasters that are done; the account goes when all are."""
        left = [self._journal, *([] if self._shard is not None else self._elsewhere())]  # by runs that were stopped
        if self._file is not None or (self.is_held and any(path.exists() for path in left)):
            self._write()
        self.rest()

    def _write(self) -> None:
        path, ours = self.account, {name: self.known.scenes[name] for name in self.known.scenes if name in self._ours}
        if any(scene.is_done for scene in ours.values()):
            with replacing(path, faults_of_writing) as part, faults_of_writing(path):
                part.write_text(json.dumps(replace(self.known, scenes=ours).to_json(), indent=1) + "\n", "utf-8")
        if all(scene.is_done for scene in ours.values()):
            # One run alone tells of all that shards told of.
            for done in (self._journal, *([] if self._shard is not None else self._elsewhere())):
                done.unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        if self._file is None:
            self._begin_journal()
        with faults_of_writing(self._journal):
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _begin_journal(self) -> None:
        with faults_of_writing(self._journal):
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._journal) as part:  # a torn line of a killed run goes with this
                part.write_text("".join(json.dumps(one) + "\n" for one in self._lines()), encoding="utf-8")
            self._file = self._journal.open("a", encoding="utf-8")

    def _lines(self) -> Iterable[dict[str, Any]]:
        yield self.known.head()
        for scene in self.known.scenes.values():
            if scene.name in self._ours:
                yield from lines_of(scene)

    def _read(self, path: Path) -> Manifest | None:
        if path.suffix != ".jsonl":
            return read(path) if path.exists() else None
        return read_journal(path)
