"""Backbones by name: one table for all tasks and scripts.

They take pixels 0-255 in RGB, whatever the network itself was trained on: its own
preprocessing is part of the model.
"""

import collections
import contextlib
import difflib
import json
import math
import os
import random
import re
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
from keras.src.backend.common import global_state  # guarded by the pin of Keras' version

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.batch_norm import BatchNormalization
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.depthwise import DepthwiseConv2D
from kerascv_d2l.models import preprocessing, resnet
from kerascv_d2l.models.common import as_class_names
from kerascv_d2l.models.folding import FoldingModel
from kerascv_d2l.models.weights import check_kind, fetch, identify, load_weights
from kerascv_d2l.ops.checks import as_image_size
from kerascv_d2l.ops.geometry import CROP_PCT

# PyTorch's batch norm momentum (0.1 there). Keras' 0.99 needs hundreds of steps to follow new
# data, more than a short fine-tuning has.
BATCH_NORM_MOMENTUM = 0.9
# A size at which a feature map's stride shows, also in networks that do not pad.
_PROBE_SIZE = 1024
# Keras' layers, and what stands in for them: with the same attributes, and another `call`.
_FAST = {
    keras.layers.BatchNormalization: BatchNormalization,
    keras.layers.Conv2D: Conv2D,
    keras.layers.DepthwiseConv2D: DepthwiseConv2D,
}
_CLASS_INDEX = (
    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
)


@dataclass(frozen=True)
class _Family:
    """Networks that share their preprocessing and the naming of their layers.

    Attributes:
        names: regular expression of the lower-case names.
        preprocess: function of a `(batch, h, w, 3)` tensor of pixels 0-255.
        features: regular expression of layers whose outputs serve as feature
            maps. The last one of each stride is taken (at the deepest stride
            the output of the network, whatever its name).
        width: whether the name takes a width multiplier, as in "mobilenet_0.75".
    """

    names: str
    preprocess: object
    features: str
    width: bool = False


# The layers are the last activation before the next halving, where the family has one.
# EfficientNet's and MobileNet's last one is the expansion inside the block that halves.
_FAMILIES = (
    _Family(r"resnet(18|34|18_small|50_v1\.5)", preprocessing.nothing, r"relu|layer\d"),
    _Family("mobilenet", preprocessing.to_unit_range, r"conv_pw_\d+_relu", width=True),
    _Family("mobilenetv2", preprocessing.to_unit_range, r"block_\d+_expand_relu", width=True),
    _Family(
        "mobilenetv3(small|large)", preprocessing.nothing, r"(activation|re_lu)(_\d+)?", width=True
    ),
    _Family(r"vgg(16|19)", preprocessing.caffe, r"block\d_conv\d"),
    _Family(r"resnet(50|101|152)", preprocessing.caffe, r"conv\d_block\d+_out|conv1_relu"),
    _Family(
        r"resnet(50|101|152)v2",
        preprocessing.to_unit_range,
        r"conv\d_block\d+_preact_relu|conv1_conv",
    ),
    _Family(r"densenet(121|169|201)", preprocessing.standardise, r"pool\d_relu|conv1_relu"),
    _Family(r"efficientnetb\d", preprocessing.nothing, r"block\d[a-z]_expand_activation"),
    _Family(
        r"efficientnetv2(b\d|s|m|l)",
        preprocessing.nothing,
        r"block[123].*_(add|activation)|block\d.*_expand_act.*",
    ),
    _Family(
        r"convnext(tiny|small|base|large|xlarge)",
        preprocessing.nothing,
        r".*_stage_\d_block_\d+_identity",
    ),
    _Family("xception", preprocessing.to_unit_range, r"block\d+_sepconv2_bn"),
    _Family("inceptionv3", preprocessing.to_unit_range, r"mixed\d+(_\d)?"),
    _Family("inceptionresnetv2", preprocessing.to_unit_range, r"mixed_\d\w|block\d+_\d+_ac"),
    _Family(r"nasnet(mobile|large)", preprocessing.to_unit_range, r"normal_concat_\d+"),
)


def names():
    """List the networks that `backbone` and `Classifier` know.

    Returns:
        sorted list of str, without width multipliers.
    """
    return sorted(
        name for name in _constructors() if any(re.fullmatch(f.names, name) for f in _FAMILIES)
    )


def backbone(
    name,
    weights=None,
    strides=(8, 16, 32),
    input_shape=(None, None, 3),
    batch_norm_momentum=BATCH_NORM_MOMENTUM,
):
    """Build a network that turns images into feature maps.

    The model is flat: its layers carry the names that `keras.applications`
    gives them, so patterns of layer names (for freezing, for learning rates)
    work on it. A batch norm layer that is frozen (`trainable = False`) runs in
    inference mode, in training too, and keeps its statistics.

    Args:
        name: "resnet18", "resnet34", "resnet50_v1.5" (torchvision's ResNets),
            "resnet18_small" (the book's for small images), or the
            lower-case name of a network of `keras.applications` ("mobilenet", "resnet50",
            "efficientnetv2b0", ...), with an optional width multiplier for the MobileNets
            ("mobilenet_0.75", "mobilenetv2_1.4").
        weights: None (random), "imagenet" (fetched at first use and cached),
            or the path of a file, with or without the classifier on top:
            `.weights.h5`, `.h5` or `.keras` as Keras writes them; for the two
            ResNets above also `.safetensors` with torchvision's names.
        strides: the wanted strides in pixels, each a power of two, in any order.
        input_shape: `(height, width, 3)`; None where the size may vary. The
            MobileNets v2 and v3 and EfficientNet pad like they did in training
            only when the size is given.
        batch_norm_momentum: momentum of all batch norm layers, or None for
            the network's own.

    Returns:
        `keras.Model` from pixels 0-255 `(batch, height, width, 3)`, uint8 or
        float, RGB, to a list of feature maps `(batch, h, w, channels)` in the
        order of `strides` (Keras unwraps a list of one: with a single stride it
        is the map itself). Where a stride divides the image, h = height /
        stride; elsewhere h is that number rounded up or down, by the network
        ("inceptionv3", "inceptionresnetv2" and "xception" do not pad, and may
        fall short by a few rows).

    Raises:
        InputError: if no network has that name, it has no feature map at a
            wanted stride, or the weights do not fit.
    """
    family, _ = _parse(name)
    network = without_classifier(name, weights, input_shape, batch_norm_momentum)
    outputs = _last_of_each_stride(network, family.features)
    for stride in strides:
        if stride not in outputs:
            raise InputError(
                f"strides={tuple(strides)}: {name} has no feature map at stride {stride}. "
                f"It has them at {', '.join(map(str, sorted(outputs)))}."
            )
    return FoldingModel(
        network.inputs[0], [outputs[stride] for stride in strides], name=model_name(name)
    )


def check_weights(name, weights):
    """Check early, before images are read, that weights can be had and are of a network.

    Args:
        name: as for `backbone`; None for a model without a backbone, which has no weights.
        weights: as for `backbone`. "imagenet" is downloaded if it is not in the cache.

    Raises:
        InputError: if no network has that name, or there is no such file, it is of a kind that
            is not read, or it is of another network.
    """
    if name is None and weights is None:
        return
    if name is None:
        raise InputError(f"weights {weights}: they are of a backbone; name it, or leave them out.")
    _parse(name)
    if weights is None:
        return
    if weights == "imagenet":
        if name in resnet.HUB:
            fetch(resnet.HUB[name])
        else:
            with _undisturbed():
                without_classifier(name, weights, (None, None, 3), None)
        return
    path = Path(weights)
    check_kind(path)
    network = identify(path)
    if network not in (None, name, re.sub(r"_1(\.0*)?$", "", name)):
        raise InputError(
            f"weights {path}: this file is {network}, not {name}. Use backbone={network!r}, or "
            f"give a file of {name}."
        )


@contextlib.contextmanager
def _undisturbed():
    """Let what is built inside change neither random draws nor the numbers in layer names."""
    state = random.getstate()
    numbers = dict(global_state.get_global_attribute("object_name_uids", {}))
    try:
        yield
    finally:
        random.setstate(state)
        uids = collections.defaultdict(int, numbers)
        global_state.set_global_attribute("object_name_uids", uids)


def strides_of(name):
    """List the strides at which a network has feature maps.

    Args:
        name: as for `backbone`.

    Returns:
        list of int, from fine to coarse.

    Raises:
        InputError: if no network has that name.
    """
    family, _ = _parse(name)
    network = without_classifier(name, None, (None, None, 3), None)
    return sorted(_last_of_each_stride(network, family.features))


def source_head(name, weights):
    """Read the output layer of the classifier that a weights file has on top.

    Args:
        name: as for `backbone`.
        weights: "imagenet" or a file.

    Returns:
        Pair of float32 arrays: kernel `(features, classes)` and bias `(classes,)`.

    Raises:
        InputError: if no network has that name, or the weights have no classifier.
    """
    _, constructor = _parse(name)
    network = constructor(include_top=True, weights=weights, classifier_activation=None)
    last = [layer for layer in network.layers if layer.weights][-1]
    kernel, bias = last.get_weights()
    return kernel.reshape(-1, kernel.shape[-1]), bias


def without_classifier(name, weights, input_shape, batch_norm_momentum):
    """Build a network without its classifier: `backbone` with the last feature map as output.

    Arguments and errors are those of `backbone`.

    Returns:
        `keras.Model` from pixels 0-255 to one feature map.
    """
    family, constructor = _parse(name)
    pixels = keras.Input(input_shape, name="pixels")
    features = family.preprocess(pixels)
    network = constructor(include_top=False, weights=weights, input_tensor=features)
    if weights != "imagenet":
        _standardise_inside(network)
    if batch_norm_momentum is not None:
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = batch_norm_momentum
    return network


def imagenet_classifier(name, weights=None, image_size=(224, 224)):
    """Build a network with its own classifier of ImageNet's 1000 classes.

    Args:
        name: as for `backbone`.
        weights: None (random), "imagenet", or a file with the classifier.
        image_size: `(height, width)`, pixels.

    Returns:
        `keras.Model` from pixels 0-255 `(batch, height, width, 3)`, RGB, to logits `(batch, 1000)`.
        It has the attributes `task`, `class_names`, `image_size` and `crop_pct` of `Classifier`.
        The names are ImageNet's where Keras has their list in its cache or, for "imagenet", can
        fetch it; else the numbers of the classes.

    Raises:
        InputError: if no network has that name, or the weights do not fit or have no classifier.
    """
    family, constructor = _parse(name)
    pixels = keras.Input((*as_image_size(image_size), 3), name="pixels")
    arguments = {"include_top": True, "weights": weights, "classifier_activation": None}
    network = constructor(input_tensor=family.preprocess(pixels), **arguments)
    if weights != "imagenet":
        _standardise_inside(network)
    network.task, network.class_names = "classification", _imagenet_names(weights)
    network.image_size, network.crop_pct = as_image_size(image_size), CROP_PCT
    return network


def _imagenet_names(weights):
    """The names of ImageNet's classes, "Egyptian cat"; where they cannot be had, numbers."""
    path = _keras_cache() / "imagenet_class_index.json"
    if not path.is_file() and weights == "imagenet":
        with contextlib.suppress(Exception):  # Keras raises a bare one when it cannot download
            path = Path(keras.utils.get_file(path.name, _CLASS_INDEX, cache_subdir="models"))
    if not path.is_file():
        return as_class_names(1000)
    index = json.loads(path.read_text(encoding="utf-8"))
    names = [index[str(k)][1].replace("_", " ") for k in range(1000)]
    # Two names stand for two classes each (crane, maillot): they get their numbers too.
    return tuple(f"{n} {k}" if names.count(n) > 1 else n for k, n in enumerate(names))


def _standardise_inside(network):
    """Give EfficientNet's own normalisation ImageNet's statistics.

    Keras' published weights hold the standard deviation where the variance
    should be, and `weights="imagenet"`, but not a path, adds a layer to make up
    for it. Networks without weights hold mean 0 and variance 1.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.adapt_mean.assign(preprocessing.IMAGENET_MEAN)
            layer.adapt_variance.assign([std**2 for std in preprocessing.IMAGENET_STD])
            layer.finalize_state()


def _last_of_each_stride(network, pattern):
    """Dict stride -> symbolic tensor."""
    tensors = [layer.output for layer in network.layers if re.fullmatch(pattern, layer.name)]
    tensors.append(network.output)
    model = keras.Model(network.inputs[0], tensors)
    height = _PROBE_SIZE
    try:
        shapes = model.compute_output_shape((1, height, height, 3))
    except ValueError:
        # NASNet crops and pads for the one size that it was built for.
        height, width = network.input_shape[1:3]
        if None in (height, width):
            raise InputError(
                f"input_shape=({height}, {width}, 3): {network.name} needs a height and a width."
            ) from None
        shapes = model.compute_output_shape((1, height, width, 3))
    # Without padding a map is smaller than size / stride: the nearest power of two is meant.
    found = [2 ** round(math.log2(height / shape[1])) for shape in shapes]
    deepest = found[-1]
    # A larger one is a squeeze-and-excitation branch, 1 x 1.
    return {s: tensor for s, tensor in zip(found, tensors, strict=True) if s <= deepest}


def _constructors():
    """Dict lower-case name -> function that builds the network."""
    found = {
        name.lower(): partial(keras_network, function)
        for name, function in vars(keras.applications).items()
        if name[0].isupper() and callable(function)
    }
    return found | {
        "resnet18": resnet.ResNet18,
        "resnet34": resnet.ResNet34,
        "resnet50_v1.5": resnet.ResNet50,
        "resnet18_small": resnet.resnet18_small,
    }


def keras_network(function, weights=None, **arguments):
    """Build a network of `keras.applications` with weights of any kind that `backbone` takes.

    Args:
        function: of `keras.applications`, such as `keras.applications.VGG19`.
        weights: as for `backbone`.
        **arguments: of that function.

    Returns:
        `keras.Model`.

    Raises:
        InputError: if the weights cannot be had or do not fit, or the image is too small.
    """
    if weights == "imagenet":
        try:
            with warnings.catch_warnings():
                # Images of any size use the weights of 224 pixels, of which Keras warns.
                warnings.filterwarnings("ignore", message="`input_shape` is undefined")
                return _with_fast_layers(function(weights="imagenet", **arguments))
        except Exception as error:  # Keras raises a bare Exception when it cannot download
            raise InputError(
                f'{function.__name__}, weights="imagenet": {_how_to_fetch(str(error))}'
            ) from error
    try:
        network = function(weights=None, **arguments)
    except ValueError as error:  # such as an image that is too small
        raise InputError(f"{function.__name__}: {error}") from error
    if weights is not None:
        load_weights(network, weights)
    return _with_fast_layers(network)


def _with_fast_layers(network):
    for layer in network.layers:  # in place: a copy would take as long as the network
        layer.__class__ = _FAST.get(type(layer), type(layer))
    return network


def _how_to_fetch(message):
    """What to do after Keras' failed download, whose message names the address."""
    without = "or start from random weights with weights=None (--weights none)"
    found = re.search(r"https?://\S+", message)
    if not found:
        return f"{message}. Give the path of a weights file, {without}."
    address = found[0].rstrip(".:,")
    cache = _keras_cache()
    name = address.rpartition("/")[2]
    return (
        f"{name} is not in Keras' cache ({cache}) and could not be fetched ({message}). Fetch it "
        f"where there is a network, with\n    curl -LO {address}\nand put it into that folder, "
        f"give its path as weights, {without}."
    )


def _keras_cache():
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _parse(name):
    """Split a name into its `_Family` and a constructor that knows the width multiplier."""
    base, _, width = (name, "", "") if name in _constructors() else name.partition("_")
    constructor = _constructors().get(base)
    family = next((f for f in _FAMILIES if re.fullmatch(f.names, base)), None)
    if family is None or constructor is None:
        near = difflib.get_close_matches(base, names(), n=5, cutoff=0.4) or names()
        raise InputError(f"backbone {name!r} is not known. Near it: {', '.join(near)}.")
    if not width:
        return family, constructor
    if not family.width:
        raise InputError(f"backbone {name!r}: {base} takes no width multiplier. Write {base!r}.")
    try:
        alpha = float(width)
    except ValueError:
        alpha = 0
    if not 0 < alpha < 10:
        raise InputError(
            f"backbone {name!r}: {width!r} is no width multiplier. Write for example {base}_0.75."
        )
    return family, lambda **arguments: constructor(alpha=alpha, **arguments)


def model_name(name):
    """Give the name of a network as the name of a Keras model, which has no dots."""
    return name.replace(".", "_")
