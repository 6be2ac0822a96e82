import keras
import numpy as np
import pytest

from kerascv_d2l.errors import InputError
from kerascv_d2l.models.vgg import vgg19_features

pytestmark = pytest.mark.quick


def test_layers_carry_torchvisions_indices_and_stop_at_the_last_one_wanted():
    model = vgg19_features((0, 5))
    names = [layer.name for layer in model.layers if layer.weights]
    assert names == ["features_0", "features_2", "features_5"]
    assert not model.trainable_variables


def test_relu_overwrites_what_stands_before_it_except_in_the_last_layer():
    pixels = np.random.RandomState(0).standard_normal((1, 9, 13, 3)).astype(np.float32)
    first, second = vgg19_features((0, 2), seed=1)(pixels)
    assert first.numpy().min() == 0
    assert second.numpy().min() < 0
    # The same layer with something running after it.
    _, second_after, _ = vgg19_features((0, 2, 3), seed=1)(pixels)
    np.testing.assert_allclose(second_after, np.maximum(second, 0), atol=1e-6)


def test_pooling_drops_the_odd_row_and_column():
    shapes = vgg19_features((0, 5, 10)).compute_output_shape((2, 31, 46, 3))
    assert [tuple(shape) for shape in shapes] == [
        (2, 31, 46, 64),
        (2, 15, 23, 128),
        (2, 7, 11, 256),
    ]


def test_a_seed_gives_the_same_weights_and_he_scale():
    one, same, other = (vgg19_features((5,), seed=seed) for seed in (1, 1, 2))
    for a, b in zip(one.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.get_weights()[0], other.get_weights()[0])
    kernel = one.get_layer("features_2").kernel.numpy()
    assert kernel.std() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_the_dtype_policy_reaches_the_layers():
    model = vgg19_features((0,), dtype="mixed_bfloat16")
    assert keras.backend.standardize_dtype(model.outputs[0].dtype) == "bfloat16"
    assert model.get_layer("features_0").kernel.dtype == "float32"


@pytest.mark.parametrize("layers", [(), (37,), (-1,), ("conv1",)])
def test_unknown_indices_are_refused(layers):
    with pytest.raises(InputError, match="0 to 36"):
        vgg19_features(layers)
