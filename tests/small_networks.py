"""Networks that are quick to trace, in place of real ones."""

import keras

from kerascv_d2l.models import backbones, preprocessing

CHANNELS = {2: 4, 4: 6, 8: 8, 16: 10, 32: 12}


def small_backbone(*strides, padding="same"):
    """A few strided convolutions, in place of a classifier."""
    pixels = keras.Input((None, None, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    maps = {}
    for stride, channels in CHANNELS.items():
        x = keras.layers.Conv2D(
            channels, 3, strides=2, padding=padding, activation="relu", name=f"conv{stride}"
        )(x)
        maps[stride] = x
    return keras.Model(pixels, [maps[stride] for stride in strides], name="small")


def tiny(include_top, weights, input_tensor):
    """A backbone whose graph is built in a second; a MobileNet's takes ten."""
    x = input_tensor
    for k, channels in enumerate((4, 6, 8, 10, 12)):
        x = keras.layers.Conv2D(channels, 3, 2, "same", use_bias=False, name=f"conv{k}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{k}")(x)
        x = keras.layers.ReLU(name=f"relu{k}")(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor)[0], x, name="tiny")


def add_tiny(patch, name="tiny"):
    """Let all models know `tiny` as a backbone, as long as a `pytest.MonkeyPatch` lasts."""
    family = backbones._Family(name, preprocessing.to_unit_range, r"relu\d")
    constructors = backbones._constructors() | {name: tiny}
    patch.setattr(backbones, "_FAMILIES", (*backbones._FAMILIES, family))
    patch.setattr(backbones, "_constructors", lambda: constructors)
