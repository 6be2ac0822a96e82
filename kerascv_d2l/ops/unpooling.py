"""Max-pooling that remembers where each maximum was, and the way back."""

import tensorflow as tf

from kerascv_d2l.errors import InputError


def max_pool_with_positions(x, pool_size=2):
    """Max-pool in windows side by side, and keep the place of each maximum.

    Rows and columns that fill no window are left out, as `padding="valid"` does.

    Args:
        x: `(batch, height, width, channels)`, float.
        pool_size: int, side of a window and step between windows.

    Returns:
        `(pooled, positions)`, both `(batch, height // p, width // p, channels)`;
        positions are int32 `row * width + column` in the channel's own picture,
        of the first maximum in reading order.

    Raises:
        InputError: if `pool_size` is less than 1.
    """
    if pool_size < 1:
        raise InputError(f"pool_size={pool_size}: expected at least 1.")
    shape = tf.shape(x)
    width = shape[2]
    rows, columns = shape[1] // pool_size, shape[2] // pool_size
    first = tf.range(rows)[:, None, None] * (pool_size * width)
    first += tf.range(columns)[:, None] * pool_size  # (rows, columns, 1) corners of the windows
    cells = tf.reshape(
        x[:, : rows * pool_size, : columns * pool_size],
        [shape[0], rows, pool_size, columns, pool_size, x.shape[-1]],
    )
    pooled = positions = None
    # One cell of all windows after the other: p * p elementwise steps, faster than an argmax over
    # gathered windows, and other than tf.nn.max_pool_with_argmax XLA compiles them.
    for i, row in enumerate(tf.unstack(cells, axis=2)):
        for j, cell in enumerate(tf.unstack(row, axis=3)):  # (batch, rows, columns, channels)
            place = first + (i * width + j)
            if pooled is None:
                pooled = cell
                positions = tf.broadcast_to(place, tf.shape(cell))
            else:
                positions = tf.where(cell > pooled, place, positions)
                pooled = tf.maximum(pooled, cell)  # where equal, the gradient goes to the first
    return pooled, positions


def max_unpool(values, positions, size):
    """Put values back where `max_pool_with_positions` found them, zeros elsewhere.

    Args:
        values: `(batch, h, w, channels)` numbers.
        positions: int `(batch, h, w, channels)`, `row * width + column` in the
            picture to fill. Values that share a place are added.
        size: `(height, width)` of that picture, ints or int tensors.

    Returns:
        `(batch, height, width, channels)`, type of `values`.
    """
    channels = values.shape[-1]
    shape = tf.shape(values)
    batch = shape[0]
    height, width = size
    plane = height * width
    # One flat index over (batch, plane, channels).
    sample = tf.range(batch)[:, None, None, None]  # (batch, 1, 1, 1)
    positions = tf.cast(positions, tf.int32)
    index = (sample * plane + positions) * channels + tf.range(channels)  # (batch, h, w, channels)
    flat = tf.math.unsorted_segment_sum(values, index, batch * plane * channels)
    return tf.reshape(flat, [batch, height, width, channels])
