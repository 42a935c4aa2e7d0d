"""Row streaming: the scores of an image of any height, strip by strip, as one pass over the whole image gives them.

A convolution needs only a few rows around a row. Every operator of the network keeps the last rows that its next
output needs, and strips are pushed through from operator to operator; where two branches meet, the earlier one waits in
a queue. Nothing is computed twice, and memory follows the width of the image, never its height. The idea of bounded
inputs for exact output is that of Majurski and Bajcsy (2021), "Exact Tile-Based Segmentation Inference for Images
Larger than GPU Memory", J. Res. NIST 126:126009; keeping rows instead of computing halos again is what is new here.

Knows nothing of files, classes or colours.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.fx import Node

from segcli.network.frame import beyond, framed
from segcli.network.joins import Join, JoinedWindow
from segcli.network.normalise import Inputs
from segcli.network.operators import Pointwise, Scratch, Strip, Window
from segcli.network.plan import Costs, Plan, plans
from segcli.network.rules import Convolve
from segcli.network.tracing import NotStreamableError, Step, fold, sharing_weights, trace

STRIP_PIXELS = {"cpu": 2**16, "cuda": 2**23, "mps": 2**22}
"""How many pixels a strip takes: few enough for the caches of a CPU, enough to fill a GPU."""

LEAST_ROWS = 8
"""Strips below the total stride are no lower than this: with each, an operator moves the two rows or so that it keeps.
On a GPU there are none, because each strip is some hundred launches."""


OUT_OF_STEP = 1.2
"""What is mirrored above an image is no multiple of the total stride, so that strips of some heights complete now more,
now fewer rows of the deep levels: up to so many times the bytes of those that were tried."""


class RowStream:
    """One image, or several of one size, on the way through a network that `tracing.trace` has taken apart.

    With `sizes_alone` convolutions give room for what they would give: nothing of it means anything but its size.
    """

    def __init__(
        self, steps: tuple[Step, ...], watch: Callable[[int], None] | None = None, sizes_alone: bool = False
    ) -> None:
        self._steps = steps
        self._operators = [step.make() for step in steps]
        self._scratch = Scratch()  # one for all, since they work one after the other
        self._joins: dict[int, Join] = {}
        for number, operator in enumerate(self._operators):
            window = operator.window if isinstance(operator, JoinedWindow) else operator
            if isinstance(window, Window):
                window.scratch = self._scratch
            if sizes_alone and isinstance(window, Window | Pointwise) and isinstance(window.function, Convolve):
                window.function = window.function.room
            join = operator.join if isinstance(operator, JoinedWindow) else operator
            if isinstance(join, Join):
                self._joins[number] = join
        self._watch = watch
        self._kept = _Kept()
        self._begun = False
        self._told: dict[int, bool] = {}  # which outputs had ended after the last pass

    def push(self, rows: Tensor, last: bool) -> Iterator[Tensor]:
        """Take the next rows, (image, band, row, col), and give the output rows that they complete, in strips.

        `last` says that no rows follow. `watch`, where given, is told after each operator how many bytes are alive.
        """
        # What the bottom of the image adds comes by itself, so that it is no more at once than a strip is: joins hand
        # out no more, and where there are none, each operator's own bottom comes by itself.
        output, finished = self._pass(rows, last and not self._begun)
        self._begun = True
        if output is not None:
            yield output
        while last and not finished:
            output, finished = self._pass(None, last)
            if output is not None:
                yield output

    def _pass(self, rows: Strip, last: bool) -> tuple[Strip, bool]:
        """Once through all operators; the output, and whether it ends with it."""
        values: dict[int, Strip] = {-1: rows}
        ended = {-1: last}
        known = ended if self._joins else self._told | ended
        for number, (step, operator) in enumerate(zip(self._steps, self._operators, strict=True)):
            inputs = [None if source in step.early else values[source] for source in step.inputs]
            inputs_ended = all(known.get(source, False) for source in step.inputs)
            given = [] if self._watch is None else [rows, *inputs, *operator.held(), *self._scratch.held()]
            for source in step.frees:
                del values[source]  # what of it has been copied may go while the operator works
            with torch.inference_mode():  # here, not in the generators: there it would hold for their callers, too
                output = operator.push(inputs, inputs_ended)
                for later, branch in step.waits:
                    self._joins[later].wait(branch, output)
            if self._watch is not None:
                for changed in (number, *(later for later, _ in step.waits)):
                    self._kept.note(changed, self._operators[changed].held())
                self._watch(self._most(list(values.values()), given, inputs, output))
            values[number], ended[number] = output, inputs_ended and not operator.unfinished()
            del inputs, given, output
        self._told = ended
        final = len(self._steps) - 1
        return values[final], ended[final]

    def _most(self, values: list[Strip], given: list[Strip], left: list[Strip], output: Strip) -> int:
        """Bytes alive at the most while an operator worked on what was `given`: the image, its inputs, and what it
        kept; what all others keep comes on top. Each storage counts once. Of the inputs none are `left` if it copied
        them before it made its output."""
        shared = [*values, *self._scratch.held(), given[0]]
        if not left:
            return max(self._kept.bytes_with([*shared, *given]), self._kept.bytes_with([*shared, output]))
        # What an operator that keeps its inputs puts before them is a copy of them, while it lasts.
        copies = sum(value.nbytes for value in left if value is not None)
        return self._kept.bytes_with([*shared, *given, output]) + copies


class _Kept:
    """Bytes of what all operators keep, each storage once; told anew of the operators alone that have changed it."""

    def __init__(self) -> None:
        self._of: dict[int, dict[int, int]] = {}  # for each operator the bytes of its storages
        self._users: Counter[int] = Counter()
        self._total = 0

    def note(self, operator: int, held: list[Tensor]) -> None:
        """What an operator keeps by now."""
        before, self._of[operator] = self._of.get(operator, {}), _sizes(held)
        for storage, size in before.items():
            self._users[storage] -= 1
            if not self._users[storage]:
                del self._users[storage]
                self._total -= size
        for storage, size in self._of[operator].items():
            self._total += 0 if storage in self._users else size
            self._users[storage] += 1

    def bytes_with(self, others: list[Strip]) -> int:
        """With those of others that are no operator's."""
        return self._total + sum(size for storage, size in _sizes(others).items() if storage not in self._users)


def _sizes(tensors: Iterable[Strip]) -> dict[int, int]:
    storages = (tensor.untyped_storage() for tensor in tensors if tensor is not None)
    return {storage._cdata: storage.nbytes() for storage in storages}


class Stream:
    """A network made ready for row streaming on one device, in one precision.

    `method` of the network is what streams: its output has one row and column for each of the input, whose size must
    be a multiple of `total_stride`; or, where it pads nothing, `context` less of them on each side. Raises
    NotStreamableError.
    """

    def __init__(
        self,
        network: nn.Module,
        bands: int,
        total_stride: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        method: str = "forward",
        context: int = 0,
    ) -> None:
        folded = fold(network, method).to(memory_format=torch.channels_last)
        self._steps = trace(folded)
        _try_out(network, self._steps, method, bands, total_stride, context)
        # Weights that are as they are to be are laid out once, not twice.
        if any((weights.device, weights.dtype) != (device, dtype) for weights in folded.parameters()):
            self._steps = trace(folded.to(device, dtype))
        self.device, self.dtype, self.bands, self.total_stride = device, dtype, bands, total_stride
        self.context = context
        self.least_rows = total_stride
        # Where nothing joins, the deep rows, which come with every other strip, double all that follows.
        if device.type == "cpu" and any(len(step.inputs) > 1 for step in self._steps):
            while self.least_rows % 2 == 0 and self.least_rows // 2 >= LEAST_ROWS:
                self.least_rows //= 2
        # Then it reaches as far along rows as along columns.
        self._is_square = all(map(_is_square, folded.modules())) and all(map(_has_square_arguments, folded.graph.nodes))
        low, high = (column - context for column in reach(self._steps, 0, total_stride - 1))
        # What is mirrored beside the last panel comes from its own columns, however few it gives.
        mirrored = context + total_stride - 2 if context else 0
        self.margin = -(-max(-low, high - total_stride + 1, mirrored) // total_stride) * total_stride

    def plans(self, height: int, width: int, images: int, budget: float, beside: float = 0.0) -> Iterator[Plan]:
        """Ways to cut `images` of that size, streamed together; the first that fits `budget` bytes comes first. Each
        column of an image takes `beside` bytes more."""
        pixels = STRIP_PIXELS.get(self.device.type, STRIP_PIXELS["cpu"]) // images
        costs = self.costs.more(beside).times(images)
        yield from plans(height, width, self.total_stride, self.margin, costs, budget, pixels, self.least_rows)

    @property
    def always(self) -> float:
        """Bytes that are taken however narrow the image: none to speak of."""
        return 0.0

    def pixels_of(self, height: int, width: int) -> int:
        """How many are computed for an image of that size."""
        return height * width

    def scores(self, strips: Iterable[Inputs], height: int) -> Iterator[tuple[int, Tensor]]:
        """Scores of images of `height` rows that come in strips, (image, band, row, col).

        Yields (first_row, (image, class, row, col)), of other heights than the strips. The images are padded as
        `frame` does it, and the scores are cut back.

        Where empty strips follow each other for longer than the network sees, its rows do not change any more from
        one cycle of strips to the next: further ones get those scores again, and are not computed.
        """
        flow = RowStream(self._steps)
        done = 0
        empty_rows = 0  # just now, one after the other
        recent: list[Tensor] = []  # the scores that came with the last empty strips, of one cycle
        skipped: list[Tensor] = []  # strips since the last whole cycle
        for (first_row, strip, empty), last, width in framed(strips, height, self.total_stride, self.context):
            rows = strip.shape[2]
            cycle = max(1, self.total_stride // rows)  # strips until every operator is where it was
            # The margin is counted from the first row of a block of the total stride.
            first_seen = (done - cycle * rows) // self.total_stride * self.total_stride - self.margin
            settled = self._is_square and first_row - empty_rows <= first_seen
            empty_rows = empty_rows + rows if empty else 0
            repeats = cycle * rows % self.total_stride == 0 and [part.shape[2] for part in recent] == cycle * [rows]
            if empty and settled and repeats and not last:
                recent = [*recent[1:], recent[0]]
                skipped = [*skipped, strip] if len(skipped) + 1 < cycle else []
                if (count := min(rows, height - done)) > 0:  # below the image there may be more of them
                    yield done, recent[-1] if count == rows else recent[-1][:, :, :count]
                done += rows
                continue
            for missed in skipped:  # what they give is known already
                list(flow.push(missed, last=False))
            skipped = []
            for scores in flow.push(strip, last):
                count = min(scores.shape[2], height - done)
                if count > 0:
                    part = scores[:, :, :count, :width]
                    recent = [*recent, part][-cycle:] if empty else []
                    yield done, part
                    del part
                done += count

    @cached_property
    def costs(self) -> Costs:
        """Bytes of one image by strip height and columns, from pushing narrow strips through."""
        columns = 2 * self.total_stride + 2 * self.context
        heights = [self.least_rows, (8 if self.context else 4) * self.total_stride]
        narrow = [self._peak(height, columns) for height in heights]
        # What stands beside the image and is used up on the way costs less than the image.
        wide = [self._peak(height, 2 * columns) for height in heights] if self.context else [2 * p for p in narrow]
        low, high = ((twice - once) / columns for once, twice in zip(narrow, wide, strict=True))
        beside = round(narrow[1] / high) - columns
        if self.context:
            low, high = OUT_OF_STEP * low, OUT_OF_STEP * high
        per_row = (high - low) / (heights[1] - heights[0])
        return Costs(low - per_row * heights[0], per_row, beside, self.total_stride)

    def _peak(self, strip_height: int, columns: int, sizes_alone: bool = True) -> int:
        """Most bytes alive while strips of an image of so many columns go through, which need not be computed."""
        alive: list[int] = []
        flow = RowStream(self._steps, alive.append, sizes_alone)
        # Until the queues before the joins have filled, which takes as many rows as the output lags behind, and once
        # more, when the rows that were the first to come out still lie where they waited.
        height = (3 + (self.margin + self.context + self.total_stride) // strip_height) * strip_height
        zeros = torch.zeros(1, self.bands, strip_height, columns, device=self.device, dtype=self.dtype)
        strip = zeros.contiguous(memory_format=torch.channels_last)
        strips = (Inputs(first, strip) for first in range(0, height, strip_height))
        for inputs, _, _ in framed(strips, height, self.total_stride, self.context):  # as they come, out of step or not
            list(flow.push(inputs.values, last=False))
        return max(alive)


def _is_square(module: nn.Module) -> bool:
    settings = (getattr(module, name, 1) for name in ("kernel_size", "stride", "padding", "dilation", "scale_factor"))
    return all(not isinstance(value, tuple | list) or len(set(value)) == 1 for value in settings)


def _has_square_arguments(node: Node) -> bool:
    """Whether numbers that come in pairs, as for a function's kernel, are alike."""
    pairs = [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, tuple | list)]
    return all(len(set(pair)) == 1 for pair in pairs if pair and all(isinstance(part, int) for part in pair))


def _try_out(
    network: nn.Module, steps: tuple[Step, ...], method: str, bands: int, total_stride: int, context: int
) -> None:
    """Compare the two ways on a small image of noise, in case that the traced code does not do what the code does."""
    side = 4 * total_stride
    side += beyond(side, total_stride, context) + 2 * context
    like = next(network.parameters())
    image = torch.randn(1, bands, side, side, generator=torch.Generator().manual_seed(0)).to(like)
    flow = RowStream(steps)
    with torch.inference_mode():
        expected = getattr(sharing_weights(network).eval(), method)(image)
    strips = [image[:, :, row : row + total_stride] for row in range(0, side, total_stride)]
    given = [rows for n, strip in enumerate(strips) for rows in flow.push(strip, n == len(strips) - 1)]
    found = torch.cat(given, dim=2)
    # Far above rounding, far below what a wrong row does.
    if found.shape != expected.shape or (found - expected).abs().max() > 1e-3 * expected.abs().max():
        raise NotStreamableError(["streamed in rows it gives other scores than at once"])


def reach(steps: tuple[Step, ...], first: int, last: int) -> tuple[int, int]:
    """First and last column of the image behind the output's columns `first` to `last`, both included."""
    spans: dict[int, tuple[int, int]] = {len(steps) - 1: (first, last)}
    for number in range(len(steps) - 1, -1, -1):
        if number not in spans:
            continue
        span = steps[number].columns(*spans[number])
        for source in steps[number].inputs:
            known = spans.get(source, span)
            spans[source] = (min(known[0], span[0]), max(known[1], span[1]))
    return spans[-1]
