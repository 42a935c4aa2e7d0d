"""One raster, and the labels that lie on it, to tiles: rows in, files out.

Each row is decoded once, tiles are encoded by several threads, and no more than a row of tiles and what waits to be
encoded is in memory.
"""

import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segcli.ahead import ahead, shared
from segcli.files import replacing
from segcli.raster.exact import write_whole
from segcli.raster.faults import faults_of_writing
from segcli.raster.rows import Strip
from segcli.raster.source import Source
from segcli.raster.stored import Stored
from segcli.tiling.labelling import Counts, counts, labelled
from segcli.tiling.layout import Span, Tiling, tile_name
from segcli.tiling.ledger import Ledger
from segcli.tiling.manifest import IMAGES, MASKS, Place, Record, Scene
from segcli.tiling.splits import NONE, SPLITS
from segcli.validity import Valid, both, joined, written_out

STRIP_ROWS = 512
"""So many rows are read at once, of higher tiles too."""


@dataclass(frozen=True)
class Layer:
    """A raster that is cut, image or labels, and what tiles hold outside it."""

    source: Source
    stored: Stored
    empty: Any


@dataclass(frozen=True)
class Rules:
    """Which tiles are kept, and how they are written. `unlabelled` values do not count for `min_label`."""

    ending: str
    compress: str
    min_valid: float
    min_label: float
    unlabelled: frozenset[str]


@dataclass(frozen=True)
class Work:
    """One raster on its way: `layers` are the image and maybe labels, `splits` says by place in the grid of tiles which
    split each belongs to (None: there are none), `chosen` which are in the sample (None: all)."""

    scene: Scene
    layers: tuple[Layer, ...]
    tiles: Tiling
    rules: Rules
    splits: NDArray[np.int8] | None = None
    chosen: frozenset[Place] | None = None

    @property
    def writes_masks(self) -> bool:
        """Whether some tiles hold a mask. GDAL writes these in one thread alone: others, reading or writing, put out of
        its cache what waits there, and a mask and its pixels, which share one handle, have locks of their own."""
        padded = self.tiles.has_padding
        return self.rules.ending == ".tif" and any(
            layer.stored.has_mask or (padded and not layer.stored.can_be_empty) for layer in self.layers
        )

    def plan(self) -> dict[Place, Record]:
        """Every tile by its place in the grid of tiles, with its name, or why it is left out."""
        return {place: self._planned(*place) for place in self.tiles.places}

    def names(self) -> list[str]:
        """Of the files of all tiles that are planned."""
        return [name for record in self.plan().values() for name in record.files]

    def _planned(self, n: int, m: int) -> Record:
        row, col = self.tiles.rows[n], self.tiles.cols[m]
        record = Record(row.start, col.start, row.length, col.length)
        if self.splits is not None:
            if self.splits[n, m] == NONE:
                return replace(record, why="between two splits")
            record = replace(record, split=SPLITS[self.splits[n, m]])
        if self.chosen is not None and (n, m) not in self.chosen:
            return replace(record, why="not in the sample")
        grid, has_masks = self.scene.grid, len(self.layers) > 1
        file = tile_name(self.scene.name, row.start, col.start, grid.height, grid.width) + self.rules.ending
        folder = f"{record.split}/" if record.split else ""
        image = f"{folder}{IMAGES}/{file}" if has_masks or record.split else file
        return replace(record, name=image, mask=f"{folder}{MASKS}/{file}" if has_masks else None)


class Piece(NamedTuple):
    """Pixels of one tile, (band, row, col), and where they are data, of each layer; no padding yet."""

    record: Record
    layers: tuple[tuple[NDArray[Any], Valid], ...]


def cut(work: Work, ledger: Ledger, jobs: int, told: Callable[[int, int], None]) -> None:
    """Write the tiles that are not there yet. `told` hears of tiles and pixels as they are done."""
    missing: dict[Place, Record] = {}
    for place, record in work.plan().items():
        if (record.row, record.col) in work.scene.records:
            told(1, record.height * record.width)
        elif record.why:
            ledger.add(work.scene, record)
            told(1, 0)
        else:
            missing[place] = record

    def write(piece: Piece) -> Record:
        return _write(piece, work, ledger)

    with ExitStack() as threads:
        found = threads.enter_context(closing(pieces(work, work.layers, missing)))
        shares = not work.writes_masks
        written = threads.enter_context(closing(shared(write, found, jobs))) if shares else map(write, found)
        for record in written:
            told(1, record.height * record.width)


def pieces(work: Work, layers: Sequence[Layer], wanted: dict[Place, Record]) -> Generator[Piece, None, None]:
    """The pixels of those tiles, row by row; rows above the first of them are not read."""
    if not wanted:
        return
    first = min(n for n, _ in wanted)
    with ExitStack() as files:
        rows = [_tile_rows(layer.source, work.tiles.rows, first, work.writes_masks) for layer in layers]
        together = zip(*(files.enter_context(closing(row)) for row in rows), strict=True)
        for n, strips in enumerate(together, start=first):
            for m, span in enumerate(work.tiles.cols):
                if (n, m) in wanted:
                    cols = slice(span.start, span.end)
                    parts = [
                        (pixels[:, :, cols], None if valid is None else valid[:, cols]) for pixels, valid in strips
                    ]
                    yield Piece(wanted[n, m], tuple(parts))


def look(work: Work) -> dict[Place, tuple[float, Counts]]:
    """The share of data and the labels of each tile that may be written, before any is; what no rule asks for is not
    read."""
    planned = {place: record for place, record in work.plan().items() if not record.why}
    image = work.layers[:1] if work.rules.min_valid else ()
    layers = (*image, *work.layers[1:])
    if not layers:
        return dict.fromkeys(planned, (1.0, {}))
    facts: dict[Place, tuple[float, Counts]] = {}
    with closing(pieces(work, layers, planned)) as found:
        for place, piece in zip(planned, found, strict=True):
            valid = _valid_share(piece.record, work.layers[0], *piece.layers[0]) if image else 1.0
            facts[place] = valid, counts(*piece.layers[-1]) if len(work.layers) > 1 else {}
    return facts


def _tile_rows(
    source: Source, spans: tuple[Span, ...], first: int, is_alone: bool
) -> Generator[tuple[NDArray[Any], Valid], None, None]:
    """For each span of rows from `first` on its pixels, in whole rows; read ahead in a thread, unless `is_alone`."""
    step = min(STRIP_ROWS, spans[1].start - spans[0].start if len(spans) > 1 else spans[0].end)
    waiting: deque[Strip] = deque()
    n = first
    with ExitStack() as threads:
        strips = source.strips(step, first_row=spans[first].start)
        if not is_alone:
            strips = threads.enter_context(closing(ahead(strips, depth=1)))
        for strip in strips:
            waiting.append(strip)
            while n < len(spans) and strip.first_row + strip.pixels.shape[1] >= spans[n].end:
                yield _joined(waiting, spans[n])
                n += 1
                while n < len(spans) and waiting and _end(waiting[0]) <= spans[n].start:
                    waiting.popleft()
            if n == len(spans):
                return


def _end(strip: Strip) -> int:
    return strip.first_row + strip.pixels.shape[1]


def _joined(waiting: deque[Strip], span: Span) -> tuple[NDArray[Any], Valid]:
    parts = []
    for first_row, pixels, valid in waiting:
        rows = slice(max(0, span.start - first_row), max(0, span.end - first_row))
        parts.append((pixels[:, rows], None if valid is None else valid[rows]))
    if len(parts) == 1:
        return parts[0]
    valid = joined([(known, pixels.shape[1:]) for pixels, known in parts], axis=0)
    return np.concatenate([pixels for pixels, _ in parts], axis=1), valid


def _valid_share(record: Record, layer: Layer, pixels: NDArray[Any], valid: Valid) -> float:
    """Of the whole tile, padding included."""
    kinds = layer.stored.kinds
    if "alpha" in kinds:
        with np.errstate(invalid="ignore"):  # signalling NaN
            valid = both(valid, pixels[kinds.index("alpha")] != 0)
    if pixels.dtype.kind in "fc" and not (finite := np.isfinite(pixels).any(axis=0)).all():
        valid = both(valid, finite)
    data = pixels.shape[1] * pixels.shape[2] if valid is None else int(np.count_nonzero(valid))
    return data / (record.height * record.width)


def why_not(facts: tuple[float, Counts], record: Record, rules: Rules) -> str:
    """Why a tile is left out; nothing where it is kept."""
    valid, found = facts
    if valid < rules.min_valid:
        return "min-valid"
    if labelled(found, rules.unlabelled) < rules.min_label * record.height * record.width:
        return "min-label"
    return ""


def _write(piece: Piece, work: Work, ledger: Ledger) -> Record:
    """The files of one tile, all or none of them, or the note that it is left out."""
    valid_share = _valid_share(piece.record, work.layers[0], *piece.layers[0])
    found = counts(*piece.layers[1]) if len(piece.layers) > 1 else None
    record = replace(piece.record, valid=round(valid_share, 6), pixels=found)
    why = why_not((valid_share, found or {}), record, work.rules)
    if why:
        record = replace(record, why=why, name=None, mask=None)
        ledger.add(work.scene, record)
        return record
    paths = [ledger.folder / name for name in record.files]
    with ExitStack() as files:
        parts = [files.enter_context(replacing(path, faults_of_writing, is_swept=True)) for path in paths]
        record = replace(record, bytes=encode(piece, work, paths, parts))
        ledger.add(work.scene, record)
    return record


def encode(piece: Piece, work: Work, paths: Sequence[Path], parts: Sequence[Path]) -> tuple[int, ...]:
    """Write the layers of a tile to `parts`, which are to be `paths`; how many bytes they have."""
    record = piece.record
    grid = work.scene.grid.window(record.row, record.col, record.height, record.width)
    for path, part, layer, (pixels, valid) in zip(paths, parts, work.layers, piece.layers, strict=True):
        framed, known, like = _framed(layer, pixels, valid, record.height, record.width)
        write_whole(path, part, framed, known, grid, like, work.rules.compress)
    return tuple(part.stat().st_size for part in parts)


def _framed(
    layer: Layer, pixels: NDArray[Any], valid: Valid, height: int, width: int
) -> tuple[NDArray[Any], Valid, Stored]:
    """Padded to its size at the bottom and the right, where it is no data: by a mask if by nothing else."""
    bands, rows, columns = pixels.shape
    if (rows, columns) == (height, width):
        return pixels, valid, layer.stored
    if bands * height * width * pixels.itemsize > sys.maxsize:  # which numpy calls another error
        raise MemoryError
    out = np.full((bands, height, width), layer.empty, pixels.dtype)
    out[:, :rows, :columns] = pixels
    known = np.zeros((height, width), bool)
    known[:rows, :columns] = written_out(valid, (rows, columns))
    return out, known, layer.stored if layer.stored.can_be_empty else replace(layer.stored, has_mask=True)
