"""Where rasters go that are put together of tiles, and what lies there that is no tile."""

import re
from collections.abc import Iterable
from pathlib import Path

from segcli import batch, manifest
from segcli.errors import InputError, UsageError
from segcli.options import TileOptions
from segcli.raster.names import Name, is_file_name, rasters_in
from segcli.raster.zarrs import check_outside
from segcli.tiling import joining
from segcli.tiling.layout import TILE_PLACE


def places(
    found: list[joining.Job | InputError], options: TileOptions
) -> tuple[Path, dict[batch.Job, joining.Job | InputError]]:
    """Where each raster goes: to the file that --out names, if there is one alone, else into that folder."""
    out = options.out
    assert out is not None
    check_outside(out)
    if is_file_name(out) and len(found) == 1:
        if out.suffix.lower() not in (".tif", ".tiff", ".png"):
            raise UsageError(out, "wrong ending", "expected .tif or .png")
        return out.parent, {batch.Job(name_of(found[0]), out, made_of=made_of(found[0])): found[0]}
    if out.is_file() or is_file_name(out):
        raise UsageError(out, "a file", "expected a folder for the outputs", "a file name is for one raster")
    jobs: dict[batch.Job, joining.Job | InputError] = {}
    taken: set[Path] = set()
    for work in found:
        ending = ".tif" if isinstance(work, InputError) else joining.ending_of(work)
        job = batch.Job(name_of(work), out / f"{name_of(work)}{ending}", made_of=made_of(work))
        if job.output in taken:
            raise UsageError(out, f"two rasters of the name {job.source}", "", "join them apart")
        taken.add(job.output)
        jobs[job] = work
    return out, jobs


def not_tiles(options: TileOptions, folder: Path, names: Iterable[str]) -> frozenset[Path]:
    """What segcli wrote into a folder of tiles that is none of them: what lies beside masks, and the rasters of these
    names that were put together there."""
    if not manifest.records(folder):
        return frozenset()
    record, found = manifest.seen(folder, "tile", options), set(manifest.companions(folder))
    for path in rasters_in(folder):
        if not re.search(TILE_PLACE, path.stem) and any(is_joined(record, name, path) for name in names):
            found.add(path)
    return frozenset(found)


def is_joined(record: manifest.Manifest, name: str, path: Path) -> bool:
    """Whether a raster of that name was put together there, and is as it was written."""
    if record.why(name, path, ()) == "new":
        return False
    try:
        record.guard(path)
    except InputError:
        return False
    return True


def spare_sources(folder: Path, jobs: dict[batch.Job, joining.Job | InputError], options: TileOptions) -> None:
    """UsageError where a raster would be written over one that was cut, a tile, or what tells of tiles."""
    record, used = manifest.seen(folder, "tile", options), []
    for job, work in jobs.items():
        if not isinstance(work, InputError):
            used += [*work.manifests, *work.files.values()]
            source = work.manifests[0].parent / work.scene.file
            is_put_back = source.resolve() == job.output.resolve() and is_joined(record, work.scene.name, job.output)
            if source.exists() and not is_put_back:
                used.append(source)
    batch.spare(list(jobs), used)


def made_of(work: joining.Job | InputError) -> tuple[Path, ...] | None:
    """The files that a join reads."""
    return None if isinstance(work, InputError) else (*work.manifests, *work.files.values())


def name_of(work: joining.Job | InputError) -> Name:
    return work.subject if isinstance(work, InputError) else work.scene.name
