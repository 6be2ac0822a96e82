"""From overlapping predictions to detections: non-maximum suppression."""

import tensorflow as tf

from kerascv_d2l.devices import map_batch
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.anchors import offset_inverse
from kerascv_d2l.ops.checks import as_boxes, check_fraction


def nms(boxes, scores, iou_threshold):
    """Keep boxes that overlap no better one, best first.

    A box falls when its IoU with a kept one is greater than the threshold. Equal
    scores go to the lower index.

    Args:
        boxes: float32 `(n, 4)` corners, anywhere in the plane.
        scores: float32 `(n,)`.
        iou_threshold: float in [0, 1].

    Returns:
        int32 `(kept,)` rows of `boxes`, by falling score.

    Raises:
        InputError: if `boxes` is not `(n, 4)`, `scores` has another length, or
            the threshold is out of range.

    Source:
        D2L 1.0.3, section 14.4.4.
    """
    boxes = as_boxes(boxes, "boxes", rank=2)
    scores = tf.cast(tf.convert_to_tensor(scores), tf.float32)
    if scores.shape.rank != 1 or not scores.shape.is_compatible_with(boxes.shape[:1]):
        raise InputError(
            f"scores must be one number a box, shape ({boxes.shape[0]},); "
            f"got {tuple(scores.shape)}."
        )
    check_fraction(iou_threshold, "iou_threshold")
    # The kernel takes any two opposite corners; a box that is inside out overlaps nothing.
    boxes = tf.concat([boxes[:, :2], tf.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    return tf.image.non_max_suppression(boxes, scores, tf.shape(boxes)[0], iou_threshold)


def batched_nms(boxes, scores, max_outputs, iou_threshold, score_threshold, soft_sigma):
    """`nms` of every image of a batch, padded, with TensorFlow's compiled kernel.

    Args:
        boxes: float32 `(batch, n, 4)` corners.
        scores: float32 `(batch, n)`.
        max_outputs: int scalar, how many boxes to keep at most.
        iou_threshold: float scalar.
        score_threshold: float scalar; boxes at or below it never stand.
        soft_sigma: float scalar; 0 drops overlapping boxes, a value above 0
            lowers their scores by `exp(-IoU²/soft_sigma)` instead.

    Returns:
        Tuple of int32 `(batch, max_outputs)` indices, by falling score; float32
        `(batch, max_outputs)` scores, lowered where soft; and int32 `(batch,)`,
        how many of these are valid.

    Source:
        Soft-NMS: Bodla et al. 2017, "Soft-NMS", equation 3 (Gaussian). The
        kernel's own sigma is half of the paper's.
    """

    options = (max_outputs, iou_threshold, score_threshold, soft_sigma)
    if boxes.shape[0] == 1:  # no loop: TensorFlow Lite converts this to builtin operators
        return tuple(part[tf.newaxis] for part in _nms_of_image((boxes[0], scores[0]), *options))
    return _nms_of_images(boxes, scores, *options)


@tf.function(
    reduce_retracing=True, autograph=False
)  # map_fn outside a graph would be a loop in Python
def _nms_of_images(boxes, scores, *options):
    return map_batch(
        lambda image: _nms_of_image(image, *options),
        (boxes, scores),
        fn_output_signature=(tf.int32, tf.float32, tf.int32),
    )


def _nms_of_image(image, max_outputs, iou_threshold, score_threshold, soft_sigma):
    boxes, scores = image  # (n, 4), (n,)
    indices, kept_scores, num_valid = tf.raw_ops.NonMaxSuppressionV5(
        boxes=boxes,
        scores=scores,
        max_output_size=max_outputs,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        soft_nms_sigma=soft_sigma / 2,
        pad_to_max_output_size=True,
    )
    return indices, kept_scores, num_valid


def multibox_detection(
    cls_probs, offset_preds, anchors, nms_threshold=0.5, pos_threshold=0.009999999
):
    """Every anchor's prediction, with the suppressed ones marked, as the book has it.

    Class-agnostic: an anchor stands for its best class that is not background,
    and competes with all other anchors. For a short list of detections, which is
    what programs want, use `kerascv_d2l.layers.DetectionDecoder`.

    Args:
        cls_probs: float32 `(batch, classes + 1, num_anchors)`, probabilities;
            class 0 is background.
        offset_preds: float32 `(batch, 4·num_anchors)`.
        anchors: float32 `(1, num_anchors, 4)` corners, normalised.
        nms_threshold: float in [0, 1]; a box falls when its IoU with a better
            one is greater.
        pos_threshold: float in [0, 1]; a prediction with lower confidence is
            background.

    Returns:
        float32 `(batch, num_anchors, 6)` rows `[class, confidence, x_min, y_min,
        x_max, y_max]`: kept ones first, best first; then the others in the order
        of their anchors, with class -1. Where the confidence was below
        `pos_threshold` the class is -1 and the confidence 1 - confidence.

    Raises:
        InputError: if a shape is another or a threshold is out of range.

    Source:
        D2L 1.0.3, section 14.4.4.
    """
    anchors = as_boxes(anchors, "anchors", rank=3)
    cls_probs = tf.cast(tf.convert_to_tensor(cls_probs), tf.float32)
    offset_preds = tf.cast(tf.convert_to_tensor(offset_preds), tf.float32)
    _check_predictions(cls_probs, offset_preds, anchors)
    check_fraction(nms_threshold, "nms_threshold")
    check_fraction(pos_threshold, "pos_threshold")

    num_anchors = tf.shape(anchors)[1]
    confidence = tf.reduce_max(cls_probs[:, 1:], axis=1)  # (batch, anchors)
    classes = tf.cast(tf.argmax(cls_probs[:, 1:], axis=1), tf.float32)  # (batch, anchors)
    offsets = tf.reshape(offset_preds, [-1, num_anchors, 4])
    boxes = offset_inverse(anchors, offsets)  # (batch, anchors, 4)

    indices, _, num_kept = batched_nms(
        boxes, confidence, num_anchors, nms_threshold, float("-inf"), 0.0
    )
    # Rank of every anchor: kept ones by score, the rest behind them in their own order.
    rank = tf.range(num_anchors)  # (anchors,)
    is_kept = rank < num_kept[:, tf.newaxis]  # (batch, anchors) of `indices`
    image = tf.broadcast_to(tf.range(tf.shape(boxes)[0])[:, tf.newaxis], tf.shape(indices))
    place = tf.where(is_kept, rank, num_anchors + indices)
    ranks = tf.tensor_scatter_nd_min(
        tf.broadcast_to(num_anchors + rank, tf.shape(indices)),
        tf.stack([image, indices], axis=-1),
        place,
    )  # (batch, anchors)
    order = tf.argsort(ranks, axis=-1)  # (batch, anchors)

    confidence = tf.gather(confidence, order, batch_dims=1)
    low = confidence < pos_threshold
    classes = tf.where(is_kept & ~low, tf.gather(classes, order, batch_dims=1), -1.0)
    confidence = tf.where(low, 1 - confidence, confidence)
    boxes = tf.gather(boxes, order, batch_dims=1)
    return tf.concat([tf.stack([classes, confidence], axis=-1), boxes], axis=-1)


def _check_predictions(cls_probs, offset_preds, anchors):
    if cls_probs.shape.rank != 3:
        raise InputError(
            "cls_probs must be (batch, classes + 1, num_anchors); "
            f"got shape {tuple(cls_probs.shape)}."
        )
    if cls_probs.shape[1] is not None and cls_probs.shape[1] < 2:
        raise InputError(
            "cls_probs needs background and at least one class in dimension 1; "
            f"got shape {tuple(cls_probs.shape)}."
        )
    num_anchors = anchors.shape[1]
    for name, tensor, each in (("cls_probs", cls_probs, 1), ("offset_preds", offset_preds, 4)):
        size = num_anchors and each * num_anchors
        if None not in (size, tensor.shape[-1]) and tensor.shape[-1] != size:
            raise InputError(
                f"{name} must end in a dimension of {size} for {num_anchors} anchors; "
                f"got shape {tuple(tensor.shape)}."
            )
