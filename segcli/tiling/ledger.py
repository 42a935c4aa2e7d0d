"""The account of a run on its way, from which the next one goes on; at its end tiles.json takes its place."""

import fcntl
import json
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from segcli.classes import ClassTable
from segcli.errors import BusyError, InputError, NothingDoneError, UsageError
from segcli.files import lock, replacing
from segcli.raster.sink import faults_of_writing
from segcli.tiling.manifest import (
    MANIFEST,
    Manifest,
    Record,
    Scene,
    manifest_from,
    plain,
    read,
    record_from,
    scene_from,
)

JOURNAL = "tiles.unfinished.jsonl"
"""One line for the options, for each raster and for each tile, as they come; gone when tiles.json is there."""


class Ledger:
    """A folder of tiles while they are written: what is there already, and what comes, each line before its files get
    their names. So what lies in the folder and is not in the account is none of segcli's."""

    def __init__(self, folder: Path, options: dict[str, Any], classes: ClassTable | None) -> None:
        self.folder = folder
        self.known = Manifest(options, classes)
        self._lock = threading.Lock()
        self._file: Any = None
        self._held: int | None = None
        self._made = not folder.exists()
        self._seen = self._state()
        found = self._found()
        if found is not None:
            self.known.scenes = found.scenes
        self.found = found

    def check(self) -> None:
        """UsageError where the folder holds tiles of other options."""
        if self.found is None:
            return
        ours, theirs = json.loads(json.dumps(self.known.head())), json.loads(json.dumps(self.found.head()))
        chosen = [*ours["options"], "classes"]
        for name in chosen:
            one, other = (
                head["options"].get(name) if name != "classes" else head["classes"] for head in (ours, theirs)
            )
            if one != other:
                shown = f"{name} {other}, now {one}" if name != "classes" else "another class table"
                raise UsageError(self.folder, f"holds tiles of other options: {shown}", "",
                                 "choose another --out, or --overwrite to start over")  # fmt: skip

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def hold(self) -> None:
        """Keep other runs out of the folder, which is made where there is none, until `rest`. BusyError where one is at
        work, or was since this account was read."""
        with faults_of_writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held = os.open(self.folder, os.O_RDONLY)
        lock(self._held, self.folder, fcntl.LOCK_EX)
        if self._state() != self._seen:
            raise BusyError(self.folder, "another run of segcli wrote there just now", "", "run again")

    def _state(self) -> list[tuple[int, int] | None]:
        """What tells whether the accounts in the folder are still those that were read."""
        files = [self.folder / name for name in (JOURNAL, MANIFEST)]
        return [(path.stat().st_ino, path.stat().st_size) if path.exists() else None for path in files]

    def start_over(self) -> None:
        """Remove the tiles that segcli knows it wrote; of other files none."""
        for scene in self.known.scenes.values():
            for record in scene.records.values():
                for name in record.files if self.is_whole(record) else ():
                    (self.folder / name).unlink(missing_ok=True)
        for name in (MANIFEST, JOURNAL):
            (self.folder / name).unlink(missing_ok=True)
        self.known.scenes = {}
        self.found = None

    def begin(self, scene: Scene) -> Scene:
        """The raster with the tiles of it that are there and whole. InputError where it was another then."""
        known = self.known.scenes.get(scene.name)
        if known is not None:
            if (known.changed, known.mask) != (scene.changed, scene.mask):
                raise InputError(scene.file, f"was changed since its tiles in {self.folder} were written", "",
                                 "choose another --out, or --overwrite to start over")  # fmt: skip
            whole = {place: record for place, record in known.records.items() if self.is_whole(record)}
            known.is_done = known.is_done and len(whole) == len(known.records)
            known.records = whole
            return known
        with self._lock:  # the raster before this one may still be on its way
            self.known.scenes[scene.name] = scene
            self._append({"source": scene.facts()})
        return scene

    def is_whole(self, record: Record) -> bool:
        """Whether its files are there as they were written."""
        sizes = zip(record.files, record.bytes, strict=True)
        return all((self.folder / name).is_file() and (self.folder / name).stat().st_size == size
                   for name, size in sizes)  # fmt: skip

    def guard(self, scene: Scene, names: Iterable[str], overwrite: bool) -> None:
        """InputError where a file of one of these names is there and segcli did not write it."""
        known = {name for record in scene.records.values() for name in record.files}
        for name in names:
            if not overwrite and name not in known and (self.folder / name).exists():
                raise InputError(self.folder / name, "exists, and segcli did not write it", "",
                                 "choose another --out or give --overwrite")  # fmt: skip

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
            self._file.close()
            self._file = None
        if self._held is not None:
            if self._made:
                with suppress(OSError):  # not empty
                    self.folder.rmdir()
            os.close(self._held)
            self._held = None

    def close(self) -> None:
        """Write tiles.json, with all rasters that are done; the account goes when all are."""
        if self._file is not None:
            self._write()
        self.rest()

    def _write(self) -> None:
        path = self.folder / MANIFEST
        if any(scene.is_done for scene in self.known.scenes.values()):
            with replacing(path, faults_of_writing) as part, faults_of_writing(path):
                part.write_text(json.dumps(self.known.to_json(), indent=1) + "\n", encoding="utf-8")
        if all(scene.is_done for scene in self.known.scenes.values()):
            (self.folder / JOURNAL).unlink(missing_ok=True)

    def _append(self, line: dict[str, Any]) -> None:
        path = self.folder / JOURNAL
        with faults_of_writing(path):
            if self._file is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with replacing(path) as part:  # a torn line of a killed run goes with this
                    part.write_text("".join(json.dumps(one) + "\n" for one in self._lines()), encoding="utf-8")
                self._file = path.open("a", encoding="utf-8")
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def _lines(self) -> Iterable[dict[str, Any]]:
        yield self.known.head()
        for scene in self.known.scenes.values():
            yield {"source": scene.facts()}
            for record in scene.records.values():
                yield {"of": scene.name, "tile": plain(record)}
            if scene.is_done:
                yield {"done": scene.name}

    def _found(self) -> Manifest | None:
        journal, path = self.folder / JOURNAL, self.folder / MANIFEST
        if not journal.exists():
            return read(path) if path.exists() else None
        try:
            return _from_journal(journal.read_text(encoding="utf-8"))
        except OSError as error:
            raise NothingDoneError(journal, f"cannot be read: {error.strerror}", "", "give permission") from error
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise UsageError(
                journal, f"no account of tiles: {error}", "", "remove it, or choose another --out"
            ) from error


def _from_journal(text: str) -> Manifest | None:
    lines = text.split("\n")[:-1]  # the last one is empty, or torn by a kill
    if not lines:
        return None
    found = manifest_from({**json.loads(lines[0]), "sources": []})
    for line in map(json.loads, lines[1:]):
        if "source" in line:
            scene = scene_from({**line["source"], "tiles": [], "left_out": []})
            found.scenes[scene.name] = scene
        elif "tile" in line:
            record = record_from(line["tile"])
            found.scenes[line["of"]].records[record.row, record.col] = record
        else:
            found.scenes[line["done"]].is_done = True
    return found
