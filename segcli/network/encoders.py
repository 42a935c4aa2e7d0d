"""Encoders from torchvision: features of an image at half its size, a quarter, ... a thirty-second.

Their weights are data, never code: of a file that can hold both, as .pth can, the tensors alone are read.
"""

from http.client import HTTPException
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from segcli.errors import NothingDoneError
from segcli.files import sha256_of

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


WITHOUT = "give --no-pretrained, which does without them"


def imagenet_weights(name: str) -> Path:
    """The file of torchvision's ImageNet weights for its model `name`, in torch's cache; fetched if it is not there.

    NothingDoneError where it cannot be fetched, or where its bytes are not those that torchvision named it by: a
    download may have been cut, and anyone may write to a cache.
    """
    from torchvision.models import get_model_weights

    url = get_model_weights(name).DEFAULT.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    beginning = path.stem.rpartition("-")[2]  # of the SHA-256, as torch.hub has its files named
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), beginning)
        found = sha256_of(path)
    except (OSError, HTTPException, RuntimeError) as error:  # the last one of bytes with another hash
        raise NothingDoneError(
            name, f"its ImageNet weights could not be fetched: {error}", "",
            "give --encoder-weights FILE, or --no-pretrained, which does without them",
        ) from error  # fmt: skip
    if not found.startswith(beginning):
        raise NothingDoneError(path, f"its SHA-256 begins with {found[: len(beginning)]}, its name says {beginning}",
                               f"expected torchvision's weights of {name}", f"delete it, or {WITHOUT}")  # fmt: skip
    return path


def read_weights(path: Path, name: str, model: nn.Module) -> None:
    """Copy the weights in a .pth or .safetensors file to torchvision's `model`. NothingDoneError where these are not
    its own, or where the file wants code to be run."""
    expected = f"expected a state dict of torchvision's {name}, .pth or .safetensors"
    try:
        if path.suffix.lower() == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise NothingDoneError(path, error.strerror or str(error), expected, WITHOUT) from error
    except Exception as error:  # bytes that are no pickle may raise anything
        raise NothingDoneError(
            path, "damaged, or not of tensors alone", expected, f"delete it, or {WITHOUT}"
        ) from error
    is_dict = isinstance(tensors, dict) and all(isinstance(tensor, Tensor) for tensor in tensors.values())
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()} if is_dict else {}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    for key in sorted(map(str, shapes.keys() | found.keys())):
        if found.get(key) != shapes.get(key) and not key.endswith("num_batches_tracked"):  # older files have none
            raise NothingDoneError(path, f"{key:.60} is {found.get(key)}, in {name} {shapes.get(key)}", expected,
                                   WITHOUT)  # fmt: skip
    if odd := next((key for key, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise NothingDoneError(path, f"values of {odd:.60} are not finite", expected, WITHOUT)
    model.load_state_dict(tensors, strict=False)


def feature_channels(name: str) -> list[int]:
    """Of the features at strides 1 (none), 2, 4, ... 32."""
    return [0, *(count for _, count in FEATURES[name])]


class Pixelwise(nn.Sequential):
    """Layers that look at one pixel at a time; torch.fx takes them as one operator."""


class Encoder(nn.Module):
    """(image, band, row, col) to features at strides 2 to 32; a stride without any is left out. `weights` is a file of
    torchvision's model; without one it is as it is before training."""

    def __init__(self, name: str, bands: int, weights: Path | None = None) -> None:
        super().__init__()
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor

        model = models.get_model(name, weights=None)
        if weights is not None:
            read_weights(weights, name, model)
        _adapt(model, bands)
        _gather(model)
        nodes = {node: node for node, _ in FEATURES[name] if node is not None}
        self.body = create_feature_extractor(model, nodes, tracer_kwargs={"leaf_modules": [Pixelwise]})

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.body(image).values())


def _adapt(model: nn.Module, bands: int) -> None:
    """Give the first convolution so many input bands: its weights for red, green, blue in turn, scaled to the sum; for
    one band that sum, so that grey is what it is in three bands."""
    if bands == 3:
        return
    name, first = next((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d))
    size, stride, padding = first.kernel_size, first.stride, first.padding
    new = nn.Conv2d(bands, first.out_channels, size, stride, padding, bias=first.bias is not None)  # type: ignore[arg-type]
    with torch.no_grad():
        weight = first.weight[:, [band % 3 for band in range(bands)]] * (3 / bands)
        new.weight.copy_(first.weight.sum(1, keepdim=True) if bands == 1 else weight)
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
