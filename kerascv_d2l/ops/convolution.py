"""Correlation and transposed convolution of single matrices, and the matrix that both are.

They spell out what `keras.layers.Conv2D` and `Conv2DTranspose` compute; use
those layers for anything larger than an example.
"""

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError


def corr2d(X, K):  # noqa: N803
    """Slide a kernel over a matrix: `Y[i, j] = sum(X[i:i+h, j:j+w] * K)`.

    Args:
        X: `(height, width)` numbers of any type.
        K: `(h, w)`, no larger than `X`.

    Returns:
        `(height - h + 1, width - w + 1)` in the common type of both.

    Raises:
        InputError: if one of them is not a matrix, or `K` is larger than `X`.

    Source:
        D2L 1.0.3, section 7.2; its 3 x 3 example gives [[19, 25], [37, 43]].
    """
    x, k = _matrices(X, K)
    size, window = tf.shape(x), tf.shape(k)
    if None not in (*x.shape, *k.shape) and (k.shape[0] > x.shape[0] or k.shape[1] > x.shape[1]):
        raise InputError(
            f"K of shape {tuple(k.shape)} does not fit into X of shape {tuple(x.shape)}: "
            "give a kernel no larger than the input, or pad the input."
        )
    rows = tf.range(size[0] - window[0] + 1)[:, None] + tf.range(window[0])  # (out_h, h)
    columns = tf.range(size[1] - window[1] + 1)[:, None] + tf.range(window[1])  # (out_w, w)
    patches = tf.gather(tf.gather(x, rows), columns, axis=2)  # (out_h, h, out_w, w)
    return tf.reduce_sum(patches * k[:, None, :], axis=(1, 3))


def trans_conv(X, K, stride=1, padding=0):  # noqa: N803
    """Spread every number of a matrix over the kernel: `Y[i:i+h, j:j+w] += X[i, j] * K`.

    Args:
        X: `(height, width)` numbers of any type.
        K: `(h, w)`.
        stride: int, rows and columns of `Y` between the places of two
            neighbours of `X`.
        padding: int, rows and columns cut from each side of the result.

    Returns:
        `((height - 1) * stride + h - 2 * padding, ...)` in the common type.

    Raises:
        InputError: if one of them is not a matrix, stride or padding is out of
            range, or padding leaves nothing of the result.

    Source:
        D2L 1.0.3, section 14.10; [[0, 1], [2, 3]] with itself gives
        [[0, 0, 1], [0, 4, 6], [4, 12, 9]].
    """
    x, k = _matrices(X, K)
    _check_geometry(stride, padding)
    size, window = tf.shape(x), tf.shape(k)
    full = (size - 1) * stride + window
    rows = tf.range(size[0])[:, None] * stride + tf.range(window[0])  # (height, h)
    columns = tf.range(size[1])[:, None] * stride + tf.range(window[1])  # (width, w)
    where = rows[:, None, :, None] * full[1] + columns[None, :, None, :]  # (height, width, h, w)
    products = x[:, :, None, None] * k  # (height, width, h, w)
    total = tf.math.unsorted_segment_sum(products, where, full[0] * full[1])
    total = tf.reshape(total, full)
    result = total[padding : full[0] - padding, padding : full[1] - padding]
    if 0 in result.shape:
        raise InputError(
            f"padding={padding} cuts away the whole {tuple(total.shape)} result: "
            "give a smaller padding."
        )
    return result


def kernel2matrix(K, input_shape=(3, 3), stride=1, padding=0):  # noqa: N803
    """Write a convolution as a matrix.

    The convolution of `X` is `W @ vec(X)`. The transposed convolution with the
    same kernel, stride and padding is `transpose(W) @ vec(Y)`, from the size of
    `Y` back to that of `X`: the shapes are inverse, the values are not.

    Args:
        K: `(h, w)`, or `(h, w, in_channels, out_channels)` as Keras keeps the
            kernel of `Conv2D`. The kernel `(h, w, filters, channels)` of
            `Conv2DTranspose` is that of the convolution back, so it goes in
            as it is.
        input_shape: `(height, width)` of the convolution's input.
        stride: int.
        padding: int, rows and columns of zeros on each side of the input.

    Returns:
        `(out_h * out_w * out_channels, height * width * in_channels)` in the
        type of `K`, mostly zeros. Vectors are images with channels last, read
        row by row.

    Raises:
        InputError: if `K` has another rank or does not fit into the padded
            input, or stride or padding are out of range.

    Source:
        D2L 1.0.3, section 14.10.
    """
    kernel = tf.convert_to_tensor(K)
    _check_geometry(stride, padding)
    if kernel.shape.rank not in (2, 4):
        raise InputError(
            f"K has shape {tuple(kernel.shape)}: expected (h, w) or "
            "(h, w, in_channels, out_channels)."
        )
    if kernel.shape.rank == 2:
        kernel = kernel[:, :, None, None]
    h, w, channels, filters = kernel.shape
    height, width = input_shape
    out_h, out_w = (height + 2 * padding - h) // stride + 1, (width + 2 * padding - w) // stride + 1
    if out_h < 1 or out_w < 1:
        raise InputError(
            f"K of {h} x {w} does not fit into input_shape={tuple(input_shape)} with "
            f"padding={padding}: give a smaller kernel or more padding."
        )
    row = np.arange(height) - (np.arange(out_h)[:, None] * stride - padding)  # (out_h, height)
    column = np.arange(width) - (np.arange(out_w)[:, None] * stride - padding)  # (out_w, width)
    # One row and one column of zeros stand for everything outside the kernel.
    kernel = tf.pad(kernel, [[0, 1], [0, 1], [0, 0], [0, 0]])
    row = np.where((row >= 0) & (row < h), row, h)
    column = np.where((column >= 0) & (column < w), column, w)
    entries = tf.gather(kernel, row)  # (out_h, height, w + 1, in, out)
    entries = tf.gather(entries, column, axis=2)  # (out_h, height, out_w, width, in, out)
    entries = tf.transpose(entries, [0, 2, 5, 1, 3, 4])  # (out_h, out_w, out, height, width, in)
    return tf.reshape(entries, [out_h * out_w * filters, height * width * channels])


def bilinear_kernel(in_channels, out_channels, kernel_size):
    """Compute the kernel of a transposed convolution that interpolates bilinearly.

    With `kernel_size` 2s, stride s and padding s/2 (Keras: `padding="same"`) it
    upsamples s times, each channel on its own.

    Args:
        in_channels: number of channels of the input.
        out_channels: number of channels of the result. Channels beyond the
            other number get zeros.
        kernel_size: int, side of the kernel in pixels.

    Returns:
        float32 `(kernel_size, kernel_size, out_channels, in_channels)`, the
        order of `keras.layers.Conv2DTranspose`.

    Raises:
        InputError: if one of them is less than 1.

    Source:
        D2L 1.0.3, section 14.11.
    """
    for name, value in (
        ("in_channels", in_channels),
        ("out_channels", out_channels),
        ("kernel_size", kernel_size),
    ):
        if value < 1:
            raise InputError(f"{name}={value}: expected at least 1.")
    weights = bilinear_weights(kernel_size)
    square = weights[:, None] * weights  # (k, k)
    channels = np.eye(out_channels, in_channels, dtype=np.float32)
    return tf.constant(square[:, :, None, None] * channels)  # (k, k, out, in)


def bilinear_weights(kernel_size):
    """Compute the weights of `bilinear_kernel` along one axis.

    Args:
        kernel_size: int, at least 1.

    Returns:
        NumPy float32 `(kernel_size,)`: `1 - |i - centre| / factor`.
    """
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 else factor - 0.5
    return (1 - np.abs(np.arange(kernel_size) - centre) / factor).astype(np.float32)


def _matrices(x, k):
    """Convert both to matrices of one type."""
    x, k = tf.convert_to_tensor(x), tf.convert_to_tensor(k)
    for name, matrix in (("X", x), ("K", k)):
        if matrix.shape.rank != 2:
            raise InputError(
                f"{name} has shape {tuple(matrix.shape)}: expected a matrix (height, width)."
            )
    common = np.result_type(x.dtype.as_numpy_dtype, k.dtype.as_numpy_dtype)
    return tf.cast(x, common), tf.cast(k, common)


def _check_geometry(stride, padding):
    if stride < 1:
        raise InputError(f"stride={stride}: expected at least 1.")
    if padding < 0:
        raise InputError(f"padding={padding}: expected at least 0.")
