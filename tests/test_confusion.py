import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix as reference
from sklearn.metrics import jaccard_score

from segcli.measures.confusion import confusion_matrix, intersection_over_union, mean_iou


@pytest.mark.filterwarnings("ignore:A single label:UserWarning")  # scikit-learn's, for one class
@given(st.integers(1, 7), st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_equal_to_scikit_learn(classes: int, pixels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, classes, pixels).astype(np.int16)
    predicted = rng.integers(0, classes, pixels).astype(np.uint8)
    matrix = confusion_matrix(truth, predicted, classes)
    kept = truth >= 0
    if not kept.any():
        assert matrix.sum() == 0
        assert np.isnan(mean_iou(matrix))
        return
    labels = list(range(classes))
    assert np.array_equal(matrix, reference(truth[kept], predicted[kept], labels=labels))
    present = sorted(set(truth[kept]) | set(predicted[kept]))
    expected = jaccard_score(truth[kept], predicted[kept], labels=present, average=None)
    iou = intersection_over_union(matrix)
    assert iou[present] == pytest.approx(expected)
    assert np.isnan(iou[[c for c in labels if c not in present]]).all()
    assert mean_iou(matrix) == pytest.approx(expected.mean())


def test_a_foreign_class_is_refused() -> None:
    with pytest.raises(ValueError, match="class of 2 or more"):
        confusion_matrix(np.array([1]), np.array([2]), 2)
