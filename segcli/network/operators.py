"""Operators that take an image in strips of rows and give what the whole image would have given, strip by strip.

Each owns the rows that its next output still needs. It takes new rows, gives every output row that has become
computable, and keeps the tail; `last` says that its inputs end here, so that the bottom padding follows. Columns are
whole in every strip, and padded by the kernels themselves. Where nothing has become computable, the strip is None.

A `Reach` tells which inputs, by index, the outputs `first` to `last` (both included) along one axis are made from.
Along rows some operators need it to know what to keep; along columns it tells how far beside a panel the network looks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from segcli.network.device import lasting

Strip = Tensor | None
"""(image, channel, row, col), or None for no rows."""

Reach = Callable[[int, int], tuple[int, int]]


class Operator(Protocol):
    """One node of the network, for one image."""

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        """Take the next rows of each input; give the output rows that have become computable.

        Inputs that it has copied it may take out of the list, whose caller holds them no more.
        """

    def held(self) -> list[Tensor]:
        """What is kept between two pushes."""

    def unfinished(self) -> bool:
        """Whether more output follows although the inputs have ended."""


@dataclass
class Pointwise:
    """Whatever looks at one row at a time: activations, norms in eval mode, 1x1 convolutions, nearest upsampling."""

    function: Callable[[Tensor], Tensor]

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        (rows,) = inputs
        return None if rows is None else self.function(rows)

    def held(self) -> list[Tensor]:
        return []

    def unfinished(self) -> bool:
        return False


@dataclass(frozen=True)
class Geometry:
    """A kernel along one axis. `extent` is its size, dilation counted; padding before and after the image."""

    extent: int
    stride: int
    before: int
    after: int

    def windows(self, size: int) -> int:
        """How many find room in so many pixels, padding among them."""
        return max(0, (size - self.extent) // self.stride + 1)

    def window_reach(self, first: int, last: int) -> tuple[int, int]:
        """Of a convolution or pooling."""
        return first * self.stride - self.before, last * self.stride - self.before + self.extent - 1

    def spread_reach(self, first: int, last: int) -> tuple[int, int]:
        """Of a transposed convolution."""
        return -((self.extent - 1 - self.before - first) // self.stride), (last + self.before) // self.stride


def same_reach(first: int, last: int) -> tuple[int, int]:
    """Of whatever looks at one place at a time."""
    return first, last


def repeat_reach(scale: int, first: int, last: int) -> tuple[int, int]:
    """Of nearest upsampling."""
    return first // scale, last // scale


def interpolate_reach(scale: int, first: int, last: int) -> tuple[int, int]:
    """Of bilinear upsampling: output o lies at (o + 1/2) / scale - 1/2, between two inputs."""
    return (2 * first + 1 - scale) // (2 * scale), (2 * last + 1 - scale) // (2 * scale) + 1


class Scratch:
    """Memory that holds the block an operator works on, until the next one takes it: fresh memory costs page faults."""

    def __init__(self) -> None:
        self._memory: Strip = None

    def block(self, like: Tensor, channels: int, rows: int) -> Tensor:
        """Room for `rows` rows of `channels` channels beside `like`, channels last, holding anything."""
        images, _, _, width = like.shape
        size = images * rows * width * channels
        if self._memory is None or self._memory.numel() < size:
            self._memory = None  # before the larger one is there
            self._memory = lasting(size, like)
        return self._memory[:size].view(images, rows, width, channels).permute(0, 3, 1, 2)

    def held(self) -> list[Tensor]:
        return [] if self._memory is None else [self._memory]


def put(rows: Tensor, place: Tensor) -> None:
    """How rows enter the block of a window, if nothing is to be done to them on the way."""
    place.copy_(rows)


@dataclass
class Window:
    """Convolution and pooling: output row o is made from input rows o * stride - before and `extent` - 1 after it.

    `function` computes without padding along rows, in new memory; `fill` is what it pads with. `enter` puts new rows
    behind the kept ones; what an operator before this one would do to them, it can do on the way, and save a pass
    through memory.
    """

    function: Callable[[Tensor], Tensor]
    geometry: Geometry
    fill: float = 0.0
    enter: Callable[[Tensor, Tensor], None] = put
    scratch: Scratch = field(default_factory=Scratch)
    _kept: Strip = None
    _skip: int = 0  # rows still to come that no output needs, where the stride is larger than the kernel
    _begun: bool = False

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        (rows,) = inputs
        if rows is not None and self._skip:
            skipped = min(self._skip, rows.shape[2])
            self._skip -= skipped
            rows = rows[:, :, skipped:] if skipped < rows.shape[2] else None
        if rows is not None and self._kept is None and not self._pads(last) and self.enter is put:
            return self.compute(rows, last)  # as they are
        block = self.block([] if rows is None else [[rows]], last)
        inputs.clear()
        del rows  # before the output takes as much
        return self.compute(block, last)

    def _pads(self, last: bool) -> bool:
        return bool((self.geometry.before and not self._begun) or (self.geometry.after and last))

    def block(self, branches: list[list[Tensor]], last: bool) -> Strip:
        """What is kept, the new rows, and the padding that is due, one below the other.

        The new rows may be those of several branches, whose channels follow on each other; each comes in pieces.
        """
        if not branches and self._kept is None:
            return None
        like = branches[0][0] if branches else self._kept
        assert like is not None
        top = 0 if self._begun else self.geometry.before
        kept = 0 if self._kept is None else self._kept.shape[2]
        new = sum(piece.shape[2] for piece in branches[0]) if branches else 0
        bottom = self.geometry.after if last else 0
        channels = sum(pieces[0].shape[1] for pieces in branches) if branches else like.shape[1]
        block = self.scratch.block(like, channels, top + kept + new + bottom)
        if top:
            block[:, :, :top] = self.fill
        if self._kept is not None:
            block[:, :, top : top + kept] = self._kept
        fill(block[:, :, top + kept : top + kept + new], branches, self.enter)
        if bottom:
            block[:, :, top + kept + new :] = self.fill
        return block

    def compute(self, block: Strip, last: bool) -> Strip:
        """The output rows that a block completes; its tail is kept."""
        if block is None:
            return None
        self._begun = True
        extent, stride = self.geometry.extent, self.geometry.stride
        rows = block.shape[2]
        count = self.geometry.windows(rows)
        self._skip = max(0, count * stride - rows)
        # A copy, because the block's memory is needed.
        self._kept = None if last or count * stride >= rows else copied(block[:, :, count * stride :], self._kept)
        return self.function(block[:, :, : (count - 1) * stride + extent]) if count else None

    def held(self) -> list[Tensor]:
        return [] if self._kept is None else [self._kept]  # the scratch is not its own

    def unfinished(self) -> bool:
        return False


@dataclass
class Tail:
    """The last rows of an input, which outputs to come are made from, and the index of the first of them."""

    rows: Strip = None
    first: int = 0

    def followed_by(self, new: Strip) -> Strip:
        """What is kept and the new rows in one block, which begins at `first`."""
        parts = [part for part in (self.rows, new) if part is not None]
        return whole(parts) if parts else None

    def keep(self, block: Tensor, first: int) -> None:
        """Keep the rows of the block from index `first` on; a copy, because a view would keep the whole block alive."""
        kept = block[:, :, first - self.first :]
        self.rows, self.first = (kept.clone() if kept.shape[2] else None), first


@dataclass
class Spread:
    """Transposed convolution: input row i adds to the output rows from i * stride - before, `extent` of them.

    `function(rows, extra)` computes without padding along rows and with `extra` output rows at the bottom; `after` of
    the geometry is how many rows the whole output loses at the bottom (padding less output padding, may be negative).
    Rows that overlap between strips are computed from the kept input rows again, at most extent / stride of them, so
    that every output row is one sum in one order.
    """

    function: Callable[[Tensor, int], Tensor]
    geometry: Geometry
    _tail: Tail = field(default_factory=Tail)
    _next_out: int = 0

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        block = self._tail.followed_by(inputs[0])
        if block is None:
            return None
        extent, stride, before = self.geometry.extent, self.geometry.stride, self.geometry.before
        end_in = self._tail.first + block.shape[2]
        origin = self._tail.first * stride - before  # the output row that stands first in the block's own output
        end_if_last = (end_in - 1) * stride + extent - before - self.geometry.after
        # The next input row adds to the output from here on; and rows cut at the bottom must not be given before.
        end_out = end_if_last if last else min(end_in * stride - before, end_if_last)
        output = None
        if end_out > self._next_out:
            extra = max(0, end_out - origin - (block.shape[2] - 1) * stride - extent)
            output = self.function(block, extra)[:, :, self._next_out - origin : end_out - origin]
            self._next_out = end_out
        # A row that no input adds to, where the stride is larger than the kernel, has its reach the wrong way round.
        first_needed = max(self._tail.first, min(end_in, *self.geometry.spread_reach(self._next_out, self._next_out)))
        if end_if_last > self._next_out:
            first_needed = min(first_needed, end_in - 1)
        self._tail.keep(block, first_needed)
        return output

    def held(self) -> list[Tensor]:
        return [] if self._tail.rows is None else [self._tail.rows]

    def unfinished(self) -> bool:
        return False


@dataclass
class Interpolate:
    """Bilinear upsampling by a whole number, pixel centres aligned (align_corners=False); borders are repeated."""

    function: Callable[[Tensor], Tensor]
    scale: int
    _tail: Tail = field(default_factory=Tail)
    _next_out: int = 0

    def push(self, inputs: list[Strip], last: bool) -> Strip:
        block = self._tail.followed_by(inputs[0])
        if block is None:
            return None
        end_in = self._tail.first + block.shape[2]
        # Row o lies at (o + 1/2) / scale - 1/2 between two input rows; both must be there, or the image be at its end.
        end_out = end_in * self.scale if last else (2 * end_in * self.scale - self.scale) // 2
        origin = self._tail.first * self.scale
        output = None
        if end_out > self._next_out:
            output = self.function(block)[:, :, self._next_out - origin : end_out - origin]
            self._next_out = end_out
        first_needed = max(
            self._tail.first, min(end_in, interpolate_reach(self.scale, self._next_out, self._next_out)[0])
        )
        self._tail.keep(block, first_needed)
        return output

    def held(self) -> list[Tensor]:
        return [] if self._tail.rows is None else [self._tail.rows]

    def unfinished(self) -> bool:
        return False


def copied(rows: Tensor, into: Strip = None) -> Tensor:
    """A copy of rows that are to stay, in the memory of earlier ones if these were as many."""
    if into is None or into.shape != rows.shape:
        images, channels, count, width = rows.shape
        into = lasting(rows.numel(), rows).view(images, count, width, channels).permute(0, 3, 1, 2)
    return into.copy_(rows)


def whole(pieces: list[Tensor]) -> Tensor:
    """Rows that came in pieces as one tensor."""
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def fill(place: Tensor, branches: list[list[Tensor]], enter: Callable[[Tensor, Tensor], None]) -> None:
    """Each piece of each branch to its rows and channels."""
    channel = 0
    for pieces in branches:
        row = 0
        for piece in pieces:
            enter(piece, place[:, channel : channel + piece.shape[1], row : row + piece.shape[2]])
            row += piece.shape[2]
        channel += pieces[0].shape[1]
