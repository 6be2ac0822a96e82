"""Max-pooling with remembered positions, and unpooling, as Keras layers."""

import keras

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops import unpooling as ops


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class MaxPoolingWithPositions(keras.layers.Layer):
    """Max-pooling that also tells where each maximum was.

    Args:
        pool_size: int, side of a window and step between windows. Rows and
            columns that fill no window are left out.
    """

    def __init__(self, pool_size=2, **kwargs):
        super().__init__(**kwargs)
        if pool_size < 1:
            raise InputError(f"pool_size={pool_size}: expected at least 1.")
        self.pool_size = pool_size

    def call(self, inputs):
        """Give `(pooled, positions)`, both `(batch, height // p, width // p, channels)`."""
        return ops.max_pool_with_positions(inputs, self.pool_size)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {"pool_size": self.pool_size}


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class MaxUnpooling(keras.layers.Layer):
    """Put values back where `MaxPoolingWithPositions` found its maxima, zeros elsewhere.

    Called as `unpool(values, positions, like=before_pooling)`: `values` are those
    that came of the pooled ones, with the same shape as `positions`; `like` is any
    map `(batch, height, width, ...)` of the wanted height and width, usually what
    went into the pooling.
    """

    def call(self, inputs, positions, like):
        """Spread `(batch, h, w, channels)` over `(batch, height, width, channels)`."""
        size = keras.ops.shape(like)[1:3]
        return ops.max_unpool(inputs, positions, size)

    def compute_output_shape(self, inputs_shape, positions_shape, like_shape):
        """Give the shape: size of `like`, channels of `inputs`."""
        return (inputs_shape[0], *like_shape[1:3], inputs_shape[-1])
