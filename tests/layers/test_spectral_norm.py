"""Spectral normalisation against PyTorch's on recorded values."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import generation_inputs as given  # noqa: E402

import kerascv_d2l as d2l  # noqa: E402

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", ["conv", "dense"])
def test_training_and_evaluation_are_pytorch_s(name):
    x = given.spectral(name)
    wanted = json.loads((RECORDING / "generation.json").read_text())[name]
    inputs = tf.constant(x["inputs"], tf.float32)
    if name == "conv":
        inner = keras.layers.Conv2D(4, 3, 2, use_bias=False)
        inputs = tf.pad(inputs, [[0, 0], [1, 1], [1, 1], [0, 0]])
    else:
        inner = keras.layers.Dense(3, use_bias=False)
    layer = d2l.SpectralNormalization(inner)
    layer.build(inputs.shape)
    inner.kernel.assign(x["kernel"])
    for variable, value in ((layer.bias, x["bias"]), (layer.u, x["u"]), (layer.v, x["v"])):
        variable.assign(value)
    for step in wanted["steps"]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(inputs, training=True) ** 2)
        assert float(loss) == pytest.approx(step["mean_square"], rel=1e-5)
        np.testing.assert_allclose(layer.u, step["u"], atol=1e-6)
        variables = layer.trainable_variables
        assert len(variables) == 2
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(given.RATE * gradient)
    np.testing.assert_allclose(inner.kernel, wanted["kernel"], atol=1e-5)
    np.testing.assert_allclose(layer(inputs), wanted["evaluation"], atol=1e-5)


def test_the_largest_singular_value_becomes_1_and_survives_saving(tmp_path):
    inputs = keras.Input((6, 6, 3))
    x = d2l.SpectralNormalization(keras.layers.Conv2D(8, 3, use_bias=False))(inputs)
    x = keras.layers.Flatten()(x)
    model = keras.Model(inputs, d2l.SpectralNormalization(keras.layers.Dense(2, use_bias=False))(x))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    for _ in range(60):
        model(images, training=True)
    for layer in (model.layers[1], model.layers[3]):
        matrix = layer.layer.kernel.numpy().reshape(-1, layer.layer.kernel.shape[-1])
        norm = np.linalg.svd(matrix, compute_uv=False)[0]
        value = layer.v.numpy() @ matrix @ layer.u.numpy()
        assert value == pytest.approx(norm, rel=1e-3)
    model.save(tmp_path / "model.keras")
    again = d2l.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images), model(images))
    with pytest.raises(d2l.InputError, match="use_bias=False"):
        d2l.SpectralNormalization(keras.layers.Dense(2))
    with pytest.raises(d2l.InputError, match="an activation"):
        d2l.SpectralNormalization(keras.layers.Dense(2, activation="relu", use_bias=False))
