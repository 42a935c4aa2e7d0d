"""Row streaming: the scores of an image of any height, strip by strip, as one pass over the whole image gives them.

A convolution needs only a few rows around a row. Every operator of the network keeps the last rows that its next
output needs, and strips are pushed through from operator to operator; where two branches meet, the earlier one waits in
a queue. Nothing is computed twice, and memory follows the width of the image, never its height. The idea of bounded
inputs for exact output is that of Majurski and Bajcsy (2021), "Exact Tile-Based Segmentation Inference for Images
Larger than GPU Memory", J. Res. NIST 126:126009; keeping rows instead of computing halos again is what is new here.

Knows nothing of files, classes or colours.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from segcli.network.operators import Strip
from segcli.network.tracing import Step


class RowStream:
    """One image, or several of one size, on the way through a network that `tracing.trace` has taken apart."""

    def __init__(self, steps: tuple[Step, ...], watch: Callable[[int], None] | None = None) -> None:
        self._steps = steps
        self._operators = [step.make() for step in steps]
        self._watch = watch

    def push(self, rows: Tensor, last: bool) -> Strip:
        """Take the next rows, (image, band, row, col), and give the output rows that they complete, or None.

        `last` says that no rows follow. `watch`, where given, is told after each operator how many bytes are alive.
        """
        values: dict[int, Strip] = {-1: rows}
        for number, (step, operator) in enumerate(zip(self._steps, self._operators, strict=True)):
            inputs = [values[source] for source in step.inputs]
            values[number] = operator.push(inputs, last)
            if self._watch is not None:
                self._watch(self._alive([*values.values(), *inputs]))
            for source in step.frees:
                del values[source]
            del inputs
        return values[len(self._steps) - 1]

    def _alive(self, values: Iterable[Strip]) -> int:
        """Bytes behind the given tensors and all that is kept between pushes, each storage counted once."""
        tensors = [value for value in values if value is not None]
        tensors += [kept for operator in self._operators for kept in operator.held()]
        return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def stream(
    steps: tuple[Step, ...], strips: Iterable[tuple[int, Tensor]], height: int, total_stride: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """Scores of an image of `height` rows that comes in `strips` of (first_row, (image, band, row, col)).

    Yields (first_row, (image, class, row, col)). The image is padded with zeros at the right and the bottom to
    multiples of `total_stride`, and the scores are cut back. Equal to the pass over the whole padded image. For
    networks whose scores have the size of the image; strips may have any height, and those that come out have others.
    """
    flow = RowStream(steps)
    done = 0
    with torch.inference_mode():
        for first_row, strip in strips:
            rows, width = strip.shape[-2:]
            last = first_row + rows >= height
            bottom, right = (-height % total_stride if last else 0), -width % total_stride
            scores = flow.push(functional.pad(strip, (0, right, 0, bottom)) if bottom or right else strip, last)
            if scores is not None and done < height:
                count = min(scores.shape[2], height - done)
                yield done, scores[:, :, :count, :width]
                done += count


def reach(steps: tuple[Step, ...], first: int, last: int) -> tuple[int, int]:
    """First and last row (or column) of the image behind the outputs `first` to `last`, both included."""
    spans: dict[int, tuple[int, int]] = {len(steps) - 1: (first, last)}
    for number in range(len(steps) - 1, -1, -1):
        if number not in spans:
            continue
        span = steps[number].make().reach(*spans[number])
        for source in steps[number].inputs:
            known = spans.get(source, span)
            spans[source] = (min(known[0], span[0]), max(known[1], span[1]))
    return spans[-1]
