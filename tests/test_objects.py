"""Objects: components against scikit-image, matches against every pair measured, qualities against torchmetrics."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from torchmetrics.functional.detection import panoptic_quality as torchmetrics_quality

from segcli.components import Components
from segcli.evaluation.objects import ObjectMatcher, joint_counts
from segcli.measures import objects as o


def mask_of(seed: int, height: int, width: int, size: float) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random((height, width)), size)
    return np.digitize(field, np.quantile(field, [0.5, 0.75])).astype(np.uint8)


masks = st.builds(mask_of, st.integers(0, 999), st.just(41), st.just(37), st.sampled_from([0.0, 1.0, 2.5]))
cuts = st.lists(st.integers(1, 40), max_size=5, unique=True).map(sorted)
COUNTED = np.arange(256) % 256 > 0


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


@settings(deadline=None, max_examples=60)
@given(masks, cuts)
def test_components_over_strips_are_those_of_the_whole(mask: np.ndarray, rows: list[int]) -> None:
    components = Components(COUNTED)
    numbers = np.concatenate([components.add(strip) for strip in np.split(mask, rows) if len(strip)])
    objects, values = components.objects()
    found = np.append(objects, -1)[numbers]
    assert same_partition(found + 1, label(mask, background=0, connectivity=1))
    assert np.array_equal(np.append(values, 0)[found], mask)


def by_hand(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Every pair of objects measured; 255 is no label in the truth, no data in the prediction."""
    counts = np.zeros((classes, o.COLUMNS))
    void = truth == 255
    for n in range(1, classes):
        one = label((truth == n) & (predicted != 255), connectivity=1)
        other = label(predicted == n, connectivity=1)
        inside = np.where(void, 0, other)
        pairs = [(a, b) for a in range(1, one.max() + 1) for b in np.unique(inside[one == a]) if b]
        ious = [((one == a) & (inside == b)).sum() / ((one == a) | (inside == b)).sum() for a, b in pairs]
        matched = {b for (_, b), iou in zip(pairs, ious, strict=True) if iou > 0.5}
        counted = [b for b in range(1, other.max() + 1) if b in matched or void[other == b].mean() <= 0.5]
        counts[n, :3] = one.max(), len(counted), sum(iou for iou in ious if iou > 0.5)
        counts[n, 3:] = [sum(iou > t for iou in ious) for t in o.THRESHOLDS]
    return counts


def matched(truth: np.ndarray, predicted: np.ndarray, rows: list[int], labels: bool = False) -> np.ndarray:
    matcher = ObjectMatcher([False, True] if labels else [False, True, True], (labels, labels))
    for one, other in zip(np.split(truth, rows), np.split(predicted, rows), strict=True):
        if len(one):
            matcher.add(one, other, (one != 255) & (other != 255), other != 255)
    matcher.end_image()
    return matcher.counts


def with_holes(mask: np.ndarray, seed: int, share: float) -> np.ndarray:
    """255 in patches, so that objects lie in them with a part or as a whole."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random(mask.shape), 3)
    return np.where(field < np.quantile(field, share), 255, mask).astype(np.uint8)


shares = st.sampled_from([0.0, 0.3, 0.7])


@settings(deadline=None, max_examples=60)
@given(masks, st.integers(0, 99), cuts, shares, shares)
def test_matches_by_brute_force(truth: np.ndarray, seed: int, rows: list[int], void: float, empty: float) -> None:
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(truth.shape) < 0.95, truth, rng.integers(0, 3, truth.shape)).astype(np.uint8)
    truth, predicted = with_holes(truth, seed, void), with_holes(predicted, seed + 1, empty)
    np.testing.assert_allclose(matched(truth, predicted, rows), by_hand(truth, predicted, 3))


def test_what_is_predicted_where_there_is_no_label_is_not_held_against_it() -> None:
    """An object that lies there with more than half is none, one with half is a false one; and one that matches is not
    the worse for the rest of it."""
    truth, predicted = np.zeros((2, 30, 30), np.uint8)
    truth[10:20] = 255
    truth[10:20, 3:6] = 0  # stripes of ground in the void
    truth[10:20, 10:13] = 0
    predicted[12:15, 1:18] = 1  # 33 of 51 pixels on void, which would cut it into two false ones
    predicted[18:22, 20:24] = 1  # half on void: a false one
    truth[2:8, 2:8], predicted[2:8, 2:8] = 1, 1
    truth[2:8, 6:8] = 255  # the void part does not lower its IoU
    counts = matched(truth, predicted, [13])[1]
    assert counts[[o.TRUE, o.PREDICTED, o.IOUS, o.HITS]].tolist() == [1, 2, 1, 1]


@settings(deadline=None, max_examples=30)
@given(masks, st.integers(0, 99), cuts)
def test_qualities_are_torchmetrics_s(truth: np.ndarray, seed: int, rows: list[int]) -> None:
    """Of label maps, in which every number is an object and 0 is what lies between."""
    rng = np.random.default_rng(seed)
    one = label(truth == 1, connectivity=1)
    other = np.where(ndimage.shift(one, rng.integers(-1, 2, 2), order=0) > 0, np.roll(one, 1), 0)
    counts = matched(one.astype(np.uint16) * 300 % 65521, other.astype(np.uint16) * 300 % 65521, rows, labels=True)
    given_pairs = (torch.from_numpy(np.stack([part > 0, part], -1).astype(np.int64))[None] for part in (other, one))
    expected = torchmetrics_quality(*given_pairs, things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    found = [figure(counts[1]) for figure in (o.panoptic_quality, o.segmentation_quality, o.recognition_quality)]
    # Of thing and stuff in this order; what is undefined is 0 there.
    np.testing.assert_allclose(np.nan_to_num(found), expected[0].numpy(), atol=1e-6)


def test_figures_of_known_counts() -> None:
    counts = np.zeros(o.COLUMNS)
    counts[[o.TRUE, o.PREDICTED, o.IOUS]] = 4, 3, 1.6
    counts[o.HITS :] = [2, 2, 2, 1, 1, 1, 1, 1, 0, 0]
    assert o.average_precision(counts) == pytest.approx(2 / 5)
    assert o.mean_average_precision(counts) == pytest.approx((3 * 2 / 5 + 5 * 1 / 6) / 10)
    assert (o.precision(counts), o.recall(counts)) == (pytest.approx(2 / 3), pytest.approx(2 / 4))
    assert o.panoptic_quality(counts) == pytest.approx(o.segmentation_quality(counts) * o.recognition_quality(counts))
    assert np.isnan(o.panoptic_quality(np.zeros(o.COLUMNS)))


def test_common_pixels_by_table_and_by_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(-1, 9, (2, 30, 30))
    other = np.where(other < 0, -1, other + 100)
    first = joint_counts(one, other)
    monkeypatch.setattr("segcli.evaluation.objects.DENSE", 0)
    second = joint_counts(one, other)
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)
    pairs, counts = first
    assert {(int(a), int(b)): int(n) for a, b, n in zip(*pairs, counts, strict=True)} == {
        (a, b): int(((one == a) & (other == b)).sum())
        for a in range(-1, 9)
        for b in [-1, *range(100, 109)]
        if (a, b) != (-1, -1) and ((one == a) & (other == b)).any()
    }
