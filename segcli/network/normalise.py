"""From values as files hold them to the numbers that a network was trained on.

The constants are fixed at training and travel in the checkpoint. Nothing here is ever taken from a tile: two pixels
of one value give one input wherever they stand.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segcli.raster.rows import Rows


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of each band, in units of `dtype` (a numpy name) as the training files held it."""

    dtype: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.deviation) or not self.mean:
            raise ValueError(f"{len(self.mean)} means, {len(self.deviation)} deviations")
        if not all(value > 0 for value in self.deviation):
            raise ValueError(f"deviations must be above 0: {self.deviation}")


def scaling(value_range: tuple[float, float] | None, trained: str) -> tuple[float, float]:
    """Factor and summand that bring values in `value_range` to the range of the integer dtype `trained` on."""
    if value_range is None:
        return 1.0, 0.0
    limits = np.iinfo(trained)
    scale = (limits.max - limits.min) / (value_range[1] - value_range[0])
    return scale, limits.min - value_range[0] * scale


def normalise(
    strips: Iterable[Rows],
    constants: Normalisation,
    device: torch.device,
    value_range: tuple[float, float] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first_row, (1, band, row, col) float32 on `device`), as the network was trained to see them.

    Values in `value_range` are first brought to the range of the dtype trained on; None takes them as they are.
    """
    scale, offset = scaling(value_range, constants.dtype)
    mean = torch.tensor(constants.mean, dtype=torch.float64)
    deviation = torch.tensor(constants.deviation, dtype=torch.float64)
    # One multiplication and one addition a value, computed once in float64.
    factor = (scale / deviation).float().to(device)[:, None, None]
    summand = ((offset - mean) / deviation).float().to(device)[:, None, None]
    for first_row, pixels in strips:
        values = torch.from_numpy(pixels).to(device).float()  # bytes travel to the device, floats are made there
        yield first_row, (values * factor + summand)[None]
