"""A small residual network that paints any picture in the one style it was trained for."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.upsampling import CropLike
from kerascv_d2l.ops.upsampling import crop

_PIXEL_MAX = 255.0
_MARGIN = 0.1  # of the range of a sigmoid, kept free below black and above white


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class EdgePadding(keras.layers.Layer):
    """Continues a picture by its border pixels, where zeros would paint a dark frame.

    Unlike mirroring it works for a picture of any size, down to one pixel.
    """

    def __init__(self, width, **kwargs):
        """Remember the width.

        Args:
            width: int, pixels on each side.
            **kwargs: of `keras.layers.Layer`.
        """
        super().__init__(**kwargs)
        self.width = width

    def call(self, x):
        """`(batch, h, w, c)` to `(batch, h + 2 width, w + 2 width, c)`."""
        height, width = keras.ops.shape(x)[1:3]
        first, last = crop(x, (0, 0), (1, -1)), crop(x, (height - 1, 0), (1, -1))
        x = keras.ops.concatenate([first] * self.width + [x] + [last] * self.width, 1)
        first, last = crop(x, (0, 0), (-1, 1)), crop(x, (0, width - 1), (-1, 1))
        return keras.ops.concatenate([first] * self.width + [x] + [last] * self.width, 2)

    def get_config(self):
        """The arguments."""
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Repaint(keras.layers.Layer):
    """Changes a picture's colours by a correction, and stays among those that exist.

    The correction is added to the logits of the colours: 0 leaves them exactly as they are, and
    no correction, however large, goes beyond black or white. Black and white stand at 0.1 and
    0.9 of the logits' range, where they can still be moved; what goes beyond them is cut off,
    but the gradient passes, so that it finds its way back.
    """

    def call(self, inputs):
        """`[correction, pixels 0-255]`, both `(batch, h, w, 3)`, to float32 pixels 0-255."""
        correction, pixels = (keras.ops.cast(x, "float32") for x in inputs)
        share = _MARGIN + (1 - 2 * _MARGIN) * pixels / _PIXEL_MAX
        logits = keras.ops.log(share) - keras.ops.log(1 - share)
        share = keras.ops.sigmoid(logits + correction)
        painted = _PIXEL_MAX * (share - _MARGIN) / (1 - 2 * _MARGIN)
        return painted + keras.ops.stop_gradient(keras.ops.clip(painted, 0, _PIXEL_MAX) - painted)


def transformer_net(width=16, residual_blocks=5, name="transformer_net"):
    """Build the network.

    What it learns is a correction of the picture, and each step up sees what the step down saw
    at that size: the content need not pass through the narrow middle, and is there from the
    first step of training on. Steps up repeat pixels and then convolve: transposed
    convolutions would leave a checkerboard. Instance norm takes the contrast of the picture
    out, which is the content's.

    Args:
        width: int, channels at full size; twice and four times that at half and a quarter.
        residual_blocks: int, blocks at a quarter of the size.
        name: of the model.

    Returns:
        `keras.Model`: pixels 0-255 `(batch, h, w, 3)`, uint8 or float, of any size, to float32
        pixels 0-255 of the same size. Untrained, it gives the picture back.

    Raises:
        InputError: if a number is not > 0.

    Source:
        Johnson et al., Perceptual Losses for Real-Time Style Transfer (2016), with instance
        norm by Ulyanov et al. (2016), steps up by Odena et al. (2016) and connections across by
        Ronneberger et al. (2015).
    """
    if not (width > 0 and residual_blocks > 0):
        raise InputError(f"width = {width} and residual_blocks = {residual_blocks} must be > 0")

    def convolve(x, filters, kernel_size, strides=1, relu=True):
        x = EdgePadding(kernel_size // 2)(x)
        x = keras.layers.Conv2D(filters, kernel_size, strides)(x)
        x = keras.layers.GroupNormalization(groups=-1, epsilon=1e-5)(x)
        return keras.layers.ReLU()(x) if relu else x

    inputs = keras.Input((None, None, 3), name="pixels")
    full = keras.layers.Rescaling(2 / _PIXEL_MAX, -1)(inputs)
    full = convolve(full, width, 5)
    half = convolve(full, 2 * width, 3, 2)
    x = convolve(half, 4 * width, 3, 2)
    for _ in range(residual_blocks):
        residual = convolve(convolve(x, 4 * width, 3), 4 * width, 3, relu=False)
        x = keras.layers.Add()([x, residual])
    for filters, across in ((2 * width, half), (width, full)):
        x = CropLike()(keras.layers.UpSampling2D(2)(x), across)
        x = convolve(keras.layers.Concatenate()([x, across]), filters, 3)
    x = keras.layers.Conv2D(3, 5, kernel_initializer="zeros")(EdgePadding(2)(x))
    outputs = Repaint(dtype="float32")([x, inputs])
    return keras.Model(inputs, outputs, name=name)
