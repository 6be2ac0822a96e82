"""Convolution, transposed convolution and their matrix against the book's numbers and Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.initializers import Bilinear
from kerascv_d2l.ops.convolution import bilinear_kernel, corr2d, kernel2matrix, trans_conv

pytestmark = pytest.mark.quick

SQUARE = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)


def slow_trans_conv(x, k, stride=1, padding=0):
    """Transposed convolution as its definition reads."""
    h, w = k.shape
    y = np.zeros(((x.shape[0] - 1) * stride + h, (x.shape[1] - 1) * stride + w), x.dtype)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i * stride : i * stride + h, j * stride : j * stride + w] += x[i, j] * k
    return y[padding : y.shape[0] - padding, padding : y.shape[1] - padding]


def test_trans_conv_of_the_book():
    np.testing.assert_array_equal(trans_conv(SQUARE, SQUARE), [[0, 0, 1], [0, 4, 6], [4, 12, 9]])
    np.testing.assert_array_equal(trans_conv(SQUARE, SQUARE, padding=1), [[4]])
    np.testing.assert_array_equal(
        trans_conv(SQUARE, SQUARE, stride=2),
        [[0, 0, 0, 1], [0, 0, 2, 3], [0, 2, 0, 3], [4, 6, 6, 9]],
    )


@pytest.mark.parametrize("stride, padding", [(1, 0), (2, 0), (3, 2), (1, 1), (4, 0)])
def test_trans_conv_follows_its_definition(stride, padding):
    rng = np.random.default_rng(stride)
    x, k = rng.normal(size=(4, 5)), rng.normal(size=(3, 2 + 2 * padding))
    np.testing.assert_allclose(
        trans_conv(x, k, stride, padding), slow_trans_conv(x, k, stride, padding), rtol=1e-12
    )


def test_trans_conv_with_unknown_sizes_and_integers():
    compiled = tf.function(trans_conv, input_signature=[tf.TensorSpec([None, None], tf.int32)] * 2)
    x, k = np.arange(6).reshape(2, 3), np.arange(8).reshape(4, 2)
    result = compiled(x, k)
    assert result.dtype == tf.int32
    np.testing.assert_array_equal(result, slow_trans_conv(x, k))


def test_corr2d_of_the_book():
    x, k = np.arange(9.0).reshape(3, 3), np.array([[1.0, 2], [3, 4]])
    np.testing.assert_array_equal(corr2d(x, k), [[27, 37], [57, 67]])
    # 2 x 3 kernel on a 4 x 3 input: one column.
    np.testing.assert_array_equal(
        corr2d(np.arange(12).reshape(4, 3), [[1, 0, 0], [0, 0, 1]]), [[5], [11], [17]]
    )


def test_kernel2matrix_of_the_book():
    kernel = np.array([[1.0, 2], [3, 4]])
    matrix = kernel2matrix(kernel).numpy()
    np.testing.assert_array_equal(
        matrix,
        [
            [1, 2, 0, 3, 4, 0, 0, 0, 0],
            [0, 1, 2, 0, 3, 4, 0, 0, 0],
            [0, 0, 0, 1, 2, 0, 3, 4, 0],
            [0, 0, 0, 0, 1, 2, 0, 3, 4],
        ],
    )
    x = np.arange(9.0).reshape(3, 3)
    y = corr2d(x, kernel).numpy()
    np.testing.assert_array_equal(matrix @ x.ravel(), y.ravel())
    np.testing.assert_array_equal(matrix.T @ y.ravel(), trans_conv(y, kernel).numpy().ravel())


@pytest.mark.parametrize("stride, padding", [(1, 0), (2, 1), (3, 2), (2, 0)])
def test_keras_layers_are_the_matrix_and_its_transpose(stride, padding):
    """Several channels, height and width apart, kernel not square."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(4, 3, 2, 5)).astype(np.float32)  # h, w, in, out
    height, width = 10, 8
    matrix = kernel2matrix(kernel, (height, width), stride, padding).numpy()
    x = rng.normal(size=(1, height, width, 2)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    y = tf.nn.conv2d(padded, kernel, stride, "VALID").numpy()
    assert matrix.shape == (y.size, x.size)
    np.testing.assert_allclose(matrix @ x.ravel(), y.ravel(), rtol=1e-4, atol=1e-5)

    layer = keras.layers.Conv2DTranspose(2, (4, 3), strides=stride, use_bias=False)
    layer.build(y.shape)
    layer.kernel.assign(kernel)
    whole = layer(y).numpy()  # without padding cut, and without rows that no stride reaches
    whole = np.pad(whole, [(0, 0), (0, stride), (0, stride), (0, 0)])
    back = whole[:, padding : padding + height, padding : padding + width]
    np.testing.assert_allclose(matrix.T @ y.ravel(), back.ravel(), rtol=1e-4, atol=1e-5)


def test_bilinear_kernel_values():
    even = bilinear_kernel(1, 1, 4).numpy()[:, :, 0, 0]
    line = np.array([0.25, 0.75, 0.75, 0.25])
    np.testing.assert_array_equal(even, line[:, None] * line)
    odd = bilinear_kernel(1, 1, 3).numpy()[:, :, 0, 0]
    line = np.array([0.5, 1, 0.5])
    np.testing.assert_array_equal(odd, line[:, None] * line)
    kernel = bilinear_kernel(3, 2, 4).numpy()
    assert kernel.shape == (4, 4, 2, 3)
    np.testing.assert_array_equal(kernel.sum((0, 1)), [[4, 0, 0], [0, 4, 0]])


def test_enlarging_a_picture_is_bilinear_resizing_inside_the_border():
    rng = np.random.default_rng(3)
    pixels = rng.uniform(size=(1, 13, 17, 3)).astype(np.float32)
    layer = keras.layers.Conv2DTranspose(
        3, 4, strides=2, padding="same", use_bias=False, kernel_initializer=Bilinear()
    )
    enlarged = layer(pixels).numpy()
    resized = tf.image.resize(pixels, (26, 34)).numpy()
    np.testing.assert_allclose(enlarged[:, 1:-1, 1:-1], resized[:, 1:-1, 1:-1], atol=1e-6)
    assert np.abs(enlarged - resized)[:, 0].max() > 0.01  # the border fades


def test_bilinear_initializer_is_the_kernel_and_serialises():
    initializer = keras.initializers.deserialize(keras.initializers.serialize(Bilinear()))
    np.testing.assert_array_equal(initializer((6, 6, 3, 3)), bilinear_kernel(3, 3, 6))
    assert keras.backend.standardize_dtype(initializer((4, 4, 1, 1), "bfloat16").dtype) == (
        "bfloat16"
    )
    wide = np.array(initializer((2, 4, 1, 1)))[:, :, 0, 0]
    np.testing.assert_allclose(wide, [[0.125, 0.375, 0.375, 0.125]] * 2)


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda: trans_conv(np.zeros(3), SQUARE), "X has shape"),
        (lambda: trans_conv(SQUARE, SQUARE, stride=0), "stride=0"),
        (lambda: trans_conv(SQUARE, SQUARE, padding=-1), "padding=-1"),
        (lambda: trans_conv(SQUARE, SQUARE, padding=2), "padding=2"),
        (lambda: corr2d(SQUARE, np.zeros((3, 3), np.float32)), "does not fit"),
        (lambda: kernel2matrix(np.zeros((4, 4))), "does not fit"),
        (lambda: kernel2matrix(np.zeros(4)), "K has shape"),
        (lambda: bilinear_kernel(1, 0, 4), "out_channels=0"),
        (lambda: Bilinear()((3, 3)), "Conv2DTranspose"),
    ],
)
def test_errors_name_the_argument(call, named):
    with pytest.raises(InputError, match=named):
        call()
