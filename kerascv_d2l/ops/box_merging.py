"""Boxes averaged with those around them, instead of suppressed or after it."""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.boxes import box_iou
from kerascv_d2l.ops.checks import as_boxes

THRESHOLD = 0.7


@tf.function(reduce_retracing=True, autograph=False)
def merge_boxes(boxes, scores, threshold=THRESHOLD):
    """Average the two closest boxes again and again, as long as they are close enough.

    The distance of two boxes is that of their centres, as a share of the mean of their four
    sides, plus 1 less their IoU: 0 for equal boxes, more than 1 for those apart. (OverFeat says
    "sum of the distance between centers and the intersection area".)

    Args:
        boxes: float32 `(n, 4)` corners, of one class.
        scores: float32 `(n,)`; those of merged boxes are added up.
        threshold: float: boxes further apart stay two.

    Returns:
        Tuple of float32 `(k, 4)` boxes, float32 `(k,)` scores, the highest first, and int32
        `(k,)`, how many boxes each is made of.

    Raises:
        InputError: if the last dimension of the boxes is not 4.

    Source:
        Sermanet et al. 2013, "OverFeat", section 4.3.
    """
    boxes = as_boxes(boxes, "boxes")
    scores = tf.cast(scores, tf.float32)
    counts = tf.ones_like(scores, tf.int32)  # 0: merged into another

    def closest(boxes, counts):
        """The smallest distance, and the two boxes, their numbers rising."""
        number = tf.shape(boxes)[0]
        alone = tf.linalg.band_part(tf.ones([number, number], tf.bool), -1, 0)  # i >= j
        gone = (counts == 0)[:, tf.newaxis] | (counts == 0)[tf.newaxis]
        away = tf.where(alone | gone, float("inf"), _distances(boxes))  # (n, n)
        place = tf.argmin(tf.reshape(away, [-1]), output_type=tf.int32)
        return tf.reduce_min(away), place // number, place % number

    def merge(boxes, scores, counts, _):
        _, first, second = closest(boxes, counts)
        pair = tf.stack([[first], [second]])  # (2, 1)
        middle = (boxes[first] + boxes[second]) / 2
        boxes = tf.tensor_scatter_nd_update(boxes, pair[:1], middle[tf.newaxis])
        moved = scores[second], counts[second]
        scores = tf.tensor_scatter_nd_add(scores, pair, tf.stack([moved[0], -moved[0]]))
        counts = tf.tensor_scatter_nd_add(counts, pair, tf.stack([moved[1], -moved[1]]))
        return boxes, scores, counts, closest(boxes, counts)[0]

    def some():
        found = tf.while_loop(
            lambda *state: state[-1] <= threshold,
            merge,
            (boxes, scores, counts, closest(boxes, counts)[0]),
        )
        return found[:3]

    merged, sums, numbers = tf.cond(tf.shape(boxes)[0] > 1, some, lambda: (boxes, scores, counts))
    order = tf.argsort(tf.where(numbers > 0, sums, float("-inf")), direction="DESCENDING")
    order = order[: tf.math.count_nonzero(numbers, dtype=tf.int32)]
    return tf.gather(merged, order), tf.gather(sums, order), tf.gather(numbers, order)


def _distances(boxes):
    """Distance of every pair, float32 `(n, n)`."""
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]  # (n, 2)
    length = tf.norm(centres[:, tf.newaxis] - centres[tf.newaxis], axis=-1)  # (n, n)
    mean = tf.reduce_mean(sides, axis=-1)  # (n,)
    mean = (mean[:, tf.newaxis] + mean[tf.newaxis]) / 2
    return length / tf.maximum(mean, 1e-12) + 1 - box_iou(boxes, boxes)


def vote_boxes(boxes, candidates, scores, iou_threshold=0.7):
    """Move each box to the weighted mean of the candidates that overlap it.

    Of many boxes for one object the suppression leaves the one with the best score, which
    need not fit best; their mean errs less. Weights are the squared scores.

    Args:
        boxes: float32 `(…, n, 4)` corners, those that stand after the suppression.
        candidates: float32 `(…, m, 4)` in the same frame, all that there were before.
        scores: float32 `(…, m)`, of the candidates; those below 0 have no say.
        iou_threshold: float in (0, 1]; candidates with a lower IoU have no say.

    Returns:
        float32 `(…, n, 4)`. A box that no candidate overlaps so much stays as it is.

    Raises:
        InputError: if a last dimension is not 4, or the threshold out of range.

    Source:
        Gidaris and Komodakis 2015, "Object detection via a multi-region & semantic
        segmentation-aware CNN model", section 5 ("bounding box voting"), where weights are the
        scores and the threshold is 0.5.
    """
    check_voting(iou_threshold, "iou_threshold")
    boxes, candidates = as_boxes(boxes, "boxes"), as_boxes(candidates, "candidates")
    near = box_iou(boxes, candidates) >= iou_threshold  # (…, n, m)
    squared = tf.square(tf.nn.relu(tf.cast(scores, tf.float32)))
    weights = tf.where(near, tf.expand_dims(squared, -2), 0.0)
    total = tf.reduce_sum(weights, axis=-1, keepdims=True)  # (…, n, 1)
    return tf.where(total > 0, tf.math.divide_no_nan(weights @ candidates, total), boxes)


def check_voting(threshold, name):
    """Refuse a threshold at which boxes apart would be averaged, or none."""
    if not 0 < threshold <= 1:
        raise InputError(f"{name} must lie in (0, 1]; got {threshold!r}.")
