"""A convolution whose kernel learns by a product of matrices, against Keras' in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.layers import Conv2D

pytestmark = pytest.mark.quick


def learn(layer, x):
    """Outputs, and gradients of a loss whose weights differ from place to place."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.cast(layer(x), tf.float32)
        weights = tf.reshape(tf.sin(tf.range(tf.cast(tf.size(y), tf.float32))), tf.shape(y))
        loss = tf.reduce_sum(y * weights)
    return y, *tape.gradient(loss, [x, *(w.value for w in layer.trainable_weights)])


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (5, {"kernel_size": 1, "activation": "tanh"}),
        (5, {"kernel_size": 1, "padding": "same", "use_bias": False}),
        (5, {"kernel_size": 3, "padding": "same"}),
        (5, {"kernel_size": 1, "strides": 2}),
        (4, {"kernel_size": 1, "groups": 2}),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("traced", [False, True])
def test_is_that_of_keras(channels, options, dtype, traced):
    options = {"filters": 6, "bias_initializer": "ones"} | options
    layers = [Conv2D(**options, dtype=dtype), keras.layers.Conv2D(**options)]
    draw = np.random.default_rng(0)
    kind = layers[0].compute_dtype
    x = tf.cast(draw.normal(size=(2, 7, 10, channels)), kind)
    for layer in layers:
        layer.build(x.shape)
    kernel = draw.normal(0, 0.1, size=layers[0].kernel.shape)
    layers[0].kernel.assign(tf.cast(tf.cast(kernel, kind), tf.float32))
    layers[1].set_weights(layers[0].get_weights())
    # Of any size, as a detector in `fit` sees them.
    anything = [tf.TensorSpec([None, None, None, channels], t) for t in (kind, "float32")]
    found = []
    for layer, spec in zip(layers, anything, strict=True):
        run = lambda x, layer=layer: learn(layer, x)  # noqa: E731
        run = tf.function(run, input_signature=[spec]) if traced else run
        found.append(run(tf.cast(x, spec.dtype)))
    # bfloat16 has 8 bits, and in sums of both signs some roundings add up.
    error = 1 / 10 if dtype == "mixed_bfloat16" else 1e-5
    for ours, expected in zip(*found, strict=True):
        largest = abs(expected.numpy()).max()
        assert largest > 0
        np.testing.assert_allclose(tf.cast(ours, tf.float32), expected, atol=largest * error)


@pytest.mark.parametrize(
    ("options", "products"),
    [({"kernel_size": 1}, 1), ({"kernel_size": 1, "strides": 2}, 0), ({"kernel_size": 3}, 0)],
)
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_kernel_learns_by_a_product_where_it_is_one(options, products, dtype):
    layer = Conv2D(8, **options, dtype=dtype)
    layer.build((None, 8, 8, 4))
    spec = tf.TensorSpec([None, 8, 8, 4], layer.compute_dtype)
    graph = tf.function(lambda x: learn(layer, x)).get_concrete_function(spec).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("MatMul") == products
    assert ("Conv2DBackpropFilter" in kinds) == (products == 0)
