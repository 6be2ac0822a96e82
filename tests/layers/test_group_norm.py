"""Group norm against Keras' and its definition, gradients included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.layers import GroupNormalization

pytestmark = pytest.mark.quick


def learn(layer, x):
    """The result and the gradients of input, scale and offset, by a sum in which all differ."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.cast(layer(x), tf.float32)
        loss = tf.reduce_sum(y * tf.reshape(tf.sin(tf.range(float(tf.size(y)))), tf.shape(y)))
    return y, *tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 3},
        {"groups": 1, "epsilon": 1e-5},
        {"groups": -1},
        {"groups": 2, "axis": 1},
        {"groups": 3, "scale": False},
    ],
)
@pytest.mark.parametrize("how", ["eager", "traced", "xla"])
def test_is_that_of_keras(options, how):
    draw = np.random.default_rng(0)
    layers = [GroupNormalization(**options), keras.layers.GroupNormalization(**options)]
    for layer in layers:
        layer.build((None, 4, 5, 6))
        layer.set_weights(
            [draw.permutation(np.linspace(0.5, 2, w.shape[0])) for w in layer.weights]
        )
    layers[1].set_weights(layers[0].get_weights())
    x = tf.constant(draw.normal(100, 2, (2, 4, 5, 6)), tf.float32)  # a mean of many deviations
    call = learn if how == "eager" else tf.function(learn, jit_compile=how == "xla")
    for ours, expected in zip(call(layers[0], x), learn(layers[1], x), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def test_by_definition():
    layer = GroupNormalization(2)
    layer.build((None, None, None, 4))
    gamma, beta = np.float32([1, 2, 3, 4]), np.float32([0, 1, 0, -1])
    layer.set_weights([gamma, beta])
    x = np.random.default_rng(1).normal(3, 2, (3, 5, 7, 4)).astype("float32")
    groups = x.reshape(3, 5, 7, 2, 2)
    mean, variance = (f((1, 2, 4), keepdims=True) for f in (groups.mean, groups.var))
    expected = ((groups - mean) / np.sqrt(variance + 1e-3)).reshape(x.shape) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_half_precision_has_moments_in_float32():
    x = tf.cast(np.random.default_rng(2).normal(3, 0.1, (2, 8, 8, 4)), tf.bfloat16)
    half = learn(GroupNormalization(2, dtype="mixed_bfloat16"), x)
    single = learn(keras.layers.GroupNormalization(2), tf.cast(x, tf.float32))
    assert half[1].dtype == tf.bfloat16
    for ours, expected in zip(half, single, strict=True):
        largest = float(tf.reduce_max(abs(expected)))
        np.testing.assert_allclose(tf.cast(ours, tf.float32), expected, atol=largest / 64)


def test_config_and_weights_are_under_the_name_of_keras():
    layer = GroupNormalization(2, name="norm")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(copy) is GroupNormalization
    assert copy.get_config() == keras.layers.GroupNormalization(2, name="norm").get_config()
