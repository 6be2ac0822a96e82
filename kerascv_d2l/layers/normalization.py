"""Batch norm as PyTorch computes it, with TensorFlow's fused kernel."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm over the last axis of images, with PyTorch's momentum, epsilon and statistics.

    Keras' layer stores the biased variance of a batch, PyTorch's the unbiased
    one (times n / (n - 1)); TensorFlow's fused kernel, used here, gives that
    one too, and spares several passes over the feature map. Frozen
    (`trainable = False`), the layer runs in inference mode and keeps its
    statistics, as Keras' does.

    Args:
        momentum: share of the old statistics that stays at a step (PyTorch
            counts the other share, 0.1).
        epsilon: added to the variance.
        **arguments: those of `keras.layers.BatchNormalization`, but for
            `axis`, `renorm` and `synchronized`.

    Raises:
        InputError: if the input is not `(batch, height, width, channels)`.

    Source:
        torch.nn.BatchNorm2d, which divides by the biased and remembers the
        unbiased variance.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **arguments):
        super().__init__(momentum=momentum, epsilon=epsilon, **arguments)

    def build(self, input_shape):
        if len(input_shape) != 4:
            raise InputError(
                f"{self.name}: expected (batch, height, width, channels), got {input_shape}."
            )
        super().build(input_shape)

    def call(self, inputs, training=None, mask=None):
        """Normalise `(batch, h, w, c)`; in training also move the statistics."""
        batch_statistics = bool(training and self.trainable)
        # The kernel takes half-precision images, but float32 statistics and parameters.
        parameters = [tf.cast(v, tf.float32) for v in (self.gamma, self.beta)]
        statistics = [tf.convert_to_tensor(v) for v in (self.moving_mean, self.moving_variance)]
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=parameters[0],
            offset=parameters[1],
            # in training the kernel wants these empty
            mean=[] if batch_statistics else statistics[0],
            variance=[] if batch_statistics else statistics[1],
            epsilon=self.epsilon,
            is_training=batch_statistics,
        )
        if batch_statistics:
            new = 1 - self.momentum
            self.moving_mean.assign(self.moving_mean * self.momentum + mean * new)
            self.moving_variance.assign(self.moving_variance * self.momentum + variance * new)
        return outputs
