import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import (
    ciou_loss,
    distribution_focal_loss,
    giou_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
)

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import region_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "regions.npz")
pytestmark = pytest.mark.quick


@pytest.mark.parametrize(("name", "loss"), [("giou", giou_loss), ("ciou", ciou_loss)])
def test_overlap_losses_equal_torchvision(name, loss):
    boxes1, boxes2 = tf.constant(given.boxes(9, 3)[:7]), given.boxes(7, 4)
    with tf.GradientTape() as tape:
        tape.watch(boxes1)
        values = loss(boxes1, boxes2)
    np.testing.assert_allclose(values, RECORDED[f"{name}_loss"], atol=1e-5)
    gradient = tape.gradient(values, boxes1)
    np.testing.assert_allclose(gradient, RECORDED[f"{name}_loss_gradient"], atol=1e-5)
    np.testing.assert_allclose(loss(boxes2 / 1e5, boxes2 / 1e5), np.zeros(7), atol=1e-6)


@pytest.mark.parametrize("case", range(len(given.FOCAL)))
def test_focal_loss_equals_torchvision(case):
    logits, targets = (tf.constant(array) for array in given.logits())
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = sigmoid_focal_loss(targets, logits, *given.FOCAL[case])
    np.testing.assert_allclose(values, RECORDED[f"focal_{case}"], rtol=1e-4, atol=1e-6)
    gradient = tape.gradient(values, logits)
    np.testing.assert_allclose(gradient, RECORDED[f"focal_{case}_gradient"], rtol=1e-3, atol=1e-5)


def test_focal_loss_far_out():
    logits = tf.constant([-200.0, -30, 0, 30, 200])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        values = sigmoid_focal_loss(tf.ones(5), logits)
    np.testing.assert_allclose(values[:2], [50, 7.5], rtol=1e-5)
    np.testing.assert_allclose(values[3:], [0, 0], atol=1e-12)
    assert np.isfinite(tape.gradient(values, logits)).all()


def test_distribution_focal_loss_is_least_where_the_mean_is_the_target():
    """Two bins share a target, its ends are those of the bins, and the least loss is exact."""
    targets = tf.constant([1.25, 0.0, 3.0, -2.0, 9.0])
    logits = tf.random.stateless_normal((5, 4), [0, 1])
    apart = -tf.nn.log_softmax(logits).numpy()
    expected = [0.75 * apart[0, 1] + 0.25 * apart[0, 2]]
    expected += [apart[1, 0], apart[2, 3], apart[3, 0], apart[4, 3]]
    np.testing.assert_allclose(distribution_focal_loss(targets, logits), expected, rtol=1e-5)
    best = tf.Variable(tf.math.log([[1e-9, 0.75, 0.25, 1e-9]]))
    with tf.GradientTape() as tape:
        loss = distribution_focal_loss(targets[:1], best)
    np.testing.assert_allclose(tape.gradient(loss, best), np.zeros((1, 4)), atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_quality_focal_loss_has_a_gradient_where_it_is_right(gamma):
    logits = tf.Variable([0.0, -200.0, 1.0])
    with tf.GradientTape() as tape:
        loss = quality_focal_loss(tf.constant([0.5, 0.0, 0.0]), logits, gamma)
    p = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(loss, [0, 0, -np.log(1 - p) * p**gamma], rtol=1e-5, atol=1e-5)
    assert np.isfinite(tape.gradient(loss, logits)).all()
