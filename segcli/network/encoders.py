"""Encoders from torchvision: features of an image at half its size, a quarter, ... a thirty-second."""

import torch
from torch import Tensor, nn

from segcli.errors import NothingDoneError

# Nodes of torchvision's models, and their channels, at strides 2, 4, 8, 16 and 32; ConvNeXt has none at 2.
FEATURES: dict[str, tuple[tuple[str | None, int], ...]] = {
    "resnet18": (("relu", 64), ("layer1", 64), ("layer2", 128), ("layer3", 256), ("layer4", 512)),
    "resnet34": (("relu", 64), ("layer1", 64), ("layer2", 128), ("layer3", 256), ("layer4", 512)),
    "resnet50": (("relu", 64), ("layer1", 256), ("layer2", 512), ("layer3", 1024), ("layer4", 2048)),
    "efficientnet_b0": (
        ("features.1", 16), ("features.2", 24), ("features.3", 40), ("features.5", 112), ("features.7", 320),
    ),
    "mobilenet_v3_large": (
        ("features.1", 16), ("features.3", 24), ("features.6", 40), ("features.12", 112), ("features.15", 160),
    ),
    "convnext_tiny": (
        (None, 0), ("features.1", 96), ("features.3", 192), ("features.5", 384), ("features.7", 768),
    ),
}  # fmt: skip

STRIDES = 5


def feature_channels(name: str) -> list[int]:
    """Of the features at strides 1 (none), 2, 4, ... 32."""
    return [0, *(count for _, count in FEATURES[name])]


class Pixelwise(nn.Sequential):
    """Layers that look at one pixel at a time; torch.fx takes them as one operator."""


class Encoder(nn.Module):
    """(image, band, row, col) to features at strides 2 to 32; a stride without any is left out."""

    def __init__(self, name: str, bands: int, pretrained: bool) -> None:
        super().__init__()
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor

        try:
            model = models.get_model(name, weights="DEFAULT" if pretrained else None)
        except OSError as error:
            raise NothingDoneError(
                name, f"its ImageNet weights could not be fetched: {error}", "", "--no-pretrained does without them"
            ) from error
        _adapt(model, bands)
        _gather(model)
        nodes = {node: node for node, _ in FEATURES[name] if node is not None}
        self.body = create_feature_extractor(model, nodes, tracer_kwargs={"leaf_modules": [Pixelwise]})

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.body(image).values())


def _adapt(model: nn.Module, bands: int) -> None:
    """Give the first convolution so many input bands: its weights for red, green, blue in turn, scaled to the sum."""
    if bands == 3:
        return
    name, first = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    size, stride, padding = first.kernel_size, first.stride, first.padding
    new = nn.Conv2d(bands, first.out_channels, size, stride, padding, bias=first.bias is not None)  # type: ignore[arg-type]
    with torch.no_grad():
        new.weight.copy_(first.weight[:, [band % 3 for band in range(bands)]] * (3 / bands))
        if first.bias is not None and new.bias is not None:
            new.bias.copy_(first.bias)
    model.set_submodule(name, new)


def _gather(model: nn.Module) -> None:
    """Make what ConvNeXt does to each pixel, with its axes turned, one module: norms, and the end of each block."""
    from torchvision.models.convnext import CNBlock, LayerNorm2d

    for name, part in list(model.named_modules()):
        if isinstance(part, CNBlock):
            convolution, *rest = part.block
            part.block = nn.Sequential(convolution, Pixelwise(*rest))
        elif isinstance(part, LayerNorm2d):
            model.set_submodule(name, Pixelwise(part))
