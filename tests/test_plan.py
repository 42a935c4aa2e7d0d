from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segcli.network.plan import PANEL_STEP, Costs, Plan, plans
from segcli.network.stream import RowStream, Stream
from segcli.network.unet import NetworkConfig, UNet


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
