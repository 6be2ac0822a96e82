import numpy as np
import pytest
import slow_boxes
import tensorflow as tf

from kerascv_d2l import InputError, multibox_detection, nms, offset_inverse

pytestmark = pytest.mark.quick

ANCHORS = np.array(
    [
        [0.1, 0.08, 0.52, 0.92],
        [0.08, 0.2, 0.56, 0.95],
        [0.15, 0.3, 0.62, 0.91],
        [0.55, 0.2, 0.9, 0.88],
    ],
    np.float32,
)
PROBABILITIES = np.float32([[0] * 4, [0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]])


def test_example_of_the_book():
    found = multibox_detection(PROBABILITIES[None], np.zeros((1, 16)), ANCHORS[None])
    heads = [[0, 0.9], [1, 0.9], [-1, 0.8], [-1, 0.7]]
    np.testing.assert_allclose(found[0, :, :2], heads, atol=1e-6)
    np.testing.assert_allclose(found[0, :, 2:], ANCHORS[[0, 3, 1, 2]], atol=1e-6)


def random_predictions(rng, batch=3, anchors=40, classes=3):
    corner, size = rng.uniform(-0.5, 1, (anchors, 2)), rng.uniform(0.05, 0.6, (anchors, 2))
    anchors_ = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    # Coarse probabilities, so that scores tie.
    probabilities = rng.integers(0, 20, (batch, classes + 1, anchors)) / np.float32(20)
    offsets = rng.normal(0, 1, (batch, 4 * anchors)).astype(np.float32)
    return probabilities.astype(np.float32), offsets, anchors_[None]


@pytest.mark.parametrize("graph", [False, True])
def test_detection_equals_reference(graph):
    rng = np.random.default_rng(0)
    function = multibox_detection
    if graph:
        specs = [tf.TensorSpec(s) for s in ((None, None, None), (None, None), (1, None, 4))]
        function = tf.function(lambda a, b, c: multibox_detection(a, b, c, 0.3, 0.55))
        function = tf.function(function, input_signature=specs)
    for _ in range(5):
        probabilities, offsets, anchors = random_predictions(rng)
        found = (
            function(probabilities, offsets, anchors)
            if graph
            else multibox_detection(probabilities, offsets, anchors, 0.3, 0.55)
        )
        boxes = offset_inverse(anchors, offsets.reshape(3, -1, 4)).numpy()
        for i in range(3):
            expected = slow_boxes.detection(probabilities[i], boxes[i], 0.3, 0.55)
            np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-6)


def test_a_box_falls_only_above_the_threshold():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.5]], np.float32)  # IoU exactly 1/2
    scores = np.float32([0.6, 0.9])
    assert nms(boxes, scores, 0.5).numpy().tolist() == [1, 0]
    assert nms(boxes, scores, 0.499).numpy().tolist() == [1]


def test_boxes_left_of_and_above_the_image_take_part():
    boxes = np.array([[-3, -3, -2, -2], [-3, -3, -2, -2.1], [0, 0, 1, 1]], np.float32)
    assert nms(boxes, np.float32([0.5, 0.9, 0.7]), 0.5).numpy().tolist() == [1, 2]


def test_equal_scores_go_to_the_lower_index():
    boxes = np.tile(np.float32([[0.1, 0.2, 0.5, 0.9]]), (4, 1))
    boxes[2] += 2
    assert nms(boxes, np.full(4, 0.5), 0.5).numpy().tolist() == [0, 2]


def test_no_boxes():
    assert nms(np.zeros((0, 4)), np.zeros(0), 0.5).numpy().tolist() == []


def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match="scores must be one number a box"):
        nms(ANCHORS, np.zeros(3), 0.5)
    with pytest.raises(InputError, match="offset_preds must end in a dimension of 16"):
        multibox_detection(PROBABILITIES[None], np.zeros((1, 12)), ANCHORS[None])
    with pytest.raises(InputError, match="cls_probs must end in a dimension of 4"):
        multibox_detection(PROBABILITIES.T[None], np.zeros((1, 16)), ANCHORS[None])
    with pytest.raises(InputError, match="cls_probs needs background and at least one class"):
        multibox_detection(PROBABILITIES[None, :1], np.zeros((1, 16)), ANCHORS[None])
    with pytest.raises(InputError, match="nms_threshold must lie in"):
        multibox_detection(PROBABILITIES[None], np.zeros((1, 16)), ANCHORS[None], 50)


def test_a_box_inside_out_overlaps_nothing():
    boxes = np.float32([[0, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1]])
    np.testing.assert_array_equal(nms(boxes, [0.9, 0.8, 0.7], 0.5), [0, 1, 2])
