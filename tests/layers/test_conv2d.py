"""A convolution whose gradients take other ways, against Keras' in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.layers import Conv2D
from kerascv_d2l.ops import winograd

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


WIDE = {"filters": 128, "kernel_size": 3, "padding": "same"}


def make_wide(dtype="float32", **options):
    """A layer of 64 to 128 channels, with random weights."""
    layer = Conv2D(**WIDE | options, dtype=dtype, bias_initializer="ones")
    layer.build((None, None, None, 64))
    return layer


@pytest.mark.parametrize("batch", [2, None])
@pytest.mark.parametrize("compiled", [False, True])
def test_wide_one_learns_as_that_of_keras(batch, compiled):
    layers = [make_wide(), keras.layers.Conv2D(**WIDE)]
    layers[1].build((None, None, None, 64))
    layers[1].set_weights(layers[0].get_weights())
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 14, 17, 64)), tf.float32)
    spec = tf.TensorSpec([batch, *x.shape[1:]])
    ours, theirs = (
        tf.function(lambda x, layer=layer: learn(layer, x), [spec], jit_compile=jit)(x)
        for layer, jit in zip(layers, (compiled, False), strict=True)
    )
    for found, expected in zip(ours, theirs, strict=True):
        # That of the bias is a sum of sines, which nearly cancel.
        atol = 2e-5 * max(abs(expected.numpy()).max(), 0.1)
        np.testing.assert_allclose(found, expected, atol=atol)


def test_wide_one_learns_from_any_number_of_images(monkeypatch):
    """By Winograd's algorithm from two, which are as much as fits, and by sums from three."""
    monkeypatch.setattr(winograd, "MOST_NUMBERS", 2 * 20 * 36 * 128)
    layers = [make_wide(), keras.layers.Conv2D(**WIDE)]
    layers[1].build((None, None, None, 64))
    layers[1].set_weights(layers[0].get_weights())
    images = tf.constant(np.random.default_rng(0).normal(size=(3, 14, 17, 64)), tf.float32)
    ours = tf.function(lambda x: learn(layers[0], x), [tf.TensorSpec([None, 14, 17, 64])])
    same = []
    for x in (images[:2], images):
        pairs = list(zip(ours(x), learn(layers[1], x), strict=True))
        for found, expected in pairs:
            atol = 2e-5 * max(abs(expected.numpy()).max(), 0.1)
            np.testing.assert_allclose(found, expected, atol=atol)
        same.append(np.array_equal(*pairs[1]))  # the inputs' gradient
    assert same == [False, True]


@pytest.mark.parametrize(
    ("options", "size", "wide"),
    [
        ({}, (40, 40), True),
        ({"dtype": "mixed_bfloat16"}, (40, 40), False),
        ({"padding": "valid"}, (40, 40), False),
        ({"strides": 2}, (40, 40), False),
        ({"dilation_rate": 2}, (40, 40), False),
        ({"kernel_size": (3, 1)}, (40, 40), False),
        ({"kernel_size": 5}, (40, 40), False),
        ({}, (None, 40), False),
    ],
)
def test_only_plain_wide_ones_learn_by_winograds_algorithm(options, size, wide):
    layer = Conv2D(**WIDE | options)
    layer.build((None, None, None, 64))
    spec = tf.TensorSpec([None, *size, 64], layer.compute_dtype)
    graph = tf.function(lambda x: learn(layer, x)).get_concrete_function(spec).graph
    kinds = [op.type for op in graph.get_operations()]
    assert ("Conv2DBackpropFilter" not in kinds) == wide
    assert ("Conv2DBackpropInput" not in kinds) == wide


def test_transforms_wait_for_the_gradient():
    """Else those of all layers are in memory together."""
    layer = make_wide()
    spec = tf.TensorSpec([2, 40, 40, 64])
    graph = tf.function(lambda x: learn(layer, x)).get_concrete_function(spec).graph
    transforms = [op for op in graph.get_operations() if op.type in ("MatMul", "BatchMatMulV2")]
    assert len(transforms) == 8
    for op in transforms:
        before, seen = [op], set()
        while before:
            one = before.pop()
            if one.name not in seen:
                seen.add(one.name)
                before += [t.op for t in one.inputs] + one.control_inputs
        assert any("Sin" in name for name in seen)  # of the loss


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
