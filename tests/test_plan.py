import warnings
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segcli.network.plan import PANEL_STEP, Costs, Plan, plans
from segcli.network.rules import Convolve
from segcli.network.stream import RowStream, Stream
from segcli.network.unet import NetworkConfig, UNet
from segcli.network.views import EIGHT, MeanOverViews
from segcli.options import Padding, Skip, Up


@given(st.integers(1, 200_000), st.integers(1, 400), st.integers(0, 500))
def test_panels_tile_the_columns_and_read_their_margins(width: int, steps: int, margin: int) -> None:
    panels = Plan(32, steps * PANEL_STEP, margin).panels(width)
    assert panels[0].first == panels[0].read_first == 0
    assert panels[-1].end == panels[-1].read_end == width
    for left, right in pairwise(panels):
        assert left.end == right.first
        assert right.first % PANEL_STEP == 0
    for panel in panels:
        assert panel.read_first in (0, panel.first - margin)
        assert panel.read_end in (width, panel.end + margin)
    for panel in Plan(32, steps * PANEL_STEP, margin, stride=27).panels(width):
        assert panel.read_first % 27 == 0
        assert max(0, panel.first - margin - 26) <= panel.read_first <= max(0, panel.first - margin)


@given(
    st.integers(1, 200_000), st.integers(1, 200_000), st.sampled_from([1, 2, 8, 16, 32]), st.integers(0, 40),
    st.floats(1e3, 1e12), st.sampled_from([2**15, 2**18, 2**23]), st.data(),
)  # fmt: skip
def test_plans_go_from_the_best_that_fits_to_the_smallest(
    height: int, width: int, stride: int, margin: int, budget: float, pixels: int, data: st.DataObject
) -> None:
    costs = Costs(19_000, 850)
    least = data.draw(st.sampled_from([stride // part for part in (1, 2, 4) if stride % part == 0]))
    ways = list(plans(height, width, stride, margin * stride, costs, budget, pixels, least))

    def needed(plan: Plan) -> float:
        return costs.of(plan.strip_height, plan.panel_width + 2 * plan.margin)

    assert ways
    assert all(way.strip_height % stride == 0 or stride % way.strip_height == 0 for way in ways)
    assert all(way.strip_height >= least for way in ways)
    assert all(way.panel_width == width or way.panel_width % PANEL_STEP == 0 for way in ways)
    assert all(way.margin == 0 if way.panel_width == width else way.margin == margin * stride for way in ways)
    assert all(needed(a) >= needed(b) for a, b in pairwise(ways))
    assert needed(ways[0]) <= budget or len(ways) == 1
    # When memory runs out although it seemed enough, each new try is clearly smaller.
    assert all(needed(b) <= 0.75 * needed(a) for a, b in list(pairwise(ways))[:-1])


def test_panels_are_about_equal_and_as_wide_as_the_memory_allows() -> None:
    costs = Costs(19_000, 850)
    budget = costs.of(16, 7900)
    (way, *_) = plans(1000, 36_000, 16, 96, costs, budget, 2**16, 16)
    assert way.panel_width == 7680
    assert [panel.end - panel.first for panel in way.panels(36_000)] == [7680] * 4 + [5280]


def test_strips_shrink_before_panels_narrow() -> None:
    """Below the total stride, too, and at once where a row of it has more pixels than a strip should."""
    costs = Costs(19_000, 850)
    assert next(plans(1000, 4096, 16, 96, costs, 1e12, 2**15, 8)).strip_height == 8
    assert next(plans(1000, 2048, 16, 96, costs, 1e12, 2**15, 8)).strip_height == 16
    assert next(plans(7, 2048, 16, 96, costs, 1e12, 2**15, 8)).strip_height == 16  # it has one strip
    (way, *_) = plans(1000, 2048, 16, 96, costs, costs.of(8, 2048), 2**15, 8)
    assert (way.strip_height, way.panel_width) == (8, 2048)


def test_memory_is_estimated_from_the_network_itself() -> None:
    """Against the bytes alive while numbers are really computed."""
    network = UNet(NetworkConfig(3, 2, 8, 3)).eval()
    stream = Stream(network, 3, 8, torch.device("cpu"), method="scores")
    assert stream.margin == 48
    for strip_height, columns, images in ((16, 64, 1), (48, 128, 1), (32, 32, 3), (8, 64, 1)):
        costs = stream.costs.times(images)
        alive: list[int] = []
        flow = RowStream(stream._steps, alive.append)
        for _ in range(8 + stream.margin // strip_height):
            list(flow.push(torch.zeros(images, 3, strip_height, columns), last=False))
        assert 0.95 <= costs.of(strip_height, columns) / max(alive) <= 1.2  # rather too much than too little


class Counted(TorchDispatchMode):
    """The most bytes of what torch's operators have made that were alive at once, by torch itself."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and not tensor.is_mkldnn:
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return made


def residual() -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.second(self.first(x).relu())

    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Block(), Block(), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize(
    ("network", "stride"),
    [
        (UNet(NetworkConfig(3, 2, 8, 3)), 8),
        (UNet(NetworkConfig(40, 2, 4, 2)), 4),
        (UNet(NetworkConfig(3, 2, 8, 2, skip="add")), 4),
        (UNet(NetworkConfig(3, 2, 8, 2, up="unpool")), 4),
        (UNet(NetworkConfig(3, 2, 8, 2, up="nearest")), 4),
        (residual(), 1),
    ],
    ids=["U-Net", "many bands", "sums", "unpool", "nearest", "residual"],
)
@pytest.mark.parametrize("rows", [8, 32])
def test_no_bytes_are_overlooked(network: nn.Module, stride: int, rows: int) -> None:
    """What the stream counts beside what torch does; blocks are too small to be mapped by themselves."""
    method = "scores" if isinstance(network, UNet) else "forward"
    bands = network.config.bands if isinstance(network, UNet) else 3
    stream = Stream(network.eval(), bands, stride, torch.device("cpu"), method=method)
    counts: list[int] = []

    def pass_through(flow: RowStream) -> None:
        for _ in range(4 + 2 * stream.margin // rows):
            list(flow.push(torch.empty(1, bands, rows, 32, memory_format=torch.channels_last).zero_(), last=False))

    pass_through(RowStream(stream._steps, counts.append))
    with Counted([*network.parameters(), *network.buffers()]) as found:
        pass_through(RowStream(stream._steps))
    assert 0.95 <= max(counts) / found.most <= 1.4  # unpooling makes masks on the way, which are not counted


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("up", "skip"), [("transpose", "concat"), ("nearest", "none"), ("unpool", "add")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_that_are_only_counted_are_those_of_numbers(
    monkeypatch: pytest.MonkeyPatch, padding: Padding, up: Up, skip: Skip, dtype: torch.dtype
) -> None:
    """Convolutions are not computed for it."""
    network = UNet(NetworkConfig(3, 2, 4, 3, up=up, skip=skip, padding=padding)).eval()
    stream = Stream(network, 3, 8, torch.device("cpu"), dtype, "scores", network.config.context)
    check_counts(stream)
    if up == "nearest":
        check_counts(Stream(MeanOverViews(network, EIGHT), 3, 8, torch.device("cpu"), dtype, "scores",
                            network.config.context))  # fmt: skip
    monkeypatch.setattr(Convolve, "__call__", lambda *_: pytest.fail("computed"))
    assert stream.costs.of(8, 64) > 0


def test_bytes_of_any_convolutions_are_those_of_numbers() -> None:
    layers = [nn.Conv2d(2, 6, (3, 5), 2, (1, 2)), nn.ReLU(), nn.Conv2d(6, 4, 3, padding="same", dilation=2),
              nn.Conv2d(4, 4, (2, 4), padding="same", groups=2), nn.Conv2d(4, 9, 1), nn.Conv2d(9, 3, (1, 3), (1, 2),
              (0, 1)), nn.ConvTranspose2d(3, 2, (2, 4), (2, 4))]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # even kernels are padded unevenly, with a copy
        check_counts(Stream(nn.Sequential(*layers).eval(), 2, 4, torch.device("cpu")))


def check_counts(stream: Stream) -> None:
    context = stream.context
    for rows, columns in ((8, 64 + 2 * context), (32, 48 + 2 * context)):
        assert stream._peak(rows, columns) == stream._peak(rows, columns, sizes_alone=False) > 0


def test_rows_are_held_no_longer_than_somebody_works_on_them() -> None:
    """Beside what is kept, the image and less than two features of the first level: not those that wait for the
    decoder, which have been copied, nor the input of a convolution, which stands in its block."""
    stream = Stream(UNet(NetworkConfig(3, 2, 8, 3)).eval(), 3, 8, torch.device("cpu"), method="scores")
    flow = RowStream(stream._steps)
    with Counted([]) as found:
        for _ in range(12):
            list(flow.push(torch.empty(1, 3, 16, 128, memory_format=torch.channels_last).zero_(), last=False))
    held = [*(tensor for operator in flow._operators for tensor in operator.held()), *flow._scratch.held()]
    kept = {tensor.untyped_storage()._cdata: tensor for tensor in held}
    image, feature = 16 * 128 * 3 * 4, 16 * 128 * 8 * 4
    assert found.most - sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) <= image + 2 * feature


@pytest.mark.parametrize("up", ["transpose", "bilinear", "unpool"])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_what_operators_keep_is_counted_as_it_changes(up: Up, padding: Padding) -> None:
    """As by going through all of them after each."""
    network = UNet(NetworkConfig(3, 2, 4, 3, up=up, padding=padding)).eval()
    stream = Stream(network, 3, 8, torch.device("cpu"), method="scores", context=network.config.context)
    counts: list[tuple[int, int]] = []

    def compare(_: int) -> None:
        held = (tensor for operator in flow._operators for tensor in operator.held())
        storages = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in held}
        counts.append((flow._kept.bytes_with([]), sum(storages.values())))

    flow = RowStream(stream._steps, compare)
    height = 18 * 8 + 4 * (padding == "valid")
    for row in range(0, height, 24):
        list(flow.push(torch.zeros(1, 3, min(24, height - row), height), last=row + 24 >= height))
    assert all(found == expected for found, expected in counts)
    assert len({found for found, _ in counts}) > 10  # it does change


@pytest.mark.parametrize("depth", [4, 5])
def test_memory_of_strips_below_the_total_stride_is_estimated_too(depth: int) -> None:
    stream = Stream(UNet(NetworkConfig(1, 2, 4, depth)).eval(), 1, 2**depth, torch.device("cpu"), method="scores")
    assert stream.least_rows == 8
    for strip_height in (8, 16, 32, 64):
        alive: list[int] = []
        flow = RowStream(stream._steps, alive.append)
        for _ in range(4 + stream.margin // strip_height):
            list(flow.push(torch.zeros(1, 1, strip_height, 64), last=False))
        assert 0.95 <= stream.costs.of(strip_height, 64) / max(alive) <= 1.2, strip_height


def test_columns_that_fill_up_a_narrow_image_count() -> None:
    """One column goes through the network as sixteen."""
    stream = Stream(UNet(NetworkConfig(3, 2, 4, 4)).eval(), 3, 16, torch.device("cpu"), method="scores")
    one, all_of_them = (next(stream.plans(100_000, width, 1, 1e9)) for width in (1, 16))
    assert (one.strip_height, one.needed) == (all_of_them.strip_height, all_of_them.needed)
    less = next(stream.plans(100_000, 1, 1, one.needed / 8))
    assert less.strip_height < one.strip_height
    assert less.needed <= one.needed / 8


def test_what_waits_beside_the_network_makes_panels_narrower() -> None:
    """As twenty probabilities a pixel in floats do, half a thousand rows of them."""
    stream = Stream(UNet(NetworkConfig(3, 2, 4, 2)).eval(), 3, 4, torch.device("cpu"), method="scores")
    beside = 3 * 512 * 80.0
    plain, less = (next(stream.plans(3000, 12_000, 1, 300e6, more)) for more in (0.0, beside))
    assert plain.panel_width == 12_000
    assert less.panel_width * beside < less.needed <= 300e6
