"""Frozen batch norms folded into convolutions: the same results, gradients and statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l.layers import BatchNorm
from kerascv_d2l.models import folding
from kerascv_d2l.models.folding import FoldingModel

FOLDED = ("a", "b", "c", "d")  # convolutions whose batch norm is folded


def network(dtype=None):
    """A convolution of every kind, and some that must stay as they are."""
    options = {"padding": "same", "dtype": dtype}
    conv, depthwise = keras.layers.Conv2D, keras.layers.DepthwiseConv2D
    x = images = keras.Input((None, None, 3))
    for layer in (
        conv(4, 3, use_bias=False, name="a", **options),
        depthwise(3, depth_multiplier=2, name="b", **options),
        conv(8, 1, name="c", **options),
        conv(6, 3, name="d", **options),
        conv(5, 1, activation="relu", name="e", **options),  # not linear
    ):
        x = BatchNorm(name=f"{layer.name}_norm", dtype=dtype)(layer(x))
        x = keras.layers.ReLU(dtype=dtype)(x)
    read_twice = conv(4, 1, name="f", **options)(x)
    normed = BatchNorm(name="f_norm", dtype=dtype)(read_twice)
    learning = BatchNorm(name="g_norm", dtype=dtype)(
        conv(4, 1, use_bias=False, name="g", **options)(normed)
    )
    model = FoldingModel(images, [read_twice, learning])
    random = np.random.RandomState(0)
    for layer in model.layers:
        norm = layer.name.endswith("_norm")
        low, high = (0.5, 1.5) if norm else (-0.3, 0.4)
        layer.set_weights([random.uniform(low, high, w.shape) for w in layer.get_weights()])
        layer.trainable = not norm or layer.name == "g_norm"
    return model, keras.Model(model.inputs, model.outputs)  # of the same layers


def run(model, images):
    """Outputs, gradients and the graph of a step; statistics that it learns are put back."""
    norm = model.get_layer("g_norm")
    before = norm.get_weights()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = sum(tf.reduce_sum(tf.sin(tf.cast(output, tf.float32))) for output in outputs)
        return outputs, tape.gradient(loss, [v.value for v in model.trainable_variables])

    outputs, gradients = step()
    learned = norm.get_weights()
    norm.set_weights(before)
    kinds = [op.type for op in step.get_concrete_function().graph.get_operations()]
    return (*outputs, *gradients, *learned), kinds.count("FusedBatchNormV3")


@pytest.mark.quick
@pytest.mark.parametrize("largest", [folding._LARGEST_KERNEL, 0])
def test_the_same_as_without_folding(largest, monkeypatch):
    monkeypatch.setattr(folding, "_LARGEST_KERNEL", largest)  # 0: no kernel is small enough
    model, plain = network()
    images = tf.random.stateless_uniform([2, 5, 6, 3], (0, 1))
    (found, left), (expected, norms) = run(model, images), run(plain, images)
    assert norms - left == len(FOLDED)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    np.testing.assert_array_equal(model(images)[1], plain(images)[1])  # without training


def test_what_learns_again_is_not_folded():
    model, plain = network("mixed_bfloat16")
    images = tf.random.stateless_uniform([2, 5, 6, 3], (0, 1))
    found, expected = (m(images, training=True)[0] for m in (model, plain))
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(*(tf.cast(t, tf.float32) for t in (found, expected)), rtol=0.05)
    for layer in model.layers:
        layer.trainable = True
    assert not folding._folded(model)
