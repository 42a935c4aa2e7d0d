"""The whole image at once: the reference that every other way is measured against."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from segcli.network.unet import UNet


def whole_pass(network: UNet, inputs: Iterable[tuple[int, Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """Scores of all rows in one strip: takes (first_row, (image, band, row, col)), yields the same with classes."""
    image = torch.cat([strip for _, strip in inputs], dim=2)
    with torch.inference_mode():
        yield 0, network(image.contiguous(memory_format=torch.channels_last))
