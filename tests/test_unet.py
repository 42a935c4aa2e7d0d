import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from segcli.network.frame import frame
from segcli.network.unet import NetworkConfig, UNet


def kinds(network: UNet) -> list[tuple[str, int, int, int]]:
    """(kind, inputs, outputs, kernel) of every convolution, in order of definition."""
    return [
        (type(m).__name__, m.in_channels, m.out_channels, m.kernel_size[0])
        for m in network.modules()
        if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)
    ]


def test_the_paper_s_network_has_its_23_convolutions() -> None:
    found = kinds(UNet(NetworkConfig(bands=1, classes=2, width=64, depth=4, norm="none")))
    down = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 1024)]
    up = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert len(found) == 23
    assert [k for k in found if k[0] == "ConvTranspose2d"] == [("ConvTranspose2d", i, o, 2) for i, o in up]
    threes = [(i, o) for kind, i, o, size in found if kind == "Conv2d" and size == 3]
    assert threes == [*down, (1024, 1024), *[pair for i, o in up for pair in ((i, o), (o, o))]]
    assert [k for k in found if k[3] == 1] == [("Conv2d", 64, 2, 1)]
    # By hand: 3x3 and 2x2 kernels with a bias for each output channel.
    pairs = [*down, (1024, 1024), *[pair for i, o in up for pair in ((i, o), (o, o))]]
    expected = sum(9 * i * o + o for i, o in pairs) + sum(4 * i * o + o for i, o in up) + 64 * 2 + 2
    assert sum(p.numel() for p in UNet(NetworkConfig(1, 2, 64, 4, "none")).parameters()) == expected == 31_030_658


def test_forward_is_the_written_out_network() -> None:
    """Against plain functional calls, in the order of the paper's figure 1."""
    torch.manual_seed(1)
    network = UNet(NetworkConfig(2, 3, width=3, depth=2)).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 2, 12, 8)

    def twice(block: nn.Sequential, x: torch.Tensor) -> torch.Tensor:
        for conv, norm in ((block[0], block[1]), (block[3], block[4])):
            x = nn.functional.conv2d(x, conv.weight, padding=1)
            x = (x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
            x = (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        return x

    one = twice(network.encoder[0], x)
    two = twice(network.encoder[1], nn.functional.max_pool2d(one, 2))
    three = twice(network.encoder[2], nn.functional.max_pool2d(two, 2))
    up = nn.functional.conv_transpose2d(three, network.up[0].weight, network.up[0].bias, stride=2)
    up = twice(network.decoder[0], torch.cat([two, up], 1))
    up = nn.functional.conv_transpose2d(up, network.up[1].weight, network.up[1].bias, stride=2)
    up = twice(network.decoder[1], torch.cat([one, up], 1))
    expected = nn.functional.conv2d(up, network.head.weight, network.head.bias)
    with torch.no_grad():
        torch.testing.assert_close(network(x), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(1, 5))
def test_any_size_is_the_padded_pass_cut(height: int, width: int, depth: int, bands: int) -> None:
    network = UNet(NetworkConfig(bands, 2, width=2, depth=depth)).eval()
    image = torch.randn(1, bands, height, width)
    stride = 2**depth
    rows = torch.arange(-(-height // stride) * stride).clamp(max=height - 1)  # the last one repeated
    columns = torch.arange(-(-width // stride) * stride).clamp(max=width - 1)
    padded = image[:, :, rows][..., columns]
    with torch.no_grad():
        assert network(image).shape == (1, 2, height, width)
        assert torch.equal(network(image), network.scores(padded)[..., :height, :width])


def test_padding_leaves_multiples_alone() -> None:
    image = torch.randn(1, 1, 8, 16)
    assert frame(image, 8, 0) is image


@pytest.mark.parametrize(("given", "back"), [(572, 388), (188, 4), (380, 196)])
def test_without_padding_sizes_are_the_paper_s(given: int, back: int) -> None:
    network = UNet(NetworkConfig(1, 2, width=1, depth=4, norm="none", padding="valid"))
    with torch.no_grad():
        assert network(torch.zeros(1, 1, given, given), with_context=True).shape == (1, 2, back, back)
    assert network.config.context == (given - back) // 2 == 92


def test_without_padding_the_passes_are_written_out() -> None:
    """Depth 1, mirrored by numpy: every convolution without padding, the features cropped to what comes up."""
    torch.manual_seed(0)
    network = UNet(NetworkConfig(2, 3, width=3, depth=1, norm="none", padding="valid")).eval()
    image = torch.randn(1, 2, 7, 10)

    def twice(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
        for conv in (block[0], block[2]):  # type: ignore[index]
            x = nn.functional.conv2d(x, conv.weight, conv.bias).relu()
        return x

    x = torch.from_numpy(np.pad(image.numpy(), ((0, 0), (0, 0), (8, 9), (8, 8)), "symmetric"))  # 7 + 1 rows
    with torch.no_grad():
        one = twice(network.encoder[0], x)
        two = twice(network.encoder[1], nn.functional.max_pool2d(one, 2))
        up = nn.functional.conv_transpose2d(two, network.up[0].weight, network.up[0].bias, stride=2)
        x = twice(network.decoder[0], torch.cat([one[..., 4:-4, 4:-4], up], 1))
        expected = nn.functional.conv2d(x, network.head.weight, network.head.bias)[..., :7, :]
        torch.testing.assert_close(network(image), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_gradient_reaches_every_parameter(padding: str) -> None:
    network = UNet(NetworkConfig(3, 4, width=2, depth=3, dropout=0.5, padding=padding))  # type: ignore[arg-type]
    network(torch.randn(2, 3, 21, 18)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_dropout_acts_in_training_only() -> None:
    network = UNet(NetworkConfig(1, 2, width=4, depth=1, norm="none", dropout=0.5))
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"depth": 9}, {"width": 0}, {"norm": "group"}, {"dropout": 1.0}])
def test_a_network_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        NetworkConfig(**{"bands": 3, "classes": 2, **wrong})  # type: ignore[arg-type]
