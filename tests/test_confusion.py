"""Figures of the confusion matrix, against scikit-learn and against their definitions."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from segcli.measures import bootstrap
from segcli.measures import confusion as c
from segcli.measures.bootstrap import draws, interval, resampled
from segcli.measures.report import ImageCounts, dense, entries_of, read_entries, report


def labels(classes: int, pixels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(-1, classes, pixels).astype(np.int16), rng.integers(0, classes, pixels).astype(np.uint8)


@pytest.mark.filterwarnings("ignore:A single label:UserWarning")  # scikit-learn's, for one class
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")
@given(st.integers(1, 7), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_equal_to_scikit_learn(classes: int, pixels: int, seed: int) -> None:
    truth, predicted = labels(classes, pixels, seed)
    matrix = c.confusion_matrix(truth, predicted, classes)
    totals = c.Totals.of(matrix)
    kept = truth >= 0
    if not kept.any():
        assert matrix.sum() == 0
        assert np.isnan(c.mean_iou(matrix))
        assert np.isnan(
            [c.pixel_accuracy(totals), c.frequency_weighted_iou(totals), c.matthews_correlation(totals)]
        ).all()
        return
    true, found = truth[kept], predicted[kept]
    every = list(range(classes))
    assert np.array_equal(matrix, metrics.confusion_matrix(true, found, labels=every))
    present = sorted(set(true) | set(found))
    more = {"labels": every, "average": None, "zero_division": np.nan}
    for figure, name in ((c.dice, "f1"), (c.precision, "precision"), (c.recall, "recall")):
        expected = getattr(metrics, f"{name}_score")(true, found, **more)
        assert figure(totals) == pytest.approx(expected, nan_ok=True), name
    iou = c.intersection_over_union(totals)
    assert iou[present] == pytest.approx(metrics.jaccard_score(true, found, labels=present, average=None))
    assert np.isnan(iou[[n for n in every if n not in present]]).all()
    assert c.mean_iou(matrix) == pytest.approx(metrics.jaccard_score(true, found, labels=present, average="macro"))
    weighted = metrics.jaccard_score(true, found, labels=present, average="weighted")
    assert c.frequency_weighted_iou(totals) == pytest.approx(weighted)
    assert c.pixel_accuracy(totals) == pytest.approx(metrics.accuracy_score(true, found))
    assert c.mean_over_classes(c.recall, totals) == pytest.approx(metrics.balanced_accuracy_score(true, found))
    # A class that was missed altogether has no precision, and counts 0.
    precise = metrics.precision_score(true, found, labels=present, average="macro", zero_division=0)
    assert c.mean_over_classes(c.precision, totals) == pytest.approx(precise)
    if len(present) > 1:
        assert c.cohens_kappa(totals) == pytest.approx(metrics.cohen_kappa_score(true, found), nan_ok=True)
    assert c.matthews_correlation(totals) == pytest.approx(metrics.matthews_corrcoef(true, found))


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 99))
def test_many_matrices_at_once(count: int, classes: int, seed: int) -> None:
    matrices = np.stack([c.confusion_matrix(*labels(classes, 30, seed + n), classes) for n in range(count)])
    for figure in (
        c.intersection_over_union, c.dice, c.precision, c.recall, c.pixel_accuracy, c.frequency_weighted_iou,
        c.cohens_kappa, c.matthews_correlation,
    ):  # fmt: skip
        one_by_one = np.stack([figure(c.Totals.of(matrix)) for matrix in matrices])
        np.testing.assert_array_equal(figure(c.Totals.of(matrices)), one_by_one)


def test_what_absent_classes_count() -> None:
    matrix = np.diag([3, 0, 5])
    matrix[0, 2] = 3
    iou, totals = c.intersection_over_union, c.Totals.of(matrix)
    assert c.mean_over_classes(iou, totals) == pytest.approx((3 / 6 + 5 / 8) / 2)
    assert c.mean_over_classes(iou, totals, "one") == pytest.approx((3 / 6 + 1 + 5 / 8) / 3)
    assert c.mean_over_classes(iou, totals, "zero") == pytest.approx((3 / 6 + 5 / 8) / 3)
    assert np.isnan(c.mean_over_classes(iou, c.Totals.of(np.zeros((2, 2)))))
    missed = c.Totals.of(np.array([[4, 0], [2, 0]]))
    for absent in ("skip", "one", "zero"):
        assert c.mean_over_classes(c.precision, missed, absent) == pytest.approx(4 / 6 / 2)  # type: ignore[arg-type]
    invented = c.Totals.of(np.array([[6, 4, 0], [0, 0, 0], [0, 0, 10]]))  # the recall of what is not there is no merit
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
        low, high = interval(c.pixel_accuracy(c.Totals.of(resampled(images))))
        return float(low), float(high)

    few, many = some(5), some(500)
    low, high = ends(many)
    assert low < c.pixel_accuracy(c.Totals.of(many.sum(0))) < high
    # The standard error of a mean of 500 shares of 1000 trials.
    assert high - low == pytest.approx(2 * 1.96 * (0.8 * 0.2 / 1000 / 500) ** 0.5, rel=0.2)
    assert ends(few)[1] - ends(few)[0] > 3 * (high - low)
    assert np.isnan(ends(few[:1])).all()
    assert ends(few) == ends(few)
    assert all((some.sum(1) == 7).all() for some in draws(7, 0))


def test_draws_are_the_same_however_many_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = np.random.default_rng(0).integers(0, 1000, (30, 3, 4))
    expected = resampled(counts)
    assert expected.shape == (bootstrap.DRAWS, 3, 4)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 30 * 7)
    assert [len(some) for some in draws(30, 0)] == [7] * 142 + [6]
    assert np.array_equal(resampled(counts), expected)


def test_a_report_of_many_classes_holds_what_images_show() -> None:
    """Of 150 classes an image shows a few: 2000 whole matrices would be 360 MB, and several times that in between."""
    rng = np.random.default_rng(0)
    images, total = [], np.zeros((150, 150), np.int64)
    for n in range(2000):
        matrix = np.zeros((150, 150), np.int64)
        shown = rng.integers(0, 150, (2, 12))
        np.add.at(matrix, (shown[0], shown[1]), 100)
        total += matrix
        images.append(ImageCounts(f"{n}", entries_of(matrix), c.Totals.of(matrix)))
    tracemalloc.start()
    found = report(images, [f"{n}" for n in range(150)])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100e6
    assert found["confusion_matrix"] == total.tolist()
    assert found["dataset"]["mean_iou"]["value"] == pytest.approx(c.mean_iou(total))
    assert [entry["true_pixels"] for entry in found["per_class"]] == total.sum(1).tolist()


@given(st.integers(1, 6), st.integers(0, 99))
def test_cells_of_a_matrix_are_the_matrix(classes: int, seed: int) -> None:
    matrix = c.confusion_matrix(*labels(classes, 20, seed), classes)
    listed = json.loads(json.dumps(entries_of(matrix).tolist()))
    assert all(pixels > 0 for _, _, pixels in listed)
    cells = read_entries(listed, classes)
    assert np.array_equal(dense(cells, classes), matrix)
    assert np.array_equal(dense(np.concatenate([cells, cells]), classes), 2 * matrix)


@pytest.mark.parametrize(
    "listed", [[1, 2, 3], [[0, 1]], [[0, 2, 5]], [[-1, 0, 5]], [[0, 0, -5]], [[0, 0, 1.5]], [["a", 0, 1]], {"a": 1}]
)
def test_what_is_no_cell_is_refused(listed: object) -> None:
    with pytest.raises(ValueError, match=r"counts that are|could not"):
        read_entries(listed, 2)
