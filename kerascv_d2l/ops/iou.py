"""Overlaps that also tell boxes apart which do not overlap: GIoU and CIoU.

Both are at most the IoU, 1 for equal boxes, and have a gradient for boxes that
are apart. They hold for pixels as for normalised corners: nothing is added to
an area, and only one below 2⁻⁶⁰ counts as that.
"""

import math

import tensorflow as tf

from kerascv_d2l.ops.boxes import LEAST_AREA, area, iou_of_corners
from kerascv_d2l.ops.checks import as_boxes

_LEAST_SIDE = 1e-12  # keeps the angle of a box without extent defined


def generalized_iou(boxes1, boxes2):
    """GIoU of every pair: the IoU less the share of the enclosing box that neither covers.

    Args:
        boxes1: float32 `(…, n, 4)` corners.
        boxes2: float32 `(…, m, 4)` in the same frame; leading dimensions
            broadcast against those of `boxes1`.

    Returns:
        float32 `(…, n, m)` in (-1, 1].

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        Rezatofighi et al. 2019; `torchvision.ops.generalized_box_iou`.
    """
    return giou_of_corners(*_pairs(boxes1, boxes2))


def complete_iou(boxes1, boxes2):
    """CIoU of every pair: the IoU less a distance of centres and a difference of shapes.

    Args:
        boxes1: float32 `(…, n, 4)` corners.
        boxes2: float32 `(…, m, 4)` in the same frame; leading dimensions
            broadcast against those of `boxes1`.

    Returns:
        float32 `(…, n, m)`.

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        Zheng et al. 2020; `torchvision.ops.complete_box_iou`.
    """
    return ciou_of_corners(*_pairs(boxes1, boxes2))


def _pairs(boxes1, boxes2):
    boxes1 = as_boxes(boxes1, "boxes1")[..., :, tf.newaxis, :]  # (…, n, 1, 4)
    boxes2 = as_boxes(boxes2, "boxes2")[..., tf.newaxis, :, :]  # (…, 1, m, 4)
    return tf.unstack(boxes1, axis=-1), tf.unstack(boxes2, axis=-1)


def giou_of_corners(corners1, corners2):
    """Elementwise GIoU of boxes whose four coordinates are tensors of their own.

    Args:
        corners1: `(x_min, y_min, x_max, y_max)`, tensors that broadcast.
        corners2: the same of the other boxes.

    Returns:
        float32 of the broadcast shape; the IoU where both boxes are one point.
    """
    iou = iou_of_corners(corners1, corners2)
    union = (area(corners1) + area(corners2)) / (1 + iou)
    width, height = _enclosing(corners1, corners2)
    around = width * height
    return iou - tf.nn.relu(around - union) / tf.maximum(around, LEAST_AREA)


def ciou_of_corners(corners1, corners2):
    """Elementwise CIoU: `IoU - ρ²/c² - αv`; see `giou_of_corners` for the arguments.

    ρ is the distance of the centres, c the diagonal of the enclosing box, v the
    squared difference of the angles atan(w/h), in quarters of a turn, and
    α = v/(1 - IoU + v), through which no gradient flows.
    """
    iou = iou_of_corners(corners1, corners2)
    width, height = _enclosing(corners1, corners2)
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = corners1, corners2
    distance = tf.square(ax1 + ax2 - bx1 - bx2) / 4 + tf.square(ay1 + ay2 - by1 - by2) / 4
    diagonal = tf.maximum(tf.square(width) + tf.square(height), LEAST_AREA)
    shape = tf.square((_angle(corners1) - _angle(corners2)) * (2 / math.pi))
    alpha = tf.stop_gradient(tf.math.divide_no_nan(shape, 1 - iou + shape))
    return iou - distance / diagonal - alpha * shape


def _enclosing(corners1, corners2):
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = corners1, corners2
    width = tf.maximum(ax2, bx2) - tf.minimum(ax1, bx1)
    return width, tf.maximum(ay2, by2) - tf.minimum(ay1, by1)


def _angle(corners):
    x_min, y_min, x_max, y_max = corners
    return tf.atan2(tf.maximum(x_max - x_min, _LEAST_SIDE), tf.maximum(y_max - y_min, _LEAST_SIDE))
