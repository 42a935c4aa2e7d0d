"""tiles.json: which tiles a folder holds, of which rasters, and where they lie there; and the account of a run on its
way, from which the next one goes on. Every name in it is one below its own folder.
"""

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import segcli
from segcli.classes import ClassTable
from segcli.errors import InputError, NothingDoneError, UsageError
from segcli.files import replacing
from segcli.raster.grid import Grid
from segcli.raster.sink import faults_of_writing
from segcli.raster.stored import Stored, place_from_json, place_to_json
from segcli.tiling.layout import Tiling, count, tiling

FORMAT = 1
MANIFEST = "tiles.json"
JOURNAL = "tiles.unfinished.jsonl"
"""One line for the options, for each raster and for each tile, as they come; gone when tiles.json is there."""

IMAGES, MASKS, CLASSES = "images", "masks", "classes.json"
Place = tuple[int, int]


@dataclass(frozen=True)
class Record:
    """One tile: its offsets in the raster and its size in pixels, the share of it that is data, pixels by label, and
    what became of it: its `name` and its `mask`, below the folder, and their `bytes`; or `why` it is left out."""

    row: int
    col: int
    height: int
    width: int
    split: str = ""
    valid: float | None = None
    pixels: Mapping[str, int] | None = None
    name: str | None = None
    mask: str | None = None
    bytes: tuple[int, ...] = ()
    why: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(name for name in (self.name, self.mask) if name is not None)


@dataclass
class Scene:
    """One raster and its tiles by their offsets. `file` and `changed` (bytes, time in ns) are to recognise it by."""

    name: str
    file: str
    changed: tuple[int, int]
    grid: Grid
    stored: Stored
    mask: tuple[str, int, int] | None = None
    is_done: bool = False
    records: dict[Place, Record] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name, "file": self.file, "changed": list(self.changed), **place_to_json(self.grid),
            "stored": self.stored.to_json(), "mask": list(self.mask) if self.mask is not None else None,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        records = [_plain(self.records[place]) for place in sorted(self.records)]
        return self.facts() | {
            "tiles": [record for record in records if record.get("name")],
            "left_out": [record for record in records if not record.get("name")],
        }


@dataclass
class Manifest:
    """What tiles.json says. `options` are those that decide which tiles there are and what is in them."""

    options: dict[str, Any]
    classes: ClassTable | None
    scenes: dict[str, Scene] = field(default_factory=dict)

    def tiling_of(self, scene: Scene) -> Tiling:
        chosen = self.options
        return tiling(scene.grid.height, scene.grid.width, chosen["size"], chosen["overlap"], chosen["edge"])

    def head(self) -> dict[str, Any]:
        table = self.classes.to_json() if self.classes is not None else None
        return {"format": FORMAT, "segcli": segcli.__version__, "options": self.options, "classes": table}

    def to_json(self) -> dict[str, Any]:
        done = [scene.to_json() for scene in self.scenes.values() if scene.is_done]
        return {**self.head(), "sources": done}


def read(path: Path) -> Manifest:
    """UsageError where it is no manifest, or names what does not lie below its folder."""
    try:
        return _manifest(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(
            path, error.strerror or str(error), f"expected the {MANIFEST} that segcli tile wrote"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError | TypeError) else str(error)
        raise UsageError(
            path, f"no manifest of tiles: {reason}", f"expected the {MANIFEST} that segcli tile wrote"
        ) from error


class Ledger:
    """A folder of tiles while they are written: what is there already, and what comes, each line before its files get
    their names. So what lies in the folder and is not in the account is none of segcli's."""

    def __init__(self, folder: Path, options: dict[str, Any], classes: ClassTable | None) -> None:
        self.folder = folder
        self.known = Manifest(options, classes)
        self._lock = threading.Lock()
        self._file: Any = None
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
            self._append({"of": scene.name, "tile": _plain(record)})

    def finish(self, scene: Scene) -> None:
        """All tiles of the raster are there."""
        if scene.is_done:
            return
        scene.is_done = True
        with self._lock:
            self._append({"done": scene.name})

    def rest(self) -> None:
        """Let go of the account, as it is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Write tiles.json, with all rasters that are done; the account goes when all are."""
        if self._file is None:
            return
        self.rest()
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
                yield {"of": scene.name, "tile": _plain(record)}
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
    found = _manifest({**json.loads(lines[0]), "sources": []})
    for line in map(json.loads, lines[1:]):
        if "source" in line:
            scene = _scene({**line["source"], "tiles": [], "left_out": []})
            found.scenes[scene.name] = scene
        elif "tile" in line:
            record = _record(line["tile"])
            found.scenes[line["of"]].records[record.row, record.col] = record
        else:
            found.scenes[line["done"]].is_done = True
    return found


def _manifest(values: Any) -> Manifest:
    if values["format"] != FORMAT:
        raise ValueError(f"format {values['format']}, expected {FORMAT}")
    options = dict(values["options"])
    size, overlap = options["size"], options["overlap"]
    if not (type(size) is int and type(overlap) is int and 0 <= overlap < size and size >= 1):
        raise ValueError(f"tiles of {size} with an overlap of {overlap}")
    if options["edge"] not in ("shift", "pad", "keep", "drop"):
        raise ValueError(f"edge {options['edge']!r}")
    table = ClassTable.from_json(values["classes"]) if values["classes"] is not None else None
    found = Manifest(options, table)
    for entry in values["sources"]:
        scene = replace(_scene(entry), is_done=True)
        _check_places(scene, found)
        found.scenes[scene.name] = scene
    return found


def _check_places(scene: Scene, found: Manifest) -> None:
    """ValueError where tiles do not lie on the grid that the options make; its size is looked at before it is made."""
    options, grid = found.options, scene.grid
    rows, cols = (count(n, options["size"], options["overlap"], options["edge"]) for n in (grid.height, grid.width))
    if rows * cols != len(scene.records):
        raise ValueError(f"{len(scene.records)} tiles of {scene.name}, expected {rows} x {cols}")
    tiles = found.tiling_of(scene)
    for n, m in tiles.places:
        row, col = tiles.rows[n], tiles.cols[m]
        record = scene.records.get((row.start, col.start))
        if record is None or (record.height, record.width) != (row.length, col.length):
            raise ValueError(f"no tile of {scene.name} at row {row.start}, column {col.start}")


def _scene(entry: Any) -> Scene:
    records = [_record(values) for values in (*entry["tiles"], *entry["left_out"])]
    mask = entry["mask"]
    _check_name(entry["name"])  # outputs of a join are named so
    size, time = entry["changed"]
    return Scene(
        str(entry["name"]), str(entry["file"]), (size, time), place_from_json(entry), Stored.from_json(entry["stored"]),
        tuple(mask) if mask is not None else None, records={(record.row, record.col): record for record in records},
    )  # fmt: skip


def _record(values: Any) -> Record:
    record = Record(**{**values, "bytes": tuple(values.get("bytes", ()))})
    if any(type(n) is not int or n < 0 for n in (record.row, record.col, record.height, record.width)):
        raise ValueError(f"a tile at row {record.row}, column {record.col}")
    if len(record.files) != len(record.bytes):
        raise ValueError(f"{record.name} without its bytes")
    for name in record.files:
        _check_name(name)
    return record


def _check_name(name: Any) -> None:
    """ValueError unless it lies below the folder, wherever that is."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"{name!r:.80} does not lie below its folder")


def _plain(record: Record) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if value not in (None, "", ())}
