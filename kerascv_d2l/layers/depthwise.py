"""Depthwise convolution that learns as fast in bfloat16 as in float32."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kerascv_d2l")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' layer, under its name and with its arguments.

    Of a convolution with a stride in bfloat16 the gradient with respect to the input is computed in
    float32: TensorFlow's own takes 15 to 30 times as long as the convolution on a CPU
    (`benchmarks/layers.py`).
    """

    def call(self, inputs):
        plain = self.dilation_rate == (1, 1) and self.data_format == "channels_last"
        if inputs.dtype != tf.bfloat16 or self.strides == (1, 1) or not plain:
            return super().call(inputs)
        kernel = tf.convert_to_tensor(self.kernel)
        outputs = _convolve(inputs, kernel, self.strides, self.padding.upper())
        if self.use_bias:
            outputs = tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))
        return self.activation(outputs)


def _convolve(x, kernel, strides, padding):
    """Do what `tf.nn.depthwise_conv2d` does, for bfloat16."""
    options = {"strides": [1, *strides, 1], "padding": padding}

    @tf.custom_gradient
    def convolve(x, kernel):
        def gradient(upstream):
            wide = (tf.cast(part, tf.float32) for part in (kernel, upstream))
            of_x = tf.nn.depthwise_conv2d_backprop_input(tf.shape(x), *wide, **options)
            of_kernel = tf.nn.depthwise_conv2d_backprop_filter(x, kernel.shape, upstream, **options)
            return tf.cast(of_x, x.dtype), of_kernel

        return tf.nn.depthwise_conv2d(x, kernel, **options), gradient

    return convolve(x, kernel)
