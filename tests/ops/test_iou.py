import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import box_iou, complete_iou, generalized_iou

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import region_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "regions.npz")
pytestmark = pytest.mark.quick


def test_equal_to_torchvision():
    boxes1, boxes2 = given.boxes(9, 3), given.boxes(7, 4)
    np.testing.assert_allclose(generalized_iou(boxes1, boxes2), RECORDED["giou"], atol=1e-5)
    np.testing.assert_allclose(complete_iou(boxes1, boxes2), RECORDED["ciou"], atol=1e-5)
    assert (RECORDED["giou"] < 0).any() and (RECORDED["giou"] > 0.2).any()


@pytest.mark.parametrize("overlap", [generalized_iou, complete_iou])
def test_scale_and_batch_change_nothing(overlap):
    boxes1, boxes2 = given.boxes(8, 3).reshape(2, 4, 4), given.boxes(3, 4)
    expected = overlap(boxes1, boxes2)
    assert expected.shape == (2, 4, 3)
    np.testing.assert_allclose(overlap(boxes1 / 1e5, boxes2 / 1e5), expected, atol=1e-5)
    np.testing.assert_allclose(overlap(boxes1[1], boxes2), expected[1], atol=1e-6)
    compiled = tf.function(overlap, jit_compile=True)
    np.testing.assert_allclose(compiled(boxes1, boxes2), expected, atol=1e-5)
    assert (expected <= box_iou(boxes1, boxes2) + 1e-6).numpy().all()


@pytest.mark.parametrize("overlap", [generalized_iou, complete_iou])
def test_boxes_without_area(overlap):
    boxes = np.array([[2, 2, 2, 2], [2, 2, 5, 2], [1, 1, 4, 3]], np.float32)
    found = overlap(boxes, boxes).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[2, 2], 1, atol=1e-6)
    with tf.GradientTape() as tape:
        variable = tf.Variable(boxes)
        total = tf.reduce_sum(overlap(variable, boxes[2:]))
    assert np.isfinite(tape.gradient(total, variable)).all()


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("overlap", [generalized_iou, complete_iou])
@pytest.mark.parametrize("numbers", [(0, 0.01, 1), (0, 1, 100, 4000)])
def test_boxes_without_area_have_a_finite_gradient(overlap, jit, numbers):
    """Rows of padding have no area, and what a network predicts for them has any shape."""
    pairs = [(a, b) for a in numbers for b in numbers if a <= b]
    boxes = np.float32([(x1, y1, x2, y2) for x1, x2 in pairs for y1, y2 in pairs])

    @tf.function(jit_compile=jit)
    def gradient(boxes1):
        with tf.GradientTape() as tape:
            tape.watch(boxes1)
            found = tf.linalg.diag_part(overlap(boxes1, boxes2))
        return found, tape.gradient(found, boxes1)

    for shift in range(0, len(boxes), 3):
        boxes2 = tf.constant(np.roll(boxes, shift, axis=0))
        for result in gradient(tf.constant(boxes)):
            assert np.isfinite(result).all()
