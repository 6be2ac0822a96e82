import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import BatchNorm

pytestmark = pytest.mark.quick

X = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 3)).astype(np.float32)


def test_training_by_hand():
    layer = BatchNorm()
    y = layer(X, training=True)
    mean, variance = X.mean((0, 1, 2)), X.var((0, 1, 2))
    np.testing.assert_allclose(y, (X - mean) / np.sqrt(variance + 1e-5), atol=1e-4)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * mean, rtol=1e-4)
    # PyTorch keeps the unbiased variance: n / (n - 1) with n = 120 here.
    np.testing.assert_allclose(layer.moving_variance, 0.9 + 0.1 * variance * 120 / 119, rtol=1e-4)


def test_inference_uses_the_moving_statistics():
    layer = BatchNorm()
    layer(X, training=True)
    mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    expected = (X - mean) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(layer(X, training=False), expected, atol=1e-4)
    np.testing.assert_array_equal(layer.moving_mean, mean)


def test_frozen_layer_stays_in_inference_mode():
    layer = BatchNorm()
    layer(X, training=True)
    expected = layer(X, training=False)
    layer.trainable = False
    np.testing.assert_array_equal(layer(X, training=True), expected)
    np.testing.assert_array_equal(layer(X, training=True), expected)


def test_gradients_equal_keras():
    ours, theirs = BatchNorm(), keras.layers.BatchNormalization(epsilon=1e-5)
    weights = np.random.default_rng(1).normal(size=X.shape)
    gradients = []
    for layer in (ours, theirs):
        x = tf.Variable(X)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x, training=True) * weights)
        gradients.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("options", [{"axis": 1}, {"scale": False}, {"synchronized": True}])
def test_other_cases_are_keras_own(options):
    ours = BatchNorm(**options)
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
    np.testing.assert_allclose(ours(X, training=True), theirs(X, training=True), atol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.moving_variance, rtol=1e-5)


def test_half_precision_and_config():
    layer = BatchNorm(dtype="mixed_bfloat16")
    y = layer(X, training=True)
    assert y.dtype == tf.bfloat16 and layer.moving_mean.dtype == "float32"
    np.testing.assert_allclose(tf.cast(y, tf.float32), BatchNorm()(X, training=True), atol=0.03)
    again = BatchNorm.from_config(BatchNorm(momentum=0.8).get_config())
    assert (again.momentum, again.epsilon) == (0.8, 1e-5)
