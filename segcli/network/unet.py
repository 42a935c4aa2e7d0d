"""The U-Net of Ronneberger, Fischer and Brox (2015), "U-Net: Convolutional Networks for Biomedical Image
Segmentation", and its relatives: padded or not, other ways up, other skips, encoders from torchvision. Knows tensors
and nothing of classes' names or of files, but for one that an encoder's weights lie in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from segcli.network.crop import Crop
from segcli.network.encoders import STRIDES, Encoder, feature_channels
from segcli.network.frame import frame
from segcli.network.ups import make_up
from segcli.options import EncoderName, Norm, Padding, Skip, Up


@dataclass(frozen=True)
class NetworkConfig:
    """Every choice that rebuilds the network; travels in the checkpoint. `depth` is 5 with torchvision's encoders.

    Defaults are what weights mean that do not say it, and stay; those of a new training are in `TrainOptions`.
    """

    bands: int
    classes: int
    width: int = 32
    depth: int = 4
    norm: Norm = "batch"
    dropout: float = 0.0
    up: Up = "transpose"
    skip: Skip = "concat"
    encoder: EncoderName = "plain"
    padding: Padding = "same"

    def __post_init__(self) -> None:
        if not (1 <= self.bands <= 4096 and 1 <= self.classes <= 256 and 1 <= self.width <= 1024):
            raise ValueError(f"bands, classes or width out of range: {self}")
        if not (1 <= self.depth <= 8 and 0 <= self.dropout < 1 and self.norm in get_args(Norm)):
            raise ValueError(f"depth, dropout or norm out of range: {self}")
        if self.up not in get_args(Up) or self.skip not in get_args(Skip) or self.encoder not in get_args(EncoderName):
            raise ValueError(f"up, skip or encoder not known: {self}")
        if self.encoder != "plain" and (self.depth != STRIDES or self.up == "unpool"):
            raise ValueError(f"encoder {self.encoder} has depth {STRIDES}, and no positions to unpool to")
        if self.padding not in get_args(Padding) or (self.padding == "valid" and self.encoder != "plain"):
            raise ValueError(f"padding {self.padding!r:.20} with encoder {self.encoder}: valid goes with plain alone")

    @property
    def total_stride(self) -> int:
        """Rows and columns of the image for one of the deepest level."""
        return 1 << self.depth

    @property
    def context(self) -> int:
        """Rows and columns on each side of an image that convolutions without padding use up: 92 at depth 4."""
        return 6 * self.total_stride - 4 if self.padding == "valid" else 0


class UNet(nn.Module):
    """Scores for every pixel: (image, band, row, col) float -> (image, class, row, col), any size of image.

    Per level two 3x3 convolutions with ReLU, then 2x2 max pooling, channels doubled; going up a 2x2 transposed
    convolution that halves them, the encoder's features beside, two 3x3 convolutions; at the end 1x1 to the classes.
    At depth 4 and width 64 that makes the paper's 23 convolutions. Dropout, where asked for, stands at the end of the
    contracting path as in the paper. Weights start as in He et al. (2015), which the paper asks for.

    Without skips and with transposed convolutions it is the plain encoder and decoder of Long, Shelhamer and Darrell
    (2015), with unpooling the deconvolution network of Noh, Hong and Han (2015). An encoder of torchvision's begins
    with the weights in the file `encoder_weights`, where one is given. With valid padding it is the paper's:
    convolutions pad nothing, what they use up is the image mirrored, and the encoder's features are cropped to the
    decoder's.
    """

    def __init__(self, config: NetworkConfig, encoder_weights: Path | None = None) -> None:
        super().__init__()
        self.config = config
        decoded = [config.width << level for level in range(config.depth)]
        if config.encoder == "plain":
            encoded = [*decoded, config.width << config.depth]
            self.encoder: nn.Module = nn.ModuleList(
                double_convolution(inputs, outputs, config.norm, config.padding)
                for inputs, outputs in zip([config.bands, *encoded], encoded, strict=False)
            )
        else:
            encoded = feature_channels(config.encoder)
            self.encoder = Encoder(config.encoder, config.bands, encoder_weights)
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(config.dropout)
        levels = range(config.depth - 1, -1, -1)
        below = [encoded[-1], *(decoded[level] for level in levels)]
        self.up = nn.ModuleList(
            make_up(config.up, deep, decoded[level]) for deep, level in zip(below, levels, strict=False)
        )
        self.decoder = nn.ModuleList()
        self.match = nn.ModuleDict()  # what brings features to the channels that they are added to
        for level in levels:
            beside = encoded[level] if config.skip == "concat" else 0
            self.decoder.append(
                double_convolution(decoded[level] + beside, decoded[level], config.norm, config.padding)
            )
            if config.skip == "add" and encoded[level] not in (0, decoded[level]):
                self.match[str(level)] = nn.Conv2d(encoded[level], decoded[level], 1)
        self.head = nn.Conv2d(config.width, config.classes, 1)
        # What the convolutions from a level of the encoder down and up again to the decoder's take from each side.
        used_up = [(6 << config.depth - level) - 8 if config.padding == "valid" else 0 for level in levels]
        self.crop = nn.ModuleList(Crop(pixels) if pixels else nn.Identity() for pixels in used_up)
        self._has_features = [count > 0 for count in encoded[:-1]]
        parts = [*([self.encoder] if config.encoder == "plain" else []), self.up, self.decoder, self.match, self.head]
        for module in (module for part in parts for module in part.modules()):
            # Numbers drawn for the meta device are none, and torch would load its compiler (1 s, 100 MB) to draw them.
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
                if module.weight.requires_grad:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, image: Tensor, with_context: bool = False) -> Tensor:
        """`with_context` says that the image brings the context that valid padding uses up, and fits the network."""
        if with_context and self.config.context:
            return self.scores(image)
        height, width = image.shape[-2:]
        return self.scores(frame(image, self.config.total_stride, self.config.context))[..., :height, :width]

    def scores(self, x: Tensor) -> Tensor:
        """`forward` for an image in its `frame`; free of control flow on sizes."""
        features = self.features(x)
        x = self.dropout(features[-1])
        for n, (up, decode) in enumerate(zip(self.up, self.decoder, strict=True)):
            level = self.config.depth - 1 - n
            skip = features[level]
            skip = None if skip is None else self.crop[n](skip)
            x = up(x, skip) if self.config.up == "unpool" else up(x)  # (image, channel, 2 row, 2 col)
            if skip is not None and self.config.skip == "concat":
                x = torch.cat([skip, x], dim=1)
            elif skip is not None and self.config.skip == "add":
                x = (self.match[str(level)](skip) if str(level) in self.match else skip) + x
            x = decode(x)
        return self.head(x)

    def features(self, x: Tensor) -> list[Tensor | None]:
        """From the image's size down, by level; None where the encoder has none."""
        if not isinstance(self.encoder, nn.ModuleList):
            found = self.encoder(x)
            below = iter(found[:-1])
            return [*(next(below) if there else None for there in self._has_features), found[-1]]
        features: list[Tensor | None] = []
        for level in self.encoder[:-1]:
            x = level(x)
            features.append(x)
            x = self.pool(x)  # (image, channel, row/2, col/2)
        return [*features, self.encoder[-1](x)]


def double_convolution(inputs: int, outputs: int, norm: Norm, padding: Padding = "same") -> nn.Sequential:
    """Two 3x3 convolutions, each with ReLU, and with batch norm between them if asked for."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        # A bias before batch norm would be subtracted again by it.
        layers.append(nn.Conv2d(channels, outputs, 3, padding=int(padding == "same"), bias=norm == "none"))
        if norm == "batch":
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
