"""Fully convolutional networks: a class score for every class at every pixel."""

import math

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.upsampling import (
    BilinearUpsampling,
    CropLike,
    FitToStride,
    PadToMultiple,
    TransposedUpsampling,
)
from kerascv_d2l.models.backbones import backbone as build_backbone
from kerascv_d2l.models.segmentation import SegmentationModel, as_classes, as_input_shape

DEEPEST_STRIDE = 32  # of the last feature map of the usual classifiers
STRIDES = (8, 16, 32)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class FCN(SegmentationModel):
    """FCN-32s, -16s or -8s: a backbone's feature maps, scored and upsampled to the image.

    `stride=32` is the book's: a 1 x 1 convolution scores the last feature map, a transposed
    convolution upsamples the scores 32 times. With 16 or 8 the scores are upsampled 2 times
    first, added to those of the finer map, and so on.

    Calling it with pixels 0-255, `(batch, height, width, 3)`, RGB, uint8 or float, gives float32
    scores `(batch, height, width, classes)` before the softmax. Any size works: where 32 does
    not divide a side, the image is padded (see `PadToMultiple`) and the scores are cropped.

    Args:
        class_names: sequence of str, background included; or int, the number of classes.
        backbone: name of a network, see `models.backbones.names()`; or a `keras.Model` from
            pixels to a list of feature maps at strides `stride`, ..., 32.
        weights: for a backbone by name: None, "imagenet" or a file.
        stride: 32, 16 or 8, of the finest map that is scored.
        trainable_upsampling: True: transposed convolutions, which start as bilinear
            interpolation and learn. False: fixed bilinear interpolation, faster and with no
            weights.
        image_size: `(height, width)`, for a network of one size (the NASNets need it); else None.
        colors: RGB 0-255 `(classes, 3)`, or None for VOC's.
        segmenter_options: dict, see `SegmentationModel`.
        name: str, by default "fcn32", ...

    Raises:
        InputError: if an argument is out of range, no network has that name, or the weights do
            not fit.

    Source:
        D2L 1.0.3, section 14.11; Long, Shelhamer, Darrell: Fully Convolutional Networks for
        Semantic Segmentation (2015).
    """

    def __init__(
        self,
        class_names,
        backbone="resnet18",
        weights=None,
        stride=DEEPEST_STRIDE,
        trainable_upsampling=True,
        image_size=None,
        colors=None,
        segmenter_options=None,
        name=None,
        **kwargs,
    ):
        classes = as_classes(class_names, colors)
        if stride not in STRIDES:
            raise InputError(f"stride={stride}: expected 32, 16 or 8.")
        strides = [s for s in STRIDES if s >= stride]
        input_shape = as_input_shape(image_size)
        network = feature_network(backbone, weights, strides, input_shape)
        pixels = keras.Input(input_shape, name="pixels")
        maps = dict(zip(strides, feature_maps(network, strides, pixels), strict=True))
        scores = _upsampled_scores(maps, len(classes[0]), trainable_upsampling)
        scores = CropLike(dtype="float32", name="crop")(scores, pixels)
        super().__init__(inputs=pixels, outputs=scores, name=name or f"fcn{stride}", **kwargs)
        settings = {
            "stride": stride,
            "trainable_upsampling": trainable_upsampling,
            "image_size": image_size,
            "segmenter_options": segmenter_options,
        }
        self.describe(classes, DEEPEST_STRIDE, network, settings)


def _upsampled_scores(maps, num_classes, trainable):
    """Score the maps `{stride: (batch, h, w, channels)}` and upsample their sum to the image."""

    # The scores stay float32 under mixed precision: they are sums of many terms and small.
    def score(at):
        layer = keras.layers.Conv2D(num_classes, 1, dtype="float32", name=f"score{at}")
        return layer(maps[at])

    def enlarge(scores, factor, layer_name):
        if trainable:
            layer = TransposedUpsampling(num_classes, factor, dtype="float32", name=layer_name)
        else:
            layer = BilinearUpsampling(factor, dtype="float32", name=layer_name)
        return layer(scores)

    *finer, deepest = sorted(maps)
    scores = score(deepest)
    for at in reversed(finer):
        scores = enlarge(scores, 2, f"enlarge_to{at}")
        scores = keras.layers.Add(dtype="float32", name=f"add{at}")([scores, score(at)])
    return enlarge(scores, min(maps), "enlarge_to1")


def feature_network(backbone, weights, strides, input_shape):
    """Build the network of a name, or check the one given.

    Args:
        backbone: str or `keras.Model`.
        weights: None, "imagenet" or a file; None with a `keras.Model`.
        strides: wanted strides in pixels, finest first.
        input_shape: `(height, width, 3)` of the images, None where it may vary.

    Returns:
        `keras.Model` from pixels to a list of feature maps, one for each stride.

    Raises:
        InputError: if the model has other outputs than these, or the name or
            weights do not fit.
    """
    if not isinstance(backbone, keras.Model):
        options = {}
        if None not in input_shape:  # some networks are built for one size
            multiple = max(strides)
            sides = (-(-side // multiple) * multiple for side in input_shape[:2])
            options["input_shape"] = (*sides, 3)
        return build_backbone(backbone, weights=weights, strides=tuple(strides), **options)
    if weights is not None:
        raise InputError(
            f"weights={weights!r} with a backbone that is a model already: "
            "load them into the model, or give the backbone's name."
        )
    height, maps = _probe(backbone, strides)
    # Networks that do not pad have somewhat smaller maps: the nearest power of two is meant.
    found = [2 ** round(math.log2(height / features.shape[1])) for features in maps]
    if found != list(strides):
        raise InputError(
            f"backbone {backbone.name!r} gives feature maps at strides {found}: "
            f"expected {list(strides)}, in this order."
        )
    return backbone


def feature_maps(network, strides, pixels):
    """Apply a network to images of any size, padded as it needs.

    Args:
        network: as `feature_network` gives it.
        strides: its strides in pixels, finest first.
        pixels: symbolic `(batch, height, width, 3)`.

    Returns:
        list of symbolic `(batch, h, w, channels)`: h is the height over the
        stride, after the height is rounded up to a multiple of the largest stride.
    """
    multiple = max(strides)
    height, maps = _probe(network, strides)
    short = [features.shape[1] * s < height for features, s in zip(maps, strides, strict=True)]
    minimum = 0
    if any(short):
        # Without padding nothing is left of a small image.
        minimum = next(
            side for side in range(multiple, height + 1, multiple) if _leaves_maps(network, side)
        )
    pixels = PadToMultiple(multiple, minimum, name="pad")(pixels)
    return [
        FitToStride(s, name=f"fit{s}")(features, pixels) if falls_short else features
        for s, features, falls_short in zip(
            strides, keras.tree.flatten(network(pixels)), short, strict=True
        )
    ]


def _probe(network, strides):
    """Height of an image, and the shapes of its feature maps, as `keras.KerasTensor`."""
    # Large, so that a few missing rows do not hide the stride.
    height, width = (side or 32 * max(strides) for side in network.input_shape[1:3])
    probe = keras.KerasTensor((1, height, width, 3))
    return height, keras.tree.flatten(network.compute_output_spec(probe))


def _leaves_maps(network, side):
    try:
        maps = network.compute_output_spec(keras.KerasTensor((1, side, side, 3)))
    except ValueError:
        return False
    return all(min(features.shape[1:3]) > 0 for features in keras.tree.flatten(maps))
