"""Initial weights that Keras has not."""

import keras
import numpy as np

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.convolution import bilinear_weights


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class Bilinear(keras.initializers.Initializer):
    """Start a transposed convolution as bilinear enlargement, each channel for itself.

    For kernels `(height, width, out_channels, in_channels)`, as
    `keras.layers.Conv2DTranspose` keeps them. A kernel of side 2s with stride s
    and `padding="same"` enlarges s times.
    """

    def __call__(self, shape, dtype=None):
        """Make the weights.

        Args:
            shape: the four numbers of the kernel's shape.
            dtype: name of the wanted type; Keras' float type by default.

        Returns:
            a tensor of that shape and type.

        Raises:
            InputError: if the shape has not four numbers.
        """
        if len(shape) != 4:
            raise InputError(
                f"Bilinear makes kernels (height, width, out_channels, in_channels), asked for "
                f"shape {tuple(shape)}: use it in Conv2DTranspose."
            )
        height, width, out_channels, in_channels = shape
        square = bilinear_weights(height)[:, None] * bilinear_weights(width)  # (height, width)
        kernel = square[:, :, None, None] * np.eye(out_channels, in_channels)
        return keras.ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())
