"""Scores, against scikit-learn and torchmetrics."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error

from segcli.measures.calibration import LEVELS, ScoreCounts, levels


def some(seed: int, pixels: int, classes: int, steps: int | None) -> tuple[np.ndarray, np.ndarray]:
    """True classes, and probabilities that know something of them, in so many steps."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, pixels)
    scores = rng.normal(size=(classes, pixels)) + 2 * (np.arange(classes)[:, None] == truth)
    shares = np.exp(scores) / np.exp(scores).sum(0)
    return truth, shares if steps is None else np.round(shares * steps) / steps


@settings(deadline=None, max_examples=25)
@example(863, 916, 4, None)
@given(st.integers(0, 999), st.integers(200, 3000), st.integers(2, 5), st.sampled_from([None, 250]))
def test_areas_and_thresholds_are_scikit_learn_s(seed: int, pixels: int, classes: int, steps: int | None) -> None:
    truth, shares = some(seed, pixels, classes, steps)
    counts, half = ScoreCounts(classes), pixels // 2
    counts.add(truth[:half], levels(shares[:, :half]))
    rest = ScoreCounts(classes)
    rest.add(truth[half:], levels(shares[:, half:]))
    counts.merge(rest.packed())
    # 250 steps keep every difference; other numbers are told apart down to 1 / 65535.
    tolerance = 1e-12 if steps else 1e-3
    for n in range(classes):
        curves, is_class = counts.curves(n), truth == n
        assert curves.average_precision == pytest.approx(average_precision_score(is_class, shares[n]), abs=tolerance)
        assert curves.roc_auc == pytest.approx(roc_auc_score(is_class, shares[n]), abs=tolerance)
        known = levels(shares[n]) / (LEVELS - 1)  # of few pixels one more or less moves F1 by more than that
        precision, recall, thresholds = precision_recall_curve(is_class, known)
        with np.errstate(invalid="ignore"):
            f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
        threshold, best = curves.best_threshold()
        assert best == pytest.approx(f1.max(), abs=1e-12)
        assert np.isclose(thresholds * (LEVELS - 1), np.ceil(threshold * (LEVELS - 1)), atol=1e-6).any()
        reached = shares[n] >= threshold if steps else levels(shares[n]) >= np.ceil(threshold * (LEVELS - 1))
        assert best == pytest.approx(2 * (is_class & reached).sum() / (is_class.sum() + reached.sum()))
        for threshold, *along in curves.sampled():
            reached = shares[n] >= threshold if steps else levels(shares[n]) >= np.ceil(threshold * (LEVELS - 1))
            hits, false = (is_class & reached).sum(), (reached & ~is_class).sum()
            assert along == [hits / reached.sum(), hits / is_class.sum(), false / (~is_class).sum()]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_the_best_threshold_is_reached_by_what_it_counts(share: float, dtype: type) -> None:
    """Also where many pixels have the very probability that lies between two steps."""
    shares = np.array([share] * 5 + [0.05, 0.95], dtype)
    counts = ScoreCounts(1)
    counts.add(np.array([0] * 5 + [1, 1]), levels(shares[None]))
    threshold, best = counts.curves(0).best_threshold()
    reached = shares >= threshold
    assert best == pytest.approx(2 * reached[:5].sum() / (5 + reached.sum()))
    assert threshold == pytest.approx(share, abs=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.integers(100, 3000), st.integers(2, 5), st.sampled_from([257, 4369]))
def test_calibration_error_is_torchmetrics_s(seed: int, pixels: int, classes: int, steps: int) -> None:
    # Both divide 65535, and neither has a step on a border of the 15 bins, where the two would count it differently.
    truth, shares = some(seed, pixels, classes, steps)
    counts = ScoreCounts(classes)
    counts.add(truth, levels(shares))
    given_pairs = torch.from_numpy(shares.T.copy()), torch.from_numpy(truth)
    expected = multiclass_calibration_error(*given_pairs, num_classes=classes, n_bins=15, norm="l1")
    assert counts.expected_calibration_error() == pytest.approx(float(expected), abs=1e-5)  # it sums in float32
    bins = counts.reliability()
    assert sum(n for n, _, _ in bins) == pixels
    assert all((k + 1) / 15 >= confidence > k / 15 for k, (n, confidence, _) in enumerate(bins) if n)


def test_a_class_that_is_nowhere_has_no_curve() -> None:
    counts = ScoreCounts(3)
    counts.add(np.zeros(4, int), levels(np.full((3, 4), 1 / 3)))
    for n in (0, 1):  # everywhere, nowhere
        curves = counts.curves(n)
        assert np.isnan([curves.average_precision, curves.roc_auc, *curves.best_threshold()]).all()
        assert curves.sampled() == []
    assert np.isnan(ScoreCounts(2).expected_calibration_error())


def test_what_one_image_has_counted_is_small() -> None:
    """Results of many images wait for each other: with 25 MB each, 200 small images of 24 classes took 1.3 GB."""
    truth, shares = some(0, 4096, 24, 250)
    counts, total = ScoreCounts(24), ScoreCounts(24)
    counts.add(truth, levels(shares))
    assert len(pickle.dumps(counts.packed())) < 2**18
    for _ in range(2):
        total.merge(counts.packed())
    for name in ("positive", "negative", "right", "wrong"):
        np.testing.assert_array_equal(getattr(total, name), 2 * getattr(counts, name))
