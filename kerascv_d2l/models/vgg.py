"""VGG-19 as torchvision defines it, as a source of features for style transfer."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.convolution import Conv2D

# torchvision's `vgg19().features`: channels of the 3 x 3 convolutions, each followed by a
# ReLU; "pool" is 2 x 2 max-pooling. Counting all three kinds gives torchvision's indices 0-36.
_CONFIGURATION = (
    *(64, 64, "pool", 128, 128, "pool"),
    *(256, 256, 256, 256, "pool"),
    *(512, 512, 512, 512, "pool", 512, 512, 512, 512, "pool"),
)
BOOK_STYLE_LAYERS = (0, 5, 10, 19, 28)  # the first convolution of each block
BOOK_CONTENT_LAYERS = (25,)  # the last convolution of block 4


def vgg19_features(layers=BOOK_STYLE_LAYERS + BOOK_CONTENT_LAYERS, dtype=None, seed=None):
    """VGG-19 up to the last of the wanted layers, giving the output of each.

    torchvision's ReLU works in place: who keeps the output of convolution i and lets the
    network run on finds it overwritten by ReLU i + 1. So the book compares features after
    ReLU, except those of the last layer, after which nothing runs. The same values come out
    here. Pooling drops an odd last row or column, as in torchvision.

    Args:
        layers: torchvision's indices into `vgg19().features`, 0 to 36, in the order in
            which the outputs are wanted.
        dtype: Keras dtype policy of the layers, for example "mixed_bfloat16"; None is the
            global policy.
        seed: int for the random weights (He-normal over the outputs, biases 0, as
            torchvision initialises them), or None.

    Returns:
        `keras.Model`, not trainable. Input `(batch, h, w, 3)`, RGB normalised with
        ImageNet's mean and standard deviation, h and w free. Output: list of
        `(batch, h / s, w / s, channels)`. Convolution i is called `features_i`, so that
        torchvision's `features.i.weight` finds it.

    Raises:
        InputError: if an index is not in 0-36.

    Source:
        torchvision 0.29, models/vgg.py; D2L 1.0.3, section 14.12.3.
    """
    layers = tuple(layers)
    kinds = []
    for entry in _CONFIGURATION:
        kinds += ["pool"] if entry == "pool" else [entry, "relu"]
    if not layers or not all(isinstance(i, int) and 0 <= i < len(kinds) for i in layers):
        raise InputError(
            f"layers = {layers} must be one or more of torchvision's indices 0 to {len(kinds) - 1} "
            "into vgg19().features (0, 5, 10, 19, 28, 25 in the book)"
        )
    inputs = x = keras.Input((None, None, 3), dtype="float32")
    outputs = []
    seeds = keras.random.SeedGenerator(seed)
    for i, kind in enumerate(kinds[: max(layers) + 1]):
        if kind == "pool":
            x = keras.layers.MaxPooling2D(2, name=f"features_{i}", dtype=dtype)(x)
        elif kind == "relu":
            x = keras.layers.ReLU(name=f"features_{i}", dtype=dtype)(x)
        else:
            x = Conv2D(
                kind,
                3,
                padding="same",
                kernel_initializer=keras.initializers.VarianceScaling(
                    2.0, "fan_out", "untruncated_normal", seed=seeds
                ),
                name=f"features_{i}",
                dtype=dtype,
            )(x)
        outputs.append(x)
    for i in range(len(outputs) - 1):
        if kinds[i + 1] == "relu":  # works in place: what stood at i is gone
            outputs[i] = outputs[i + 1]
    model = keras.Model(inputs, [outputs[i] for i in layers], name="vgg19_features")
    model.trainable = False
    return model
