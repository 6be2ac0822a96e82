"""Networks by name: feature maps, preprocessing, weights."""

import importlib
import itertools

import h5py
import keras
import numpy as np
import pytest

from kerascv_d2l.errors import InputError
from kerascv_d2l.models import backbones
from kerascv_d2l.models.backbones import _parse, backbone, check_weights, names
from kerascv_d2l.models.weights import _PARAMETERS as PARAMETERS, load_weights

# name -> module of keras.applications with its preprocess_input
MODULES = {
    "convnexttiny": "convnext",
    "densenet121": "densenet",
    "efficientnetb0": "efficientnet",
    "efficientnetv2b0": "efficientnet_v2",
    "inceptionresnetv2": "inception_resnet_v2",
    "inceptionv3": "inception_v3",
    "mobilenet": "mobilenet",
    "mobilenetv2": "mobilenet_v2",
    "mobilenetv3small": "mobilenet_v3",
    "nasnetmobile": "nasnet",
    "resnet50": "resnet",
    "resnet152v2": "resnet_v2",
    "vgg16": "vgg16",
    "vgg19": "vgg19",
    "xception": "xception",
}


def long(name):
    """A network that takes seconds to build, where others show the same."""
    return pytest.param(name, marks=pytest.mark.long)


def clear_session():
    """Name layers from the beginning again. A collection of garbage with it would take a second."""
    keras.backend.clear_session(free_memory=False)


def pixels(height, width, batch=1, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "name",
    ["mobilenet_0.25", "mobilenetv2_0.35", "mobilenetv3small", "vgg16", long("efficientnetb0")],
)
def test_sizes_follow_the_strides(name):
    strides = (32, 4, 8, 16)
    model = backbone(name, strides=strides)
    for size in ((256, 192), (300, 300), (161, 223)):
        shapes = model.compute_output_shape((2, *size, 3))
        if size == (161, 223):  # said is one thing, done another
            shapes = [feature.shape for feature in model(pixels(*size, batch=2))]
        for stride, (batch, height, width, _) in zip(strides, shapes, strict=True):
            assert batch == 2
            for extent, total in zip((height, width), size, strict=True):
                assert total // stride <= extent <= -(-total // stride)


def test_feature_maps_are_the_last_before_the_next_halving():
    model = backbone("mobilenet_0.25", strides=(4, 8, 16, 32))
    layers = [tensor._keras_history.operation.name for tensor in model.outputs]
    assert layers == ["conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"]
    model = backbone("resnet50", strides=(16, 8))
    layers = [tensor._keras_history.operation.name for tensor in model.outputs]
    assert layers == ["conv4_block6_out", "conv3_block4_out"]


@pytest.mark.parametrize("name", ["mobilenetv3small", "xception", long("efficientnetv2b0")])
def test_squeeze_branches_and_unpadded_networks_keep_their_strides(name):
    shapes = backbone(name, strides=(4, 8, 16, 32)).compute_output_shape((1, 512, 512, 3))
    for stride, shape in zip((4, 8, 16, 32), shapes, strict=True):
        assert 0 <= 512 // stride - shape[1] <= 2


@pytest.mark.parametrize("name", sorted(MODULES))
def test_preprocessing_is_that_of_keras(name):
    images = pixels(5, 7).astype("float32")
    family, _ = _parse(name)
    module = importlib.import_module(f"keras.applications.{MODULES[name]}")
    expected = module.preprocess_input(images.copy())
    np.testing.assert_allclose(family.preprocess(images), expected, rtol=1e-5, atol=1e-5)


def test_every_module_of_keras_is_compared():
    modules = {
        f.__module__.rpartition(".")[2] for f in vars(keras.applications).values() if callable(f)
    }
    assert modules - {"resnet", "resnet_v2"} <= set(MODULES.values())


# A network with its own preprocessing, and one without.
@pytest.mark.parametrize("name", ["vgg16", "mobilenetv3small", long("efficientnetv2b0")])
def test_features_are_those_of_preprocessing_and_network_by_hand(name):
    images = pixels(75, 96)
    model = backbone(name, strides=(32,), batch_norm_momentum=None)
    constructor = next(
        f for n, f in vars(keras.applications).items() if n.lower() == name and n[0].isupper()
    )
    plain = constructor(include_top=False, weights=None, input_shape=(None, None, 3))
    plain.set_weights(model.get_weights())
    module = importlib.import_module(f"keras.applications.{MODULES[name]}")
    expected = plain(module.preprocess_input(images.astype("float32")))
    found = model(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_efficientnet_standardises_with_and_without_weights(tmp_path):
    clear_session()
    model = backbone("efficientnetb0", strides=(32,))
    standardised = keras.Model(model.inputs[0], model.get_layer("normalization").output)
    images = pixels(40, 50)
    expected = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(standardised(images), expected, atol=1e-5)
    # Keras' file holds the standard deviation in place of the variance.
    model.get_layer("normalization").adapt_variance.assign([0.229, 0.224, 0.225])
    model.save_weights(tmp_path / "efficientnet.weights.h5")
    clear_session()
    model = backbone("efficientnetb0", tmp_path / "efficientnet.weights.h5", strides=(32,))
    standardised = keras.Model(model.inputs[0], model.get_layer("normalization").output)
    np.testing.assert_allclose(standardised(images), expected, atol=1e-5)


def test_uint8_and_float_pixels_agree():
    model = backbone("mobilenet_0.25", strides=(8, 16), input_shape=(96, 64, 3))
    images = pixels(96, 64, batch=2)
    for one, other in zip(model(images), model(images.astype("float32")), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["mobilenet_0.25", "vgg16"])
def test_saved_model_needs_no_code_of_ours(name, tmp_path):
    model = backbone(name, strides=(16,))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = pixels(64, 96)
    np.testing.assert_allclose(loaded(images), model(images), rtol=1e-5, atol=1e-5)


ENDINGS = (".weights.h5", ".keras", ".h5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Random MobileNet with a classifier, and its files with and without it."""
    folder = tmp_path_factory.mktemp("weights")
    full = keras.applications.MobileNet(alpha=0.25, weights=None, classes=1000)
    draw = np.random.default_rng(1)
    full.set_weights([draw.uniform(0.5, 1.5, w.shape) * 0.1 for w in full.get_weights()])
    headless = keras.applications.MobileNet(
        alpha=0.25, weights=None, include_top=False, input_shape=(None, None, 3)
    )
    weights = full.get_weights()[: len(headless.weights)]
    headless.set_weights(weights)
    for ending in ENDINGS:
        for model, label in ((full, "top"), (headless, "notop")):
            path = folder / f"{label}{ending}"
            model.save_weights(path) if ending == ".weights.h5" else model.save(path)
    return folder, full.get_weights()


def test_weights_load_with_and_without_a_classifier(trained):
    folder, expected = trained
    model = backbone("mobilenet_0.25", folder / "top.weights.h5", strides=(32,))
    for ending, label in itertools.product(ENDINGS, ("top", "notop")):
        if (ending, label) != (ENDINGS[0], "top"):
            model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
            load_weights(model, folder / f"{label}{ending}")
        found = model.get_weights()
        assert len(found) == len(expected) - 2
        for one, other in zip(found, expected, strict=False):
            np.testing.assert_array_equal(one, other, err_msg=label + ending)


@pytest.mark.parametrize(
    ("network", "label"), [("mobilenet_0.5", "top"), ("mobilenetv2_0.35", "notop")]
)
def test_weights_of_another_network_name_the_tensors_and_change_nothing(trained, network, label):
    folder, _ = trained
    model = backbone(network, strides=(32,))
    before = model.get_weights()
    for ending in ENDINGS:
        with pytest.raises(InputError) as info:
            load_weights(model, folder / f"{label}{ending}")
        assert str(info.value).endswith(
            f"{label}{ending}: this file is mobilenet_0.25; nothing was loaded."
        )
        for one, other in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("ending", ENDINGS)
def test_weights_are_checked_without_a_network(trained, tmp_path, ending):
    folder, _ = trained
    path = folder / f"notop{ending}"
    check_weights("mobilenet_0.25", path)
    check_weights("mobilenet", None)
    check_weights(None, None)
    with pytest.raises(InputError, match="of a backbone; name it, or leave them out"):
        check_weights(None, path)
    with pytest.raises(InputError, match=r"this file is mobilenet_0\.25, not mobilenet\. Use back"):
        check_weights("mobilenet", path)
    with pytest.raises(InputError, match="there is no such file"):
        check_weights("mobilenet", tmp_path / f"nowhere{ending}")
    (tmp_path / f"broken{ending}").write_bytes(b"not what the name says")
    with pytest.raises(InputError, match="not a readable weights file"):
        check_weights("mobilenet", tmp_path / f"broken{ending}")
    with pytest.raises(InputError, match="is not known"):
        check_weights("mobilnet", path)


def test_checking_imagenet_changes_no_draw_and_no_layer_name(monkeypatch):
    clear_session()
    keras.utils.set_random_seed(5)
    wanted = keras.layers.Dense(3)
    wanted.build((None, 4))
    clear_session()
    keras.utils.set_random_seed(5)
    asked = []

    def mobilenet(weights, **arguments):
        asked.append(weights)
        return keras.applications.MobileNet(alpha=0.25, weights=None, **arguments)

    monkeypatch.setattr(backbones, "_constructors", lambda: {"mobilenet": mobilenet})
    check_weights("mobilenet", "imagenet")
    assert asked == ["imagenet"]
    layer = keras.layers.Dense(3)
    layer.build((None, 4))
    assert layer.name == wanted.name
    np.testing.assert_array_equal(layer.kernel, wanted.kernel)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv2_0.35", long("efficientnetb0"), long("vgg16")]
)
def test_networks_are_known_by_their_numbers_of_parameters(name):
    counts = dict(entry.split()[:1] + [entry.split()[1:]] for entry in PARAMETERS.split(","))
    _, constructor = _parse(name)
    for top, count in zip((False, True), counts[name], strict=True):
        assert constructor(include_top=top, weights=None).count_params() == int(count)
    every = [count for pair in counts.values() for count in pair]
    assert len(set(every)) == len(every)


def test_one_wrong_tensor_leaves_the_model_as_it_was(trained, tmp_path):
    folder, _ = trained
    path = tmp_path / "damaged.weights.h5"
    path.write_bytes((folder / "notop.weights.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        del file["layers/conv2d_3/vars/0"]
    model = backbone("mobilenet_0.25", strides=(32,))
    before = model.get_weights()
    with pytest.raises(InputError, match=r"1 missing: layers/conv2d_3/vars/0 \(1, 1, 32, 32\)"):
        load_weights(model, path)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_file_missing_broken_or_of_an_unknown_kind(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.h5: there is no such file"):
        backbone("mobilenet_0.25", tmp_path / "nowhere.h5")
    for name in ("broken.weights.h5", "broken.keras", "broken.h5"):
        (tmp_path / name).write_bytes(b"not what the name says")
        with pytest.raises(InputError, match="broken"):
            backbone("mobilenet_0.25", tmp_path / name)
    (tmp_path / "weights.txt").write_text("?")
    with pytest.raises(InputError, match=r"expected a file ending in"):
        backbone("mobilenet_0.25", tmp_path / "weights.txt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilnet", "Near it: mobilenet"),
        ("", "is not known"),
        ("mobilenet_wide", "no width multiplier"),
        ("mobilenet_-1", "no width multiplier"),
        ("resnet50_0.5", "takes no width multiplier"),
        ("MobileNet", "Near it: mobilenet"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(InputError, match=message):
        backbone(name)


def test_unknown_stride_names_those_there_are():
    with pytest.raises(InputError, match=r"no feature map at stride 64\. It has them at .*8, 16"):
        backbone("mobilenet_0.25", strides=(8, 64))


class OneSize(keras.layers.Layer):
    """Has the sizes of one image only, as the layers of a NASNet."""

    def call(self, x):
        return x

    def compute_output_shape(self, shape):
        if shape[1] is not None:
            raise ValueError
        return shape


def test_networks_for_one_size_need_it():
    pixels = keras.Input((None, None, 3))
    network = keras.Model(pixels, OneSize()(pixels), name="one_size")
    with pytest.raises(InputError, match="one_size needs a height and a width"):
        backbones._last_of_each_stride(network, "-")


@pytest.mark.long
def test_a_nasnet_needs_its_size():
    with pytest.raises(InputError, match="needs a height and a width"):
        backbone("nasnetmobile")


def test_every_network_of_keras_is_known():
    functions = [n.lower() for n, f in vars(keras.applications).items() if n[0].isupper()]
    own = {"resnet18", "resnet34", "resnet50_v1.5", "resnet18_small"}
    assert set(functions) | own == set(names())


def test_faster_layers_change_neither_results_nor_files_of_weights(tmp_path):
    ours = backbones.without_classifier("mobilenet_0.25", None, (64, 64, 3), None)
    plain = keras.applications.MobileNet(
        alpha=0.25, include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    ours.save_weights(tmp_path / "a.weights.h5")
    plain.load_weights(tmp_path / "a.weights.h5")
    images = pixels(64, 64)
    np.testing.assert_allclose(ours(images), plain(images / 127.5 - 1), rtol=1e-4, atol=1e-5)
    slow = {
        keras.layers.BatchNormalization,
        keras.layers.Conv2D,
        keras.layers.DepthwiseConv2D,
    }
    assert sum(type(layer) in slow for layer in plain.layers) == 54
    assert not any(type(layer) in slow for layer in ours.layers)
