"""A small residual network that paints any image in the one style it was trained for."""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.group_norm import GroupNormalization
from kerascv_d2l.layers.upsampling import CropLike
from kerascv_d2l.models.common import any_images, dtype_scope
from kerascv_d2l.ops.upsampling import crop

_HALF = 127.5  # of the range of pixels
_CORRECTION = 0.1  # of half the range, for 1 of the last convolution
# RGB to luminance, red less blue, both less green: orthonormal, little correlated in photographs.
OPPONENT = np.float32([[1, 1, 1], [1, 0, -1], [1, -2, 1]]).T / np.sqrt(np.float32([3, 2, 6]))
_PHOTOGRAPH = (0.6, 0.04, 0.01)  # variances of these in photographs, about
_LEAST_VARIANCE = np.float32([0.01, 0.0036, 0.0036])  # a grey image has no colours to bring out
_CONTRAST = 1.5  # of luminance, over the style's: much of the content is in it


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
    """Give an image the colours of the style, and add a correction.

    Luminance and the two colour differences of each image are brought to mean 0 and variance 1
    over its pixels, and then mixed by a learned matrix and bias, at first the style's
    (`set_palette`). So photographs of any light start with the painting's palette, and the
    correction has only strokes to learn: where it had to learn colours, too, a short training
    found few, and glaring ones.

    The correction is added in units of a twentieth of the range of pixels: every step of Adam
    changes all weights by the learning rate, and in units of half the range the first few steps
    alone went far beyond black and white. In training nothing is clipped, so that the losses see
    what is beyond them, and bring it back.
    """

    def build(self, input_shape):
        self.matrix = self.add_weight(shape=(3, 3), initializer="zeros", name="matrix")
        self.bias = self.add_weight(shape=(3,), initializer="zeros", name="bias")
        self.set_palette(np.zeros(3), np.diag(_PHOTOGRAPH))

    def set_palette(self, mean, covariance):
        """Start from colours.

        Args:
            mean: float `(3,)`, of `opponent` values.
            covariance: float `(3, 3)`, of the same.
        """
        variances, axes = np.linalg.eigh(covariance)
        root = axes * np.sqrt(np.maximum(variances, 0)) @ axes.T  # symmetric: turns them least
        root[0] *= _CONTRAST
        self.matrix.assign(root @ OPPONENT.T)
        self.bias.assign(mean @ OPPONENT.T)

    def call(self, inputs, training=False):
        """Take `[correction, pixels 0-255]`, both `(batch, h, w, 3)`.

        Returns:
            float32 `(batch, h, w, 3)`, pixels; 0-255 but in training.
        """
        correction, pixels = (keras.ops.cast(x, "float32") for x in inputs)
        values = opponent(pixels)
        mean, variance = keras.ops.moments(values, (1, 2), keepdims=True)  # (batch, 1, 1, 3)
        values = (values - mean) * keras.ops.rsqrt(variance + _LEAST_VARIANCE)
        colours = keras.ops.matmul(values, self.matrix) + self.bias + _CORRECTION * correction
        painted = _HALF * (colours + 1)
        return painted if training else keras.ops.clip(painted, 0, 2 * _HALF)


def opponent(pixels):
    """Turn pixels 0-255 `(…, 3)` into luminance and two colour differences, black at -√3, 0, 0."""
    return keras.ops.matmul(pixels / _HALF - 1, OPPONENT)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class TransformerNet(keras.Model):
    """Paint images in the style that the network was trained for, by `FastStyleTrainer`.

    From pixels 0-255 `(batch, h, w, 3)`, uint8 or float, of any size, to float32 pixels 0-255
    of the same size. Untrained, it gives the image in the colours of `set_palette`.

    What it learns is a correction of that (`Repaint`), and the first upsampling sees what the
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
            x = GroupNormalization(groups=-1, epsilon=1e-5)(x)
            return keras.layers.ReLU()(x) if relu else x

        inputs = keras.Input((None, None, 3), name="pixels")
        full = keras.layers.Rescaling(1 / _HALF, -1)(inputs)
        full = convolve(full, width, 5)  # (batch, h, w, width)
        half = convolve(full, 2 * width, 3, 2)
        x = convolve(half, 4 * width, 3, 2)
        for _ in range(residual_blocks):
            residual = convolve(convolve(x, 4 * width, 3), 4 * width, 3, relu=False)
            x = keras.layers.Add()([x, residual])
        x = CropLike()(keras.layers.UpSampling2D(2)(x), half)
        x = convolve(keras.layers.Concatenate()([x, half]), 2 * width, 3)
        x = CropLike()(keras.layers.UpSampling2D(2)(x), full)
        x = convolve(x, width, 3)  # without `full`: strokes are no finer than half the size
        x = keras.layers.Conv2D(3, 5, kernel_initializer="zeros", name="correction")(
            EdgePadding(2)(x)
        )
        return inputs, Repaint(dtype="float32", name="repaint")([x, inputs])

    def set_palette(self, images, weights=None):
        """Start from the mean and the covariance of the colours of images.

        Args:
            images: list of pixels 0-255 `(h, w, 3)`, the styles.
            weights: list of float, None for equal ones.
        """
        values = [np.reshape(opponent(np.float32(image)), (-1, 3)) for image in images]
        shares = np.concatenate([np.full(len(x), 1 / len(x)) for x in values])
        if weights is not None:
            shares *= np.repeat(weights, [len(x) for x in values])
        shares, values = shares / shares.sum(), np.concatenate(values)
        mean = shares @ values
        covariance = (values - mean).T * shares @ (values - mean)
        self.get_layer("repaint").set_palette(mean, covariance)

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
