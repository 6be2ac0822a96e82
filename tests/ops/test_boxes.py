import numpy as np
import pytest
import slow_boxes
import tensorflow as tf

from kerascv_d2l import InputError, box_center_to_corner, box_corner_to_center, box_iou

pytestmark = pytest.mark.quick


def test_conversions_of_the_book():
    dog, cat = [60.0, 45.0, 378.0, 516.0], [400.0, 112.0, 655.0, 493.0]
    centers = box_corner_to_center(np.array([dog, cat]))
    np.testing.assert_array_equal(centers, [[219, 280.5, 318, 471], [527.5, 302.5, 255, 381]])
    np.testing.assert_array_equal(box_center_to_corner(centers), [dog, cat])


def test_conversions_keep_leading_dimensions():
    boxes = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    boxes[..., 2:] += 7
    np.testing.assert_array_equal(box_center_to_corner(box_corner_to_center(boxes)), boxes)


def test_iou_by_hand():
    # 3 x 2 and 2 x 4 boxes that share 1 x 2; the second pair does not touch.
    boxes1 = [[0.0, 0, 3, 2], [10, 10, 11, 11]]
    boxes2 = [[2.0, 0, 4, 4]]
    np.testing.assert_allclose(box_iou(boxes1, boxes2), [[2 / 12], [0]])


def test_iou_equals_reference():
    rng = np.random.default_rng(0)
    for _ in range(20):
        boxes1, boxes2 = slow_boxes._boxes(rng, 5, flat=0.2), slow_boxes._boxes(rng, 7, flat=0.2)
        expected = [[slow_boxes.iou(a, b) for b in boxes2] for a in boxes1]
        np.testing.assert_array_equal(box_iou(boxes1, boxes2), expected)


def test_iou_of_a_small_box_with_itself_is_one():
    box = np.array([[0.5, 0.5, 0.501, 0.5005]], np.float32)
    np.testing.assert_allclose(box_iou(box, box), [[1.0]], rtol=1e-6)


def test_iou_without_area_is_zero_and_never_nan():
    flat, inside_out = [0.2, 0.2, 0.2, 0.6], [0.5, 0.5, 0.1, 0.1]
    boxes = np.array([flat, inside_out, [0.0, 0, 1, 1]], np.float32)
    np.testing.assert_array_equal(box_iou(boxes, boxes), [[0, 0, 0], [0, 0, 0], [0, 0, 1]])


def test_iou_batches_broadcast():
    rng = np.random.default_rng(1)
    boxes1, boxes2 = slow_boxes._boxes(rng, 6).reshape(2, 3, 4), slow_boxes._boxes(rng, 4)
    together = box_iou(boxes1, boxes2)
    for i in range(2):
        np.testing.assert_array_equal(together[i], box_iou(boxes1[i], boxes2))


def test_iou_in_graph_and_compiled():
    rng = np.random.default_rng(2)
    boxes1, boxes2 = slow_boxes._boxes(rng, 5), slow_boxes._boxes(rng, 3)
    expected = box_iou(boxes1, boxes2)
    for jit in (False, True):
        function = tf.function(box_iou, jit_compile=jit)
        np.testing.assert_allclose(function(boxes1, boxes2), expected, rtol=1e-6)


def test_wrong_shape_names_the_argument():
    with pytest.raises(InputError, match=r"boxes2 must have shape \(…, 4\); got \(2, 5\)"):
        box_iou(np.zeros((1, 4)), np.zeros((2, 5)))
    with pytest.raises(InputError, match="boxes must have shape"):
        box_corner_to_center(np.float32(3))
