"""The account of a run on its way, line by line."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segcli.errors import NothingDoneError, UsageError
from segcli.tiling.manifest import Manifest, Scene, manifest_from, plain, record_from, scene_from

JOURNAL = "tiles.unfinished.jsonl"
"""One line for the options, for each raster and for each tile, as they come; gone when tiles.json is there."""


def journals(folder: Path) -> list[Path]:
    """Those of runs that are on their way, or were killed."""
    return [path for path in (folder / JOURNAL, *sorted(folder.glob("tiles.*-of-*.unfinished.jsonl"))) if path.exists()]


def lines_of(scene: Scene) -> Iterable[dict[str, Any]]:
    """What an account says of a raster."""
    yield {"source": scene.facts()}
    for record in scene.records.values():
        yield {"of": scene.name, "tile": plain(record)}
    if scene.is_done:
        yield {"done": scene.name}


def read_journal(path: Path) -> Manifest | None:
    """What an account on its way tells; None where there is none. UsageError where it is no account."""
    try:
        return _from_journal(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NothingDoneError(path, f"cannot be read: {error.strerror}", "", "give permission") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(path, f"no account of tiles: {error}", "", "remove it, or choose another --out") from error


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
