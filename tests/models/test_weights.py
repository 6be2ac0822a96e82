"""Weights files: state dicts in safetensors, the Hub's cache, and what does not fit."""

import huggingface_hub
import keras
import numpy as np
import pytest
import safetensors.numpy

from kerascv_d2l import YOLO1
from kerascv_d2l.errors import InputError
from kerascv_d2l.models import weights
from kerascv_d2l.models.backbones import check_weights
from kerascv_d2l.models.weights import load_state_dict, load_weights


def small_model():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, (2, 3), name="stem_conv")(inputs)
    x = keras.layers.DepthwiseConv2D((3, 2), use_bias=False, name="depthwise")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(5, name="fc")(x))


def state_dict():
    draw = np.random.default_rng(0)
    shapes = {
        "stem.conv.weight": (4, 3, 2, 3),
        "stem.conv.bias": (4,),
        "depthwise.weight": (4, 1, 3, 2),
        "norm.weight": (4,),
        "norm.bias": (4,),
        "norm.running_mean": (4,),
        "norm.running_var": (4,),
        "fc.weight": (5, 4),
        "fc.bias": (5,),
    }
    tensors = {
        name: draw.uniform(0.5, 1.5, shape).astype("float32") for name, shape in shapes.items()
    }
    return tensors | {"norm.num_batches_tracked": np.array(7)}


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return small_model()


def assert_unchanged(model, before):
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layouts_are_turned(model, tmp_path):
    tensors = state_dict()
    safetensors.numpy.save_file(tensors, tmp_path / "small.safetensors")
    load_weights(model, tmp_path / "small.safetensors")
    kernel = model.get_layer("stem_conv").kernel.numpy()
    assert kernel[1, 2, 0, 3] == tensors["stem.conv.weight"][3, 0, 1, 2]
    kernel = model.get_layer("depthwise").kernel.numpy()
    assert kernel[2, 1, 3, 0] == tensors["depthwise.weight"][3, 0, 2, 1]
    norm = model.get_layer("norm")
    for variable, name in (
        (norm.gamma, "weight"),
        (norm.beta, "bias"),
        (norm.moving_mean, "running_mean"),
        (norm.moving_variance, "running_var"),
    ):
        np.testing.assert_array_equal(variable, tensors[f"norm.{name}"])
    np.testing.assert_array_equal(model.get_layer("fc").kernel, tensors["fc.weight"].T)
    np.testing.assert_array_equal(model.get_layer("fc").bias, tensors["fc.bias"])


def test_missing_extra_and_misshapen_tensors_are_listed_and_nothing_is_loaded(model, tmp_path):
    before = model.get_weights()
    tensors = state_dict()
    del tensors["norm.running_var"]
    tensors["fc.weight"] = np.zeros((6, 4), "float32")
    tensors["surplus.weight"] = np.zeros((2, 3), "float32")
    path = tmp_path / "bad.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(InputError) as info:
        load_weights(model, path)
    message = str(info.value)
    assert str(path) in message
    assert "nothing was loaded" in message
    assert "1 missing: norm.running_var (4,)" in message
    assert "1 of another shape: fc.weight (6, 4), expected (5, 4)" in message
    assert "1 not part of the network: surplus.weight (2, 3)" in message
    assert_unchanged(model, before)


def test_only_named_tensors_may_stay_unused(model):
    tensors = state_dict() | {"classifier.3.weight": np.zeros((2, 2), "float32")}
    with pytest.raises(InputError, match=r"classifier\.3\.weight"):
        load_state_dict(model, tensors)
    load_state_dict(model, tensors, unused=r"classifier\..*")
    # a wanted tensor is never among the unused
    load_state_dict(model, tensors, unused=".*")


def test_names_of_another_kind_of_network(model):
    """As VGG-19 will need: its modules have numbers, and the top is not wanted."""
    tensors = {name.replace("stem.conv", "features.0"): t for name, t in state_dict().items()}
    tensors = {name: t for name, t in tensors.items() if not name.startswith("fc")}
    key = {"stem_conv": "features.0", "depthwise": "depthwise", "norm": "norm"}.get
    before = model.get_layer("fc").get_weights()
    load_state_dict(model, tensors, key=key)
    np.testing.assert_array_equal(model.get_layer("stem_conv").bias, tensors["features.0.bias"])
    np.testing.assert_array_equal(model.get_layer("fc").kernel, before[0])


def test_half_precision_files(model, tmp_path):
    tensors = {name: tensor.astype("float16") for name, tensor in state_dict().items()}
    safetensors.numpy.save_file(tensors, tmp_path / "half.safetensors")
    load_weights(model, tmp_path / "half.safetensors")
    assert model.get_layer("fc").kernel.dtype == "float32"
    np.testing.assert_array_equal(model.get_layer("fc").bias, tensors["fc.bias"].astype("float32"))


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.pkl", "w.pth.tar", "w.ckpt"])
def test_pickles_are_never_opened(model, tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was opened",))

    import pickle

    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"pickle.*safetensors\.torch\.save_file"):
        load_weights(model, tmp_path / name)
    # nor under another name
    for ending in ("safetensors", "keras", "h5", "weights.h5"):
        path = tmp_path / f"disguised.{ending}"
        path.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(InputError, match="disguised"):
            load_weights(model, path)


def test_truncated_safetensors(model, tmp_path):
    path = tmp_path / "cut.safetensors"
    safetensors.numpy.save_file(state_dict(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"cut\.safetensors: not a readable safetensors"):
        load_weights(model, path)


def _cache(folder, repository):
    """Lay a state dict into a cache as `huggingface_hub` keeps it."""
    commit = "0" * 40
    root = folder / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    safetensors.numpy.save_file(state_dict(), snapshot / "model.safetensors")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Empty cache, and a network that fails when it is asked."""
    original = huggingface_hub.hf_hub_download
    asked = []

    def download(*arguments, **options):
        if options.get("local_files_only"):
            return original(*arguments, cache_dir=tmp_path, **options)
        asked.append(arguments)
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return tmp_path, asked


def test_imagenet_comes_from_the_cache_without_a_network(model, hub):
    folder, asked = hub
    _cache(folder, "timm/small.tv_in1k")
    load_weights(model, "imagenet", hub_name="timm/small.tv_in1k")
    np.testing.assert_array_equal(model.get_layer("fc").bias, state_dict()["fc.bias"])
    assert not asked


def test_imagenet_without_cache_and_network_says_how_to_go_on(model, hub):
    before = model.get_weights()
    with pytest.raises(InputError) as info:
        load_weights(model, "imagenet", hub_name="timm/small.tv_in1k")
    message = str(info.value)
    assert "hf download timm/small.tv_in1k model.safetensors" in message
    assert "no network" in message
    assert "weights=None" in message
    assert hub[1] == [("timm/small.tv_in1k", "model.safetensors")]
    assert_unchanged(model, before)


def test_a_detector_of_another_class_gives_its_backbone(tmp_path):
    """Its file names the network; what both have under the same names is loaded."""
    one, other = YOLO1(2, "mobilenet_0.25", None), YOLO1(3, "mobilenet_0.25", None)
    one.save(tmp_path / "model.keras")
    assert weights.identify(tmp_path / "model.keras") == "mobilenet_0.25"
    with pytest.raises(
        InputError, match=r"model.keras: this file is mobilenet_0.25, not mobilenet_1"
    ):
        check_weights("mobilenet_1.0", tmp_path / "model.keras")
    load_weights(other.features, tmp_path / "model.keras")
    for found, wanted in zip(other.features.weights, one.features.weights, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_timm_repositories(monkeypatch):
    from kerascv_d2l.models import resnet

    asked = []

    def fetch(name):
        asked.append(name)
        raise InputError("stop")

    monkeypatch.setattr(weights, "fetch", fetch)
    for builder in (resnet.ResNet18, resnet.ResNet34):
        with pytest.raises(InputError, match="stop"):
            builder(weights="imagenet", include_top=False)
    assert asked == ["timm/resnet18.tv_in1k", "timm/resnet34.tv_in1k"]
