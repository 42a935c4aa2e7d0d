"""Where tiles lie in a raster, and which part of it each gives back to a join. Pure numbers; knows no files.

Tiles are the product of spans of rows and spans of columns.
"""

from dataclasses import dataclass
from itertools import pairwise

from segcli.options import Edge


@dataclass(frozen=True)
class Span:
    """Rows or columns of a tile: `start` to `end` of the raster, `length` in the tile's file, which padding may make
    more; `own_start` to `own_end` are those that a join takes from it: overlaps are cut in the middle."""

    start: int
    end: int
    length: int
    own_start: int
    own_end: int


def count(length: int, size: int, overlap: int, edge: Edge) -> int:
    """How many spans there are along `length` pixels."""
    step = size - overlap
    if edge == "drop":
        return max(0, (length - size) // step + 1)
    return max(1, -(-(length - overlap) // step))


def spans(length: int, size: int, overlap: int, edge: Edge) -> tuple[Span, ...]:
    """Along `length` pixels, so many of which neighbours share. What reaches over the end is moved back inside (shift),
    filled up (pad), cut off (keep) or left out (drop). A raster smaller than a tile gives one of its own size, a padded
    one, or none (drop)."""
    starts = [n * (size - overlap) for n in range(count(length, size, overlap, edge))]
    if not starts:
        return ()
    if edge == "shift":
        starts[-1] = max(0, min(starts[-1], length - size))
    ends = [min(start + size, length) for start in starts]
    cuts = [(start + end) // 2 for (_, end), (start, _) in pairwise(zip(starts, ends, strict=True))]
    return tuple(
        Span(start, end, size if edge == "pad" else end - start, own_start, own_end)
        for start, end, own_start, own_end in zip(starts, ends, [0, *cuts], [*cuts, ends[-1]], strict=True)
    )


@dataclass(frozen=True)
class Tiling:
    """All tiles of a raster."""

    rows: tuple[Span, ...]
    cols: tuple[Span, ...]

    @property
    def has_padding(self) -> bool:
        return any(span.length > span.end - span.start for span in (*self.rows[-1:], *self.cols[-1:]))

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """(row, column) of each tile in the grid of tiles, row by row."""
        return tuple((r, c) for r in range(len(self.rows)) for c in range(len(self.cols)))


def tiling(height: int, width: int, size: int, overlap: int, edge: Edge) -> Tiling:
    return Tiling(spans(height, size, overlap, edge), spans(width, size, overlap, edge))


TILE_PLACE = r"_r\d+_c\d+"
"""A pattern of what `tile_name` puts behind the name of the raster."""


def tile_name(stem: str, row: int, col: int, height: int, width: int) -> str:
    """With the offsets in so many digits that names sort as the tiles lie."""
    digits = max(5, len(str(max(height, width) - 1)))
    return f"{stem}_r{row:0{digits}d}_c{col:0{digits}d}"
