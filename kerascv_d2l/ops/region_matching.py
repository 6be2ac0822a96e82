"""Which object a proposal or anchor stands for, and which of them to learn from.

For the whole batch at once; padding rows take part in nothing.
"""

import tensorflow as tf

from kerascv_d2l.devices import replica_slice
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.boxes import ioa_of_corners, iou_of_corners
from kerascv_d2l.ops.checks import as_boxes

BACKGROUND = -1
IGNORED = -2
# An anchor with this share of its area inside an ignored object teaches nothing.
_IGNORED_SHARE = 0.5


def match_by_iou(
    boxes, classes, anchors, high, low, allow_low_quality=False, ignore=None, valid=None
):
    """Give each anchor the object that it overlaps most, if it overlaps it enough.

    Args:
        boxes: float32 `(batch, m, 4)` corners of objects.
        classes: int32 `(batch, m)`; class -1 marks a padding row.
        anchors: float32 `(num_anchors, 4)`, or `(batch, num_anchors, 4)` if each
            image has its own; corners in the same frame.
        high: float; an anchor with this IoU or more stands for an object.
        low: float ≤ high; one with less is background, those between neither.
        allow_low_quality: whether every object also keeps the anchors that it
            overlaps best, however little, ties included. Each of them stands
            for the object that it itself overlaps most. An object that overlaps
            no anchor keeps none (torchvision: every anchor).
        ignore: bool `(batch, m)` or None. Such an object is not to be found:
            anchors that stand for no other one and have half their area in it
            become neither.
        valid: bool `(batch, num_anchors)` or None; False rows are neither.

    Returns:
        int32 `(batch, num_anchors)`: row of `boxes`, -1 for background, -2 for
        neither. Equal IoUs go to the lowest row.

    Raises:
        InputError: if a shape is another, or low > high.

    Source:
        Ren et al. 2015, "Faster R-CNN", section 3.1.2; torchvision's `Matcher`.
    """
    if low > high:
        raise InputError(f"low={low} must not be above high={high}.")
    boxes = as_boxes(boxes, "boxes", rank=3)
    anchors = as_boxes(anchors, "anchors")
    if anchors.shape.rank not in (2, 3):
        raise InputError(f"anchors must be (n, 4) or (batch, n, 4); got {tuple(anchors.shape)}.")
    anchors = anchors[tf.newaxis] if anchors.shape.rank == 2 else anchors
    counts = tf.convert_to_tensor(classes) >= 0  # (batch, m)
    ignored = tf.zeros_like(counts) if ignore is None else counts & tf.cast(ignore, tf.bool)
    # One more row, so that there is one to find where there are no objects.
    boxes, counts, ignored = (
        tf.pad(t, [[0, 0], [0, 1]] + [[0, 0]] * (t.shape.rank - 2))
        for t in (boxes, counts & ~ignored, ignored)
    )
    corners = tf.unstack(anchors[:, tf.newaxis], axis=-1)  # (batch, 1, anchors) each
    of_boxes = tf.unstack(boxes[:, :, tf.newaxis], axis=-1)  # (batch, m, 1) each
    iou = tf.where(counts[:, :, tf.newaxis], iou_of_corners(corners, of_boxes), 0.0)
    if valid is not None:
        valid = tf.convert_to_tensor(valid)
        iou = tf.where(valid[:, tf.newaxis], iou, 0.0)  # (batch, m, anchors)

    best = tf.reduce_max(iou, axis=1)  # (batch, anchors)
    row = tf.argmax(iou, axis=1, output_type=tf.int32)
    match = tf.where(best >= high, row, tf.where(best < low, BACKGROUND, IGNORED))
    if allow_low_quality:
        most = tf.reduce_max(iou, axis=2, keepdims=True)  # (batch, m, 1)
        kept = tf.reduce_any((iou == most) & (most > 0), axis=1)
        match = tf.where(kept, row, match)
    if ignore is not None:
        inside = ioa_of_corners(corners, of_boxes)  # (batch, m, anchors)
        inside = tf.reduce_max(tf.where(ignored[:, :, tf.newaxis], inside, 0.0), axis=1)
        match = tf.where((match < 0) & (inside >= _IGNORED_SHARE), IGNORED, match)
    return match if valid is None else tf.where(valid, match, IGNORED)


def sample_balanced(match, count, positive_fraction, seed):
    """Draw anchors of each image to learn from, not too many of them with objects.

    At most `count · positive_fraction` (rounded down) stand for an object;
    background fills up. Where there are too few of both, fewer are drawn.

    Args:
        match: int32 `(batch, num_anchors)` as `match_by_iou` gives it; 0 or more
            for an object, -1 background, others are never drawn.
        count: int, how many to draw for each image.
        positive_fraction: float in [0, 1].
        seed: int32 `(2,)`; equal seeds draw equally. Several devices together draw what one
            would draw, if they have equally many images.

    Returns:
        Tuple of
        index: int32 `(batch, count)` into the anchors, those with objects first.
        drawn: bool `(batch, count)`, False where `index` means nothing.

    Source:
        torchvision's `BalancedPositiveNegativeSampler`.
    """
    match = tf.convert_to_tensor(match)
    size = match.shape[1] or tf.shape(match)[1]
    least = min if isinstance(size, int) else tf.minimum
    num_positive, num_all = least(int(count * positive_fraction), size), least(count, size)
    draws = replica_slice(
        # By default XLA would draw with another generator than the rest of TensorFlow.
        lambda total: tf.random.stateless_uniform([total, size], seed, alg="philox"),
        tf.shape(match)[0],
    )  # (batch, anchors)

    positive, positives = tf.math.top_k(tf.where(match >= 0, draws, -1.0), num_positive)
    negative, negatives = tf.math.top_k(tf.where(match == BACKGROUND, draws, -1.0), num_all)
    room = count - tf.reduce_sum(tf.cast(positive >= 0, tf.int32), axis=1, keepdims=True)
    drawn = tf.concat([positive >= 0, (negative >= 0) & (tf.range(num_all) < room)], axis=1)
    index = tf.concat([positives, negatives], axis=1)  # (batch, num_positive + num_all)

    # Those drawn to the front, in their order.
    place = tf.range(num_positive + num_all)
    order = tf.where(drawn, -place, -place - (num_positive + num_all))
    _, front = tf.math.top_k(order, num_all)  # (batch, num_all)
    rest = [[0, 0], [0, count - num_all]]
    index = tf.pad(tf.gather(index, front, batch_dims=1), rest)
    drawn = tf.pad(tf.gather(drawn, front, batch_dims=1), rest)
    shape = [match.shape[0], count]
    return tf.ensure_shape(index, shape), tf.ensure_shape(drawn, shape)
