"""Batch normalisation as PyTorch has it, in one pass over the data."""

import keras
import tensorflow as tf

# Of bfloat16 with so many channels, or a multiple, oneDNN makes the moments and the rest at once;
# with other numbers TensorFlow's own kernel runs, which takes longer than one in float32.
ONEDNN_BLOCK = 16


@keras.saving.register_keras_serializable("kerascv_d2l")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch normalisation with PyTorch's constants and TensorFlow's fused kernel.

    Keras computes moments and normalises in separate passes over float32; the fused kernel takes a
    third of that time on a CPU, and in bfloat16 a fifth (`benchmarks/layers.py`). Like PyTorch it
    keeps the unbiased variance in the moving average. Where the kernel does not
    serve (other axes, masks), Keras' own code runs. Synchronised statistics are
    computed here, because Keras would keep the biased variance.

    Momentum 0.9 and epsilon 1e-5 are PyTorch's; Keras' 0.99 adapts too slowly
    for the few hundred steps of a short training.
    """

    def __init__(self, axis=-1, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs, training=None, mask=None):
        fits = self.axis in (-1, 3) and len(inputs.shape) == 4
        if not fits or self.renorm or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        learning = bool(training) and self.trainable
        if self.synchronized and learning and tf.distribute.in_cross_replica_context() is False:
            return self._call_synchronized(inputs)
        channels = inputs.shape[-1]
        # The kernel computes moments of bfloat16 in float32. (Whether that of float16 does depends
        # on the device, and its squares overflow.)
        if inputs.dtype != tf.bfloat16 or channels % ONEDNN_BLOCK:
            inputs = tf.cast(inputs, tf.float32)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma if self.scale else tf.ones([channels]),
            self.beta if self.center else tf.zeros([channels]),
            mean=None if learning else self.moving_mean,
            variance=None if learning else self.moving_variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            keep = self.momentum
            self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
            self.moving_variance.assign(self.moving_variance * keep + variance * (1 - keep))
        return tf.cast(outputs, self.compute_dtype)

    def _call_synchronized(self, inputs):
        """Learn from the images of all devices together; the same as one device computes."""
        x = tf.cast(inputs, tf.float32)  # (part of the batch, h, w, c)
        pixels = tf.cast(tf.size(x) / tf.shape(x)[-1], tf.float32)
        sums = [tf.reduce_sum(x, (0, 1, 2)), tf.reduce_sum(x * x, (0, 1, 2))]  # (c,) each
        replica = tf.distribute.get_replica_context()
        total, squares, count = replica.all_reduce(tf.distribute.ReduceOp.SUM, [*sums, pixels])
        mean = total / count
        variance = tf.maximum(squares / count - mean * mean, 0.0)
        outputs = tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, self.epsilon)
        keep, unbiased = self.momentum, variance * (count / tf.maximum(count - 1, 1))
        self.moving_mean.assign(self.moving_mean * keep + mean * (1 - keep))
        self.moving_variance.assign(self.moving_variance * keep + unbiased * (1 - keep))
        return tf.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable("kerascv_d2l")
class BatchNormalization(BatchNorm):
    """`BatchNorm` with the constants of Keras, for networks of Keras.

    It has the name of Keras' layer, too: files of weights have their layers under the names of the
    classes, and those of either fit the other.
    """

    def __init__(self, axis=-1, momentum=0.99, epsilon=1e-3, **kwargs):
        super().__init__(axis, momentum, epsilon, **kwargs)
