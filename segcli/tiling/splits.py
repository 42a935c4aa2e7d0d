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
