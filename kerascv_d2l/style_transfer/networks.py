"""Frozen feature extractors for style transfer, and the input scaling that each expects."""

# ruff: noqa: N803, N806 - X and Y are the book's names

from pathlib import Path

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.models import backbones, preprocessing
from kerascv_d2l.models.common import dtype_scope
from kerascv_d2l.models.vgg import BOOK_CONTENT_LAYERS, BOOK_STYLE_LAYERS, vgg19_features
from kerascv_d2l.models.weights import check_kind, identify, load_weights
from kerascv_d2l.style_transfer.images import PIXEL_MAX, RGB_MEAN, RGB_STD

_VGG19_HUB_NAME = "timm/vgg19.tv_in1k"
# The convolutions after the last layer, and the classifier by torchvision's and timm's names.
_VGG19_UNUSED = r"features\.(30|32|34)\..*|(classifier|pre_logits|head)\..*"
KERAS_VGG_STYLE_LAYERS = tuple(f"block{block}_conv1" for block in range(1, 6))
KERAS_VGG19_CONTENT_LAYERS, VGG16_CONTENT_LAYERS = ("block4_conv4",), ("block4_conv3",)
# One layer at each of the strides 2, 2, 4, 8, 16, as VGG-19 has them at 1 to 16. The content
# layer has stride 8, as VGG-19's.
MOBILENET_STYLE_LAYERS = tuple(
    f"{name}_relu" for name in ("conv1", "conv_pw_1", "conv_pw_3", "conv_pw_5", "conv_pw_7")
)
MOBILENET_CONTENT_LAYERS = ("conv_pw_5_relu",)
# Where a network has no layers chosen for it: as far down as VGG-19's and MobileNet's go.
BACKBONE_STYLE_STRIDES, BACKBONE_CONTENT_STRIDE = (2, 4, 8, 16), 8
_KERAS_FILES = (".h5", ".hdf5", ".keras")
POOLINGS = ("average", "max")
# What models take, in the terms of `keras.applications` -> the way there from pixels 0-255;
# None for the normalised image itself.
PREPROCESSING = {
    "torch": None,
    "tf": preprocessing.to_unit_range,
    "caffe": preprocessing.caffe,
    "0-255": preprocessing.nothing,
    "0-1": lambda pixels: pixels / PIXEL_MAX,
}


class Network:
    """A frozen network seen as a function from a normalised image to features.

    Attributes:
        taps: dict layer -> position among the model's outputs.
        content_layers: tuple of layers, keys of `taps`.
        style_layers: tuple of layers, keys of `taps`.
        model: the `keras.Model` inside, with one output for each of `taps`.
    """

    def __init__(self, model, layers, content_layers, style_layers, pixels="torch"):
        """Wrap a model whose outputs are the layers.

        Args:
            model: `keras.Model` with one output `(batch, h, w, c)` for every entry of
                `layers`; it is made not trainable.
            layers: hashable names of the outputs, in order.
            content_layers: those that tell content.
            style_layers: those that tell style.
            pixels: what the model takes, a key of `PREPROCESSING`.

        Raises:
            InputError: if a content or style layer is not among the layers, or `pixels` is
                not known.
        """
        if pixels not in PREPROCESSING:
            raise InputError(f"pixels = {pixels!r} must be one of {list(PREPROCESSING)}")
        self.taps = {layer: position for position, layer in enumerate(layers)}
        self.content_layers, self.style_layers = tuple(content_layers), tuple(style_layers)
        self._positions(self.content_layers + self.style_layers)
        model.trainable = False
        self.model = model
        self._preprocess = PREPROCESSING[pixels]

    def _positions(self, layers):
        unknown = [layer for layer in layers if layer not in self.taps]
        if unknown:
            raise InputError(f"the network gives no layer {unknown}, only {list(self.taps)}")
        return [self.taps[layer] for layer in layers]

    def features(self, X):
        """Compute the outputs of all layers.

        Args:
            X: float32 `(batch, h, w, 3)`, normalised.

        Returns:
            list of float `(batch, h / s, w / s, c)` in the order of `taps`.
        """
        if self._preprocess is not None:
            with dtype_scope("float32"):
                X = self._preprocess(X * (PIXEL_MAX * RGB_STD) + PIXEL_MAX * RGB_MEAN)
        return _as_list(self.model(X, training=False))

    def extract(self, X, content_layers=None, style_layers=None):
        """Compute content and style features of an image.

        Args:
            X: float32 `(batch, h, w, 3)`, normalised.
            content_layers: layers, None for the network's own.
            style_layers: layers, None for the network's own.

        Returns:
            `(contents, styles)`: lists of float `(batch, h / s, w / s, c)`, in the order of
            the layers.

        Raises:
            InputError: if the network does not give a layer.
        """
        contents = self._positions(
            self.content_layers if content_layers is None else content_layers
        )
        styles = self._positions(self.style_layers if style_layers is None else style_layers)
        features = self.features(X)
        return [features[i] for i in contents], [features[i] for i in styles]

    def shapes(self, image_shape):
        """Compute the height and width of every output for an image.

        Args:
            image_shape: `(height, width)` in pixels.

        Returns:
            list of `(height, width)` in the order of `taps`.

        Raises:
            InputError: if the image is too small for the network.
        """
        try:
            shapes = _as_list(self.model.compute_output_shape((1, *image_shape, 3)), of=list)
            shapes = [shape[1:3] for shape in shapes]
        except ValueError:  # a window larger than what it slides over
            shapes = [(0, 0)]
        if any(0 in shape for shape in shapes):
            raise InputError(
                f"image_shape = {tuple(image_shape)} is too small for the network, whose coarsest "
                "layer is then empty: take a larger shape"
            )
        return [tuple(shape) for shape in shapes]


def _as_list(outputs, of=(list, tuple)):
    return list(outputs) if isinstance(outputs, of) else [outputs]


def average_pooled(model):
    """Replace max pooling by average pooling.

    The gradient of a maximum reaches one pixel of a window, that of a mean all of them. So an
    image optimised through max pooling changes in single pixels, which networks that never saw
    a photograph do nothing against: dots all over it.

    Args:
        model: functional `keras.Model`.

    Returns:
        `keras.Model` of the same weights, or `model` itself if it has no max pooling.

    Source:
        Gatys et al., Image Style Transfer Using Convolutional Neural Networks (2016), section 2.
    """
    if not any(isinstance(layer, keras.layers.MaxPooling2D) for layer in model.layers):
        return model

    def clone(layer):
        kind = type(layer)
        if kind is keras.layers.MaxPooling2D:
            kind = keras.layers.AveragePooling2D
        return kind.from_config(layer.get_config())

    result = keras.models.clone_model(model, clone_function=clone)
    result.set_weights(model.get_weights())
    return result


def named_network(name, weights=None, dtype=None, seed=None, pooling="max"):
    """Build a network by its name.

    Args:
        name: "vgg19" (torchvision's, the book's), "keras_vgg19", "vgg16", "mobilenet" with or
            without a width multiplier ("mobilenet_0.75"), or any other name that `backbone`
            knows: its feature maps at strides 2 to 16 tell style, the one at 8 content.
        weights: "imagenet", path of a file, or None or "none" for random weights.
        dtype: Keras dtype policy, None for the global one.
        seed: int for random weights.
        pooling: "max" as the network was trained, the book's, or "average" in its place, which
            gives a smoother image (`average_pooled`).

    Returns:
        `Network`.

    Raises:
        InputError: if there is no such network, or its weights cannot be had or do not fit.
    """
    if pooling not in POOLINGS:
        raise InputError(f"pooling = {pooling!r} must be one of {POOLINGS}")
    if seed is not None:
        keras.utils.set_random_seed(seed)
    try:
        network = _by_name(name, None if weights == "none" else weights, dtype, seed)
    except InputError as error:
        raise InputError(
            f"network {name}, weights {weights}: {error}\nTo go on without: weights none (random "
            "weights, which know nothing of objects), or another network's file, as network "
            "mobilenet, weights FILE"
        ) from error
    if pooling == "average":
        network.model = average_pooled(network.model)
        network.model.trainable = False
    return network


def _by_name(name, weights, dtype, seed):
    base, _, width = name.partition("_")
    if name == "vgg19":
        return torchvision_vgg19(weights, dtype, seed)
    if name in ("keras_vgg19", "vgg16"):
        return {"keras_vgg19": keras_vgg19, "vgg16": vgg16}[name](weights, dtype)
    if base == "mobilenet":
        backbones.check_weights(name, None)
        return mobilenet(weights, dtype, float(width) if width else None)
    with dtype_scope(dtype):
        strides = [s for s in BACKBONE_STYLE_STRIDES if s in backbones.strides_of(name)]
        model = backbones.backbone(name, weights, strides)
    content = BACKBONE_CONTENT_STRIDE if BACKBONE_CONTENT_STRIDE in strides else strides[-1]
    return Network(model, strides, [content], strides, pixels="0-255")


def torchvision_vgg19(weights=None, dtype=None, seed=None):
    """Build VGG-19 of torchvision with the book's layers.

    Args:
        weights: path of a safetensors file with torchvision's names, "imagenet" for
            torchvision's own (`timm/vgg19.tv_in1k` on the Hugging Face Hub, kept in its cache,
            else downloaded), or None for random weights.
        dtype: Keras dtype policy; "mixed_bfloat16" halves the time of a step on processors
            with bfloat16 arithmetic.
        seed: int for random weights.

    Returns:
        `Network` with torchvision's indices as layers.

    Raises:
        InputError: if the file is missing or does not fit.
    """
    layers = BOOK_STYLE_LAYERS + BOOK_CONTENT_LAYERS
    model = vgg19_features(layers, dtype=dtype, seed=seed)
    if weights is not None:
        if str(weights).endswith(_KERAS_FILES):
            # Its tensors would fit, but they were trained on other pixels (BGR, 0-255).
            raise InputError(
                f"weights {weights}: a file of Keras is not one of torchvision's VGG-19, which "
                "is .safetensors; the network for it is keras_vgg19"
            )
        load_weights(model, weights, hub_name=_VGG19_HUB_NAME, unused=_VGG19_UNUSED)
    return Network(model, layers, BOOK_CONTENT_LAYERS, BOOK_STYLE_LAYERS)


def keras_vgg19(weights=None, dtype=None):
    """Build VGG-19 of keras.applications with the book's layers, all of them after ReLU.

    Args:
        weights: "imagenet" (kept in Keras' cache, else downloaded), path of a file that Keras
            wrote, or None for random weights.
        dtype: Keras dtype policy.

    Returns:
        `Network` with Keras' layer names.

    Raises:
        InputError: if the file is missing or does not fit.
    """
    model = _application(keras.applications.VGG19, weights, dtype)
    return from_model(model, KERAS_VGG19_CONTENT_LAYERS, KERAS_VGG_STYLE_LAYERS, "caffe")


def vgg16(weights=None, dtype=None):
    """Build VGG-16 of keras.applications with the layers that the book takes of VGG-19.

    Args:
        weights: as for `keras_vgg19`.
        dtype: Keras dtype policy.

    Returns:
        `Network` with Keras' layer names.

    Raises:
        InputError: if the file is missing or does not fit.
    """
    model = _application(keras.applications.VGG16, weights, dtype)
    return from_model(model, VGG16_CONTENT_LAYERS, KERAS_VGG_STYLE_LAYERS, "caffe")


def mobilenet(weights=None, dtype=None, alpha=None):
    """Build MobileNet v1 of keras.applications.

    Args:
        weights: "imagenet", path of a file that Keras wrote, or None for random weights.
        dtype: Keras dtype policy.
        alpha: width of the network; None is read from the file, else 1.

    Returns:
        `Network` with Keras' layer names.

    Raises:
        InputError: if the file is missing or does not fit.
    """
    if alpha is None:
        alpha = _mobilenet_alpha(weights) if weights not in (None, "imagenet") else 1.0
    model = _application(keras.applications.MobileNet, weights, dtype, alpha=alpha)
    return from_model(model, MOBILENET_CONTENT_LAYERS, MOBILENET_STYLE_LAYERS, "tf")


def _application(build, weights, dtype, **arguments):
    with dtype_scope(dtype):
        return backbones.keras_network(
            build, weights, include_top=False, input_shape=(None, None, 3), **arguments
        )


def _mobilenet_alpha(path):
    """Tell the width of the MobileNet whose weights a file holds."""
    check_kind(Path(path))
    base, _, width = (identify(Path(path)) or "").partition("_")
    if base != "mobilenet":
        raise InputError(
            f"weights {path}: the width of the MobileNet cannot be read from it; name the network "
            "with its width, as mobilenet_0.75"
        )
    return float(width or 1)


def from_model(model, content_layers, style_layers, pixels):
    """Take any Keras network by the names of its layers.

    Args:
        model: functional `keras.Model` of one image input `(batch, h, w, 3)`.
        content_layers: names of layers that tell content.
        style_layers: names of layers that tell style.
        pixels: what the model takes, in the terms of `keras.applications`: "torch" (RGB
            normalised by ImageNet's mean and standard deviation), "tf" (RGB in [-1, 1]),
            "caffe" (BGR 0-255 less the mean), "0-255" or "0-1" (RGB).

    Returns:
        `Network`.

    Raises:
        InputError: if a layer is not in the model or gives no features with height and
            width, or `pixels` is not one of these.
    """
    layers = tuple(dict.fromkeys((*style_layers, *content_layers)))
    known = {layer.name: layer for layer in model.layers}
    for name in layers:
        if name not in known:
            raise InputError(f"layer {name!r} is not in {model.name}, which has {list(known)}")
        if len(known[name].output.shape) != 4:
            raise InputError(
                f"layer {name!r} of {model.name} gives {known[name].output.shape}, which has no "
                "height and width"
            )
    outputs = [known[name].output for name in layers]
    return Network(
        keras.Model(model.inputs[0], outputs), layers, content_layers, style_layers, pixels
    )
