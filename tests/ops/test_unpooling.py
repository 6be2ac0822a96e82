"""Max-pooling with positions and unpooling against loops in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.unpooling import MaxPoolingWithPositions, MaxUnpooling
from kerascv_d2l.ops.unpooling import max_pool_with_positions, max_unpool

pytestmark = pytest.mark.quick


def slow_pool(x, p):
    batch, height, width, channels = x.shape
    pooled = np.zeros((batch, height // p, width // p, channels), x.dtype)
    positions = np.zeros(pooled.shape, np.int64)
    for b, i, j, c in np.ndindex(pooled.shape):
        window = x[b, i * p : i * p + p, j * p : j * p + p, c]
        row, column = divmod(window.argmax(), p)
        pooled[b, i, j, c] = window.max()
        positions[b, i, j, c] = (i * p + row) * width + j * p + column
    return pooled, positions


def slow_unpool(values, positions, size):
    result = np.zeros((values.shape[0], size[0] * size[1], values.shape[-1]), values.dtype)
    for b, i, j, c in np.ndindex(values.shape):
        result[b, positions[b, i, j, c], c] = values[b, i, j, c]
    return result.reshape(values.shape[0], *size, -1)


@pytest.mark.parametrize("p, size", [(2, (4, 6)), (2, (5, 7)), (3, (7, 9)), (1, (2, 3))])
@pytest.mark.parametrize("jit", [False, True])
def test_there_and_back(p, size, jit):
    # Few different values, so that ties are common.
    x = np.random.default_rng(p).integers(-3, 3, size=(3, *size, 2)).astype(np.float32)
    pool = tf.function(max_pool_with_positions, jit_compile=jit)
    pooled, positions = pool(x, p)
    slow = slow_pool(x, p)
    np.testing.assert_array_equal(pooled, slow[0])
    np.testing.assert_array_equal(positions, slow[1])
    back = tf.function(max_unpool, jit_compile=jit)(pooled, positions, size)
    np.testing.assert_array_equal(back, slow_unpool(*slow, size))


def test_positions_are_those_of_tensorflow():
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype(np.float32)
    pooled, positions = max_pool_with_positions(x)
    theirs, index = tf.nn.max_pool_with_argmax(x, 2, 2, "VALID", include_batch_in_index=False)
    np.testing.assert_array_equal(pooled, theirs)
    np.testing.assert_array_equal(positions * 3 + tf.range(3), index)


def test_gradients_go_to_the_maximum_and_back():
    x = tf.constant(np.random.default_rng(1).integers(0, 3, size=(2, 4, 6, 2)), tf.float32)
    weights = tf.reshape(tf.range(24.0), (2, 2, 3, 2))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        pooled, positions = max_pool_with_positions(x)
        loss = tf.reduce_sum(pooled * weights)
        unpooled = max_unpool(pooled, positions, (4, 6))
        further = tf.reduce_sum(unpooled**3)
    expected = slow_unpool(weights.numpy(), positions.numpy(), (4, 6))
    np.testing.assert_array_equal(tape.gradient(loss, x), expected)
    np.testing.assert_allclose(tape.gradient(further, x), 3 * unpooled**2)


def test_layers_in_a_model_of_any_size(tmp_path):
    pixels = keras.Input((None, None, 3))
    pooled, positions = MaxPoolingWithPositions(2)(pixels)
    outputs = MaxUnpooling()(keras.layers.Rescaling(2.0)(pooled), positions, pixels)
    model = keras.Model(pixels, outputs)
    assert model.output_shape == (None, None, None, 3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for size in [(4, 6), (7, 5)]:
        x = np.random.default_rng(2).uniform(1, 2, size=(2, *size, 3)).astype(np.float32)
        expected = slow_unpool(*slow_pool(x, 2), size) * 2
        for network in (model, loaded):
            np.testing.assert_allclose(network(x), expected, rtol=1e-6)


def test_error_names_the_pool_size():
    with pytest.raises(InputError, match="pool_size=0"):
        MaxPoolingWithPositions(0)
