"""Enlargement by matrix products against TensorFlow's own operations, gradients included."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.upsampling import BilinearUpsampling, TransposedUpsampling
from kerascv_d2l.ops.upsampling import (
    bilinear_upsampling,
    crop_like,
    fit_to_stride,
    pad_to_multiple,
    transposed_upsampling,
)

pytestmark = pytest.mark.quick

RNG = np.random.default_rng(0)


def with_gradients(function, *inputs):
    inputs = [tf.constant(value) for value in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = function(*inputs)
        # A different weight on every output, so that a gradient to the wrong place shows.
        total = tf.reduce_sum(
            outputs * tf.reshape(tf.range(tf.size(outputs), dtype=tf.float32), tf.shape(outputs))
        )
    return [outputs, *tape.gradient(total, inputs)]


@pytest.mark.parametrize("factor", [2, 4, 6])
@pytest.mark.parametrize("jit", [False, True])
def test_transposed_upsampling_is_conv2d_transpose(factor, jit):
    x = RNG.normal(size=(2, 3, 5, 4)).astype(np.float32)
    kernel = RNG.normal(size=(2 * factor, 2 * factor, 3, 4)).astype(np.float32)
    fast = tf.function(lambda x, k: transposed_upsampling(x, k, factor), jit_compile=jit)
    shape = (2, 3 * factor, 5 * factor, 3)
    expected = with_gradients(
        lambda x, k: tf.nn.conv2d_transpose(x, k, shape, factor, "SAME"), x, kernel
    )
    for result, wanted in zip(with_gradients(fast, x, kernel), expected, strict=True):
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("factor, size", [(2, (3, 5)), (3, (4, 2)), (8, (1, 3)), (1, (2, 2))])
def test_bilinear_upsampling_is_resizing(factor, size):
    x = RNG.normal(size=(2, *size, 3)).astype(np.float32)
    wanted = (size[0] * factor, size[1] * factor)
    expected = with_gradients(lambda x: tf.image.resize(x, wanted), x)
    unknown = tf.function(
        lambda x: bilinear_upsampling(x, factor),
        input_signature=[tf.TensorSpec([None, None, None, 3])],
    )
    results = with_gradients(unknown, x)
    for result, target in zip(results, expected, strict=True):
        np.testing.assert_allclose(result, target, rtol=1e-5, atol=1e-4)


def test_layer_takes_the_weights_of_conv2d_transpose():
    x = RNG.normal(size=(2, 3, 2, 5)).astype(np.float32)
    reference = keras.layers.Conv2DTranspose(4, 8, strides=4, padding="same")
    reference.build(x.shape)
    weights = [RNG.normal(size=w.shape) for w in reference.get_weights()]
    reference.set_weights(weights)
    layer = TransposedUpsampling(4, 4)
    layer.build(x.shape)
    layer.set_weights(weights)
    np.testing.assert_allclose(layer(x), reference(x), rtol=1e-4, atol=1e-4)
    copy = TransposedUpsampling.from_config(layer.get_config())
    copy.build(x.shape)
    copy.set_weights(weights)
    np.testing.assert_array_equal(copy(x), layer(x))


def test_trainable_and_fixed_enlargement_agree_inside_the_border():
    x = RNG.normal(size=(1, 4, 6, 3)).astype(np.float32)
    trainable, fixed = TransposedUpsampling(3, 8)(x), BilinearUpsampling(8)(x)
    inside = (slice(None), slice(4, -4), slice(4, -4))
    np.testing.assert_allclose(trainable[inside], fixed[inside], atol=1e-5)
    # On the border scores fade, all classes alike: the class map is the same everywhere.
    np.testing.assert_array_equal(tf.argmax(trainable, -1), tf.argmax(fixed, -1))


def test_padding_repeats_the_last_row_and_column():
    pixels = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    padded = pad_to_multiple(pixels, 4).numpy()[0, :, :, 0]
    np.testing.assert_array_equal(padded, [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]])
    cut = crop_like(padded[None, :, :, None], pixels)
    np.testing.assert_array_equal(cut, pixels)
    fitting = tf.zeros((1, 4, 8, 3))
    assert pad_to_multiple(fitting, 4) is fitting


def test_errors_name_the_factor():
    with pytest.raises(InputError, match="factor=3"):
        TransposedUpsampling(2, 3)
    with pytest.raises(InputError, match="factor=2 needs 4 x 4"):
        transposed_upsampling(np.zeros((1, 2, 2, 1)), np.zeros((3, 3, 1, 1)), 2)
    with pytest.raises(InputError, match="factor=0"):
        bilinear_upsampling(np.zeros((1, 2, 2, 1), np.float32), 0)


def test_short_maps_are_lengthened_on_both_sides():
    maps = tf.reshape(tf.range(6.0), (1, 2, 3, 1))
    fitted = fit_to_stride(maps, tf.zeros((1, 16, 16, 3)), 4)[0, :, :, 0]
    rows = [[0, 1, 2, 2], [3, 4, 5, 5]]
    np.testing.assert_array_equal(fitted, [rows[0], rows[0], rows[1], rows[1]])
