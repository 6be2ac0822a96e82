"""Losses of a set of predictions, as DETR's: each object is found by one of them.

All functions take the predictions of all layers of a decoder at once: `logits` float32 `(layers,
batch, queries, classes + 1)`, the last class being "no object", for a softmax; or `(layers, batch,
queries, classes)`, for a sigmoid of each class, with focal factors. `boxes` are float32 `(layers,
batch, queries, 4)`, normalised, centre first. Labels `y` have `boxes` `(batch, m, 4)`, corners,
`classes` int32 `(batch, m)`, -1 for padding, and `ignore` bool `(batch, m)`; m is at least 1.
"""

import tensorflow as tf

from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.losses.regions import giou_loss, quality_focal_loss, sigmoid_focal_loss
from kerascv_d2l.ops.boxes import (
    box_center_to_corner,
    box_corner_to_center,
    ioa_of_corners,
    iou_of_corners,
)
from kerascv_d2l.ops.iou import generalized_iou

CLASS_WEIGHT, BOX_WEIGHT, GIOU_WEIGHT = 1.0, 5.0, 2.0  # of costs and losses
FOCAL_CLASS_WEIGHT = 2.0  # in place of the first, with a focal factor (Deformable DETR)
NO_OBJECT_WEIGHT = 0.1  # of the cross-entropy of queries without an object
IGNORED_SHARE = 0.5  # of a box inside an ignored object, from which it teaches nothing


def object_probabilities(logits, num_classes):
    """Probability of each class of objects, by a sigmoid or a softmax, see the module.

    Args:
        logits: float32 `(…, classes)` or `(…, classes + 1)`.
        num_classes: int, without "no object".

    Returns:
        float32 `(…, classes)`.
    """
    focal = logits.shape[-1] == num_classes
    return tf.sigmoid(logits) if focal else tf.nn.softmax(logits)[..., :-1]


def matching_costs(y, logits, boxes, num_classes):
    """How badly each query would do for each object.

    Args:
        y: labels, see the module.
        logits: see the module.
        boxes: likewise.
        num_classes: int, without "no object".

    Returns:
        float32 `(layers, batch, queries, m)`.

    Source:
        Carion et al. 2020, "DETR", equation 1; with a sigmoid: Zhu et al. 2021, "Deformable
        DETR".
    """
    of_class = _class_costs(logits, num_classes)
    wanted = tf.one_hot(y["classes"], num_classes, axis=1)[tf.newaxis]
    # Left to broadcast a batch of one image, TensorFlow 2.21's product writes past its end.
    wanted = tf.repeat(wanted, logits.shape[0], axis=0)  # (layers, batch, classes, m)
    of_class = tf.matmul(of_class, wanted)
    truth = box_corner_to_center(y["boxes"])[:, tf.newaxis]  # (batch, 1, m, 4)
    l1 = tf.reduce_sum(tf.abs(boxes[..., tf.newaxis, :] - truth), axis=-1)
    giou = generalized_iou(box_center_to_corner(boxes), y["boxes"])
    return of_class + BOX_WEIGHT * l1 - GIOU_WEIGHT * giou


def _class_costs(logits, num_classes):
    """`(layers, batch, queries, classes)`."""
    if logits.shape[-1] > num_classes:
        return -CLASS_WEIGHT * object_probabilities(logits, num_classes)
    as_object, as_nothing = (
        sigmoid_focal_loss(tf.fill(tf.shape(logits), target), logits) for target in (1.0, 0.0)
    )
    return FOCAL_CLASS_WEIGHT * (as_object - as_nothing)


def query_class_loss(y, logits, boxes, matched, count, num_classes):
    """Cross-entropy with less weight on "no object", or towards the quality of boxes.

    With a sigmoid, a score learns to be the IoU of the query's box: that tells which of many boxes
    on an object is best. A query without an object, but on an ignored one, teaches nothing.

    Args:
        y: labels, see the module.
        logits: see the module.
        boxes: likewise.
        matched: int32 `(layers, batch, m)`, the query of each object, or -1.
        count: float32 scalar, objects on this device.
        num_classes: int, without "no object".

    Returns:
        float32 scalar, the sum over layers of means over all devices.

    Source:
        Carion et al. 2020, "DETR", section 3.1; Liu et al. 2023, "Stable-DINO".
    """
    queries = tf.shape(logits)[2]
    # (layers, batch, m, queries): the query of each object
    owner = tf.one_hot(matched, queries, on_value=True, off_value=False)
    taken = tf.reduce_any(owner, axis=2)  # (layers, batch, queries)
    row = tf.argmax(tf.cast(owner, tf.int32), axis=2, output_type=tf.int32)

    def of_row(rows):
        """What belongs to the object of each query, of `(batch, m, …)`."""
        padded = tf.pad(rows, [[0, 0], [0, 1], *[[0, 0]] * (rows.shape.rank - 2)])[tf.newaxis]
        return tf.gather(tf.repeat(padded, logits.shape[0], axis=0), row, batch_dims=2)

    classes = tf.where(taken, of_row(y["classes"]), num_classes)
    counted = taken | ~_on_ignored(y, boxes)
    if logits.shape[-1] == num_classes:
        losses = quality_losses(boxes, of_row(y["boxes"]), classes, logits)
        losses = tf.where(counted, losses, 0.0)
        return FOCAL_CLASS_WEIGHT * mean_over_replicas(tf.reduce_sum(losses), count)
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
    weights = tf.where(taken, 1.0, NO_OBJECT_WEIGHT) * tf.cast(counted, tf.float32)
    # Each layer's mean is over the sum of its own weights.
    sums, totals = (tf.reduce_sum(t, axis=(1, 2)) for t in (weights * entropy, weights))
    parts = [
        mean_over_replicas(s, t) for s, t in zip(tf.unstack(sums), tf.unstack(totals), strict=True)
    ]
    return CLASS_WEIGHT * tf.add_n(parts)


def quality_losses(boxes, truth, classes, logits):
    """Cross-entropy of each query towards its box's IoU with the truth.

    Args:
        boxes: float32 `(layers, batch, n, 4)`, centre first.
        truth: float32 `(…, n, 4)`, corners.
        classes: int32 `(…, n)`; one above the last for no object.
        logits: float32 `(layers, batch, n, classes)`.

    Returns:
        float32 `(layers, batch, n)`.

    Source:
        Li et al. 2020, "Generalized Focal Loss", equation 2.
    """
    corners = tf.stop_gradient(box_center_to_corner(boxes))
    quality = iou_of_corners(tf.unstack(corners, axis=-1), tf.unstack(truth, axis=-1))
    targets = quality[..., tf.newaxis] * tf.one_hot(classes, logits.shape[-1])
    return tf.reduce_sum(quality_focal_loss(targets, logits), axis=-1)


def query_box_losses(boxes, truth, counted, count):
    """L1 and GIoU of pairs of boxes, weighted.

    Args:
        boxes: float32 `(layers, batch, n, 4)`, centre first.
        truth: float32 `(batch, n, 4)`, corners.
        counted: bool `(batch, n)` or `(layers, batch, n)`.
        count: float32 scalar, objects on this device.

    Returns:
        List of two float32 scalars, sums over the objects of all devices, divided by their number.

    Source:
        Carion et al. 2020, "DETR", section 3.1 and appendix A.2.
    """
    l1 = tf.reduce_sum(tf.abs(boxes - box_corner_to_center(truth)), axis=-1)
    giou = giou_loss(box_center_to_corner(boxes), truth)
    return [
        weight * mean_over_replicas(tf.reduce_sum(tf.where(counted, loss, 0.0)), count)
        for weight, loss in ((BOX_WEIGHT, l1), (GIOU_WEIGHT, giou))
    ]


def _on_ignored(y, boxes):
    """Which boxes lie on objects that are not to be found: bool `(layers, batch, queries)`."""
    inner = box_center_to_corner(boxes)[..., tf.newaxis, :]  # (layers, batch, q, 1, 4)
    outer = y["boxes"][:, tf.newaxis]  # (batch, 1, m, 4)
    share = ioa_of_corners(tf.unstack(inner, axis=-1), tf.unstack(outer, axis=-1))
    return tf.reduce_any((share >= IGNORED_SHARE) & y["ignore"][:, tf.newaxis], axis=-1)


def with_a_row(y):
    """Add a row of padding to labels without any row: of none no greatest can be found."""
    if y["classes"].shape[1]:
        return y
    missing = tf.cast(tf.shape(y["classes"])[1] == 0, tf.int32)
    rows = [[0, 0], [0, missing]]
    return {
        "boxes": tf.pad(y["boxes"], [*rows, [0, 0]]),
        "classes": tf.pad(y["classes"], rows, constant_values=-1),
        "ignore": tf.pad(y["ignore"], rows),
    }
