"""Depthwise convolution in bfloat16 against Keras' in float32, gradients included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.layers import DepthwiseConv2D

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2},
        {"strides": 2, "padding": "same", "depth_multiplier": 2},
        {"strides": 3, "kernel_size": 4, "padding": "same", "use_bias": False},
        {"strides": 1, "activation": "relu"},
        {"dilation_rate": 2},
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_is_that_of_keras(options, traced):
    options = {"kernel_size": 3, "activation": "tanh", "bias_initializer": "ones"} | options
    layers = [
        DepthwiseConv2D(**options, dtype="mixed_bfloat16"),
        keras.layers.DepthwiseConv2D(**options),
    ]
    draw = np.random.default_rng(0)
    x = tf.cast(draw.normal(size=(2, 7, 10, 3)), tf.bfloat16)
    for layer in layers:
        layer.build(x.shape)
    kernel = np.asarray(tf.cast(draw.normal(size=layers[0].kernel.shape), tf.bfloat16), "float32")
    layers[0].kernel.assign(kernel)
    layers[1].set_weights(layers[0].get_weights())

    def learn(layer, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x), tf.float32)
            loss = tf.reduce_sum(y * tf.reshape(tf.sin(tf.range(float(tf.size(y)))), y.shape))
        return y, *tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])

    learn = tf.function(learn) if traced else learn
    for ours, expected in zip(*(learn(layer, x) for layer in layers), strict=True):
        expected = np.asarray(tf.cast(expected, tf.float32))
        largest = abs(expected).max()
        assert largest > 0
        # bfloat16 has 8 bits, and some roundings add up.
        np.testing.assert_allclose(tf.cast(ours, tf.float32), expected, atol=largest / 40)


def test_gradient_with_a_stride_is_computed_in_float32():
    """In bfloat16 TensorFlow's kernel takes 15 to 30 times as long."""
    layer = DepthwiseConv2D(3, strides=2, dtype="mixed_bfloat16")
    layer.build((None, 8, 8, 4))

    @tf.function
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        return tape.gradient(y, x)

    graph = gradient.get_concrete_function(tf.TensorSpec([1, 8, 8, 4], tf.bfloat16)).graph
    found = [op for op in graph.get_operations() if op.type.endswith("BackpropInput")]
    assert [op.outputs[0].dtype for op in found] == [tf.float32]
