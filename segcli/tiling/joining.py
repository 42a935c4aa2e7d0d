"""Tiles back to one raster: files of the tiles' names, from any program, laid on the source's grid row by row.

No more than a row of tiles is in memory, and what is being decoded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import shared
from segcli.errors import InputError, UsageError, some
from segcli.options import Merge
from segcli.raster.align import is_elsewhere
from segcli.raster.exact import ExactSink, is_moved
from segcli.raster.source import ROW_BYTES, Source
from segcli.raster.stored import Stored, is_same, stored
from segcli.tiling.finding import Without, files_of, own_files, unfinished
from segcli.tiling.layout import Span, Tiling
from segcli.tiling.manifest import Manifest, Place, Scene, accounts_beside, read_together
from segcli.validity import Valid, written_out


@dataclass(frozen=True)
class Job:
    """One raster to be put together: its tiles' files by place in the grid of tiles, and what they are like. The
    tiles of the raster itself are its own; others were made of them, by any program."""

    manifests: tuple[Path, ...]
    scene: Scene
    tiles: Tiling
    files: dict[Place, Path]
    like: Stored
    averages: bool
    is_own: bool = False

    @property
    def has_holes(self) -> bool:
        """Whether some pixels come from no tile."""
        grid, ends = self.scene.grid, (self.tiles.rows[-1:], self.tiles.cols[-1:])
        reaches = [span.end for along in ends for span in along]
        return reaches != [grid.height, grid.width] or len(self.files) < len(self.tiles.places)


def find_jobs(
    folders: Sequence[Path], path: Path, merge: Merge, allow_missing: bool, without: Without
) -> Iterator[Job | InputError]:
    """A job for each raster of a manifest, from the files in some folders; or what is wrong with it."""
    manifest, made_of = read_together(path), tuple(accounts_beside(path))
    if not manifest.scenes:
        raise UsageError(path, "no tiles", "expected those of one raster at least")
    is_own = any(folder.resolve() == path.parent.resolve() for folder in folders)
    begun = unfinished(path.parent, manifest)
    find = partial(own_files, folder=path.parent) if is_own else partial(files_of, folders=folders)
    found = find(manifest, begun=begun, without=without)
    for scene in manifest.scenes.values():
        try:
            yield replace(_job(scene, manifest, found, made_of, merge, allow_missing), is_own=is_own)
        except InputError as error:  # of one of its tiles, perhaps
            yield error if error.subject == scene.name else InputError(scene.name, str(error))
    for name in begun:
        yield InputError(name, "not all of its tiles were cut", "", "run segcli tile again as before")


def _job(
    scene: Scene,
    manifest: Manifest,
    found: dict[str, Path],
    made_of: tuple[Path, ...],
    merge: Merge,
    allow_missing: bool,
) -> Job:
    tiles = manifest.tiling_of(scene)
    files: dict[Place, Path] = {}
    missing: list[str] = []
    for n, m in tiles.places:
        record = scene.records[tiles.rows[n].start, tiles.cols[m].start]
        if record.name is None:
            continue
        if (file := found.get(Path(record.name).stem)) is not None:
            files[n, m] = file
        else:
            missing.append(Path(record.name).stem)
    if missing and not (allow_missing and files):
        found_of = f"{len(missing)} of {len(missing) + len(files)} tiles are missing: {some(missing)}"
        raise InputError(scene.name, found_of, "", "--allow-missing leaves their places without data")
    if not files:
        raise InputError(scene.name, "all its tiles were left out", "expected some to put together")
    like = _like(scene, files, made_of[0].parent)
    if scene.grid.width * like.bands * np.dtype(like.dtype).itemsize > ROW_BYTES:
        raise InputError(scene.name, f"rows of {scene.grid.width} pixels", f"expected at most {ROW_BYTES >> 20} MB")
    averages = merge == "average" or (
        merge == "auto" and (np.dtype(like.dtype).kind in "fc" or bool({*like.scales} - {1.0}))
    )
    job = Job(made_of, scene, tiles, files, like, averages)
    if averages and like.dtype in ("int64", "uint64"):
        raise InputError(
            scene.name, f"tiles of {like.dtype}", "averages of them would not be exact", "give --merge cut"
        )
    if job.has_holes and not like.can_be_empty:
        return replace(job, like=replace(like, has_mask=True))
    return job


def _like(scene: Scene, files: dict[Place, Path], folder: Path) -> Stored:
    """What the raster is to be: as the source, where these are its tiles, else as the first of them."""
    tiles = {(folder / record.name).resolve() for record in scene.records.values() if record.name is not None}
    with Source(next(iter(files.values())), "stored") as first:
        if Path(first.path).resolve() in tiles and first.bands == scene.stored.bands:
            return scene.stored
        like = stored(first)
    return replace(like, has_mask=like.has_mask and _have_masks(files.values()))


def _have_masks(files: Iterable[Path]) -> bool:
    """Whether all tiles have one: padded ones have, where nothing else says what is no data."""
    for path in files:
        with Source(path, "stored") as source:
            if not stored(source).has_mask:
                return False
    return True


def join(job: Job, sink: ExactSink, jobs: int, told: Callable[[float, int], None]) -> list[Path]:
    """Read each tile once, several at a time, and write the rows as they become whole. `told` hears of the share of the
    raster and the pixels that are done. Gives the files that say that they lie elsewhere on earth than their tiles:
    programs that made them may have written one place into all."""
    elsewhere: list[Path] = []
    canvas = Canvas(job)
    order = [place for place in job.tiles.places if place in job.files]
    with ExitStack() as threads:
        read = partial(_placed, job)
        # As in Work.writes_masks: a mask is written while no other thread is at work.
        tiles = map(read, order) if job.like.has_mask else threads.enter_context(closing(shared(read, order, jobs)))
        row = 0
        for (n, m), pixels, valid, is_there in tiles:
            elsewhere += [] if is_there else [job.files[n, m]]
            for whole in range(row, n):  # one by one: where tiles are missing, nothing is to pile up
                told(*canvas.flush(sink, job.tiles.rows[whole + 1].start))
            row = n
            canvas.add(job.tiles.rows[n], job.tiles.cols[m], pixels, valid)
    for end in (*(span.start for span in job.tiles.rows[row + 1 :]), job.scene.grid.height):
        told(*canvas.flush(sink, end))
    return elsewhere


def _placed(job: Job, place: Place) -> tuple[Place, NDArray[Any], Valid, bool]:
    return place, *_read(job, place)


def _read(job: Job, place: Place) -> tuple[NDArray[Any], Valid, bool]:
    """The part of a tile that lies in the raster, and whether it says so. InputError where it is not the tile that is
    expected."""
    row, col = job.tiles.rows[place[0]], job.tiles.cols[place[1]]
    with Source(job.files[place], "stored") as source:
        found = (source.grid.height, source.grid.width)
        if found != (row.length, col.length):
            raise InputError(
                source.path, f"{found[1]} x {found[0]} pixels", f"its tile has {col.length} x {row.length}"
            )
        if (source.bands, source.dtype) != (job.like.bands, job.like.dtype):
            raise InputError(source.path, f"{source.bands} bands of {source.dtype}",
                             f"the other tiles have {job.like.bands} of {job.like.dtype}")  # fmt: skip
        place_of_it = job.scene.grid.window(row.start, col.start, *found)
        if job.is_own:  # GeoTIFF may have another reference system for it, which was said when it was cut
            place_of_it = replace(place_of_it, crs=source.grid.crs)
        is_there = not is_elsewhere(place_of_it, source.grid)
        if job.is_own and not is_there:
            raise InputError(source.path, "lies elsewhere on earth than the tile of its name")
        pixels, valid = source.patch(0, 0, row.end - row.start, col.end - col.start)
        _check_nodata(job, source, valid)
        return pixels, valid, is_there


def _check_nodata(job: Job, source: Source, valid: Valid) -> None:
    """InputError where a tile says otherwise than the raster which of its pixels are no data: missing ones would be
    data there, or the other way round. Tiles of formats that do not say it, such as PNG, are the raster's own."""
    found, expected = source.nodata, job.like.nodata
    if not is_same(found, expected) and not (found is None and job.is_own):
        said = ["no value for no data" if value is None else f"nodata {value:g}" for value in (found, expected)]
        raise InputError(source.path, said[0], f"the other tiles have {said[1]}",
                         "give all of them one, such as by gdal_edit.py -a_nodata")  # fmt: skip
    if found is None and valid is not None and not valid.all() and not (job.like.has_mask or job.like.has_alpha):
        raise InputError(source.path, "a mask that takes pixels out", "the other tiles have none",
                         "give all of them one")  # fmt: skip


class Canvas:
    """Rows that are not whole yet: pixels (band, row, col), where they are data, and the weight they have so far.

    Cutting, a pixel is that of the tile that owns it, else of the first one there. Averaging, it is the weighted mean,
    taken step by step, so that equal values stay what they are to the last bit.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        grid, like = job.scene.grid, job.like
        self._width = grid.width
        self._dtype = np.dtype(like.dtype)
        # Means of whole numbers are rounded once, at the end.
        self._held = self._dtype
        if job.averages and self._dtype.kind in "iu":
            self._held = np.dtype(np.float32 if self._dtype.itemsize <= 2 else np.float64)
        self._has_holes = len(job.files) < len(job.tiles.places)
        self._first_row = 0
        self._pixels, self._weight, self._valid = self._blank(0)

    def _blank(self, rows: int) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_]]:
        pixels = np.full((self._job.like.bands, rows, self._width), self._job.like.empty, self._held)
        return pixels, np.zeros((rows, self._width), np.float32), np.zeros((rows, self._width), bool)

    def add(self, row: Span, col: Span, pixels: NDArray[Any], valid: Valid) -> None:
        """A tile's pixels, (band, row, col)."""
        self._grow(row.end)
        place = (slice(row.start - self._first_row, row.end - self._first_row), slice(col.start, col.end))
        if self._job.averages:
            self._average(place, pixels, valid, row, col)
            return
        known = written_out(valid, pixels.shape[1:])
        if self._has_holes:  # a neighbour may have what a missing tile would have owned
            free = self._weight[place] == 0
            self._pixels[:, *place][:, free] = pixels[:, free]
            self._valid[place][free] = known[free]
        self._weight[place] = 1
        own = (slice(row.own_start - row.start, row.own_end - row.start),
               slice(col.own_start - col.start, col.own_end - col.start))  # fmt: skip
        self._pixels[:, *place][:, *own] = pixels[:, *own]
        self._valid[place][own] = known[own]

    def _average(self, place: tuple[slice, slice], pixels: NDArray[Any], valid: Valid, row: Span, col: Span) -> None:
        old, before, known = self._pixels[:, *place], self._weight[place], written_out(valid, pixels.shape[1:])
        new = pixels.astype(self._held, copy=False)
        weight = np.where(known, bell(row.end - row.start)[:, None] * bell(col.end - col.start), np.float32(0))
        if new.dtype.kind in "fc":
            weight[~np.isfinite(new).any(axis=0)] = 0  # what one tile does not know another may
        first, mixed = before == 0, (before > 0) & (weight > 0)
        old[:, first] = new[:, first]
        if mixed.any():
            rows, cols = (slice(where.min(), where.max() + 1) for where in np.nonzero(mixed))
            box, those = (rows, cols), mixed[rows, cols]
            one, other = old[:, *box], new[:, *box]
            with np.errstate(invalid="ignore", over="ignore"):  # of pixels that are not among `those`, and of NaN
                share = weight[box] / (before[box] + weight[box])
                mean = one + share.astype(self._held, copy=False) * (other - one)
            one[...] = np.where(those & ~_same_bits(one, other), mean, one)
        before += weight
        self._valid[place] |= known

    def flush(self, sink: ExactSink, end: int) -> tuple[float, int]:
        """Write the rows before `end`, which are whole; which share of the raster, and how many pixels, these are."""
        self._grow(end)
        count = end - self._first_row
        pixels, valid = self._pixels[:, :count], self._valid[:count]
        if self._held != self._dtype:
            pixels = np.rint(pixels).astype(self._dtype)
        sink.write(self._first_row, pixels, None if valid.all() else valid)
        # Copies, so that what is written goes.
        self._pixels = self._pixels[:, count:].copy()
        self._weight, self._valid = self._weight[count:].copy(), self._valid[count:].copy()
        self._first_row = end
        return count / self._job.scene.grid.height, count * self._width

    def _grow(self, end: int) -> None:
        """Room for the rows before `end`."""
        there = self._first_row + self._pixels.shape[1]
        if end > there:
            pixels, weight, valid = self._blank(end - there)
            if there > self._first_row:
                pixels = np.concatenate([self._pixels, pixels], axis=1)
                weight, valid = np.concatenate([self._weight, weight]), np.concatenate([self._valid, valid])
            self._pixels, self._weight, self._valid = pixels, weight, valid


def bell(length: int) -> NDArray[np.float32]:
    """Weights along a tile: a raised cosine between pixels, so that none is 0."""
    return np.square(np.sin(np.pi * (np.arange(length) + 0.5) / length)).astype(np.float32)


def _same_bits(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Where two arrays hold the same, NaN and the sign of 0 included."""
    if one.dtype.kind == "c":
        kind = np.dtype(f"u{one.dtype.itemsize // 2}")
        pairs = (np.ascontiguousarray(part).view(kind).reshape(*part.shape, 2) for part in (one, other))
        return np.equal(*pairs).all(axis=-1)
    kind = np.dtype(f"u{one.dtype.itemsize}")
    return np.equal(*(np.ascontiguousarray(part).view(kind) for part in (one, other)))


def ending_of(job: Job) -> str:
    """PNG from PNG tiles of a raster that lies nowhere, else TIFF."""
    endings = {path.suffix.lower() for path in job.files.values()}
    is_picture = endings == {".png"} and not job.scene.grid.is_georeferenced and not job.like.has_mask
    return ".png" if is_picture else ".tif"


def said_of(job: Job, output: Path) -> Iterator[str]:
    """What is no data there because it comes from no tile, and what cannot be said."""
    if output.suffix == ".tif" and is_moved(job.scene.grid, job.like):
        yield f"{output}: its control points are where they were, but its pixels are no longer said to be points"
    records = job.scene.records.values()
    left_out = sum(record.name is None for record in records)
    missing = len(records) - left_out - len(job.files)
    for number, why in ((left_out, "left out when they were cut"), (missing, "missing")):
        if number:
            yield f"{output}: {number} tiles were {why}; no data there"
    grid = job.scene.grid
    if [job.tiles.rows[-1].end, job.tiles.cols[-1].end] != [grid.height, grid.width]:
        yield f"{output}: the border was dropped when it was cut; no data there"
