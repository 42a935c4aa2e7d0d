"""How an image is cut so that it fits the memory: the height of strips and the width of column panels. Numbers only."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

LESS = 0.75
"""A way to try after another one needs at most this share of its memory."""

PANEL_STEP = 512
"""Panels begin at multiples of this, the tiles of output files; what they read begins at multiples of the total stride.
"""


@dataclass(frozen=True)
class Panel:
    """Columns `first` to `end` of the output, made from columns `read_first` to `read_end` of the image."""

    first: int
    end: int
    read_first: int
    read_end: int

    @property
    def own(self) -> slice:
        """Its own columns among those that it reads."""
        return slice(self.first - self.read_first, self.end - self.read_first)


@dataclass(frozen=True)
class Plan:
    """Strips of `strip_height` rows, panels that give `panel_width` columns and read `margin` more on either side, from
    a multiple of `stride` on."""

    strip_height: int
    panel_width: int
    margin: int = 0
    stride: int = 1
    needed: float = math.inf  # bytes, by estimate

    def panels(self, width: int) -> list[Panel]:
        """The panels of an image of `width` columns; the margin is cut, not padded, at the image's borders."""
        return [
            Panel(
                first,
                min(first + self.panel_width, width),
                max(0, (first - self.margin) // self.stride * self.stride),
                min(first + self.panel_width + self.margin, width),
            )
            for first in range(0, width, self.panel_width)
        ]

    def __str__(self) -> str:
        return f"strips of {self.strip_height} rows, panels of {self.panel_width} columns"


@dataclass(frozen=True)
class Costs:
    """Bytes of one column of a strip: `fixed` whatever its height, and `per_row` for each row. There are `beside`
    columns more than those of the image, which is filled up to a multiple of `stride`. `always` are bytes that are
    taken however few columns there are."""

    fixed: float
    per_row: float
    beside: int = 0
    stride: int = 1
    always: float = 0.0

    def of(self, strip_height: int, columns: int) -> float:
        """Bytes at the peak."""
        return self.always + (self.fixed + self.per_row * strip_height) * (self.filled(columns) + self.beside)

    def filled(self, columns: int) -> int:
        """Columns with those that fill them up."""
        return -(-columns // self.stride) * self.stride

    def more(self, beside: float) -> "Costs":
        """With so many bytes more for each column."""
        return replace(self, fixed=self.fixed + beside)

    def times(self, images: int) -> "Costs":
        """Of several images that go through together."""
        return replace(self, fixed=self.fixed * images, per_row=self.per_row * images, always=self.always * images)


def plans(
    height: int, width: int, total_stride: int, margin: int, costs: Costs, budget: float, strip_pixels: int, least: int
) -> Iterator[Plan]:
    """Ways to cut the image, the best that fits `budget` bytes first, then ever smaller ones down to the smallest.

    Strips are of about `strip_pixels` pixels: multiples of the total stride, or halves of it down to `least`. They
    shrink before panels narrow, because a panel reads its margins twice.
    """
    wanted = max(1, strip_pixels // costs.filled(width))
    heights = [-(-min(height, wanted) // total_stride) * total_stride]
    while heights[-1] > least:
        half = heights[-1] // 2
        heights.append(half // total_stride * total_stride if half >= total_stride else half)
    while len(heights) > 1 and heights[1] >= wanted:
        heights.pop(0)
    widths: list[int] = []
    # A panel narrower than its margins would read more beside itself than in itself.
    narrowest = max(PANEL_STEP, -(-2 * margin // PANEL_STEP) * PANEL_STEP)
    for count in range(2, width // narrowest + 1):  # about equal ones: a narrow last one would be mostly margin
        panel = -(-width // (count * PANEL_STEP)) * PANEL_STEP
        if narrowest <= panel < width - 2 * margin and panel not in widths:
            widths.append(panel)
    ways = [Plan(strip, width, 0) for strip in heights]
    ways += [Plan(heights[-1], panel, margin, total_stride) for panel in widths]
    beside = 2 * margin + (total_stride - 1 if PANEL_STEP % total_stride or margin % total_stride else 0)
    ways = [
        replace(way, needed=costs.of(way.strip_height, way.panel_width + (beside if way.margin else 0))) for way in ways
    ]
    first = next((n for n, way in enumerate(ways) if way.needed <= budget), len(ways) - 1)
    last_needed = math.inf
    for way in ways[first:]:  # what follows is for when memory runs out all the same: clearly smaller each time
        if way.needed <= LESS * last_needed or way is ways[-1]:
            last_needed = way.needed
            yield way
