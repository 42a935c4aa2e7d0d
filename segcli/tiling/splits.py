"""Tiles for training, validation and test, so that no two of different splits overlap or adjoin; and a subset of tiles
in which classes are about as frequent as they can be made. Pure numbers."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from segcli.tiling.layout import Span, Tiling

SPLITS = ("train", "val", "test")
NONE = -1
"""The split of a tile that is left out."""

DRAWS = 64
"""Ways to deal the blocks out, of which the one is taken that leaves out the fewest tiles and keeps to the shares."""

FEW_TILES = 16
"""A raster of fewer tiles is not split where there are others: too many of them would lie between two splits."""

Box = tuple[float, float, float, float]
"""West, south, east, north."""

BLOCKS_OF_THE_SMALLEST = 2
"""About so many blocks make up the smallest split: larger blocks leave out fewer tiles, smaller ones mix better."""


def split(tiles: Tiling, shares: Sequence[float], seed: int) -> NDArray[np.int8]:
    """The split of each tile, (row, column) in the grid of tiles; NONE for those left out between two splits.

    Square blocks of neighbours are dealt out at random. Of two tiles that touch and are of different splits, the one of
    the larger split is left out, so that touching blocks of one split lose nothing.
    """
    rows, cols = len(tiles.rows), len(tiles.cols)
    smallest = min(share for share in shares if share > 0)
    side = max(1, math.isqrt(int(smallest * rows * cols / BLOCKS_OF_THE_SMALLEST)))
    reach = _reach(tiles.rows), _reach(tiles.cols)
    rng = np.random.default_rng(seed)
    drawn = [_parted(_dealt(rows, cols, side, shares, rng), shares, reach) for _ in range(DRAWS)]
    return min(drawn, key=lambda found: _cost(found, shares))


def deal(
    sizes: Sequence[int], shares: Sequence[float], seed: int, places: Sequence[Box | None],
    known: Sequence[int | None], around: float = 0.0,
) -> list[int | None]:  # fmt: skip
    """The split that a raster of so many tiles belongs to as a whole; None for those that are large enough to be split.

    Many small rasters give the shares without a tile left out. Those that overlap by their `places` stay together;
    `around` is as for `overlapping`. What is `known` is kept: the split of a whole raster, or NONE for one that was
    split before; each has its turn all the same, so that a run that goes on deals as the one before it. From the
    largest on they go to the split that has the least of its share, so that none is left empty while there are rasters.
    """
    wanted = np.array(shares, float)
    smallest = wanted[wanted > 0].min() * sum(sizes)
    groups = overlapping(places, around)
    total = np.bincount(groups, sizes, minlength=len(sizes))
    members: dict[int, list[int]] = {}
    for n, group in enumerate(groups):
        members.setdefault(group, []).append(n)
    luck = np.random.default_rng(seed).permutation(len(sizes))
    got = np.zeros(len(shares))
    out: list[int | None] = [None if split == NONE else split for split in known]
    for group in sorted(members, key=lambda group: (-total[group], luck[group])):
        those = members[group]
        few = total[group] < FEW_TILES and len(members) >= np.count_nonzero(wanted)
        if (total[group] > smallest and not few) or any(known[n] == NONE for n in those):
            continue
        before = [out[n] for n in those if out[n] is not None]
        with np.errstate(divide="ignore", invalid="ignore"):
            chosen = before[0] if before else int(np.argmin(np.where(wanted > 0, got / wanted, np.inf)))
        assert chosen is not None
        for n in those:
            split = out[n] = chosen if known[n] is None else known[n]
            got[split] += sizes[n]
    return out


def overlapping(places: Sequence[Box | None], around: float = 0.0) -> list[int]:
    """A number for each place, that of the first one that it is linked with by overlaps; those that only touch, or of
    which nothing is known, are alone. `around` is the whole circle where the places are longitudes, else 0."""
    boxes = _boxes(places)
    near = _Near(boxes, -_rounded(boxes), around)
    out = list(range(len(boxes)))
    waiting = set(out)
    for first in range(len(boxes)):
        found = [first] if first in waiting else []
        while found:
            n = found.pop()
            waiting.discard(n)
            out[n] = first
            found += [m for m in near.of(n).tolist() if m in waiting]
            waiting.difference_update(found)
    return out


def meeting(
    places: Sequence[Box | None], splits: Sequence[int | None], sizes: Sequence[tuple[int, int]], around: float = 0.0
) -> list[tuple[int, int]]:
    """Pairs of rasters that overlap or adjoin and are not of one split as a whole; but not those of one place and one
    size in pixels, whose tiles are split alike. `around` is as for `overlapping`."""
    boxes = _boxes(places)
    margin = _rounded(boxes)
    near = _Near(boxes, margin, around)
    pixels = np.array(sizes).reshape(-1, 2)
    pairs = []
    for n, box in enumerate(boxes):
        those = near.of(n)
        those = those[those > n]
        alike = (np.abs(boxes[those] - box).max(axis=1) <= margin[those]) & (pixels[those] == pixels[n]).all(axis=1)
        pairs += [(n, m) for m in those[~alike].tolist() if splits[n] is None or splits[n] != splits[m]]
    return pairs


def _boxes(places: Sequence[Box | None]) -> NDArray[np.float64]:
    """(place, 4), NaN where nothing is known."""
    return np.array([place or (np.nan,) * 4 for place in places], float).reshape(-1, 4)


def _rounded(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """What rounding leaves of an edge in common."""
    west, south, east, north = boxes.T
    return 1e-6 * np.minimum(east - west, north - south)


class _Near:
    """Which boxes lie near another: at most each one's `margin` from it, or overlapping it by so much, where that is
    negative. Of those that are sorted by their south only a few are compared: there may be tens of thousands."""

    def __init__(self, boxes: NDArray[np.float64], margin: NDArray[np.float64], around: float) -> None:
        west, south, east, north = boxes.T
        self._boxes, self._turns = boxes, {-around, 0.0, around}
        self._reach = np.stack([west - margin, south - margin, east + margin, north + margin], axis=1)
        known = np.flatnonzero(~np.isnan(south))
        self._order = known[np.argsort(self._reach[known, 1], kind="stable")]
        self._souths = self._reach[self._order, 1]
        highest = (self._reach[self._order, 3] - self._souths).max(initial=0.0)
        self._below = highest * (1 + 1e-6)  # of a box that begins so far south of another none reaches it

    def of(self, n: int) -> NDArray[np.intp]:
        """Their numbers, ascending, that of the box itself among them."""
        west, south, east, north = self._boxes[n]
        if np.isnan(south):
            return self._order[:0]
        first, end = np.searchsorted(self._souths, south - self._below), np.searchsorted(self._souths, north, "right")
        those = np.sort(self._order[first:end])
        wests, _, easts, norths = self._reach[those].T
        found = np.zeros(len(those), bool)
        for turn in self._turns:
            found |= (wests + turn <= east) & (easts + turn >= west)
        return those[found & (norths >= south)]


def _dealt(rows: int, cols: int, side: int, shares: Sequence[float], rng: np.random.Generator) -> NDArray[np.int8]:
    """Blocks, in an order by chance, to whichever split lacks the most."""
    blocks = [(r, c) for r in range(0, rows, side) for c in range(0, cols, side)]
    out = np.zeros((rows, cols), np.int8)
    lacking = np.array(shares) * rows * cols
    for n in rng.permutation(len(blocks)):
        r, c = blocks[n]
        block = out[r : r + side, c : c + side]
        chosen = int(np.argmax(lacking))
        block[:] = chosen
        lacking[chosen] -= block.size
    return out


def _parted(dealt: NDArray[np.int8], shares: Sequence[float], reach: tuple[int, int]) -> NDArray[np.int8]:
    """Without the tiles that touch one of a smaller split."""
    out = dealt.copy()
    order = sorted(range(len(shares)), key=lambda n: (shares[n], -n))  # the smallest keeps all
    for place, smaller in enumerate(order):
        near = _near(dealt == smaller, reach)
        for larger in order[place + 1 :]:
            out[near & (dealt == larger)] = NONE
    return out


def _near(those: NDArray[np.bool_], reach: tuple[int, int]) -> NDArray[np.bool_]:
    """Tiles at most so many rows and columns from one of those."""
    for axis, steps in enumerate(reach):
        found = those.copy()
        for step in range(1, min(steps, those.shape[axis] - 1) + 1):
            one, other = [slice(None)] * 2, [slice(None)] * 2
            one[axis], other[axis] = slice(step, None), slice(None, -step)
            found[tuple(one)] |= those[tuple(other)]
            found[tuple(other)] |= those[tuple(one)]
        those = found
    return those


def _reach(along: tuple[Span, ...]) -> int:
    """How many places apart two spans may be and still overlap or adjoin."""
    furthest = 0
    for n, span in enumerate(along):
        while n + furthest + 1 < len(along) and along[n + furthest + 1].start <= span.end:
            furthest += 1
    return furthest


def _cost(found: NDArray[np.int8], shares: Sequence[float]) -> float:
    """The share that is left out, and how far the splits are from what was asked; an empty one is the worst."""
    kept = np.array([(found == n).sum() for n in range(len(shares))])
    empty = sum(1 for n, share in enumerate(shares) if share > 0 and not kept[n])
    off = np.abs(kept / max(1, kept.sum()) - np.array(shares)).sum()
    return float(empty * 10 + (found == NONE).mean() + 2 * off)


def quotas(wanted: int, there: Sequence[int], shares: Sequence[float]) -> list[int]:
    """How many tiles of each split a sample has: by the shares, as far as there are so many."""
    got = [0] * len(there)
    for _ in range(min(wanted, sum(there))):
        free = [n for n in range(len(there)) if got[n] < there[n]]
        got[min(free, key=lambda n: got[n] / shares[n])] += 1
    return got


def balanced(counts: Sequence[Mapping[str, int]], wanted: int, seed: int) -> list[int]:
    """Indices of `wanted` tiles, ascending: each next one is drawn among those that hold the class of which there are
    the fewest pixels so far, one with many of them more likely. Without classes any tile is as likely as any other.

    Weighted draws after Efraimidis and Spirakis (2006): the smallest of exponential numbers over the weights.
    """
    rng = np.random.default_rng(seed)
    luck = rng.exponential(size=len(counts))
    classes = sorted({value for count in counts for value in count})
    waiting = {value: [n for n, count in enumerate(counts) if count.get(value)] for value in classes}
    for value, those in waiting.items():
        those.sort(key=lambda n: luck[n] / counts[n][value], reverse=True)  # the next one last
    total = dict.fromkeys(classes, 0)
    chosen: set[int] = set()
    while len(chosen) < wanted and waiting:
        rarest = min(waiting, key=lambda value: total[value])
        if not waiting[rarest]:
            del waiting[rarest]
            continue
        n = waiting[rarest].pop()
        if n in chosen:
            continue
        chosen.add(n)
        for value, pixels in counts[n].items():
            total[value] += pixels
    rest = [n for n in np.argsort(luck).tolist() if n not in chosen]
    return sorted([*chosen, *rest[: max(0, wanted - len(chosen))]])
