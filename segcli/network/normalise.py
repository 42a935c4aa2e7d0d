"""From values as files hold them to the numbers that a network was trained on.

The constants are fixed at training and travel in the checkpoint; a range of values, where one is asked for, is of the
whole image. Nothing here is ever taken from a tile: two pixels of one value give one input wherever they stand in it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segcli.network.device import sent
from segcli.options import Percentiles

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
"""What pixels can be of, by numpy's names."""


LARGEST = 1e30
"""Of what is subtracted, in deviations, so that float32 holds what comes out."""

AROUND = (-1.0, 2.0)
"""Where the ends of an image's own range are 0 and 1, values are cut at these: one hot pixel may else be as far from
the others as its type allows, and one such image spoils a training."""

Bound = float | tuple[float, ...]
"""A value for all bands, or one for each."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each band, in units of `dtype` (a numpy name) as the training files held it.

    With `percentiles` these stand for 0 and 1 in each image, files may be of any dtype, and mean and deviation are of
    what that makes of the values, cut at AROUND.

    ValueError unless these are finite numbers, the deviations above 0, of a dtype that there is."""

    dtype: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    percentiles: Percentiles | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or not self.mean:
            raise ValueError(f"{len(self.mean)} means, {len(self.deviation)} deviations")
        if self.dtype not in DTYPES:
            raise ValueError(f"normalisation of the dtype {self.dtype!r:.40}, which pixels are not of")
        for value in (*self.mean, *self.deviation):
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"means and deviations must be finite numbers, found {value!r:.40}")
        if not all(value > 0 for value in self.deviation):
            raise ValueError(f"deviations must be above 0: {self.deviation}")
        small, large = min(self.deviation), max(map(abs, (*self.mean, *self.deviation)))
        if large / min(small, 1.0) > LARGEST:
            raise ValueError(f"means {self.mean} and deviations {self.deviation} that float32 cannot count in")

    @property
    def needed_dtype(self) -> str | None:
        """What files are to be of; None: of any."""
        return None if self.percentiles else self.dtype

    @property
    def limits(self) -> tuple[float, float]:
        """What the ends of an image's range stand for. ValueError where that is no range: floats as they are."""
        if self.percentiles:
            return 0.0, 1.0
        limits = np.iinfo(self.dtype)
        return float(limits.min), float(limits.max)

    def of_values(self, value_range: tuple[Bound, Bound] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Factor and summand of each band that make the network's inputs of an image's values, of which those in
        `value_range` stand for the limits; None takes them as they are."""
        scale, offset = (1.0, 0.0) if value_range is None else scaling(value_range, self.limits)
        deviation = np.array(self.deviation)
        return scale / deviation, (offset - np.array(self.mean)) / deviation

    def cut(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """The lowest and the highest input of each band; None where there are no such bounds."""
        if not self.percentiles:
            return None
        low, high = ((end - np.array(self.mean)) / np.array(self.deviation) for end in AROUND)
        return low.astype(np.float32), high.astype(np.float32)


def scaling(value_range: tuple[Bound, Bound], limits: tuple[float, float]) -> tuple[Any, Any]:
    """Factor and summand that bring values in `value_range` to the range between the `limits`; for each band, where it
    has a range of its own."""
    low, high = map(np.asarray, value_range)
    scale = (limits[1] - limits[0]) / (high - low)
    return scale, limits[0] - low * scale


class Inputs(NamedTuple):
    """A strip as the network takes it, (image, band, row, col), and whether nothing in it comes from data."""

    first_row: int
    values: Tensor
    empty: bool = False


def normalise(
    strips: Iterable[tuple[int, NDArray[Any], NDArray[np.bool_] | None]],
    constants: Normalisation,
    ranges: Sequence[tuple[Bound, Bound] | None],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Inputs]:
    """Images as the network was trained to see them: (image, band, row, col) in, the same of `dtype` on `device` out.

    `ranges` has one entry an image: values in it are first brought to the limits of what was trained on; None takes
    them as they are. The third part of a strip says where there are data, (image, row, col), None for everywhere: other
    pixels, and numbers that are not finite, become 0, the mean, which is what the network pads images with.
    """
    # One multiplication and one addition a value, both constants computed in float64; (image, band, 1, 1).
    figures = np.array([constants.of_values(values) for values in ranges], np.float32)
    factor, summand = torch.from_numpy(figures).to(device)[..., None, None].unbind(1)
    bounds = None if (cut := constants.cut()) is None else torch.from_numpy(np.stack(cut)).to(device)[..., None, None]
    for first_row, pixels, valid in strips:
        values = _to_device(pixels, device)
        # The bytes of the file travel to the device, the larger floats are made there.
        inputs = values.float().mul_(factor).add_(summand)
        if pixels.dtype.kind == "f":
            inputs = torch.nan_to_num_(inputs, 0.0, 0.0, 0.0)
        if bounds is not None:
            inputs = inputs.clamp_(bounds[0], bounds[1])
        if valid is not None:
            inputs.masked_fill_(~_to_device(valid, device)[:, None], 0.0)
        empty = valid is not None and not valid.any()
        yield Inputs(first_row, inputs.to(dtype).contiguous(memory_format=torch.channels_last), empty)


def _to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "mps" and tensor.element_size() > 1:  # which has no float64, and not all of the others
        tensor = tensor.float()
    return sent(tensor, device)
