"""The windowed way, with networks whose answer is known."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segcli.network.alive import most_alive
from segcli.network.blend import Weighting, Windows, window_starts, window_weights
from segcli.network.normalise import Inputs
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.views import AS_IT_IS, EIGHT, MIRRORED, Views


def strips_of(image: Tensor, height: int) -> Iterator[Inputs]:
    for row in range(0, image.shape[2], height):
        yield Inputs(row, image[:, :, row : row + height])


def blended(windows: Windows, image: Tensor, strip: int) -> Tensor:
    rows, parts = 0, []
    for first_row, scores in windows.scores(strips_of(image, strip), image.shape[2]):
        assert first_row == rows
        rows += scores.shape[2]
        parts.append(scores)
    return torch.cat(parts, dim=2)


weightings = st.sampled_from(["gaussian", "hann"])
views = st.sampled_from([AS_IT_IS, MIRRORED, EIGHT])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(2, 24), st.floats(0, 0.9), weightings, views,
    st.integers(1, 70), st.sampled_from([1, 2, 4]),
)  # fmt: skip
def test_a_network_that_changes_nothing_gives_the_image_back(
    height: int, width: int, size: int, overlap: float, weighting: Weighting, views: Views, strip: int, stride: int
) -> None:
    image = torch.randn(2, 3, height, width)
    size = max(stride, size // stride * stride)
    found = blended(Windows(lambda rows: rows, size, overlap, weighting, views, stride), image, strip)
    torch.testing.assert_close(found, image, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("views", [AS_IT_IS, EIGHT])
def test_windows_are_added_up_in_float32_whatever_the_network_computes_in(dtype: torch.dtype, views: Views) -> None:
    """What changes nothing gives the image back as these numbers have it, and not once more rounded."""
    image = torch.randn(1, 2, 50, 41).to(dtype)
    cpu = torch.device("cpu")
    found = blended(Windows(lambda rows: rows, 16, 0.75, "gaussian", views, 1, device=cpu, dtype=dtype), image, 7)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, image.float(), rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(4, 20), st.floats(0, 0.8), weightings, st.integers(1, 60))
def test_the_rolling_band_is_the_whole_canvas(
    height: int, width: int, size: int, overlap: float, weighting: Weighting, strip: int
) -> None:
    """Against the plain way: a canvas of scores and one of weights, for a network that looks at its whole window."""

    def network(window: Tensor) -> Tensor:
        return window * 2 + window.mean((2, 3), keepdim=True)

    image = torch.randn(1, 2, height, width)
    step = max(1, round(size * (1 - overlap)))
    total, weight = torch.zeros(1, 2, height, width), torch.zeros(height, width)
    for row in window_starts(height, size, step):
        for col in window_starts(width, size, step):
            window = image[..., row : row + size, col : col + size]
            down, across = (window_weights(length, weighting) for length in window.shape[2:])
            weights = down[:, None] * across
            total[..., row : row + size, col : col + size] += network(window) * weights
            weight[row : row + size, col : col + size] += weights
    found = blended(Windows(network, size, overlap, weighting), image, strip)
    torch.testing.assert_close(found, total / weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("weighting", ["gaussian", "hann"])
@pytest.mark.parametrize("size", [1, 2, 7, 512])
def test_no_weight_is_zero(weighting: Weighting, size: int) -> None:
    weights = window_weights(size, weighting)
    assert weights.min() > 0
    assert torch.allclose(weights, weights.flip(0))
    assert weights.argmax() in (size // 2, (size - 1) // 2)


def test_windows_cover_everything_and_end_at_the_border() -> None:
    assert window_starts(10, 4, 3) == [0, 3, 6]
    assert window_starts(11, 4, 3) == [0, 3, 6, 7]
    assert window_starts(4, 4, 3) == window_starts(1, 4, 3) == [0]


@pytest.mark.parametrize("width", [12, 9, 20])
def test_augmentation_averages_the_eight_symmetries(width: int) -> None:
    """Also of a window that is not square, as one of an image that is narrower."""
    kernel = torch.randn(1, 1, 3, 3)

    def network(window: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(window, kernel, padding=1)

    turned = [kernel.rot90(n, (2, 3)) for n in range(4)]
    mean = torch.stack(turned + [k.flip(3) for k in turned]).mean(0)
    image = torch.randn(1, 1, 12, width)
    expected = torch.nn.functional.conv2d(image, mean, padding=1)
    torch.testing.assert_close(blended(Windows(network, 20, views=EIGHT), image, 5), expected, rtol=1e-4, atol=1e-5)


def test_one_window_is_the_whole_pass() -> None:
    network = UNet(NetworkConfig(1, 3, 4, 2)).eval()
    image = torch.randn(1, 1, 21, 30)
    with torch.inference_mode():
        expected = network(image)
    found = blended(Windows(network, 64, total_stride=4), image, 8)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_memory_follows_the_window_not_the_height() -> None:
    band_rows: list[int] = []

    class Watched(Windows):
        def _add(self, *arguments: object) -> object:  # type: ignore[override]
            band = super()._add(*arguments)  # type: ignore[arg-type]
            band_rows.append(band.total.shape[2])
            return band

    blended(Watched(lambda rows: rows, 8, 0.5), torch.zeros(1, 1, 400, 5), 8)
    assert max(band_rows) <= 8
    assert len(band_rows) == 99


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4000), st.integers(2, 200), st.floats(0, 0.8), st.sampled_from([1, 4, 16]), st.floats(1e2, 1e6),
)  # fmt: skip
def test_panels_change_no_score(width: int, size: int, overlap: float, stride: int, budget: float) -> None:
    """Whatever memory there is: every panel sees all windows that touch it, where the whole image has them."""

    def network(window: Tensor) -> Tensor:
        return window * 2 + window.mean((2, 3), keepdim=True)

    size = max(stride, size // stride * stride)
    windows = Windows(network, size, overlap, total_stride=stride, classes=1)
    image = torch.randn(1, 1, 3, width, generator=torch.Generator().manual_seed(0))
    expected = blended(windows, image, 3)
    plan = next(windows.plans(3, width, 1, budget))
    parts = []
    for panel in plan.panels(width):
        scores = blended(windows, image[..., panel.read_first : panel.read_end], plan.strip_height)
        parts.append(scores[..., panel.first - panel.read_first : panel.end - panel.read_first])
    torch.testing.assert_close(torch.cat(parts, dim=3), expected, rtol=1e-5, atol=1e-6)


def test_panels_are_taken_where_the_memory_is_short() -> None:
    windows = Windows(lambda rows: rows, 512, 0.25)
    ways = list(windows.plans(3000, 20_000, 1, 100e6))
    assert ways[0].panel_width < 20_000
    assert ways[0].needed <= 100e6
    assert next(windows.plans(3000, 20_000, 1, 1e9)).panel_width == 20_000
    odd = Windows(lambda rows: rows, 400, 0.3, total_stride=16)  # 272 columns from one to the next
    (way, *_) = odd.plans(3000, 16_000, 1, 100e6)
    assert way.needed <= 100e6
    panels = way.panels(16_000)
    assert len(panels) > 1
    assert all(panel.first % 512 == 0 and panel.read_first % odd.step == 0 for panel in panels)


@settings(deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), size=st.integers(2, 24), overlap=st.floats(0, 0.9))
def test_pixels_under_several_windows_are_computed_as_often(height: int, width: int, size: int, overlap: float) -> None:
    seen: list[int] = []

    def network(window: Tensor) -> Tensor:
        seen.append(window.shape[2] * window.shape[3])
        return window

    windows = Windows(network, size, overlap)
    blended(windows, torch.zeros(1, 1, height, width), 7)
    assert sum(seen) == windows.pixels_of(height, width)


def test_bytes_alive_are_counted_once_and_while_they_are() -> None:
    def work() -> None:
        first = torch.zeros(1000)
        second = first.view(10, 100).to(torch.float64)  # the view is no more
        del first
        torch.ones(500).add_(1)
        del second

    assert most_alive(work) == 12_000
    assert most_alive(lambda: [torch.zeros(1000).sum() for _ in range(5)]) == 4020  # the sums stay


@pytest.mark.parametrize("views", [AS_IT_IS, EIGHT])
@pytest.mark.parametrize(
    "change", [{}, {"padding": "valid"}, {"up": "unpool"}, {"encoder": "resnet18"}, {"encoder": "efficientnet_b0"}]
)
def test_what_a_window_takes_is_known_before_it_is_scored(change: dict[str, str], views: Views) -> None:
    """From windows a fifth as large or smaller."""
    network = UNet(NetworkConfig(3, 4, 8, 3 if "encoder" not in change else 5, **change)).eval()  # type: ignore[arg-type]
    stride = network.config.total_stride
    windows = Windows(network, 10 * stride, views=views, total_stride=stride, bands=3, classes=4)
    shape = (1, 3, 10 * stride, 10 * stride)
    with torch.inference_mode():
        taken = most_alive(lambda: list(windows.scores([Inputs(0, torch.zeros(shape))], 10 * stride)))
    assert 0.8 * taken <= windows.always <= 1.25 * taken
    plan = next(windows.plans(10 * stride, 10 * stride, 1, 1e12))
    assert plan.needed >= 0.9 * taken


def test_panels_narrow_for_what_a_window_takes() -> None:
    network = UNet(NetworkConfig(1, 2, 8, 2)).eval()
    windows = Windows(network, 256, total_stride=4)
    ways = [next(way.plans(300, 20_000, 1, 120e6)) for way in (windows, Windows(lambda rows: rows, 256))]
    assert ways[0].panel_width < ways[1].panel_width
    assert ways[0].needed <= 120e6
    assert next(windows.plans(64, 64, 1, 1e3)).needed < windows.always / 8  # an image smaller than a window
