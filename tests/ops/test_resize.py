"""Resizing against a slow float64 version and against TensorFlow's."""

import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.ops.resize import resize

pytestmark = pytest.mark.quick

# One pixel more or less than a band of 16; enlarging, shrinking, mixed, extreme.
SIZES = [
    ((37, 53), (70, 21)),
    ((375, 500), (256, 255)),
    ((16, 17), (17, 16)),
    ((1, 1), (3, 5)),
    ((5, 3), (1, 1)),
    ((200, 2), (3, 90)),
]


def slow_resize(images, size):
    def weights(old, new):
        scale = old / new
        centres = (np.arange(new) + 0.5) * scale
        distances = np.abs(np.arange(old) + 0.5 - centres[:, None])  # (new, old)
        triangle = np.maximum(0, 1 - distances / max(scale, 1))
        return triangle / triangle.sum(axis=1, keepdims=True)

    rows, columns = weights(images.shape[-3], size[0]), weights(images.shape[-2], size[1])
    taller = np.einsum("Hh,...hwc->...Hwc", rows, images.astype(np.float64), optimize=True)
    return np.einsum("Ww,...Hwc->...HWc", columns, taller, optimize=True)


def random_images(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_equals_slow_version_and_tensorflow(old, new):
    images = random_images((2, *old, 3))
    expected = slow_resize(images, new)
    graph = tf.function(
        lambda x: resize(x, new), input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)]
    )
    dynamic = tf.function(resize)
    compiled = tf.function(lambda x: resize(x, new), jit_compile=True)
    for result in (
        resize(images, new),
        resize(images.astype(np.float32), new),
        graph(images),
        compiled(images),
        dynamic(images, tf.constant(new)),
    ):
        assert result.dtype == tf.float32
        np.testing.assert_allclose(result, expected, rtol=0, atol=2e-4)
    assert graph.get_concrete_function().output_shapes == (None, *new, 3)
    # tf.image computes positions in float32 and is itself up to 4e-3 off on noise.
    theirs = tf.image.resize(images, new, method="bilinear", antialias=True)
    np.testing.assert_allclose(expected, theirs, rtol=0, atol=5e-3)


def test_smooth_image_equals_tensorflow_to_a_thousandth():
    rows, columns = np.mgrid[:375, :500]
    image = 127 + 60 * np.sin(rows / 9) + 60 * np.cos(columns / 13)
    image = np.round(image)[..., None].astype(np.uint8)
    theirs = tf.image.resize(image, (256, 200), antialias=True)
    np.testing.assert_allclose(resize(image, (256, 200)), theirs, rtol=0, atol=1e-3)


def test_same_size_changes_nothing():
    images = random_images((1, 33, 47, 3))
    np.testing.assert_array_equal(resize(images, (33, 47)), images.astype(np.float32))


def test_leading_dimensions_and_channels():
    images = random_images((2, 3, 9, 20, 1))
    result = resize(images, (18, 5))
    assert result.shape == (2, 3, 18, 5, 1)
    np.testing.assert_allclose(result, slow_resize(images, (18, 5)), atol=1e-4)
    np.testing.assert_allclose(resize(images[1, 2], (18, 5)), result[1, 2], atol=1e-4)
    assert resize(images[0, :0], (4, 5)).shape == (0, 4, 5, 1)
    with pytest.raises(ValueError, match=r"\(\.\.\., h, w, channels\), not \(9, 20\)"):
        resize(images[0, 0, ..., 0], (4, 5))


def test_large_image_stays_exact():
    row = random_images((1, 8000, 1))
    np.testing.assert_allclose(resize(row, (1, 2999)), slow_resize(row, (1, 2999)), atol=2e-4)


def test_gradient_is_the_transposed_filter():
    images = tf.constant(random_images((1, 19, 24, 2)), tf.float32)
    upstream = np.random.default_rng(1).normal(size=(1, 10, 40, 2)).astype(np.float32)
    gradients = []
    for function in (resize, lambda x, size: tf.image.resize(x, size, antialias=True)):
        with tf.GradientTape() as tape:
            tape.watch(images)
            total = tf.reduce_sum(function(images, (10, 40)) * upstream)
        gradients.append(tf.convert_to_tensor(tape.gradient(total, images)))
    np.testing.assert_allclose(*gradients, atol=1e-4)


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32])
def test_converts_to_builtin_operators_of_tensorflow_lite(dtype):
    size = (40, 24)
    graph = tf.function(
        lambda x: resize(x, size), input_signature=[tf.TensorSpec([1, None, None, 3], dtype)]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()])
    # Without Flex operators: the plain interpreter refuses those.
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    entry, exit_ = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for old in [(37, 53), (20, 90)]:
        images = random_images((1, *old, 3)).astype(dtype.as_numpy_dtype)
        interpreter.resize_tensor_input(entry["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()
        result = interpreter.get_tensor(exit_["index"])
        np.testing.assert_allclose(result, slow_resize(images, size), rtol=0, atol=2e-4)
