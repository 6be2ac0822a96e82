"""Group normalisation in fewer passes over the data."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kerascv_d2l")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' layer, under its name and with its arguments, for maps `(batch, h, w, channels)`.

    Of what Keras computes on each number of a map, most depends on its channel only. Here it is
    computed for the channels, with the gradient written out: forward and backward take half of the
    time on two cores (`benchmarks/layers.py`). Files of weights fit both. Where that does not
    serve (other axes or ranks, no scale or offset), Keras' own code runs.

    Source:
        Wu & He 2018, "Group Normalization", equations 2 to 6.
    """

    def call(self, inputs):
        plain = self.scale and self.center and self.axis in (-1, 3) and len(inputs.shape) == 4
        if not plain:
            return super().call(inputs)
        gamma, beta = (
            tf.cast(tf.convert_to_tensor(w), tf.float32) for w in (self.gamma, self.beta)
        )
        groups = inputs.shape[-1] if self.groups == -1 else self.groups
        return _normalize(inputs, gamma, beta, groups, self.epsilon)


def _normalize(x, gamma, beta, groups, epsilon):
    """Normalise groups of the channels of each image.

    Args:
        x: float `(batch, h, w, c)`.
        gamma: float32 `(c,)`.
        beta: float32 `(c,)`.
        groups: int.
        epsilon: float.

    Returns:
        Tensor like `x`.
    """
    channels = x.shape[-1]
    members = channels // groups

    def of_group(values):
        """Add the members of each group, and give the sum to each: `(batch, c)`."""
        sums = tf.reduce_sum(tf.reshape(values, [-1, groups, members]), axis=2, keepdims=True)
        return tf.reshape(tf.tile(sums, [1, 1, members]), [-1, channels])

    def on_map(values):
        return tf.reshape(values, [-1, 1, 1, channels])

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        size = tf.shape(x)
        count = tf.cast(size[1] * size[2] * members, tf.float32)  # numbers of a group
        wide = tf.cast(x, tf.float32)
        mean = of_group(tf.reduce_sum(wide, [1, 2])) / count
        centred = wide - on_map(mean)
        variance = of_group(tf.reduce_sum(tf.square(centred), [1, 2])) / count
        inverse = tf.math.rsqrt(variance + epsilon)
        result = tf.cast(centred * on_map(gamma * inverse) + beta, x.dtype)

        def gradient(upstream):
            upstream = tf.cast(upstream, tf.float32)
            centred = tf.cast(x, tf.float32) - on_map(mean)  # again: it need not be kept
            of_beta = tf.reduce_sum(upstream, [1, 2])
            of_gamma = tf.reduce_sum(upstream * centred, [1, 2]) * inverse
            # What moves a number moves mean and variance of its group, too.
            by_mean = inverse * of_group(gamma * of_beta) / count
            by_variance = inverse**2 * of_group(gamma * of_gamma) / count
            of_x = upstream * on_map(gamma * inverse)
            of_x -= centred * on_map(by_variance) + on_map(by_mean)
            sums = (tf.reduce_sum(part, 0) for part in (of_gamma, of_beta))
            return tf.cast(of_x, x.dtype), *sums

        return result, gradient

    return normalize(x, gamma, beta)
