"""Batch norm against NumPy: what it gives, and what it remembers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.layers import BatchNorm, BatchNormalization

pytestmark = pytest.mark.quick


def build(**arguments):
    layer = BatchNorm(**arguments)
    layer.build((None, 2, 3, 4))
    draw = np.random.default_rng(0)
    layer.set_weights([draw.uniform(0.5, 1.5, 4) for _ in range(4)])
    return layer, [w.astype("float64") for w in layer.get_weights()]


def images(dtype="float32"):
    return (3 + 2 * np.random.default_rng(1).standard_normal((5, 2, 3, 4))).astype(dtype)


@pytest.mark.parametrize("mode", ["eager", "function", "xla"])
@pytest.mark.parametrize("training", [False, True])
def test_is_torchs_batch_norm(mode, training):
    layer, (gamma, beta, mean, variance) = build()
    call = layer
    if mode != "eager":
        call = tf.function(layer, jit_compile=mode == "xla")
    x = images()
    found = call(x, training=training)
    used_mean, used_variance = mean, variance
    if training:
        used_mean, used_variance = x.mean((0, 1, 2)), x.var((0, 1, 2))  # (4,)
        mean = 0.9 * mean + 0.1 * used_mean
        variance = 0.9 * variance + 0.1 * x.var((0, 1, 2), ddof=1)  # unbiased: 29, not 30
    expected = (x - used_mean) / np.sqrt(used_variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-6)


def test_gradients_are_those_of_keras():
    layer, _ = build()
    plain = keras.layers.BatchNormalization(epsilon=1e-5)
    plain.build((None, 2, 3, 4))
    plain.set_weights(layer.get_weights())
    x = tf.constant(images())
    weight = tf.constant(np.random.default_rng(2).standard_normal(x.shape).astype("float32"))
    gradients = []
    for norm in (layer, plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weight * norm(x, training=True))
        sources = [x, norm.gamma.value, norm.beta.value]
        gradients.append(tape.gradient(loss, sources))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_frozen_stays_in_inference_mode():
    layer, (_, _, mean, variance) = build()
    expected = layer(images(), training=False)
    layer.trainable = False
    np.testing.assert_array_equal(layer(images(), training=True), expected)
    np.testing.assert_array_equal(layer.moving_mean, mean.astype("float32"))
    np.testing.assert_array_equal(layer.moving_variance, variance.astype("float32"))


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
@pytest.mark.parametrize("training", [False, True])
def test_half_precision_keeps_float32_statistics(half, training):
    layer, (gamma, beta, mean, variance) = build(dtype=f"mixed_{half}")
    x = images()
    found = layer(x, training=training)
    assert found.dtype == half
    if training:
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    np.testing.assert_allclose(tf.cast(found, "float32"), expected, rtol=0.05, atol=0.05)
    assert layer.moving_variance.dtype == "float32"


def test_config_round_trip():
    layer = BatchNorm(momentum=0.8, epsilon=1e-3, name="norm")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert (type(copy), copy.momentum, copy.epsilon) == (BatchNorm, 0.8, 1e-3)


@pytest.mark.parametrize("options", [{"axis": 1}, {"scale": False}, {"center": False}])
def test_other_cases_are_those_of_keras(options):
    ours = BatchNorm(**options)
    plain = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
    np.testing.assert_allclose(
        ours(images(), training=True), plain(images(), training=True), atol=1e-5
    )
    # But on axis 1 Keras' code keeps the variance of the batch, not that of its population.
    unbiased = 1 if "axis" in options else 30 / 29
    change = (plain.moving_variance - 0.9) * unbiased
    np.testing.assert_allclose(ours.moving_variance, 0.9 + change, rtol=1e-5)


@pytest.mark.parametrize("channels", [16, 20])
def test_bfloat16_learns_as_float32_does(channels):
    """Moments must not be computed in bfloat16, in which 3 and 3.01 are the same number."""
    draw = np.random.default_rng(3)
    x = tf.cast(draw.normal(3, 0.1, (4, 5, 6, channels)), tf.bfloat16)
    weight = tf.constant(draw.normal(size=x.shape), tf.float32)
    found = []
    for dtype in ("mixed_bfloat16", "float32"):
        layer = BatchNorm(dtype=dtype)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(weight * tf.cast(y, tf.float32))
        sources = [x, layer.gamma.value, layer.beta.value]
        found.append([y, *tape.gradient(loss, sources), layer.moving_mean, layer.moving_variance])
    assert found[0][0].dtype == tf.bfloat16
    for half, single in zip(*found, strict=True):
        single = tf.cast(single, tf.float32)
        largest = float(tf.reduce_max(abs(single)))
        np.testing.assert_allclose(tf.cast(half, tf.float32), single, atol=largest / 128)


def test_keras_layer_by_its_name_has_its_constants():
    ours, keras_own = BatchNormalization(), keras.layers.BatchNormalization()
    assert ours.get_config() | {"name": ""} == keras_own.get_config() | {"name": ""}


def test_synchronised_on_one_device_is_the_same():
    """On several it is what one computes: tests/test_distribution.py."""
    x = np.random.default_rng(2).normal(3, 2, (4, 3, 5, 6)).astype("float32")
    plain, synchronised = BatchNorm(), BatchNorm(synchronized=True)
    for training in (True, False):
        a, b = plain(x, training=training), synchronised(x, training=training)
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(plain.get_weights(), synchronised.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
