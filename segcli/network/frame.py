"""What stands around an image before a network sees it: its last row and column repeated up to a full multiple of the
total stride; or, for one that pads nothing itself, the image mirrored, which it uses up (Ronneberger et al., 2015).
Whole, or strip by strip. Zeros, the mean of all images, would be a bright or dark band that no training crop has.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from segcli.network.normalise import Inputs

BOTTOM = 4
"""An unpadded U-Net gives a multiple of its total stride and so many rows more: two convolutions lose them below its
last transposed convolution, which doubles."""


def beyond(size: int, stride: int, context: int) -> int:
    """Rows (or columns) after an image of `size` that make its scores fit the network; `context` is what it uses up."""
    return (BOTTOM - size if context else -size) % stride


def frame(image: Tensor, stride: int, context: int) -> Tensor:
    """(image, band, row, col) with more of the last row and column, or mirrored by `context` or more on each side."""
    height, width = image.shape[-2:]
    bottom, right = beyond(height, stride, context), beyond(width, stride, context)
    if not context:
        return _repeated(image, bottom, right)
    rows = mirrored(-context, height + bottom + context, height, image.device)
    return _widened(image.index_select(2, rows), right, context)


class Framed(NamedTuple):
    """A strip with what stands around it, whether it is the last one, and the columns of the image itself."""

    inputs: Inputs
    last: bool
    width: int


def framed(strips: Iterable[Inputs], height: int, stride: int, context: int) -> Iterator[Framed]:
    """The rows of `frame` of images of `height` rows that come in strips.

    First rows count from the image's, so that those above it are negative.
    """
    if context:
        yield from _mirroring(strips, height, stride, context)
        return
    highest = 0
    for first_row, values, empty in strips:
        width, last = values.shape[3], first_row + values.shape[2] >= height
        bottom, right = (beyond(height, stride, 0) if last else 0), beyond(width, stride, 0)
        rows = _repeated(values, bottom, right)
        step = highest or rows.shape[2]  # what stands below the image makes no strip higher than those before
        for row in range(0, rows.shape[2], step):
            part = Inputs(first_row + row, rows[:, :, row : row + step], empty)
            yield Framed(part, last and row + step >= rows.shape[2], width)
        highest = max(highest, values.shape[2])


def _repeated(values: Tensor, bottom: int, right: int) -> Tensor:
    return functional.pad(values, (0, right, 0, bottom), mode="replicate") if bottom or right else values


def _mirroring(strips: Iterable[Inputs], height: int, stride: int, context: int) -> Iterator[Framed]:
    below = beyond(height, stride, context) + context
    waiting: list[Inputs] = []  # until what is mirrored above the image has come
    kept: Tensor | None = None  # the last rows, which are mirrored below it
    begun, step, width = False, 1, 0
    for strip in strips:
        first_row, rows = strip.first_row, strip.values
        width, step = rows.shape[3], max(step, rows.shape[2])
        values = _widened(rows, beyond(width, stride, context), context)
        end = first_row + values.shape[2]
        kept = values if kept is None else torch.cat([kept, values], dim=2)
        waiting.append(Inputs(first_row, values, strip.empty))
        if not begun and (end >= context or end >= height):
            above = mirrored(-context, 0, height, kept.device)
            for first in range(0, context, step):
                rows = kept.index_select(2, above[first : first + step])
                yield Framed(Inputs(first - context, rows), False, width)
            begun = True
        if begun:
            yield from (Framed(inputs, False, width) for inputs in waiting)
            waiting = []
            kept = kept[:, :, max(0, kept.shape[2] - below) :].clone()  # a view would keep all that came before
    assert kept is not None
    places = mirrored(height, height + below, height, kept.device) - (height - kept.shape[2])
    for first in range(0, below, step):
        rows = kept.index_select(2, places[first : first + step])
        yield Framed(Inputs(height + first, rows), first + step >= below, width)


def mirrored(first: int, end: int, size: int, device: torch.device) -> Tensor:
    """Which of `size` rows stands at each of `first` to `end` (not included), the rows mirrored on and on."""
    places = torch.arange(first, end, device=device) % (2 * size)
    return torch.where(places < size, places, 2 * size - 1 - places)


def _widened(image: Tensor, right: int, context: int) -> Tensor:
    columns = mirrored(-context, image.shape[3] + right + context, image.shape[3], image.device)
    return image.index_select(3, columns).contiguous(memory_format=torch.channels_last)
