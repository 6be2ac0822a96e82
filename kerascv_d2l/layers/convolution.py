"""A convolution that learns faster on a CPU."""

import keras
import tensorflow as tf

from kerascv_d2l.ops import winograd


@keras.saving.register_keras_serializable("kerascv_d2l")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer, under its name and with its arguments.

    The results are those of Keras. Gradients are the same but for rounding, and on a CPU faster
    (docs/benchmarks.md): of a kernel of 1 × 1 the gradient is a product of two matrices, the inputs
    and what comes back, which oneDNN takes faster in that form than as a convolution, most of all
    in bfloat16. Of a wide kernel of 3 × 3, in float32 and on maps whose size is known when the
    step is traced, both gradients are by Winograd's algorithm.
    """

    def convolution_op(self, inputs, kernel):
        plain = self.strides == self.dilation_rate == (1, 1) and self.groups == 1
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        if plain and self.data_format == "channels_last" and not on_gpu:
            kernel = tf.convert_to_tensor(kernel)
            if self.kernel_size == (1, 1):
                return _convolve(inputs, kernel)
            if self.padding == "same" and _is_wide(inputs, kernel):
                return _convolve_wide(inputs, kernel)
        return super().convolution_op(inputs, kernel)


_OPTIONS = {"strides": [1, 1, 1, 1], "padding": "SAME"}


def _is_wide(x, kernel):
    """Whether Winograd's algorithm is the faster one."""
    size = winograd.KERNEL, winograd.KERNEL
    if kernel.shape[:2] != size or x.dtype != tf.float32:
        return False
    shape, filters = x.shape, kernel.shape[-1]
    return winograd.is_faster(shape, filters) and (
        shape[0] is None or winograd.fits(shape, filters)
    )


@tf.custom_gradient
def _convolve(x, kernel):
    """Do what `tf.nn.conv2d` does, for a kernel `(1, 1, channels, filters)`."""
    y = tf.nn.conv2d(x, kernel, **_OPTIONS)

    def gradient(upstream):
        upstream = tf.ensure_shape(upstream, y.shape)
        rows = [tf.reshape(t, [-1, t.shape[-1]]) for t in (x, upstream)]  # (places, …)
        of_kernel = tf.reshape(tf.matmul(*rows, transpose_a=True), kernel.shape)
        return _of_inputs(x, kernel, upstream), of_kernel

    return y, gradient


@tf.custom_gradient
def _convolve_wide(x, kernel):
    """Do what `tf.nn.conv2d` does, for a kernel `(3, 3, channels, filters)`."""

    y = tf.nn.conv2d(x, kernel, **_OPTIONS)

    def gradient(upstream):
        upstream = tf.ensure_shape(upstream, y.shape)
        if x.shape[0] is not None:
            return _by_winograd(x, kernel, upstream)
        # Boxes of an image are as many as they are: often few, but at times hundreds.
        return tf.cond(
            winograd.fits((tf.shape(x)[0], *x.shape[1:]), kernel.shape[-1]),
            lambda: _by_winograd(x, kernel, upstream),
            lambda: _by_sums(x, kernel, upstream),
        )

    return y, gradient


def _by_winograd(x, kernel, upstream):
    """Both gradients, by Winograd's algorithm."""
    # One after the other, and only when they are wanted. Else TensorFlow transforms kernels and
    # inputs of all layers as soon as it has them, and keeps the results until then.
    with tf.control_dependencies([upstream]):
        of_x = winograd.input_gradient(upstream, kernel)
    with tf.control_dependencies([of_x]):
        return of_x, winograd.kernel_gradient(x, upstream)


def _by_sums(x, kernel, upstream):
    """Both gradients as TensorFlow takes them."""
    of_kernel = tf.raw_ops.Conv2DBackpropFilter(
        input=x, filter_sizes=kernel.shape, out_backprop=upstream, **_OPTIONS
    )
    return _of_inputs(x, kernel, upstream), of_kernel


def _of_inputs(x, kernel, upstream):
    return tf.raw_ops.Conv2DBackpropInput(
        input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, **_OPTIONS
    )
