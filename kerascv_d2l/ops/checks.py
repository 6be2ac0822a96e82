"""Checks of what arrives, with messages for the person who passed it."""

import tensorflow as tf

from kerascv_d2l.errors import InputError


def as_boxes(boxes, name, rank=None):
    """Convert to float32 and check that the last dimension holds four coordinates.

    Args:
        boxes: array or tensor `(…, 4)`.
        name: the argument's name, for the message.
        rank: number of dimensions it must have, or None for at least one.

    Returns:
        float32 tensor of the same shape.

    Raises:
        InputError: if the last dimension is not 4, or the rank is another.
    """
    return _with_last(tf.cast(tf.convert_to_tensor(boxes), tf.float32), 4, name, rank)


def as_labels(labels):
    """Convert labels of a batch to float32 and check them.

    Values are checked wherever TensorFlow can raise: eagerly, in a graph, in
    `Dataset.map`; code compiled by XLA has no assertions and passes them by.

    Args:
        labels: `(batch, m, 5)` rows `[class, x_min, y_min, x_max, y_max]`;
            class -1 marks a padding row, of which nothing else is read.

    Returns:
        float32 tensor `(batch, m, 5)`.

    Raises:
        InputError: if the shape is another, and eagerly if a box of an object
            is NaN, infinite or inside out.
        tf.errors.InvalidArgumentError: the latter in a graph.
    """
    labels = _with_last(tf.cast(tf.convert_to_tensor(labels), tf.float32), 5, "labels", 3)
    is_object = tf.not_equal(labels[..., 0], -1.0)  # NaN counts as an object: it is caught below
    x_min, y_min, x_max, y_max = tf.unstack(labels[..., 1:], axis=-1)
    finite = tf.reduce_all(tf.math.is_finite(labels), axis=-1)
    upright = (x_max >= x_min) & (y_max >= y_min)
    wrong = is_object & ~(finite & upright & (labels[..., 0] >= 0))  # (batch, m)
    message = (
        "labels: every object needs a class >= 0 and a finite box with x_max >= x_min and "
        "y_max >= y_min (class -1 marks padding)."
    )
    if tf.executing_eagerly():
        rows = tf.where(wrong)
        if len(rows):
            image, row = (int(i) for i in rows[0])
            raise InputError(
                f"{message} Row {row} of image {image} is {labels[image, row].numpy().tolist()}; "
                f"{len(rows)} such row(s). Correct or drop them."
            )
        return labels
    with tf.control_dependencies(
        [tf.debugging.Assert(~tf.reduce_any(wrong), [message, "It got:", labels[wrong]])]
    ):
        return tf.identity(labels)


def _with_last(tensor, size, name, rank):
    shape = tensor.shape
    if shape.rank is not None and (
        (rank is not None and shape.rank != rank)
        or shape.rank == 0
        or shape[-1] not in (size, None)
    ):
        wanted = f"(…, {size})" if rank is None else f"{rank} dimensions, the last of size {size}"
        raise InputError(f"{name} must have shape {wanted}; got {tuple(shape)}.")
    return tf.ensure_shape(tensor, [None] * (shape.rank - 1) + [size]) if shape.rank else tensor


def check_fraction(value, name):
    """Raise `InputError` unless `value` is a number in [0, 1] (tensors are passed by)."""
    if not tf.is_tensor(value) and not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1]; got {value!r}.")
