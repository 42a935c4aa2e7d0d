"""tiles.json: which tiles a folder holds, of which rasters, and where they lie there. Every name in it is one below its
own folder. Runs that share the work of one folder (shards) write one each, tiles.2-of-8.json.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import segcli
from segcli.classes import ClassTable
from segcli.errors import UsageError
from segcli.files import is_below
from segcli.raster.grid import Grid
from segcli.raster.stored import Stored, place_from_json, place_to_json
from segcli.tiling.layout import Tiling, count, tiling

FORMAT = 1
MANIFEST = "tiles.json"

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
    """One raster and its tiles by their offsets. `file` and `changed` (bytes, time in ns) are to recognise it by;
    so is `digest`, of its contents and its labels', where these are small. `split` is that of all its tiles, where they
    are of one by their raster."""

    name: str
    file: str
    changed: tuple[int, int]
    grid: Grid
    stored: Stored
    mask: tuple[str, int, int] | None = None
    split: str = ""
    is_done: bool = False
    digest: str = ""
    records: dict[Place, Record] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        return {
            "name": self.name, "file": self.file, "changed": list(self.changed), **place_to_json(self.grid),
            "stored": self.stored.to_json(), "mask": list(self.mask) if self.mask is not None else None,
            "split": self.split or None, "digest": self.digest or None,
        }  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        records = [plain(self.records[place]) for place in sorted(self.records)]
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


def accounts(folder: Path) -> list[Path]:
    """What says which tiles a folder holds: tiles.json, and those of shards."""
    return [path for path in (folder / MANIFEST, *sorted(folder.glob("tiles.*-of-*.json"))) if path.exists()]


def accounts_beside(path: Path) -> list[Path]:
    """What is to be read where `path` is given: tiles.json stands for all of its folder."""
    return (accounts(path.parent) if path.name == MANIFEST else []) or [path]


def read_together(path: Path) -> Manifest:
    """As `read`; tiles.json with those of its folder's shards."""
    first, *others = map(read, accounts_beside(path))
    for other in others:
        if (other.options, other.classes) != (first.options, first.classes):
            raise UsageError(path.parent, "holds tiles of several runs with other options", "",
                             "give --manifest with the account of one of them")  # fmt: skip
        take_over(first, other)
    return first


def take_over(first: Manifest, other: Manifest) -> None:
    """Add the rasters of another account. Of two that tell of one raster the one that is done counts; of what both have
    not done, the tiles of both."""
    for name, scene in other.scenes.items():
        known = first.scenes.get(name)
        if known is None or (scene.is_done and not known.is_done):
            first.scenes[name] = scene
        elif not known.is_done and (known.changed, known.mask) == (scene.changed, scene.mask):
            known.records |= scene.records


def read(path: Path) -> Manifest:
    """UsageError where it is no manifest, or names what does not lie below its folder."""
    try:
        return manifest_from(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(
            path, error.strerror or str(error), f"expected the {MANIFEST} that segcli tile wrote"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError | TypeError) else str(error)
        raise UsageError(
            path, f"no manifest of tiles: {reason}", f"expected the {MANIFEST} that segcli tile wrote"
        ) from error


def manifest_from(values: Any) -> Manifest:
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
        scene = replace(scene_from(entry), is_done=True)
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


def scene_from(entry: Any) -> Scene:
    records = [record_from(values) for values in (*entry["tiles"], *entry["left_out"])]
    mask = entry["mask"]
    size, time = entry["changed"]
    os.fsencode(entry["name"])  # ValueError: no file has such a name
    if PurePosixPath(entry["name"]).name != entry["name"] or entry["name"] == "..":  # a join writes a file of this name
        raise ValueError(f"{entry['name']!r:.80} is no name of a file")
    return Scene(
        str(entry["name"]), str(entry["file"]), (size, time), place_from_json(entry), Stored.from_json(entry["stored"]),
        tuple(mask) if mask is not None else None, entry.get("split") or "",
        digest=str(entry.get("digest") or ""),
        records={(record.row, record.col): record for record in records},
    )  # fmt: skip


def record_from(values: Any) -> Record:
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
    if not PurePosixPath(name).parts or not is_below(name):
        raise ValueError(f"{name!r:.80} does not lie below its folder")


def plain(record: Record) -> dict[str, Any]:
    return {key: value for key, value in asdict(record).items() if value not in (None, "", ())}
