"""Boxes written relative to anchors, as the R-CNN family and RetinaNet write them.

The book's `offset_boxes` is the same with weights (10, 10, 5, 5) and an epsilon
inside the logarithm.
"""

import math

import tensorflow as tf

from kerascv_d2l.ops.checks import as_boxes

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
HEAD_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
# Nothing grows by more than this: e^large overflows, and 1000/16 is enough from the smallest
# anchor to the largest image.
LARGEST_LOG = math.log(1000.0 / 16)


def encode_boxes(boxes, anchors, weights=RPN_WEIGHTS):
    """Write boxes relative to anchors.

    With centres (x, y) and sizes (w, h) of anchor a and box b:
    `(w_x(x_b - x_a)/w_a, w_y(y_b - y_a)/h_a, w_w·log(w_b/w_a), w_h·log(h_b/h_a))`.

    Args:
        boxes: float32 `(…, 4)` corners.
        anchors: float32 `(…, 4)` corners in the same frame; broadcasts.
        weights: four floats, (w_x, w_y, w_w, w_h).

    Returns:
        float32 `(…, 4)`; zeros where the box or the anchor has no area, as
        padding rows have none.

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        Girshick et al. 2014, "R-CNN", appendix C; torchvision's `BoxCoder`.
    """
    ax, ay, aw, ah = _centres(as_boxes(anchors, "anchors"))
    bx, by, bw, bh = _centres(as_boxes(boxes, "boxes"))
    solid = (aw > 0) & (ah > 0) & (bw > 0) & (bh > 0)
    aw, ah, bw, bh = (tf.where(solid, size, 1.0) for size in (aw, ah, bw, bh))
    offsets = [
        weights[0] * (bx - ax) / aw,
        weights[1] * (by - ay) / ah,
        weights[2] * tf.math.log(bw / aw),
        weights[3] * tf.math.log(bh / ah),
    ]
    return tf.where(solid[..., tf.newaxis], tf.stack(offsets, axis=-1), 0.0)


def decode_boxes(offsets, anchors, weights=RPN_WEIGHTS, largest_log=LARGEST_LOG):
    """Boxes from anchors and offsets: the inverse of `encode_boxes`.

    Args:
        offsets: float32 `(…, 4)`. For offsets of every class, `(n, classes, 4)`,
            give anchors `(n, 1, 4)`.
        anchors: float32 `(…, 4)` corners; broadcasts.
        weights: four floats, as for `encode_boxes`.
        largest_log: float, bound of the logarithms of the sizes' ratios.

    Returns:
        float32 `(…, 4)` corners in the anchors' frame, not clipped.

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        torchvision's `BoxCoder`.
    """
    x, y, width, height = _centres(as_boxes(anchors, "anchors"))
    dx, dy, dw, dh = tf.unstack(as_boxes(offsets, "offsets"), axis=-1)
    x = dx / weights[0] * width + x
    y = dy / weights[1] * height + y
    half_width = tf.exp(tf.minimum(dw / weights[2], largest_log)) * width / 2
    half_height = tf.exp(tf.minimum(dh / weights[3], largest_log)) * height / 2
    corners = [x - half_width, y - half_height, x + half_width, y + half_height]
    return tf.stack(corners, axis=-1)


def _centres(boxes):
    """Centre and size, four tensors `(…)`."""
    x_min, y_min, x_max, y_max = tf.unstack(boxes, axis=-1)
    width, height = x_max - x_min, y_max - y_min
    return x_min + width / 2, y_min + height / 2, width, height
