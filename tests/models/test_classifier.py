"""`Classifier`: its head, freezing, answers, saving."""

import keras
import numpy as np
import pytest
from small_networks import small_backbone

from kerascv_d2l import freeze
from kerascv_d2l.errors import InputError
from kerascv_d2l.models.classifier import HEAD, Classifier
from kerascv_d2l.ops.geometry import resize_and_center_crop, resized_size

SIZE = (64, 96)


def pixels(height, width, batch=1, seed=0):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Random MobileNet with a classifier, as files with and without it, and its weights."""
    folder = tmp_path_factory.mktemp("weights")
    full = keras.applications.MobileNet(alpha=0.25, weights=None, classes=1000)
    draw = np.random.default_rng(1)
    full.set_weights([draw.uniform(0.5, 1.5, w.shape) * 0.1 for w in full.get_weights()])
    full.save_weights(folder / "top.weights.h5")
    full.save(folder / "top.keras")
    features = keras.applications.MobileNet(alpha=0.25, weights=None, include_top=False)
    features.save(folder / "notop.keras")
    return folder, full.get_weights()


def test_classifier_is_backbone_and_head(trained):
    folder, expected = trained
    model = Classifier(
        "mobilenet_0.25",
        3,
        folder / "top.weights.h5",
        SIZE,
        head_init={2: 934, 0: 7},
        dropout=0.1,
    )
    head = model.get_layer(HEAD)
    kernel = expected[-2].reshape(-1, 1000)
    np.testing.assert_array_equal(head.kernel[:, 2], kernel[:, 934])
    np.testing.assert_array_equal(head.kernel[:, 0], kernel[:, 7])
    np.testing.assert_array_equal(head.bias, [expected[-1][7], 0, expected[-1][934]])
    limit = np.sqrt(6 / (kernel.shape[0] + 3))
    assert 0.5 * limit < np.abs(head.kernel[:, 1]).max() <= limit
    assert model(pixels(64, 96, batch=2)).shape == (2, 3)


def test_head_units_need_a_source_that_fits(trained):
    folder, _ = trained
    with pytest.raises(InputError, match="no source network"):
        Classifier("mobilenet_0.25", 2, head_init={0: 1})
    with pytest.raises(InputError, match="source indices 0-999"):
        Classifier("mobilenet_0.25", 2, folder / "top.keras", head_init={0: 1000})
    with pytest.raises(InputError, match="missing"):
        Classifier("mobilenet_0.25", 2, folder / "notop.keras", head_init={0: 1})


def test_frozen_batch_norm_stays_in_inference_mode():
    model = Classifier("mobilenet_0.25", 2, image_size=SIZE)
    images = pixels(64, 96, batch=4)
    norm = model.get_layer("conv1_bn")
    assert norm.momentum == 0.9
    for layer in model.layers:
        layer.trainable = layer.name == HEAD
    before = norm.get_weights()
    np.testing.assert_allclose(model(images, training=True), model(images), atol=1e-6)
    for one, other in zip(norm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)
    norm.trainable = True
    model(images, training=True)
    assert np.abs(norm.get_weights()[2] - before[2]).max() > 0


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = Classifier("mobilenet_0.25", 2, image_size=SIZE)
        output = model(pixels(64, 96))
        assert output.dtype == "float32"
        assert model.get_layer("conv1").compute_dtype == "float16"
    finally:
        keras.config.set_dtype_policy("float32")


def random_classifier(**options):
    model = Classifier(small_backbone(32), ("ant", "bee", "cat"), image_size=(32, 64), **options)
    for weight in model.weights:
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape, seed=1))
    return model


def test_classify_resizes_crops_and_names():
    model = random_classifier()
    images = pixels(50, 41, batch=5)
    assert resized_size((32, 64)) == (37, 73)
    cut = resize_and_center_crop(images, (37, 73), (32, 64))
    logits = model(cut).numpy()
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for given in (images, images.astype(np.float64)):
        found = model.classify(given)
        np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-5)
        np.testing.assert_array_equal(found["classes"], wanted.argmax(axis=1))
        names = [("ant", "bee", "cat")[k].encode() for k in wanted.argmax(axis=1)]
        assert found["names"].numpy().tolist() == names
    whole = random_classifier(crop_pct=1).classify(images)["probabilities"]
    assert np.abs(whole - wanted).max() > 1e-3


@pytest.mark.parametrize("backbone", ["resnet18_small", "mobilenet_0.25", "own"])
def test_same_after_saving_with_flat_layers(backbone, tmp_path):
    network = small_backbone(32) if backbone == "own" else backbone
    model = Classifier(network, ("ant", "bee"), image_size=(32, 64), dropout=0.2, crop_pct=0.9)
    for weight in model.weights:
        weight.assign(weight + 0.05 * keras.random.normal(weight.shape, seed=1))
    assert not [layer for layer in model.layers if isinstance(layer, keras.Model)]
    model.layers[2].trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is Classifier and loaded.task == "classification"
    assert loaded.class_names == ("ant", "bee") and loaded.crop_pct == 0.9
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert not loaded.layers[2].trainable and loaded.get_layer("dropout").rate == 0.2
    images = pixels(70, 40, batch=2)
    np.testing.assert_allclose(
        loaded.classify(images)["probabilities"], model.classify(images)["probabilities"], atol=1e-5
    )


def test_patterns_of_layer_names_freeze_all_but_the_head():
    model = Classifier("mobilenet_0.25", 2, image_size=SIZE)
    freeze(model, "(?!head).*")
    assert [v.path for v in model.trainable_variables] == ["head/kernel", "head/bias"]


def test_the_backbone_shares_its_layers():
    model = Classifier("mobilenet_0.25", 2, image_size=SIZE)
    model.backbone.trainable = False
    assert {v.path.split("/")[-2] for v in model.trainable_variables} == {HEAD}


@pytest.mark.quick
@pytest.mark.parametrize(
    "arguments, named",
    [
        ({"class_names": ()}, "class_names: expected at least 1"),
        ({"class_names": ("a", "b", "a")}, "more than once: a"),
        ({"class_names": "hotdog"}, "class_names='hotdog'"),
        ({"image_size": 224}, "image_size=224"),
        ({"image_size": (0, 5)}, "image_size=.0, 5."),
        ({"crop_pct": 0}, "crop_pct=0: expected"),
        ({"weights": "imagenet"}, "for a backbone by name"),
    ],
)
def test_errors_name_the_argument(arguments, named):
    with pytest.raises(InputError, match=named):
        Classifier(**({"backbone": small_backbone(32), "class_names": 2} | arguments))
