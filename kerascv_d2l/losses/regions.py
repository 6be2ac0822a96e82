"""Losses of detectors without the book's anchors, elementwise: the caller reduces."""

import tensorflow as tf

from kerascv_d2l.ops.checks import as_boxes
from kerascv_d2l.ops.iou import ciou_of_corners, giou_of_corners

_LEAST_WRONG = 1e-12  # keeps the gradient of a power finite


def sigmoid_focal_loss(targets, logits, alpha=0.25, gamma=2.0):
    """Binary cross-entropy that turns down what is already right: `α_t (1 - p_t)^γ · CE`.

    Args:
        targets: float tensor in [0, 1], 1 for the class; soft values are taken
            as torchvision takes them, p_t = pt + (1 - p)(1 - t).
        logits: float tensor of the same shape, before the sigmoid.
        alpha: float, weight of the positive class, 1 - alpha that of the
            negative one; None for no weights.
        gamma: float ≥ 0.

    Returns:
        float32 of the same shape.

    Source:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5;
        `torchvision.ops.sigmoid_focal_loss`.
    """
    targets, logits = tf.cast(targets, tf.float32), tf.cast(logits, tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    # 1 - p and 1 - p_t, each without a difference of numbers near 1.
    positive, negative = tf.sigmoid(logits), tf.sigmoid(-logits)
    wrong = tf.maximum(positive * (1 - targets) + negative * targets, _LEAST_WRONG)
    loss = tf.pow(wrong, gamma) * entropy
    return loss if alpha is None else loss * (alpha * targets + (1 - alpha) * (1 - targets))


def quality_focal_loss(targets, logits, gamma=2.0):
    """Binary cross-entropy towards a quality, times a power of the error: `|q - p|^γ · CE`.

    Args:
        targets: float tensor in [0, 1]: of its class how good a box is, as its IoU; else 0.
        logits: float tensor of the same shape, before the sigmoid.
        gamma: float ≥ 0.

    Returns:
        float32 of the same shape.

    Source:
        Li et al. 2020, "Generalized Focal Loss", equation 2.
    """
    targets, logits = tf.cast(targets, tf.float32), tf.cast(logits, tf.float32)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
    if not gamma:
        return entropy
    wrong = tf.maximum(tf.abs(targets - tf.sigmoid(logits)), _LEAST_WRONG)
    return entropy * tf.pow(wrong, gamma)


def distribution_focal_loss(targets, logits):
    """Cross-entropy of a number's distribution over bins 0, 1, 2 … towards the two next to it.

    The bin below and the bin above share the target by how near they are, so the mean of the
    distribution that is learned is the target.

    Args:
        targets: float tensor `(…)` from 0 to bins - 1, in bins; others count as the nearer end.
        logits: float tensor `(…, bins)`, before the softmax.

    Returns:
        float32 `(…)`.

    Source:
        Li et al. 2020, "Generalized Focal Loss", equation 6.
    """
    targets, logits = tf.cast(targets, tf.float32), tf.cast(logits, tf.float32)
    bins = tf.range(tf.shape(logits)[-1], dtype=tf.float32)
    nearness = tf.nn.relu(1 - tf.abs(tf.clip_by_value(targets, 0, bins[-1])[..., None] - bins))
    return tf.nn.softmax_cross_entropy_with_logits(labels=nearness, logits=logits)


def giou_loss(boxes1, boxes2):
    """1 - GIoU of boxes that belong together.

    Args:
        boxes1: float32 `(…, 4)` corners.
        boxes2: float32 `(…, 4)` in the same frame; broadcasts.

    Returns:
        float32 `(…)` in [0, 2).

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        Rezatofighi et al. 2019; `torchvision.ops.generalized_box_iou_loss`,
        which adds 1e-7 to areas.
    """
    return 1 - giou_of_corners(*_corners(boxes1, boxes2))


def ciou_loss(boxes1, boxes2):
    """1 - CIoU of boxes that belong together.

    Args:
        boxes1: float32 `(…, 4)` corners.
        boxes2: float32 `(…, 4)` in the same frame; broadcasts.

    Returns:
        float32 `(…)`, at least 0.

    Raises:
        InputError: if a last dimension is not 4.

    Source:
        Zheng et al. 2020; `torchvision.ops.complete_box_iou_loss`, which adds
        1e-7 to areas.
    """
    return 1 - ciou_of_corners(*_corners(boxes1, boxes2))


def _corners(boxes1, boxes2):
    return tuple(
        tf.unstack(as_boxes(boxes, name), axis=-1)
        for name, boxes in (("boxes1", boxes1), ("boxes2", boxes2))
    )
