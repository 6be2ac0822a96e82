"""Feature pyramid networks: maps of several strides with the same channels and meaning."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.models.backbones import backbone as build_backbone
from kerascv_d2l.models.folding import FoldingModel
from kerascv_d2l.ops.roi_sampling import map_size

EXTRAS = (None, "pool", "p6p7", "p6p7_from_c5")


def FPN(  # noqa: N802
    backbone,
    weights=None,
    strides=(4, 8, 16, 32),
    channels=256,
    extra="pool",
    input_shape=(None, None, 3),
    name=None,
):
    """Build a network from images to the maps of a feature pyramid.

    The model is flat: the layers of the backbone keep their names, those of
    the pyramid are listed at `feature_pyramid`.

    Args:
        backbone: name of a network, see `models.backbones.names()`; or a
            `keras.Model` from pixels to a list of feature maps, fine to coarse.
        weights: for a backbone by name: None, "imagenet" or a file.
        strides: for a backbone by name: of its maps, fine to coarse.
        channels: int, of every map of the pyramid.
        extra: as for `feature_pyramid`.
        input_shape: `(height, width, 3)`; None where the size may vary.
        name: str, by default "fpn_" and that of the backbone.

    Returns:
        `keras.Model` from pixels 0-255 `(batch, h, w, 3)` to a list of maps
        `(batch, h / stride, w / stride, channels)`, fine to coarse.

    Raises:
        InputError: if no network has that name or those strides, or an argument
            is out of range.

    Source:
        Lin et al. 2017, "Feature Pyramid Networks for Object Detection".
    """
    if isinstance(backbone, str):
        backbone = build_backbone(backbone, weights, sorted(strides), input_shape)
    maps = backbone.outputs
    outputs = feature_pyramid(maps, channels, extra)
    return FoldingModel(backbone.inputs[0], outputs, name=name or f"fpn_{backbone.name}")


def feature_pyramid(maps, channels=256, extra="pool", prefix="fpn"):
    """Put a feature pyramid on top of feature maps.

    From the coarsest map on, each level is the 1 × 1 convolution of its map
    plus the level above, enlarged to the same size by repetition; what leaves
    the pyramid has gone through a 3 × 3 convolution.

    Layers, with i counting from the finest map (torchvision's
    `inner_blocks.i.0` and `layer_blocks.i.0`): `{prefix}_inner_i`, `{prefix}_layer_i`;
    and `{prefix}_p6`, `{prefix}_p7` (torchvision's `extra_blocks.p6` and `.p7`).

    Args:
        maps: list of Keras tensors `(batch, h, w, c)`, fine to coarse. A map
            need not be exactly half as large as the one before.
        channels: int, of every map that comes out.
        extra: None; "pool": one map more, every second pixel of the last (R-CNN);
            "p6p7": two maps more, by 3 × 3 convolutions of stride 2 from the last
            level (RetinaNet), or "p6p7_from_c5" from the last of `maps`.
        prefix: str, of the layers' names.

    Returns:
        list of Keras tensors, fine to coarse, all with `channels` channels.

    Raises:
        InputError: if an argument is out of range.

    Source:
        Lin et al. 2017; `torchvision.ops.FeaturePyramidNetwork`.
    """
    maps = list(maps)
    if channels < 1 or extra not in EXTRAS or not maps:
        raise InputError(
            f"channels={channels}, extra={extra!r}, {len(maps)} maps: expected at least one "
            f"channel and one map, and extra one of {', '.join(map(str, EXTRAS))}."
        )
    levels, above = [], None
    for i in reversed(range(len(maps))):
        inner = _conv(channels, 1, f"{prefix}_inner_{i}")(maps[i])
        if above is not None:
            enlarged = RepeatLike(name=f"{prefix}_enlarged_{i}")([above, inner])
            inner = keras.layers.Add(name=f"{prefix}_sum_{i}")([inner, enlarged])
        above = inner
        levels.insert(0, _conv(channels, 3, f"{prefix}_layer_{i}")(inner))
    if extra == "pool":
        levels.append(keras.layers.MaxPooling2D(1, 2, name=f"{prefix}_p6")(levels[-1]))
    elif extra is not None:
        p6 = _halve(maps[-1] if extra == "p6p7_from_c5" else levels[-1], channels, f"{prefix}_p6")
        relu = keras.layers.ReLU(name=f"{prefix}_p6_relu")(p6)
        levels += [p6, _halve(relu, channels, f"{prefix}_p7")]
    return levels


def _halve(x, channels, name):
    # The same padding on all sides: Keras' "same" pads an even size on one side only.
    x = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x)
    return _conv(channels, 3, name, strides=2, padding="valid")(x)


def _conv(channels, kernel_size, name, strides=1, padding="same"):
    return Conv2D(
        channels,
        kernel_size,
        strides,
        padding,
        # torchvision: kaiming_uniform_(a=1)
        kernel_initializer=keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
        name=name,
    )


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class RepeatLike(keras.layers.Layer):
    """Enlarge a map to the size of another by repeating pixels.

    Each is repeated as often as is needed to cover the other map, and what is too much cut off
    below and to the right: where the other is twice as large or one less, this is PyTorch's
    "nearest". Called with `[map, like]`, `(batch, h, w, c)` and `(batch, h', w', …)`; gives
    `(batch, h', w', c)`.
    """

    def call(self, inputs):
        # `ResizeNearestNeighbor` has no gradient under XLA.
        x, like = inputs
        _, height, width, _ = map_size(like)
        for axis, wanted in ((1, height), (2, width)):
            x = tf.repeat(x, -(-wanted // map_size(x)[axis]), axis=axis)
        return x if x.shape[1:3] == (height, width) else x[:, :height, :width]

    def compute_output_shape(self, input_shape):
        x, like = input_shape
        return (x[0], *like[1:3], x[3])
