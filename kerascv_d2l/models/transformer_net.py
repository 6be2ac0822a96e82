"""A small residual network that paints any image in the one style it was trained for."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.upsampling import CropLike
from kerascv_d2l.models.common import any_images, dtype_scope
from kerascv_d2l.ops.upsampling import crop

_HALF = 127.5  # of the range of pixels
_CORRECTION = 0.1  # of half the range, for 1 of the last convolution


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class EdgePadding(keras.layers.Layer):
    """Pad an image by its border pixels, where zeros would paint a dark frame.

    Unlike reflection it works for an image of any size, down to one pixel.
    """

    def __init__(self, width, **kwargs):
        """Set the width.

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


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Repaint(keras.layers.Layer):
    """Mix the colours of an image, add a correction, and clip the result to 0-255.

    The colours are mixed by a learned matrix, at first the identity: a palette of few colours
    has to lose those of the image first. The correction is added in units of a twentieth of the
    range of pixels: every step of Adam changes all weights by the learning rate, and in units of
    half the range the first few steps alone went to glaring colours. What goes beyond black and
    white is clipped, but its gradient is not, so training can bring it back: a sigmoid in place
    of the sum learned glaring colours and stayed there, as its gradient ends where it
    saturates.
    """

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(3, 3), initializer="identity", name="matrix")

    def call(self, inputs):
        """`[correction, pixels 0-255]`, both `(batch, h, w, 3)`, to float32 pixels 0-255."""
        correction, pixels = (keras.ops.cast(x, "float32") for x in inputs)
        colours = keras.ops.matmul(pixels / _HALF - 1, self.matrix) + _CORRECTION * correction
        painted = _HALF * (colours + 1)
        return painted + keras.ops.stop_gradient(keras.ops.clip(painted, 0, 2 * _HALF) - painted)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class TransformerNet(keras.Model):
    """Paint images in the style that the network was trained for, by `FastStyleTrainer`.

    From pixels 0-255 `(batch, h, w, 3)`, uint8 or float, of any size, to float32 pixels 0-255
    of the same size. Untrained, it gives the image back.

    What it learns is a correction of the image, and each upsampling sees what the
    downsampling saw at that size: the content need not pass through the narrow middle, and is
    there from the first training step on. Upsampling repeats pixels and then convolves:
    transposed convolutions would leave a checkerboard. Instance norm removes the contrast of
    the image, which belongs to the content.

    Args:
        width: int, channels at full size; twice and four times that at half and a quarter.
        residual_blocks: int, blocks at a quarter of the size.
        dtype: policy of the layers; None for Keras' global one.
        name: of the model.

    Raises:
        InputError: if a number is not > 0.

    Source:
        Johnson et al., Perceptual Losses for Real-Time Style Transfer (2016), with instance
        norm by Ulyanov et al. (2016), upsampling by Odena et al. (2016) and skip connections
        by Ronneberger et al. (2015).
    """

    task = "style"
    class_names = ()
    image_size = None  # any

    def __init__(self, width=16, residual_blocks=5, dtype=None, name="transformer_net", **kwargs):
        if not (width > 0 and residual_blocks > 0):
            raise InputError(f"width = {width} and residual_blocks = {residual_blocks} must be > 0")
        with dtype_scope(dtype) as policy:
            inputs, outputs = self._build_layers(width, residual_blocks)
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self._settings = {"width": width, "residual_blocks": residual_blocks, "dtype": policy.name}

    @staticmethod
    def _build_layers(width, residual_blocks):
        def convolve(x, filters, kernel_size, strides=1, relu=True):
            x = EdgePadding(kernel_size // 2)(x)
            x = keras.layers.Conv2D(filters, kernel_size, strides)(x)
            x = keras.layers.GroupNormalization(groups=-1, epsilon=1e-5)(x)
            return keras.layers.ReLU()(x) if relu else x

        inputs = keras.Input((None, None, 3), name="pixels")
        full = keras.layers.Rescaling(1 / _HALF, -1)(inputs)
        full = convolve(full, width, 5)  # (batch, h, w, width)
        half = convolve(full, 2 * width, 3, 2)
        x = convolve(half, 4 * width, 3, 2)
        for _ in range(residual_blocks):
            residual = convolve(convolve(x, 4 * width, 3), 4 * width, 3, relu=False)
            x = keras.layers.Add()([x, residual])
        for filters, skip in ((2 * width, half), (width, full)):
            x = CropLike()(keras.layers.UpSampling2D(2)(x), skip)
            x = convolve(keras.layers.Concatenate()([x, skip]), filters, 3)
        x = keras.layers.Conv2D(3, 5, kernel_initializer="zeros", name="correction")(
            EdgePadding(2)(x)
        )
        return inputs, Repaint(dtype="float32")([x, inputs])

    def stylize(self, images):
        """Paint images.

        Args:
            images: `(batch, h, w, 3)` pixels 0-255, uint8 or float.

        Returns:
            dict: `pictures`, uint8 `(batch, h, w, 3)`.
        """
        pixels = tf.clip_by_value(tf.round(self(images, training=False)), 0, 2 * _HALF)
        return {"pictures": tf.cast(pixels, tf.uint8)}

    def endpoints(self):
        """Give what an export offers: `stylize`, with its signature."""
        return {"stylize": (self.stylize, (any_images(),))}

    def get_config(self):
        """Give the arguments of the constructor."""
        return {**self._settings, "name": self.name}
