"""Networks that are quick to trace, in place of real ones."""

import keras

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
