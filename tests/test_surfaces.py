"""Distances between outlines, against scikit-image and every pair of points measured."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from skimage.metrics import hausdorff_distance

from segcli.evaluation.outlines import Outlines
from segcli.measures.boundaries import outline
from segcli.measures.surfaces import surface_distances

points = st.integers(1, 40).flatmap(
    lambda count: st.builds(
        lambda seed: np.random.default_rng(seed).integers(0, 50, (count, 2)).astype(float), st.integers(0, 999)
    )
)


@settings(deadline=None)
@given(points, points)
def test_distances_by_brute_force(true: np.ndarray, predicted: np.ndarray) -> None:
    found = surface_distances(true, predicted)
    table = cdist(true, predicted)
    forth, back = table.min(1), table.min(0)
    np.testing.assert_allclose(found.hausdorff(), max(np.percentile(forth, 95), np.percentile(back, 95)))
    np.testing.assert_allclose(found.average, (forth.sum() + back.sum()) / (len(forth) + len(back)))


def test_at_100_it_is_the_hausdorff_distance() -> None:
    rng = np.random.default_rng(1)
    masks = rng.random((2, 40, 40)) < 0.02
    found = surface_distances(*(np.argwhere(mask).astype(float) for mask in masks))
    assert found.hausdorff(100) == hausdorff_distance(*masks)


def test_without_an_outline_there_is_no_distance() -> None:
    found = surface_distances(np.zeros((0, 2)), np.ones((3, 2)))
    assert np.isnan([found.hausdorff(), found.average]).all()


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 99), st.lists(st.integers(1, 49), max_size=6, unique=True).map(sorted), st.sampled_from([None, 3.0])
)
def test_outlines_over_strips_are_those_of_the_whole(seed: int, rows: list[int], width: float | None) -> None:
    """In oblong pixels, with unlabelled ones, and held rows shared with the boundary counts."""
    rng = np.random.default_rng(seed)
    masks = np.kron(rng.integers(0, 2, (2, 10, 8)), np.ones((1, 5, 5))).astype(np.int16)
    known = rng.random(masks[0].shape) < 0.9
    outlines = Outlines(2, width, (2.0, 0.5))
    for strips in zip(*(np.split(part, rows) for part in (*masks, known)), strict=True):
        if len(strips[0]):
            outlines.add(*strips)
    outlines.end_image()
    assert outlines.distances is not None
    for n in range(2):
        edges = [np.argwhere(outline(mask == n, known)) * (2.0, 0.5) for mask in masks]
        expected = surface_distances(*edges)
        np.testing.assert_allclose(outlines.distances[n], [expected.hausdorff(), expected.average])
