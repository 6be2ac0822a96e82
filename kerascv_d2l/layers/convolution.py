"""A convolution of 1 × 1 whose kernel learns faster on a CPU."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kerascv_d2l")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer, under its name and with its arguments.

    The gradient of a kernel of 1 × 1 is a product of two matrices, the inputs and what comes back.
    oneDNN takes it faster in that form than as a convolution, most of all in bfloat16
    (docs/benchmarks.md). Results are the same but for rounding.
    """

    def convolution_op(self, inputs, kernel):
        of_places = self.kernel_size == self.strides == (1, 1) and self.groups == 1
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        if not of_places or self.data_format != "channels_last" or on_gpu:
            return super().convolution_op(inputs, kernel)
        return _convolve(inputs, tf.convert_to_tensor(kernel))


@tf.custom_gradient
def _convolve(x, kernel):
    """Do what `tf.nn.conv2d` does, for a kernel `(1, 1, channels, filters)`."""
    options = {"strides": [1, 1, 1, 1], "padding": "VALID"}

    def gradient(upstream):
        of_x = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, **options
        )
        rows = [tf.reshape(t, [-1, t.shape[-1]]) for t in (x, upstream)]  # (places, …)
        return of_x, tf.reshape(tf.matmul(*rows, transpose_a=True), kernel.shape)

    return tf.nn.conv2d(x, kernel, **options), gradient
