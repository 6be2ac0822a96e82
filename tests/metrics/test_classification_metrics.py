import numpy as np
import pytest

from kerascv_d2l.errors import InputError
from kerascv_d2l.metrics.classification import classification_metrics

NAMES = [f"c{k}" for k in range(20)]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, np.uint64])
def test_labels_of_any_whole_type_count_alike(dtype):
    """Twenty classes: 19 · 20 is more than 8 bits have."""
    labels = np.repeat(np.arange(20), 3)
    predicted = labels.copy()
    predicted[:2], predicted[-1] = 19, 0
    found = classification_metrics(np.eye(20)[predicted], labels.astype(dtype), NAMES)
    assert found["accuracy"] == pytest.approx(57 / 60)
    assert found["accuracy_by_class"]["c0"] == pytest.approx(1 / 3)
    assert found["accuracy_by_class"]["c19"] == pytest.approx(2 / 3)
    confusion = np.diag(np.full(20, 3))
    confusion[0, [0, 19]], confusion[19, [0, 19]] = (1, 2), (1, 2)
    np.testing.assert_array_equal(found["confusion"], confusion)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 20], "labels go from 0 to 20; wanted 0 to 19"),
        ([-1, 3], "labels go from -1 to 3"),
        ([0.0, 1.0], "labels are float64; wanted whole numbers"),
        ([[0], [1]], r"labels \(2, 1\): expected \(n, 20\)"),
        ([0, 1, 2], "and at least one"),
    ],
)
def test_labels_that_are_no_classes_are_named(labels, message):
    with pytest.raises(InputError, match=message):
        classification_metrics(np.full((2, 20), 1 / 20), labels, NAMES)
