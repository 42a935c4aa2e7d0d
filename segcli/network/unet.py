"""The U-Net of Ronneberger, Fischer and Brox (2015), "U-Net: Convolutional Networks for Biomedical Image
Segmentation", with same padding. Knows tensors and nothing of files or classes' names.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["batch", "none"]


@dataclass(frozen=True)
class NetworkConfig:
    """Every choice that rebuilds the network; travels in the checkpoint."""

    bands: int
    classes: int
    width: int = 32
    depth: int = 4
    norm: Norm = "batch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not (1 <= self.bands <= 4096 and 1 <= self.classes <= 256 and 1 <= self.width <= 1024):
            raise ValueError(f"bands, classes or width out of range: {self}")
        if not (1 <= self.depth <= 8 and 0 <= self.dropout < 1 and self.norm in ("batch", "none")):
            raise ValueError(f"depth, dropout or norm out of range: {self}")

    @property
    def total_stride(self) -> int:
        """Rows and columns of the image for one of the deepest level."""
        return 1 << self.depth


class UNet(nn.Module):
    """Scores for every pixel: (image, band, row, col) float -> (image, class, row, col), any size of image.

    Per level two 3x3 convolutions with ReLU, then 2x2 max pooling, channels doubled; going up a 2x2 transposed
    convolution that halves them, the encoder's features beside, two 3x3 convolutions; at the end 1x1 to the classes.
    At depth 4 and width 64 that makes the paper's 23 convolutions. Dropout, where asked for, stands at the end of the
    contracting path as in the paper. Weights start as in He et al. (2015), which the paper asks for.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels = [config.width << level for level in range(config.depth + 1)]
        self.encoder = nn.ModuleList(
            double_convolution(inputs, outputs, config.norm)
            for inputs, outputs in zip([config.bands, *channels], channels, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(config.dropout)
        pairs = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, shallow, 2, stride=2) for deep, shallow in pairs)
        self.decoder = nn.ModuleList(double_convolution(deep, shallow, config.norm) for deep, shallow in pairs)
        self.head = nn.Conv2d(config.width, config.classes, 1)
        for module in self.modules():
            # Numbers drawn for the meta device are none, and torch would load its compiler (1 s, 100 MB) to draw them.
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.config.total_stride)
        return self.scores(padded)[..., :height, :width]

    def scores(self, x: Tensor) -> Tensor:
        """`forward` for an image whose size is a multiple of the total stride; free of control flow on sizes."""
        skips = []
        for level in self.encoder[:-1]:
            x = level(x)
            skips.append(x)
            x = self.pool(x)  # (image, channel, row/2, col/2)
        x = self.dropout(self.encoder[-1](x))
        for up, decode, skip in zip(self.up, self.decoder, reversed(skips), strict=True):
            x = decode(torch.cat([skip, up(x)], dim=1))  # (image, channel, 2 row, 2 col)
        return self.head(x)


def double_convolution(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Two 3x3 convolutions of same size, each with ReLU, and with batch norm between them if asked for."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        # A bias before batch norm would be subtracted again by it.
        layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def pad_to_multiple(image: Tensor, stride: int) -> Tensor:
    """The image with zeros at the right and the bottom up to the next multiple of `stride`."""
    height, width = image.shape[-2:]
    right, bottom = -width % stride, -height % stride
    return functional.pad(image, (0, right, 0, bottom)) if right or bottom else image
