"""Boundary measures, against scipy and scikit-image and against cases done by hand."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from segcli.measures.boundaries import BoundaryCounts, boundary_counts, distance_to, margin_of, outline


def blobs(seed: int, height: int, width: int, size: float) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), size) > 0.5


masks = st.builds(blobs, st.integers(0, 999), st.just(37), st.just(41), st.sampled_from([0.5, 2.0, 5.0]))


@given(masks)
def test_an_outline_is_what_erosion_takes_away(mask: np.ndarray) -> None:
    cross = ndimage.generate_binary_structure(2, 1)
    assert np.array_equal(outline(mask), mask & ~ndimage.binary_erosion(mask, cross, border_value=1))


@given(masks)
def test_distances_are_scipy_s(edge: np.ndarray) -> None:
    if edge.any():
        squared = np.rint(np.square(ndimage.distance_transform_edt(~edge)))
        assert np.array_equal(distance_to(edge), np.sqrt(squared.astype(np.float32)))
    assert np.isinf(distance_to(np.zeros((3, 3), bool))).all()


@settings(deadline=None)
@given(masks, masks, st.sampled_from([1, 2, 3.5, 6]))
def test_counts_by_brute_force(truth: np.ndarray, predicted: np.ndarray, tolerance: float) -> None:
    """Every pair of boundary pixels measured."""
    counts = boundary_counts(truth, predicted, tolerance)
    edges = [np.argwhere(outline(mask)) for mask in (truth, predicted)]
    assert (counts.true_total, counts.predicted_total) == (len(edges[0]), len(edges[1]))
    for one, other, found in ((0, 1, counts.true_found), (1, 0, counts.predicted_found)):
        if len(edges[one]) and len(edges[other]):
            near = cKDTree(edges[other]).query(edges[one])[0] <= tolerance
            assert found == near.sum()
        else:
            assert found == 0
    bands = []
    for mask, edge in zip((truth, predicted), edges, strict=True):
        everywhere = np.argwhere(np.ones(mask.shape, bool))
        far = cKDTree(edge).query(everywhere)[0] if len(edge) else np.full(len(everywhere), np.inf)
        bands.append(mask & (far.reshape(mask.shape) < tolerance))
    assert counts.band_hits == (bands[0] & bands[1]).sum()
    assert counts.band_union == (bands[0] | bands[1]).sum()


@given(masks, masks, st.sampled_from([1, 2.5, 4]), st.integers(1, 20))
def test_strips_add_up_to_the_image(truth: np.ndarray, predicted: np.ndarray, tolerance: float, height: int) -> None:
    margin = margin_of(tolerance)
    known = blobs(7, *truth.shape, 4) | blobs(8, *truth.shape, 4)
    total = BoundaryCounts()
    for row in range(0, len(truth), height):
        top, end = max(0, row - margin), min(len(truth), row + height + margin)
        rows = slice(row - top, min(row + height, len(truth)) - top)
        total += boundary_counts(truth[top:end], predicted[top:end], tolerance, known[top:end], rows)
    assert total == boundary_counts(truth, predicted, tolerance, known)


def test_a_square_moved_by_two_pixels() -> None:
    truth, moved = np.zeros((2, 40, 40), bool)
    truth[10:20, 10:20] = True
    moved[10:20, 12:22] = True
    assert boundary_counts(truth, moved, 2).f_score == 1
    assert boundary_counts(truth, moved, 1).f_score < 0.7
    same = boundary_counts(truth, truth, 1)
    assert (same.boundary_iou, same.f_score) == (1, 1)
    assert same.band_union == 36  # the ring of a square of ten


def test_what_has_no_outline() -> None:
    nothing = np.zeros((9, 9), bool)
    some = nothing.copy()
    some[3:6, 3:6] = True
    assert np.isnan(boundary_counts(nothing, nothing, 2).f_score)
    assert np.isnan(boundary_counts(nothing, nothing, 2).boundary_iou)
    assert boundary_counts(some, nothing, 2).f_score == 0
    assert boundary_counts(some, nothing, 2).boundary_iou == 0
    assert np.isnan(BoundaryCounts().f_score)
    total = boundary_counts(some, some, 1) + boundary_counts(some, nothing, 1)
    assert (total.true_total, total.true_found, total.predicted_total) == (16, 8, 8)


def test_unknown_pixels_do_not_count() -> None:
    truth, predicted = np.zeros((2, 20, 20), bool)
    truth[5:10, 5:10] = True
    predicted[5:15, 5:10] = True
    known = np.ones((20, 20), bool)
    known[9:] = False
    assert boundary_counts(truth, predicted, 1, known).f_score == 1
    assert boundary_counts(truth, predicted, 1).f_score < 1
