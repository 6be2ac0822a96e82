"""Layers that upsample feature maps, and that make images of any size fit a network.

Their configs are Keras' own: the arguments that a layer was made with.
"""

import keras
import tensorflow as tf

from kerascv_d2l.initializers import Bilinear
from kerascv_d2l.ops import upsampling as ops


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class TransposedUpsampling(keras.layers.Layer):
    """Trainable upsampling by a whole factor; starts as bilinear interpolation.

    Same weights and same numbers as `keras.layers.Conv2DTranspose(filters,
    2 * factor, strides=factor, padding="same")`, computed by one matrix product.

    Args:
        filters: int, channels of the result.
        factor: even int, how many times larger the result is.

    Raises:
        InputError: if the factor is odd.
    """

    def __init__(self, filters, factor, **kwargs):
        super().__init__(**kwargs)
        ops.check_factor(factor)
        self.filters = filters
        self.factor = factor

    def build(self, input_shape):
        """Create the weights for inputs `(batch, h, w, channels)`."""
        side = 2 * self.factor
        self.kernel = self.add_weight(
            name="kernel", shape=(side, side, self.filters, input_shape[-1]), initializer=Bilinear()
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        """Upsample `(batch, h, w, channels)` to `(batch, h * factor, w * factor, filters)`."""
        kernel = keras.ops.convert_to_tensor(self.kernel, dtype=self.compute_dtype)
        return tf.nn.bias_add(ops.transposed_upsampling(inputs, kernel, self.factor), self.bias)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class BilinearUpsampling(keras.layers.Layer):
    """Fixed upsampling by a whole factor, bilinear between pixel centres.

    Args:
        factor: int, at least 1.
    """

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        """Upsample `(batch, h, w, channels)` to `(batch, h * factor, w * factor, channels)`."""
        return ops.bilinear_upsampling(inputs, self.factor)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class PadToMultiple(keras.layers.Layer):
    """Repeat the last row and column until both sides are multiples of a number.

    Args:
        multiple: int, at least 1.
        minimum: int, least side of the result; a multiple of `multiple`.
    """

    def __init__(self, multiple, minimum=0, **kwargs):
        # Pixels pass as they come: a cast of 0-255 to float16 would be exact, but of no use.
        super().__init__(autocast=False, **kwargs)
        self.multiple = multiple
        self.minimum = minimum

    def call(self, inputs):
        """Pad `(batch, height, width, channels)` below and to the right."""
        return ops.pad_to_multiple(inputs, self.multiple, self.minimum)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class FitToStride(keras.layers.Layer):
    """Pad feature maps of a network without padding, so that they cover its image.

    Args:
        stride: int, of the maps.
    """

    def __init__(self, stride, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.stride = stride

    def call(self, inputs, pixels):
        """Give `(batch, height / stride, width / stride, c)` for pixels of that height, width."""
        return ops.fit_to_stride(inputs, pixels, self.stride)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class CropLike(keras.layers.Layer):
    """Crop maps below and to the right to the height and width of a second input."""

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs, reference):
        """Crop `(batch, height, width, c)` to the height and width of `reference`."""
        return ops.crop_like(inputs, reference)
