"""Relatives of the U-Net: sizes, gradients, streaming, and what they are said to be."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from segcli.network.encoders import FEATURES, Encoder, feature_channels
from segcli.network.normalise import Inputs
from segcli.network.stream import Stream
from segcli.network.tracing import NotStreamableError
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.ups import Unpool, make_up

UPS, SKIPS = ("transpose", "nearest", "bilinear", "unpool", "bed-of-nails"), ("concat", "add", "none")
STREAMED = ("resnet18", "resnet34", "resnet50")
VARIANTS = [
    *itertools.product(UPS, SKIPS, ["plain"]),
    *(("nearest", "concat", encoder) for encoder in FEATURES),
    ("transpose", "add", "resnet18"),
]


def network_of(up: str, skip: str, encoder: str) -> UNet:
    torch.manual_seed(0)
    depth = 2 if encoder == "plain" else 5
    return UNet(NetworkConfig(2, 3, 4, depth, "batch", 0.0, up, skip, encoder))  # type: ignore[arg-type]


@pytest.mark.parametrize(("up", "skip", "encoder"), VARIANTS)
def test_any_size_and_every_weight_learns(up: str, skip: str, encoder: str) -> None:
    network = network_of(up, skip, encoder)
    scores = network(torch.randn(2, 2, 45, 70))
    assert scores.shape == (2, 3, 45, 70)
    scores.square().mean().backward()
    for name, weights in network.named_parameters():
        if weights.requires_grad:
            assert weights.grad is not None, name
            # What stands before a batch norm in training sees no gradient of its bias.
            assert weights.grad.abs().sum() > 0 or name.endswith("bias"), name


def streamed(network: UNet, image: torch.Tensor, strip: int) -> torch.Tensor:
    config = network.config
    stream = Stream(network, config.bands, config.total_stride, image.device, image.dtype, "scores")
    strips = (Inputs(row, image[:, :, row : row + strip]) for row in range(0, image.shape[2], strip))
    return torch.cat([scores for _, scores in stream.scores(strips, image.shape[2])], dim=2)


@pytest.mark.parametrize(("up", "skip", "encoder"), [v for v in VARIANTS if v[2] in ("plain", *STREAMED)])
def test_streaming_equals_the_whole_pass(up: str, skip: str, encoder: str) -> None:
    network = network_of(up, skip, encoder).double()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    network.eval()
    image = torch.randn(1, 2, 101, 75, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(image)
    for strip in (7, 32) if encoder == "plain" else (32,):
        found = streamed(network, image, strip)
        assert found.shape == whole.shape
        assert (found - whole).abs().max() <= 1e-9 * whole.abs().max()


@pytest.mark.parametrize("encoder", sorted(set(FEATURES) - set(STREAMED)))
def test_what_does_not_stream_says_so(encoder: str) -> None:
    network = network_of("nearest", "concat", encoder).eval()
    with pytest.raises(NotStreamableError):
        Stream(network, 2, 32, torch.device("cpu"), torch.float32, "scores")


@pytest.mark.parametrize("name", FEATURES)
def test_features_have_the_channels_and_strides_that_are_stated(name: str) -> None:
    encoder = Encoder(name, 5, pretrained=False).eval()
    with torch.inference_mode():
        features = encoder(torch.randn(1, 5, 64, 96))
    expected = [(count, 64 >> n, 96 >> n) for n, count in enumerate(feature_channels(name)) if count]
    assert [tuple(feature.shape[1:]) for feature in features] == expected


def test_unpooling_is_torch_s() -> None:
    """max_unpool2d with the positions of max_pool2d, also where values tie, as zeros after a ReLU do."""
    torch.manual_seed(0)
    unpool = Unpool(6, 4)
    features = torch.randn(2, 4, 10, 14).relu()
    x = torch.randn(2, 6, 5, 7)
    _, positions = functional.max_pool2d(features, 2, return_indices=True)
    expected = functional.max_unpool2d(unpool.reduce(x), positions, 2)
    assert torch.equal(unpool(x, features), expected)


def test_bed_of_nails_puts_values_in_a_corner() -> None:
    up = make_up("bed-of-nails", 3, 2)
    x = torch.randn(1, 3, 4, 5)
    found = up(x)
    assert torch.allclose(found[:, :, ::2, ::2], up[0](x))  # type: ignore[index]
    assert not found[:, :, 1::2].any()
    assert not found[:, :, :, 1::2].any()


@pytest.mark.parametrize("kind", [up for up in UPS if up != "unpool"])
def test_every_way_up_doubles_the_size(kind: str) -> None:
    """(n - 1) stride - 2 padding + kernel (Dumoulin and Visin, 2016, relationship 14), with 2, 0 and 2."""
    up = make_up(kind, 6, 3)  # type: ignore[arg-type]
    for height, width in ((1, 1), (5, 8)):
        assert up(torch.zeros(1, 6, height, width)).shape == (1, 3, (height - 1) * 2 + 2, 2 * width)


def test_what_cannot_be_is_refused() -> None:
    for more in ({"up": "sideways"}, {"skip": "some"}, {"encoder": "vgg"}, {"encoder": "resnet18", "depth": 4},
                 {"encoder": "resnet18", "depth": 5, "up": "unpool"}):  # fmt: skip
        with pytest.raises(ValueError, match=r"not known|has depth"):
            NetworkConfig(3, 2, **more)  # type: ignore[arg-type]
