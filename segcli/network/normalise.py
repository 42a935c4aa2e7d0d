"""From values as files hold them to the numbers that a network was trained on.

The constants are fixed at training and travel in the checkpoint. Nothing here is ever taken from a tile: two pixels
of one value give one input wherever they stand.
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

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64")
"""What pixels can be of, by numpy's names."""


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each band, in units of `dtype` (a numpy name) as the training files held it.

    ValueError unless these are finite numbers, the deviations above 0, of a dtype that there is."""

    dtype: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

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


def scaling(value_range: tuple[float, float] | None, trained: str) -> tuple[float, float]:
    """Factor and summand that bring values in `value_range` to the range of the integer dtype `trained` on."""
    if value_range is None:
        return 1.0, 0.0
    limits = np.iinfo(trained)
    scale = (limits.max - limits.min) / (value_range[1] - value_range[0])
    return scale, limits.min - value_range[0] * scale


class Inputs(NamedTuple):
    """A strip as the network takes it, (image, band, row, col), and whether nothing in it comes from data."""

    first_row: int
    values: Tensor
    empty: bool = False


def normalise(
    strips: Iterable[tuple[int, NDArray[Any], NDArray[np.bool_] | None]],
    constants: Normalisation,
    ranges: Sequence[tuple[float, float] | None],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Inputs]:
    """Images as the network was trained to see them: (image, band, row, col) in, the same of `dtype` on `device` out.

    `ranges` has one entry an image: values in it are first brought to the range of the dtype trained on; None takes
    them as they are. The third part of a strip says where there are data, (image, row, col), None for everywhere: other
    pixels, and numbers that are not finite, become 0, the mean, which is what the network pads images with.
    """
    scale, offset = torch.tensor([scaling(values, constants.dtype) for values in ranges], dtype=torch.float64).T
    mean = torch.tensor(constants.mean, dtype=torch.float64)
    deviation = torch.tensor(constants.deviation, dtype=torch.float64)
    # One multiplication and one addition a value, both constants computed in float64; (image, band, 1, 1).
    factor = (scale[:, None] / deviation).float().to(device)[..., None, None]
    summand = ((offset[:, None] - mean) / deviation).float().to(device)[..., None, None]
    for first_row, pixels, valid in strips:
        values = _to_device(pixels, device)
        # The bytes of the file travel to the device, the larger floats are made there.
        inputs = values.float().mul_(factor).add_(summand)
        if pixels.dtype.kind == "f":
            inputs = torch.nan_to_num_(inputs, 0.0, 0.0, 0.0)
        if valid is not None:
            inputs.masked_fill_(~_to_device(valid, device)[:, None], 0.0)
        empty = valid is not None and not valid.any()
        yield Inputs(first_row, inputs.to(dtype).contiguous(memory_format=torch.channels_last), empty)


def _to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "mps" and tensor.element_size() > 1:  # which has no float64, and not all of the others
        tensor = tensor.float()
    return sent(tensor, device)
