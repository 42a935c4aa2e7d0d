"""The windowed way: overlapping windows, their scores averaged with weights that fall towards the window's border.

For networks that look at the whole image and so cannot be streamed, and for test-time augmentation. The result is not
the one of a single pass over the whole image, but has no hard seams. Scores are added up in float32 on the device, in
a rolling band of rows as high as a window; there is no canvas of the whole image. Weights as in Isensee et al. (2021),
"nnU-Net", for the Gaussian.

Knows nothing of files, classes or colours.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segcli.network.alive import most_alive
from segcli.network.ensemble import mean
from segcli.network.normalise import Inputs
from segcli.network.plan import Costs, Plan, plans
from segcli.network.views import AS_IT_IS, Views
from segcli.options import Weighting


def window_weights(size: int, weighting: Weighting) -> Tensor:
    """Weights of one axis of a window, largest in the middle, nowhere zero; shape (size,), float32.

    gaussian: sigma of an eighth of the size, not under a thousandth of the peak. hann: the raised cosine, taken at
    pixel centres, so that the outermost ones count too.
    """
    centred = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    if weighting == "gaussian":
        weights = torch.exp(-0.5 * (centred * 8).square()).clamp(min=1e-3)
    else:
        weights = 0.5 + 0.5 * torch.cos(2 * torch.pi * centred)
    return weights.float()


def window_starts(length: int, size: int, step: int) -> list[int]:
    """First rows (or columns) of windows of `size` that cover `length`, `step` apart, the last one at the end."""
    if length <= size:
        return [0]
    return [*range(0, length - size, step), length - size]


@dataclass(frozen=True)
class Windows:
    """A network that scores overlapping windows. `network` takes (image, band, row, col) of any size.

    `overlap` is the share of a window that the next one covers again; windows stand at multiples of `total_stride`
    but for the last of a row or column. Of several `views` of a window the scores are averaged. `bands` and `classes`
    tell how much memory a column takes; `device` and `dtype` are those of the images.
    """

    network: Callable[[Tensor], Tensor]
    size: int = 512
    overlap: float = 0.25
    weighting: Weighting = "gaussian"
    views: Views = AS_IT_IS
    total_stride: int = 1
    bands: int = 1
    classes: int = 2
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _known: dict[tuple[int, int, torch.device], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def step(self) -> int:
        """Rows, or columns, from a window to the next."""
        return max(self.total_stride, round(self.size * (1 - self.overlap)) // self.total_stride * self.total_stride)

    def plans(self, height: int, width: int, images: int, budget: float, beside: float = 0.0) -> Iterator[Plan]:
        """Full width if it fits `budget` bytes, else panels that see every window that touches them: same scores."""
        # Up to two windows of rows wait to be scored, in floats, as image and as strip; scores and weights add up.
        column = self.size * 4 * (4 * self.bands + 2 * (self.classes + 1)) + beside
        costs = Costs(column, 0, always=self.bytes_of(min(height, self.size), min(width, self.size))).times(images)
        margin = -(-self.size // self.step) * self.step
        yield from plans(height, width, self.step, margin, costs, budget, self.size * width, self.step)

    @property
    def always(self) -> float:
        """Bytes that are taken however narrow the image: those of a whole window."""
        return self.bytes_of(self.size, self.size)

    def bytes_of(self, height: int, width: int) -> float:
        """Most bytes alive at a time, by estimate, while a window of that size is scored."""
        return max(0.0, float(np.polyval(self._by_side, math.sqrt(height * width))))

    @cached_property
    def _by_side(self) -> NDArray[np.float64]:
        """Features grow with the area, and with the sides where the network sees more than the window: a polynomial of
        second degree through three windows of zeros."""
        sides = [n * self.total_stride for n in (2, 3, 4)]
        shapes = ((1, self.bands, side, side) for side in sides)
        windows = [torch.zeros(shape, device=self.device, dtype=self.dtype) for shape in shapes]
        windows = [window.contiguous(memory_format=torch.channels_last) for window in windows]
        with torch.inference_mode():
            most = [most_alive(partial(self._weighed, window)) for window in windows]
        return np.polyfit(sides, most, 2)

    def pixels_of(self, height: int, width: int) -> int:
        """How many are computed for an image of that size: those under several windows as often."""
        sides = (len(window_starts(side, self.size, self.step)) * min(side, self.size) for side in (height, width))
        return math.prod(sides)

    def scores(self, strips: Iterable[Inputs], height: int) -> Iterator[tuple[int, Tensor]]:
        """As `stream.Stream.scores`: strips of an image of `height` rows in, scores of its rows out."""
        starts = window_starts(height, self.size, self.step)
        band: _Band | None = None
        rows: Tensor | None = None  # what has come from row `rows_first` on
        rows_first = 0
        for _, strip, _ in strips:
            rows = strip if rows is None else torch.cat([rows, strip], dim=2)
            while starts and rows_first + rows.shape[2] >= min(starts[0] + self.size, height):
                first = starts.pop(0)
                final = starts[0] if starts else height
                with torch.inference_mode():  # not around the yield: it would hold for the caller, too
                    part = rows[:, :, first - rows_first : first - rows_first + self.size]
                    band = self._add(part, first, band)
                    begin, finished = band.first_row, band.release(final - band.first_row)
                yield begin, finished
                rows, rows_first = rows[:, :, final - rows_first :], final

    def _add(self, part: Tensor, first: int, band: "_Band | None") -> "_Band":
        """Score the windows of one row of windows and add them to the band."""
        height, width = part.shape[2], part.shape[3]
        for col in window_starts(width, self.size, self.step):
            scores, weights = self._weighed(part[..., col : col + self.size])
            if band is None:
                band = _Band(first, scores.new_zeros(*scores.shape[:2], 0, width), scores.new_zeros(1, 1, 0, width))
            band.extend(first + height)
            place = (..., slice(first - band.first_row, first - band.first_row + height), slice(col, col + self.size))
            band.total[place] += scores
            band.weight[place] += weights
            del scores, weights  # before the next window takes as much
        assert band is not None
        return band

    def _weighed(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of a window times its weights, and these, (row, col)."""
        weights = self._weights(window.shape[2], window.shape[3], window.device)
        return self._score(window).float() * weights, weights

    def _weights(self, height: int, width: int, device: torch.device) -> Tensor:
        """Of a window, (row, col). The last ones are kept: to bring them to a GPU waits for all that it has to do."""
        key = height, width, device
        if key not in self._known:
            self._known.clear()
            down, across = (window_weights(side, self.weighting).to(device) for side in (height, width))
            self._known[key] = down[:, None] * across
        return self._known[key]

    def _score(self, window: Tensor) -> Tensor:
        if self.views == AS_IT_IS:
            return self.network(window)
        return mean(view.back(self.network(view.of(window))).float() for view in self.views)


@dataclass
class _Band:
    """Rows that more windows may still add to: weighted scores, and the weights, from `first_row` on."""

    first_row: int
    total: Tensor  # (image, class, row, col)
    weight: Tensor  # (1, 1, row, col)

    def extend(self, end_row: int) -> None:
        missing = end_row - self.first_row - self.total.shape[2]
        if missing > 0:
            self.total = functional.pad(self.total, (0, 0, 0, missing))
            self.weight = functional.pad(self.weight, (0, 0, 0, missing))

    def release(self, count: int) -> Tensor:
        """The first `count` rows, finished; the band goes on below them."""
        finished = self.total[:, :, :count] / self.weight[:, :, :count]
        self.total, self.weight = self.total[:, :, count:].clone(), self.weight[:, :, count:].clone()
        self.first_row += count
        return finished
