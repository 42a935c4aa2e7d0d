"""Relatives of the U-Net: sizes, gradients, streaming, and what they are said to be."""

import itertools
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stream import small_integers
from torch import nn
from torch.nn import functional

from segcli.network.encoders import FEATURES, Encoder, feature_channels
from segcli.network.frame import frame, framed
from segcli.network.normalise import Inputs
from segcli.network.plan import Plan
from segcli.network.scorer import make_scorer
from segcli.network.stream import RowStream, Stream
from segcli.network.tracing import NotStreamableError
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.ups import Unpool, make_up
from segcli.options import PredictOptions

UPS, SKIPS = ("transpose", "nearest", "bilinear", "unpool", "bed-of-nails"), ("concat", "add", "none")
STREAMED = ("resnet18", "resnet34", "resnet50", "convnext_tiny")
VARIANTS = [
    *itertools.product(UPS, SKIPS, ["plain", "valid"]),
    *(("nearest", "concat", encoder) for encoder in FEATURES),
    ("transpose", "add", "resnet18"),
]


def network_of(up: str, skip: str, encoder: str) -> UNet:
    """`encoder` is one of torchvision's, plain, or valid: plain without padding."""
    torch.manual_seed(0)
    depth = 5 if encoder in FEATURES else 2
    name, padding = ("plain", "valid") if encoder == "valid" else (encoder, "same")
    return UNet(NetworkConfig(2, 3, 4, depth, "batch", 0.0, up, skip, name, padding))  # type: ignore[arg-type]


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
    stream = Stream(network, config.bands, config.total_stride, image.device, image.dtype, "scores", config.context)
    strips = (Inputs(row, image[:, :, row : row + strip]) for row in range(0, image.shape[2], strip))
    return torch.cat([scores for _, scores in stream.scores(strips, image.shape[2])], dim=2)


@pytest.mark.parametrize(("up", "skip", "encoder"), [v for v in VARIANTS if v[2] in ("plain", "valid", *STREAMED)])
def test_streaming_equals_the_whole_pass(up: str, skip: str, encoder: str) -> None:
    network = network_of(up, skip, encoder).double()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    network.eval()
    image = torch.randn(1, 2, 101, 75, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(image)
    for strip in (7, 32) if encoder in ("plain", "valid") else (32,):
        found = streamed(network, image, strip)
        assert found.shape == whole.shape
        assert (found - whole).abs().max() <= 1e-9 * whole.abs().max()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 90), st.integers(1, 90), st.integers(1, 60), st.integers(1, 2))
def test_an_image_in_strips_is_framed_as_the_whole_is(
    depth: int, height: int, width: int, strip: int, images: int
) -> None:
    """Mirrored on and on where it is smaller than the context; in numbers of rows that are those of the strips."""
    context, stride = 6 * 2**depth - 4, 2**depth
    image = torch.randn(images, 2, height, width)
    for around in (0, context):
        whole = frame(image, stride, around)
        strips = (Inputs(row, image[:, :, row : row + strip]) for row in range(0, height, strip))
        found = list(framed(strips, height, stride, around))
        assert torch.equal(torch.cat([part.inputs.values for part in found], 2), whole)
        assert [part.last for part in found] == [False] * (len(found) - 1) + [True]
        firsts = [0, *np.cumsum([part.inputs.values.shape[2] for part in found])[:-1]]
        assert [part.inputs.first_row for part in found] == [first - around for first in firsts]
        # What stands below the image makes no strip higher than those before it.
        assert len(found) == 1 or all(part.inputs.values.shape[2] <= max(strip, around) for part in found)
    expected = np.pad(image.numpy(), ((0, 0), (0, 0), (context, context), (context, context)), "symmetric")
    rows, columns = expected.shape[2:]
    assert np.array_equal(whole.numpy()[..., :rows, :columns], expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 90), st.integers(1, 90), st.integers(1, 60),
       st.integers(0, 99))  # fmt: skip
def test_without_padding_streaming_gives_the_same_numbers(
    depth: int, width: int, height: int, columns: int, strip: int, seed: int
) -> None:
    """To the last bit, in arithmetic without rounding."""
    network = small_integers(UNet(NetworkConfig(2, 3, width, depth, "none", padding="valid")), seed)
    image = torch.randint(-3, 4, (1, 2, height, columns), generator=torch.Generator().manual_seed(seed)).double()
    with torch.inference_mode():
        assert torch.equal(streamed(network, image, strip), network(image))


@pytest.mark.parametrize("width", [333, 321, 322, 323, 324])
def test_without_padding_panels_give_the_same_numbers(width: int) -> None:
    """Also where the last panel gives a few columns alone, and mirrors more than these."""
    torch.manual_seed(3)
    network = UNet(NetworkConfig(2, 3, 3, 2, "none", padding="valid")).double().eval()
    image = torch.randn(1, 2, 60, width).double()
    stream = Stream(network, 2, 4, image.device, image.dtype, "scores", network.config.context)
    parts = []
    for panel in Plan(16, 64, stream.margin, 4).panels(width):
        scores = streamed(network, image[..., panel.read_first : panel.read_end], 16)
        parts.append(scores[..., panel.first - panel.read_first : panel.end - panel.read_first])
    with torch.inference_mode():
        whole = network(image)
    assert (torch.cat(parts, 3) - whole).abs().max() <= 1e-12 * whole.abs().max()
    assert stream.margin == 24  # 20 that it uses up, and what makes the size fit


def test_without_padding_empty_strips_are_skipped_and_no_score_changes() -> None:
    network = small_integers(UNet(NetworkConfig(1, 2, 2, 2, "none", padding="valid")), 5)
    image = torch.randint(-3, 4, (1, 1, 400, 30), generator=torch.Generator().manual_seed(5)).double()
    image[:, :, 60:330] = 0
    stream = Stream(network, 1, 4, image.device, image.dtype, "scores", network.config.context)
    strips = [Inputs(row, image[:, :, row : row + 8], not image[:, :, row : row + 8].any()) for row in range(0, 400, 8)]
    given = list(stream.scores(strips, 400))
    assert sum(one[1] is two[1] for one, two in pairwise(given)) > 15  # the same scores again, not computed
    with torch.inference_mode():
        assert torch.equal(torch.cat([scores for _, scores in given], 2), network(image))


@pytest.mark.parametrize("depth", [2, 4])
def test_memory_without_padding_is_estimated_from_the_network_itself(depth: int) -> None:
    """From strips as they come: what is mirrored above the image brings them out of step with the network's."""
    network = UNet(NetworkConfig(3, 2, 8, depth, padding="valid")).eval()
    stride, context = 1 << depth, network.config.context
    stream = Stream(network, 3, stride, torch.device("cpu"), method="scores", context=context)
    for strip_height, columns, images in ((4 * stride, 64, 1), (2 * stride, 128, 1), (2 * stride, 32, 3)):
        alive: list[int] = []
        flow = RowStream(stream._steps, alive.append)
        height = 8 * strip_height + 3
        image = torch.zeros(images, 3, height, columns).contiguous(memory_format=torch.channels_last)
        strips = (Inputs(row, image[:, :, row : row + strip_height]) for row in range(0, height, strip_height))
        for inputs, last, _ in framed(strips, height, stride, context):
            list(flow.push(inputs.values, last))
        assert 0.95 <= stream.costs.times(images).of(strip_height, columns) / max(alive) <= 1.25


@pytest.mark.parametrize("encoder", sorted(set(FEATURES) - set(STREAMED)))
def test_what_does_not_stream_says_so(encoder: str) -> None:
    network = network_of("nearest", "concat", encoder).eval()
    with pytest.raises(NotStreamableError):
        Stream(network, 2, 32, torch.device("cpu"), torch.float32, "scores")


@pytest.mark.parametrize("name", FEATURES)
def test_features_have_the_channels_and_strides_that_are_stated(name: str) -> None:
    encoder = Encoder(name, 5).eval()
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
                 {"encoder": "resnet18", "depth": 5, "up": "unpool"}, {"padding": "full"},
                 {"encoder": "resnet18", "depth": 5, "padding": "valid"}):  # fmt: skip
        with pytest.raises(ValueError, match=r"not known|has depth|valid goes with plain"):
            NetworkConfig(3, 2, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("encoder", ["efficientnet_b0", "mobilenet_v3_large", "resnet18"])
def test_windows_see_what_was_learnt_and_nothing_else(encoder: str) -> None:
    """Not each window's own mean and deviation: a copy of torchvision's encoders comes out in training mode."""
    torch.manual_seed(0)
    network = UNet(NetworkConfig(3, 2, 4, 5, encoder=encoder)).eval()
    images = torch.randn(2, 3, 64, 64)
    options = PredictOptions((), Path("masks"), stitch="windows", window=64)
    scorer = make_scorer(network, torch.device("cpu"), torch.float32, options, print)
    with torch.inference_mode():
        for image in (*images, images[0]):  # one after another
            ((_, found),) = scorer.way.scores([Inputs(0, image[None])], 64)
            assert torch.allclose(found, network.scores(image[None]), atol=1e-4)
    assert not any(module.training for module in scorer.way.network.modules())  # type: ignore[union-attr]
