"""Checks of what arrives, with messages for the person who passed it."""

import numbers

import tensorflow as tf

from kerascv_d2l.errors import InputError

# Where the corners of normalised boxes may lie: an object may reach out of the image, but what
# lies further out is in pixels.
FRAME = (-1.0, 2.0)


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


def as_targets(y, num_classes=None):
    """Convert the labels of a batch of images to one form, and check them.

    Values are checked wherever TensorFlow can raise: eagerly, in a graph, in
    `Dataset.map`. Code compiled by XLA has no assertions; there a wrong row becomes
    a padding row, so that no NaN comes of it.

    Args:
        y: dict of `boxes` `(batch, m, 4)`, normalised corners, `classes` `(batch, m)`,
            -1 in padding rows, of which nothing else is read, and, optional, `ignore`
            bool `(batch, m)`, objects that count neither as found nor as missed; other
            keys are kept. Or the book's rows `(batch, m, 5)`, `[class, x_min, y_min,
            x_max, y_max]`, which ignore nothing.
        num_classes: int, or None if any class from 0 on is right.

    Returns:
        dict of `boxes` float32 `(batch, m, 4)`, 0 in padding rows; `classes` int32
        `(batch, m)`, -1 in padding rows; `ignore` bool `(batch, m)`, False in padding
        rows; and the other keys of `y`.

    Raises:
        InputError: if a key or a shape is wrong, and eagerly if an object has a class
            that is no whole number in range, or a box that is NaN, infinite, inside out
            or in pixels.
        tf.errors.InvalidArgumentError: the latter in a graph.
    """
    y = _as_dict(y)
    boxes, classes, ignore = y["boxes"], y["classes"], y["ignore"]
    wrong = _wrong_rows(boxes, classes, num_classes)  # (batch, m)
    classes_text = f"0 to {num_classes - 1}" if num_classes else "0, 1, ..."
    message = (
        f"labels: every object needs a class ({classes_text}; -1 marks a padding row) and a "
        "normalised box [x_min, y_min, x_max, y_max] with x_max >= x_min and y_max >= y_min, "
        "all finite, 0 to 1 in the image (not in pixels)."
    )
    if tf.executing_eagerly():
        _raise_on_first(wrong, boxes, classes, message)
        checks = []
    else:
        found = [message, "It got the classes", classes[wrong], "and boxes", boxes[wrong]]
        checks = [tf.debugging.Assert(~tf.reduce_any(wrong), found, summarize=12)]
    with tf.control_dependencies(checks):
        is_object = ~wrong & tf.not_equal(classes, -1.0)
    return {
        **y,
        "boxes": tf.where(is_object[..., tf.newaxis], boxes, 0.0),
        "classes": tf.cast(tf.where(is_object, classes, -1.0), tf.int32),
        "ignore": ignore & is_object,
    }


def _as_dict(y):
    """Float32 `boxes` and `classes` and bool `ignore` of either form of labels."""
    if isinstance(y, dict):
        missing = {"boxes", "classes"} - set(y)
        if missing:
            raise InputError(f"labels have the keys {sorted(y)}; {sorted(missing)} is missing.")
        boxes = as_boxes(y["boxes"], "boxes", 3)
        classes = tf.cast(tf.convert_to_tensor(y["classes"]), tf.float32)
        ignore = y.get("ignore")
    else:
        rows = _with_last(tf.cast(tf.convert_to_tensor(y), tf.float32), 5, "labels", 3)
        y, boxes, classes, ignore = {}, rows[..., 1:], rows[..., 0], None
    if ignore is None:
        ignore = tf.zeros_like(classes, tf.bool)
    ignore = tf.cast(tf.convert_to_tensor(ignore), tf.bool)
    for name, part in (("classes", classes), ("ignore", ignore)):
        if not part.shape.is_compatible_with(boxes.shape[:-1]):
            raise InputError(
                f"{name} must have one value a box, shape {tuple(boxes.shape[:-1])}; "
                f"got {tuple(part.shape)}."
            )
    return {**y, "boxes": boxes, "classes": classes, "ignore": ignore}


def _wrong_rows(boxes, classes, num_classes):
    """Rows that are neither padding nor an object, bool `(batch, m)`."""
    x_min, y_min, x_max, y_max = tf.unstack(boxes, axis=-1)
    in_frame = tf.reduce_all((boxes >= FRAME[0]) & (boxes <= FRAME[1]), axis=-1)  # NaN is not
    upright = (x_max >= x_min) & (y_max >= y_min)
    known = (classes >= 0) & tf.equal(classes, tf.floor(classes))
    known &= classes < (num_classes or float("inf"))
    return tf.not_equal(classes, -1.0) & ~(in_frame & upright & known)


def _raise_on_first(wrong, boxes, classes, message):
    rows = tf.where(wrong)
    if len(rows):
        image, row = (int(i) for i in rows[0])
        raise InputError(
            f"{message} Row {row} of image {image} is class {float(classes[image, row]):g}, box "
            f"{boxes[image, row].numpy().tolist()}; {len(rows)} such row(s). Correct or drop them."
        )


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
    """Raise `InputError` unless `value` is a number in [0, 1] (tensors are not checked)."""
    if not tf.is_tensor(value) and not 0 <= value <= 1:
        raise InputError(f"{name} must lie in [0, 1]; got {value!r}.")


def check_whole(least, **values):
    """Raise `InputError` unless every argument, given by its name, is an int from `least` on."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or value < least:
            raise InputError(f"{name}={value!r}: expected a whole number from {least} on.")


def as_image_size(image_size, name="image_size"):
    """Check `(height, width)`, two positive numbers, and return them as a tuple of int.

    Raises:
        InputError: if it is something else.
    """
    try:
        height, width = image_size
        good = min(height, width) >= 1 and height % 1 == width % 1 == 0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InputError(f"{name}={image_size!r}: expected (height, width) in pixels.")
    return int(height), int(width)
