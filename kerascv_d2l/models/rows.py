"""What detectors that match rows of boxes share: predictions, labels and losses by row."""

import tensorflow as tf

from kerascv_d2l.ops.boxes import sides_of
from kerascv_d2l.ops.region_matching import BACKGROUND
from kerascv_d2l.ops.roi_sampling import map_size


def flat(tensor, size):
    """`(batch, h, w, a·size)` to float32 `(batch, h·w·a, size)`."""
    batch, height, width, channels = map_size(tensor)
    places = height * width * (channels // size)
    return tf.cast(tf.reshape(tensor, [batch, places, size]), tf.float32)


def in_pixels(y, size):
    """Labels as of `as_targets`, with boxes in pixels of images of `size`, int32 `(2,)`."""
    return y | {"boxes": y["boxes"] * sides_of(size)}


def rows_of(table, rows):
    """Rows of `(batch, m, …)` by int32 `(batch, n)`; any row where an index is negative."""
    padded = tf.pad(table, [[0, 0], [0, 1]] + [[0, 0]] * (len(table.shape) - 2))
    return tf.gather(padded, tf.maximum(rows, 0), batch_dims=1)


def one_hot_of(y, match, num_classes):
    """1 for the class of the object that a place stands for: float32 `(batch, n, classes)`."""
    return tf.one_hot(tf.where(match > BACKGROUND, rows_of(y["classes"], match), -1), num_classes)


def sum_where(mask, values):
    """Sum of the values where the mask is True, float32 scalar."""
    return tf.reduce_sum(tf.where(mask, values, 0.0))
