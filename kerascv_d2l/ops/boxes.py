"""Arithmetic of boxes: two ways to write them, and how much they overlap.

Boxes are corners `(x_min, y_min, x_max, y_max)` unless a name says otherwise.
The functions hold for pixels as for normalised coordinates.
"""

import tensorflow as tf

from kerascv_d2l.ops.checks import as_boxes

# Of an area that something is divided by: below that of any box. It must not be the least float:
# gradients divide by its square, under XLA at once.
LEAST_AREA = 2.0**-60


def sides_of(size):
    """`(height, width)` as float32 `[width, height, width, height]`: the unit of corners."""
    height, width = tf.unstack(tf.cast(size, tf.float32))
    return tf.stack([width, height, width, height])


def box_corner_to_center(boxes):
    """Convert `(x_min, y_min, x_max, y_max)` to `(x_center, y_center, width, height)`.

    Args:
        boxes: float32 `(…, 4)`.

    Returns:
        float32 `(…, 4)`.

    Raises:
        InputError: if the last dimension is not 4.

    Source:
        D2L 1.0.3, section 14.3.
    """
    x1, y1, x2, y2 = tf.unstack(as_boxes(boxes, "boxes"), axis=-1)
    return tf.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=-1)


def box_center_to_corner(boxes):
    """Convert `(x_center, y_center, width, height)` to `(x_min, y_min, x_max, y_max)`.

    Args:
        boxes: float32 `(…, 4)`.

    Returns:
        float32 `(…, 4)`.

    Raises:
        InputError: if the last dimension is not 4.

    Source:
        D2L 1.0.3, section 14.3.
    """
    cx, cy, w, h = tf.unstack(as_boxes(boxes, "boxes"), axis=-1)
    return tf.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=-1)


def box_iou(boxes1, boxes2):
    """Intersection over union of every pair of boxes (the Jaccard index).

    A box without area, or inside out, overlaps nothing: its IoU is 0, also
    with itself. Small boxes are as exact as large ones: nothing is added to
    an area, and only one below 2⁻⁶⁰ counts as that.

    Args:
        boxes1: float32 `(…, n, 4)`.
        boxes2: float32 `(…, m, 4)` in the same frame; leading dimensions
            broadcast against those of `boxes1`.

    Returns:
        float32 `(…, n, m)` in [0, 1].

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        D2L 1.0.3, section 14.4.2.
    """
    # TensorFlow Lite has no `tf.newaxis` where sizes are unknown.
    boxes1 = tf.expand_dims(as_boxes(boxes1, "boxes1"), -2)  # (…, n, 1, 4)
    boxes2 = tf.expand_dims(as_boxes(boxes2, "boxes2"), -3)  # (…, 1, m, 4)
    return iou_of_corners(tf.unstack(boxes1, axis=-1), tf.unstack(boxes2, axis=-1))


def iou_of_corners(corners1, corners2):
    """Elementwise IoU of boxes whose four coordinates are tensors of their own.

    Separate coordinates keep the intermediate tensors free of a last dimension
    of 4 or 2, which halves the time of `box_iou` on a CPU.

    Args:
        corners1: `(x_min, y_min, x_max, y_max)`, tensors that broadcast.
        corners2: the same of the other boxes.

    Returns:
        float32 of the broadcast shape.
    """
    overlap = intersection(corners1, corners2)
    # The least area keeps 0/0 out and changes no other sum; it is quicker than a safe division.
    union = area(corners1) + tf.maximum(area(corners2), LEAST_AREA) - overlap
    return overlap / union


def intersection(corners1, corners2):
    """Area that two boxes share; arguments and result as for `iou_of_corners`."""
    ax1, ay1, ax2, ay2 = corners1
    bx1, by1, bx2, by2 = corners2
    width = tf.nn.relu(tf.minimum(ax2, bx2) - tf.maximum(ax1, bx1))
    height = tf.nn.relu(tf.minimum(ay2, by2) - tf.maximum(ay1, by1))
    return width * height


def ioa_of_corners(inner, outer):
    """Intersection over the inner box's area, 0 if it has none; arguments as for `iou_of_corners`.

    Never smaller than the IoU. So COCO's evaluation measures overlaps with a crowd, whose box
    frames many objects.
    """
    return tf.math.divide_no_nan(intersection(inner, outer), area(inner))


def area(corners):
    """Area of boxes whose four coordinates are tensors of their own; never negative."""
    x1, y1, x2, y2 = corners
    return tf.nn.relu(x2 - x1) * tf.nn.relu(y2 - y1)
