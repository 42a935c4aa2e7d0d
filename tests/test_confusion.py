"""Figures of the confusion matrix, against scikit-learn and against their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from segcli.measures import confusion as c
from segcli.measures.bootstrap import draws, interval, resampled


def labels(classes: int, pixels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-1, classes, pixels).astype(np.int16), rng.integers(0, classes, pixels).astype(np.uint8)


@pytest.mark.filterwarnings("ignore:A single label:UserWarning")  # scikit-learn's, for one class
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@given(st.integers(1, 7), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_equal_to_scikit_learn(classes: int, pixels: int, seed: int) -> None:
    truth, predicted = labels(classes, pixels, seed)
    matrix = c.confusion_matrix(truth, predicted, classes)
    kept = truth >= 0
    if not kept.any():
        assert matrix.sum() == 0
        assert np.isnan(c.mean_iou(matrix))
        assert np.isnan(
            [c.pixel_accuracy(matrix), c.frequency_weighted_iou(matrix), c.matthews_correlation(matrix)]
        ).all()
        return
    true, found = truth[kept], predicted[kept]
    every = list(range(classes))
    assert np.array_equal(matrix, metrics.confusion_matrix(true, found, labels=every))
    present = sorted(set(true) | set(found))
    more = {"labels": every, "average": None, "zero_division": np.nan}
    for figure, name in ((c.dice, "f1"), (c.precision, "precision"), (c.recall, "recall")):
        expected = getattr(metrics, f"{name}_score")(true, found, **more)
        assert figure(matrix) == pytest.approx(expected, nan_ok=True), name
    iou = c.intersection_over_union(matrix)
    assert iou[present] == pytest.approx(metrics.jaccard_score(true, found, labels=present, average=None))
    assert np.isnan(iou[[n for n in every if n not in present]]).all()
    assert c.mean_iou(matrix) == pytest.approx(metrics.jaccard_score(true, found, labels=present, average="macro"))
    weighted = metrics.jaccard_score(true, found, labels=present, average="weighted")
    assert c.frequency_weighted_iou(matrix) == pytest.approx(weighted)
    assert c.pixel_accuracy(matrix) == pytest.approx(metrics.accuracy_score(true, found))
    assert c.mean_over_classes(c.recall, matrix) == pytest.approx(metrics.balanced_accuracy_score(true, found))
    # A class that was missed altogether has no precision, and counts 0.
    precise = metrics.precision_score(true, found, labels=present, average="macro", zero_division=0)
    assert c.mean_over_classes(c.precision, matrix) == pytest.approx(precise)
    if len(present) > 1:
        assert c.cohens_kappa(matrix) == pytest.approx(metrics.cohen_kappa_score(true, found), nan_ok=True)
    assert c.matthews_correlation(matrix) == pytest.approx(metrics.matthews_corrcoef(true, found))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_many_matrices_at_once(count: int, classes: int, seed: int) -> None:
    matrices = np.stack([c.confusion_matrix(*labels(classes, 30, seed + n), classes) for n in range(count)])
    for figure in (
        c.intersection_over_union, c.dice, c.precision, c.recall, c.pixel_accuracy, c.frequency_weighted_iou,
        c.cohens_kappa, c.matthews_correlation,
    ):  # fmt: skip
        np.testing.assert_array_equal(figure(matrices), np.stack([figure(matrix) for matrix in matrices]))


def test_what_absent_classes_count() -> None:
    matrix = np.diag([3, 0, 5])
    matrix[0, 2] = 3
    iou = c.intersection_over_union
    assert c.mean_over_classes(iou, matrix) == pytest.approx((3 / 6 + 5 / 8) / 2)
    assert c.mean_over_classes(iou, matrix, "one") == pytest.approx((3 / 6 + 1 + 5 / 8) / 3)
    assert c.mean_over_classes(iou, matrix, "zero") == pytest.approx((3 / 6 + 5 / 8) / 3)
    assert np.isnan(c.mean_over_classes(iou, np.zeros((2, 2))))
    missed = np.array([[4, 0], [2, 0]])
    for absent in ("skip", "one", "zero"):
        assert c.mean_over_classes(c.precision, missed, absent) == pytest.approx(4 / 6 / 2)  # type: ignore[arg-type]
    invented = np.array([[6, 4, 0], [0, 0, 0], [0, 0, 10]])  # the recall of what is not there is no merit
    for absent in ("skip", "one", "zero"):
        assert c.mean_over_classes(c.recall, invented, absent) == pytest.approx(1.6 / 2)  # type: ignore[arg-type]
        assert c.mean_over_classes(c.precision, invented, absent) == pytest.approx(2 / 3)  # type: ignore[arg-type]


@given(st.integers(0, 300_000), st.integers(0, 99), st.sampled_from([1000, 2**16, 2**23]))
@settings(max_examples=30, deadline=None)
def test_values_are_counted_whatever_they_mean(pixels: int, seed: int, at_once: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 256, (2, pixels), np.uint8)
    expected = np.zeros((256, 256), np.int64)
    np.add.at(expected, (truth, predicted), 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c, "_EXACT", at_once)
        assert np.array_equal(c.count_values(truth, predicted), expected)


def test_large_counts_are_exact() -> None:
    """Beyond what float32 counts one by one."""
    mask = np.zeros((4100, 4100), np.uint8)
    mask[0, 0] = 1
    assert c.count_values(mask, mask)[0, 0] == 4100 * 4100 - 1


def test_a_foreign_class_is_refused() -> None:
    with pytest.raises(ValueError, match="class of 2 or more"):
        c.confusion_matrix(np.array([1]), np.array([2]), 2)


def test_an_interval_holds_the_figure_and_narrows_with_more_images() -> None:
    rng = np.random.default_rng(0)

    def some(images: int) -> np.ndarray:
        right = rng.binomial(1000, 0.8, images)
        return np.array([[[n // 2, (1000 - n) // 2], [(1000 - n + 1) // 2, (n + 1) // 2]] for n in right])

    def ends(images: np.ndarray) -> tuple[float, float]:
        low, high = interval(c.pixel_accuracy(resampled(images)))
        return float(low), float(high)

    few, many = some(5), some(500)
    low, high = ends(many)
    assert low < c.pixel_accuracy(many.sum(0)) < high
    # The standard error of a mean of 500 shares of 1000 trials.
    assert high - low == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 1000 / 500) ** 0.5, rel=0.2)
    assert ends(few)[1] - ends(few)[0] > 3 * (high - low)
    assert np.isnan(ends(few[:1])).all()
    assert ends(few) == ends(few)
    assert (draws(7, 0).sum(1) == 7).all()
