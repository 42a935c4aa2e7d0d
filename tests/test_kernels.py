import gc
import os
import subprocess
import sys
from functools import partial
from itertools import count

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from segcli.network import kernels
from segcli.network.device import LEAST_KERNELS
from segcli.network.kernels import convolution, transposed
from segcli.network.normalise import Inputs
from segcli.network.stream import Stream


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)), stride=st.integers(1, 3), dilation=st.integers(1, 2),
    groups=st.integers(1, 3), each=st.tuples(st.integers(1, 20), st.integers(1, 20)), bias=st.booleans(),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), size=st.tuples(st.integers(0, 20), st.integers(0, 40)),
    images=st.integers(1, 3), half=st.booleans(),
)  # fmt: skip
def test_weights_laid_out_once_give_what_torch_gives(
    kernel: tuple[int, int], stride: int, dilation: int, groups: int, each: tuple[int, int], bias: bool,
    padding: tuple[int, int], size: tuple[int, int], images: int, half: bool,
) -> None:  # fmt: skip
    # Where the padding is as wide as the kernel, strided and dilated, torch's own call ends the process on a processor
    # with AVX-512 (torch 2.14.1); what comes of it there is of zeros alone, and no network has such.
    assume(all(pad <= dilation * (extent - 1) for pad, extent in zip(padding, kernel, strict=True)))
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float32
    channels = [groups * part for part in each]
    conv = nn.Conv2d(*channels, kernel, stride, 0, dilation, groups, bias).to(dtype, memory_format=torch.channels_last)
    rows, cols = (more + dilation * (extent - 1) + 1 for more, extent in zip(size, kernel, strict=True))
    image = torch.randn(images, channels[0], rows, cols).to(dtype, memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = nn.functional.conv2d(image, conv.weight, conv.bias, stride, padding, dilation, groups)
        found = convolution(conv, padding)(image)
        exact = nn.functional.conv2d(image.double(), conv.weight.double(), None if conv.bias is None else
                                     conv.bias.double(), stride, padding, dilation, groups)  # fmt: skip
    assert found.shape == expected.shape
    assert found.dtype == dtype
    # Small images go through another kernel in torch's own call.
    tolerance = (1e-2 if half else 1e-5) * max(1.0, float(exact.abs().max()))
    # Of grouped, strided and padded ones in bfloat16 oneDNN leaves out rows on processors with AMX, by torch's own call
    # as well, and what stands in memory there is the answer; no network here has any.
    if half and groups > 1:
        assume((expected - exact).abs().max() <= 2 * tolerance)
    assert (found - expected).abs().max() <= tolerance


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)), overlap=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    groups=st.integers(1, 3), each=st.tuples(st.integers(1, 20), st.integers(1, 20)), bias=st.booleans(),
    padding=st.integers(0, 1), size=st.tuples(st.integers(1, 20), st.integers(3, 40)), images=st.integers(1, 3),
    half=st.booleans(),
)  # fmt: skip
def test_transposed_weights_laid_out_once_give_what_torch_gives(
    kernel: tuple[int, int], overlap: tuple[int, int], groups: int, each: tuple[int, int], bias: bool, padding: int,
    size: tuple[int, int], images: int, half: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    dtype = torch.bfloat16 if half else torch.float32
    channels = [groups * part for part in each]
    stride = tuple(max(1, extent - part) for extent, part in zip(kernel, overlap, strict=True))
    extra = tuple(extent - 1 for extent in stride) if any(overlap) else (0, 0)
    conv = nn.ConvTranspose2d(*channels, kernel, stride, (0, padding), (0, extra[1]), groups, bias)  # type: ignore
    conv = conv.to(dtype, memory_format=torch.channels_last)
    image = torch.randn(images, channels[0], *size).to(dtype, memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = nn.functional.conv_transpose2d(image, conv.weight, conv.bias, stride, (0, padding), extra, groups)
        found = transposed(conv)(image, extra)
    assert found.shape == expected.shape
    assert found.stride() == expected.stride()  # what follows takes rows as they lie
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= (1e-2 if half else 1e-5) * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 3, 3, padding=9, dilation=9), nn.Conv2d(3, 3, 19, padding=9)])
def test_kernels_higher_than_a_strip(layer: nn.Conv2d) -> None:
    image = torch.randn(1, 3, 50, 60)
    stream = Stream(nn.Sequential(layer, nn.ReLU()), 3, 1, torch.device("cpu"))
    strips = (Inputs(row, image[:, :, row : row + 8]) for row in range(0, 50, 8))
    found = torch.cat([scores for _, scores in stream.scores(strips, 50)], 2)
    with torch.inference_mode():
        assert torch.allclose(found, torch.relu(layer(image)), atol=1e-5)


def test_strips_of_a_network_have_the_same_bits() -> None:
    torch.manual_seed(0)
    for channels, rows, width in ((32, 18, 256), (64, 10, 128), (256, 4, 64)):
        conv = nn.Conv2d(channels, channels, 3).to(memory_format=torch.channels_last)
        image = torch.randn(1, channels, rows, width).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = nn.functional.conv2d(image, conv.weight, conv.bias, padding=(0, 1))
            found = convolution(conv, (0, 1))
            found(torch.randn(2, channels, 3, 40).to(memory_format=torch.channels_last))  # of another shape, before it
            assert torch.equal(found(image), expected)


@pytest.mark.parametrize(
    ("layer", "block"),
    [
        (nn.Conv2d(64, 64, 3), (1, 64, 10, 512)), (nn.Conv2d(256, 256, 3), (1, 256, 4, 128)),
        (nn.Conv2d(512, 512, 3), (1, 512, 3, 16)), (nn.Conv2d(512, 512, 1), (1, 512, 1, 64)),
        (nn.Conv2d(16, 2, 1), (2, 16, 32, 256)), (nn.ConvTranspose2d(64, 32, 2, 2), (1, 64, 4, 64)),
        (nn.ConvTranspose2d(512, 256, 2, 2), (1, 512, 1, 32)),
    ],
)  # fmt: skip
def test_strips_of_one_shape_find_the_weights_in_order(
    layer: nn.Conv2d | nn.ConvTranspose2d, block: tuple[int, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """In what order depends on the shape and on the processor: it is oneDNN itself that says what it did."""
    if not kernels._lays_out(layer.weight):
        pytest.skip("torch has no oneDNN here")
    layer = layer.to(memory_format=torch.channels_last)
    strip = torch.randn(block).to(memory_format=torch.channels_last)
    low = torch.randn(1, block[1], 3, 24).to(memory_format=torch.channels_last)
    if isinstance(layer, nn.ConvTranspose2d):
        apply = partial(transposed(layer), extra=(0, 0))
    else:
        apply = convolution(layer, (0, 1))  # type: ignore[assignment]
    with torch.inference_mode(), torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        said = []
        for rows in (low, strip, strip, strip):  # as they come, the first ones of another height
            apply(rows)
            said.append(capfd.readouterr().out)
    assert all(text.count("convolution,") == 1 or text.count("deconvolution,") == 1 for text in said)
    assert [text.count(",exec,cpu,reorder,") for text in said[2:]] == [0, 0]


@pytest.mark.parametrize("is_same", [True, False])
@pytest.mark.parametrize(("kind", "groups"), [(nn.Conv2d, 1), (nn.Conv2d, 2), (nn.ConvTranspose2d, 1)])
def test_both_ways_to_keep_weights_in_order(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], groups: int, is_same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all where oneDNN's order is always the same, else for each shape: whatever this processor has."""
    orders = count()
    monkeypatch.setattr(kernels, "_order", lambda laid_out: 0 if is_same else next(orders))
    torch.manual_seed(0)
    layer = kind(64, 32, 2, 2, groups=groups).to(memory_format=torch.channels_last)
    if not kernels._lays_out(layer.weight):
        pytest.skip("torch has no oneDNN here")
    blocks = [torch.randn(1, 64, rows, 48).to(memory_format=torch.channels_last) for rows in (10, 16, 16, 16, 6)]
    with torch.inference_mode():
        expected = [layer(block) for block in blocks]
        if isinstance(layer, nn.ConvTranspose2d):
            apply = partial(transposed(layer), extra=(0, 0))
        else:
            apply = convolution(layer, (0, 0))  # type: ignore[assignment]
        storage = StorageWeakRef(layer.weight.untyped_storage())
        del layer
        gc.collect()
        for block, wanted in zip(blocks, expected, strict=True):
            assert torch.allclose(apply(block), wanted, atol=1e-5)
    assert storage.expired()  # one copy of the weights is enough


def test_weights_change_their_order_only_for_shapes_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a processor that has one order for even heights and one for odd ones; memory runs out once."""
    dense = torch.randn(8, 8, 2, 2)
    heights: list[int] = []
    fails = False

    def lay(weights: Tensor, shape: list[int]) -> Tensor:
        if fails:
            raise RuntimeError("out of memory")
        heights.append(shape[2])
        return weights.clone()

    monkeypatch.setattr(kernels, "_order", lambda laid_out: heights[-1] % 2)
    monkeypatch.setattr(kernels, "KNOWN_SHAPES", 4)
    weights = kernels._ByShape(kernels._Laying(lay, Tensor.clone), lay(dense, [1, 8, 2, 9])).weights
    for height in (4, 4, 6, 4, 6, 3, 3, 4, 6):
        assert torch.equal(weights(torch.zeros(1, 8, height, 9)), dense)
    assert heights == [2, 4, 6, 3, 4]
    fails = True
    for height in (5, 4):
        with pytest.raises(RuntimeError, match="out of memory"):
            weights(torch.zeros(1, 8, height, 9))
    fails = False
    for height in (4, 6, 8, 10, 4):
        assert torch.equal(weights(torch.zeros(1, 8, height, 9)), dense)
    assert heights == [2, 4, 6, 3, 4, 4, 8, 10, 4]  # as many are known as there is room for


def test_transposed_kernels_that_overlap_or_give_more_stay_as_they_are() -> None:
    layer = nn.ConvTranspose2d
    if not kernels._lays_out(layer(64, 32, 2, 2).weight):
        pytest.skip("torch has no oneDNN here")
    assert transposed(layer(64, 32, 2, 2)).__name__ == "packed"
    for other in (layer(64, 32, 3, 2), layer(64, 32, 2, 3, output_padding=1), layer(64, 32, 2, 2, padding=1)):
        assert transposed(other).__name__ == "plain"


def test_without_the_operators_it_is_the_plain_call(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(3, 4, 3).eval()
    image = torch.randn(1, 3, 20, 30)
    expected = convolution(conv, (0, 1))(image)
    monkeypatch.setattr(kernels, "OPERATORS", ("_no_such_operator",))
    plain = convolution(conv, (0, 1))
    assert plain.__name__ == "plain"
    assert torch.allclose(plain(image), expected, atol=1e-6)


@pytest.mark.parametrize(("given", "compiled"), [(None, 2), ("1", 3)])
def test_few_kernels_are_kept_unless_the_environment_says_otherwise(given: str | None, compiled: int) -> None:
    """Two shapes in turn: where one is kept, the first is compiled once more."""
    said = compiled_for("16, 32, 16", given)
    assert said.count("convolution") == compiled


def test_as_many_kernels_are_kept_as_a_network_needs() -> None:
    """Of more shapes than that the first ones are gone, other than by oneDNN itself."""
    shapes = ", ".join(map(str, (*range(16, 16 + LEAST_KERNELS), 16)))
    assert compiled_for(shapes, None).count("convolution") == LEAST_KERNELS + 1
    assert compiled_for(shapes, "1024").count("convolution") == LEAST_KERNELS


def compiled_for(sides: str, kept: str | None) -> list[str]:
    """What oneDNN compiles for images of these sides, one after the other, by its own word."""
    code = (
        "import torch\nfrom torch import nn\nfrom segcli.network.device import keep_kernels_for\n"
        "conv = nn.Conv2d(16, 16, 3)\nkeep_kernels_for(conv)\nwith torch.inference_mode():\n"
        f"    for side in ({sides}): conv(torch.zeros(8, 16, side, side))"
    )
    known = {name: value for name, value in os.environ.items() if not name.startswith("ONEDNN")}
    more = {"ONEDNN_VERBOSE": "profile_create"} | ({"ONEDNN_PRIMITIVE_CACHE_CAPACITY": kept} if kept else {})
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=known | more)
    if not said.stdout:
        pytest.skip("this torch has no oneDNN that tells what it does")
    return [line.split(",")[5] for line in said.stdout.splitlines() if "cache_miss" in line]
