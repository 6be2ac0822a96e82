import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerascv_d2l import FPN, InputError, backbone, feature_pyramid
from kerascv_d2l.models.fpn import RepeatLike

RECORDING = Path(__file__).parents[1] / "recording"
sys.path.insert(0, str(RECORDING))
import region_inputs as given  # noqa: E402

RECORDED = np.load(RECORDING / "regions.npz")


def small(extra):
    inputs = [keras.Input((None, None, c)) for c in given.MAP_CHANNELS]
    return keras.Model(inputs, feature_pyramid(inputs, given.CHANNELS, extra))


@pytest.mark.quick
@pytest.mark.parametrize("extra", ["pool", "p6p7"])
def test_equal_to_torchvision(extra, tmp_path):
    maps, weights = given.pyramid()
    model = small(extra)
    own = [layer.name for layer in model.layers if layer.weights]
    assert sorted(own) == sorted(
        f"fpn_{name}" for name in weights if extra == "p6p7" or name[0] != "p"
    )
    for name in own:
        model.get_layer(name).set_weights(weights[name.removeprefix("fpn_")])
    model.save(tmp_path / "model.keras")
    for network in (model, keras.saving.load_model(tmp_path / "model.keras")):
        outputs = network(maps)
        assert len(outputs) == 3 + (1 if extra == "pool" else 2)
        for i, output in enumerate(outputs):
            expected = RECORDED[f"fpn_{extra}_{i}"]
            assert np.abs(expected).max() > 1
            np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


def test_on_backbones_of_the_table():
    pixels = np.random.RandomState(0).randint(0, 256, (2, 96, 150, 3)).astype(np.uint8)
    for name in ("resnet18", "mobilenetv2_0.35"):
        features = backbone(name, strides=(4, 8, 16, 32))
        model = FPN(features, channels=16)
        shapes = [output.shape for output in model(pixels)]
        assert shapes[:4] == [(*m.shape[:3], 16) for m in features(pixels)]
        assert shapes[4] == (2, 2, (shapes[3][2] + 1) // 2, 16)
    model = FPN("resnet18", strides=(8, 16, 32), channels=8, extra="p6p7_from_c5")
    assert [output.shape[1] for output in model(pixels)] == [12, 6, 3, 2, 1]
    assert model.get_layer("fpn_p6").kernel.shape == (3, 3, 512, 8)
    assert model.get_layer("layer4_0_conv1") is not None


@pytest.mark.quick
def test_errors_name_the_argument():
    with pytest.raises(InputError, match="extra='p6'"):
        small("p6")
    with pytest.raises(InputError, match="backbone 'resnet19'"):
        FPN("resnet19")


@pytest.mark.quick
def test_pixels_are_repeated_and_cut_off():
    x = np.arange(2 * 3 * 4 * 1, dtype=np.float32).reshape(2, 3, 4, 1)
    for size in ((6, 8), (5, 8), (6, 7), (9, 4)):
        enlarged = RepeatLike()([x, np.zeros((2, *size, 7), np.float32)])
        rows, columns = (np.arange(n) // -(-n // m) for n, m in zip(size, (3, 4), strict=True))
        np.testing.assert_array_equal(enlarged, x[:, rows][:, :, columns])


@pytest.mark.quick
def test_repeating_has_a_gradient_under_xla():
    x, like = tf.random.normal((2, 3, 4, 2), seed=1), tf.random.normal((2, 5, 8, 2), seed=2)

    def gradient():
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(like * RepeatLike()([x, like]))
        return tape.gradient(total, x)

    np.testing.assert_allclose(tf.function(gradient, jit_compile=True)(), gradient(), rtol=1e-5)
