"""Which files are the tiles of a manifest: its own, or others of their names."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from segcli.errors import UsageError, some
from segcli.matching import match, named
from segcli.raster.names import rasters_in
from segcli.tiling.journal import journals, read_journal
from segcli.tiling.manifest import MANIFEST, Manifest, Record, Scene, accounts

LEVELS_UP = 3
"""How far above a folder of tiles its manifest may lie: tiles/train/masks."""

Without = Callable[[Path, Iterable[str]], frozenset[Path]]
"""What is no tile though it lies in a folder of tiles, by the folder and the names of the rasters."""


def find_manifest(folder: Path, given: Path | None) -> Path:
    """The given one, or tiles.json in the folder or above it. UsageError where there is none."""
    if given is not None:
        return given / MANIFEST if given.is_dir() else given
    if not folder.is_dir():
        raise UsageError(folder, "no such folder", "--join expects a folder of tiles")
    for place in (folder.resolve(), *folder.resolve().parents[:LEVELS_UP]):
        if accounts(place):
            return place / MANIFEST
    raise UsageError(folder, f"no {MANIFEST} in it or above it", "--join expects a folder of tiles",
                     f"give --manifest with the {MANIFEST} of the tiles")  # fmt: skip


def unfinished(folder: Path, manifest: Manifest) -> dict[str, Scene]:
    """Rasters whose tiles are not all cut, by runs that failed there, were stopped, or are at it. What such a run has
    done after the accounts were written, with --overwrite, `manifest` gets as it is now."""
    begun: dict[str, Scene] = {}
    written = max((path.stat().st_mtime_ns for path in accounts(folder)), default=0)
    for path in journals(folder):
        run = read_journal(path)
        for scene in run.scenes.values() if run is not None else ():
            if scene.name not in manifest.scenes:
                begun[scene.name] = scene
            elif scene.is_done and path.stat().st_mtime_ns > written:
                manifest.scenes[scene.name] = scene
    return begun


def own_files(manifest: Manifest, folder: Path, begun: Mapping[str, Scene], without: Without) -> dict[str, Path]:
    """The tiles of the rasters themselves, where the manifest says that they are."""
    others = without(folder, manifest.scenes)
    records = _records(manifest.scenes)
    known = {name for record in (*records, *_records(begun)) for name in record.files}
    there = {path.relative_to(folder).as_posix(): path for path in rasters_in(folder, recursive=True)}
    _refuse([path for name, path in there.items() if name not in known and path not in others])
    return {Path(name).stem: there[name] for name in (record.name for record in records) if name in there}


def files_of(
    manifest: Manifest, folders: Sequence[Path], begun: Mapping[str, Scene], without: Without
) -> dict[str, Path]:
    """Files in folders by the stem of the tile that they belong to. UsageError where one belongs to none."""
    files: dict[str, Path] = {}
    for folder in folders:
        others = without(folder, manifest.scenes)
        rasters = [path for path in rasters_in(folder, recursive=True) if path not in others]
        for name, paths in named(rasters, folder).items():
            stem = PurePosixPath(name).name
            if len(paths) > 1 or stem in files:
                other = files.get(stem, paths[-1])
                raise UsageError(paths[0], f"has the name of {other}", "expected one file for each tile")
            files[stem] = paths[0]
    names = [record.name for record in (*_records(manifest.scenes), *_records(begun)) if record.name is not None]
    wanted = {Path(name).stem: Path(name) for name in names}
    matched = match(wanted, files)
    _refuse(matched.right)
    return {tile.stem: path for _, tile, path in matched.pairs}


def _records(scenes: Mapping[str, Scene]) -> list[Record]:
    return [record for scene in scenes.values() for record in scene.records.values()]


def _refuse(foreign: Sequence[Path]) -> None:
    if foreign:
        raise UsageError(some(foreign), f"no tile of {MANIFEST}", "expected files of the tiles' names",
                         "move what is foreign away, or give another --manifest")  # fmt: skip
