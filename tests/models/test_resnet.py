"""ResNets against numbers recorded from torchvision (record_resnet.py says how)."""

import json

import keras
import numpy as np
import pytest
from record_resnet import (
    RECORDED,
    STAGES,
    TRAINING_SHAPE,
    draw_images,
    draw_state_dict,
    sample,
)

from kerascv_d2l.errors import InputError
from kerascv_d2l.models import resnet
from kerascv_d2l.models.backbones import backbone
from kerascv_d2l.models.classifier import Classifier
from kerascv_d2l.models.weights import load_state_dict

# name -> all there is of it
BUILDERS = {"resnet18": resnet.ResNet18, "resnet34": resnet.ResNet34}
PARAMETERS = {"resnet18": 11_689_512, "resnet34": 21_797_672}


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORDED.read_text())


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def network(request, recorded):
    """Network with drawn weights, giving its stages and logits, and its recorded numbers."""
    model = BUILDERS[request.param](include_preprocessing=False)
    load_state_dict(model, draw_state_dict(recorded[request.param]["shapes"]))
    return request.param, model, recorded[request.param]


@pytest.mark.parametrize("size", ["224x224", "225x225", "320x480"])
def test_features_and_logits_are_torchvisions(network, size):
    _, model, numbers = network
    height, width = map(int, size.split("x"))
    outputs = [model.get_layer(stage).output for stage in STAGES] + [model.output]
    found = keras.Model(model.inputs[0], outputs)(draw_images((1, height, width, 3)))
    for name, tensor in zip((*STAGES, "logits"), found, strict=True):
        expected = numbers["inference"][size][name]
        np.testing.assert_allclose(sample(tensor), expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_training_moves_the_statistics_like_torch(network):
    name, model, numbers = network
    if name == "resnet34":
        return  # the same layers as in resnet18
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=False)
    model.train_on_batch(draw_images(TRAINING_SHAPE), np.zeros((2, 1000)))
    for key, expected in numbers["statistics"].items():
        layer, _, kind = key.replace(".", "_").rpartition("_running_")
        variable = {"mean": "moving_mean", "var": "moving_variance"}[kind]
        values = getattr(model.get_layer(layer), variable)
        np.testing.assert_allclose(
            sample(values)[: len(expected)], expected, rtol=1e-4, atol=1e-4, err_msg=key
        )
    load_state_dict(model, draw_state_dict(numbers["shapes"]))


def test_parameters_are_torchvisions(network):
    name, model, numbers = network
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == PARAMETERS[name]
    total = sum(int(np.prod(shape)) for shape in numbers["shapes"].values() if shape)
    assert model.count_params() == total


def test_named_stages_have_their_strides():
    model = resnet.ResNet18(include_top=False)
    for stride, name in resnet.STAGES.items():
        shape = keras.Model(model.inputs[0], model.get_layer(name).output).compute_output_shape(
            (1, 225, 320, 3)
        )
        assert shape[1:3] == (-(-225 // stride), -(-320 // stride))


def test_as_a_backbone_and_classifier(recorded, tmp_path):
    import safetensors.numpy

    tensors = draw_state_dict(recorded["resnet18"]["shapes"])
    path = tmp_path / "resnet18.safetensors"
    safetensors.numpy.save_file(tensors, path)
    images = np.random.default_rng(0).integers(0, 256, (1, 65, 96, 3), dtype=np.uint8)
    full = resnet.ResNet18(weights=path)
    standardised = (images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    plain = resnet.ResNet18(weights=path, include_preprocessing=False)
    np.testing.assert_allclose(full(images), plain(standardised), rtol=1e-4, atol=1e-4)
    maps = backbone("resnet18", path, strides=(8, 32))(images)
    assert [m.shape for m in maps] == [(1, 9, 12, 128), (1, 3, 3, 512)]
    # all 1000 units taken over: the same network
    same = Classifier("resnet18", 1000, path, (65, 96), head_init={i: i for i in range(1000)})
    np.testing.assert_allclose(same(images), full(images), rtol=1e-4, atol=1e-4)


def test_saved_and_loaded(tmp_path):
    model = resnet.ResNet18(classes=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    images = draw_images((2, 33, 40, 3))
    np.testing.assert_allclose(loaded(images), model(images), rtol=1e-5, atol=1e-5)
    bare = backbone("resnet18", tmp_path / "model.keras", strides=(32,))
    np.testing.assert_array_equal(bare.get_layer("conv1").kernel, model.get_layer("conv1").kernel)


def test_imagenet_has_a_thousand_classes():
    with pytest.raises(InputError, match=r"classes=10.*Leave the top out"):
        resnet.ResNet18(weights="imagenet", classes=10)


def test_the_books_small_resnet():
    model = resnet.resnet18_small(10)
    # d2l.resnet18(10, 3) of d2l 1.0.3 has as many
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == 11_178_378 - 1_408
    shapes = keras.Model(
        model.inputs[0], [model.get_layer(name).output for name in STAGES]
    ).compute_output_shape((2, 32, 32, 3))
    assert [s[1:] for s in shapes] == [(32, 32, 64), (16, 16, 128), (8, 8, 256), (4, 4, 512)]
    kernel = model.get_layer("layer2_0_conv1").kernel
    limit = np.sqrt(6 / (9 * (64 + 128)))
    assert 0.99 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)  # rounding to float32
    assert resnet.resnet18_small(4, in_channels=1)(np.zeros((2, 28, 28, 1), "uint8")).shape == (
        2,
        4,
    )
    with pytest.raises(InputError, match="num_classes=0"):
        resnet.resnet18_small(0)
