"""From a detector's raw predictions to a short list of boxes an image."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.anchors import offset_inverse
from kerascv_d2l.ops.box_merging import vote_boxes
from kerascv_d2l.ops.checks import check_fraction
from kerascv_d2l.ops.nms import batched_nms


@keras.saving.register_keras_serializable("kerascv_d2l")
class DetectionDecoder(keras.layers.Layer):
    """Turn predictions for all anchors into at most `max_detections` boxes an image.

    The `max_candidates` best predictions are clipped to the image; those that lie outside
    of it or score too low are dropped; what is left goes through the suppression. Choosing
    first makes this some hundred times faster than suppressing among all anchors.

    Many anchors stand on each object, and those that are suppressed have taken a place among the
    candidates: there must be several times as many as objects. (torchvision's SSD takes 400 of each
    class.) 1000 cost 1.0 to 2.4 ms an image of 12244 anchors and 1 to 20 classes on one core, 400
    cost 0.6 to 1.5 ms.

    Args:
        score_threshold: float in [0, 1]; predictions at or below it are dropped.
        nms_threshold: float in [0, 1]; of two detections whose IoU is greater,
            the better one stands.
        max_detections: int, rows of the result.
        max_candidates: int, how many predictions of an image take part in the
            suppression.
        class_agnostic: bool. True: an anchor stands for its best class, and
            detections of different classes suppress each other (as in the book).
            False: an anchor may give a detection of every class, and only
            detections of the same class suppress each other.
        soft_nms_sigma: float; above 0, overlapping detections are not dropped,
            but lose score by `exp(-IoU²/sigma)`; 0.5 is the paper's choice.

    Raises:
        InputError: if a threshold is out of range or a number not positive.

    Source:
        Thresholds and top-k before suppression: Liu et al. 2016, "SSD", section
        3.1 (0.01, top 200, IoU 0.45). Soft-NMS: Bodla et al. 2017.
    """

    def __init__(
        self,
        score_threshold=0.01,
        nms_threshold=0.5,
        max_detections=100,
        max_candidates=1000,
        class_agnostic=True,
        soft_nms_sigma=0.0,
        **kwargs,
    ):
        # Under mixed precision Keras would round coordinates to half precision on their way in.
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_fraction(score_threshold, "score_threshold")
        check_fraction(nms_threshold, "nms_threshold")
        for name, value in (("max_detections", max_detections), ("max_candidates", max_candidates)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be a whole number of at least 1; got {value!r}.")
        if soft_nms_sigma < 0:
            raise InputError(f"soft_nms_sigma must be 0 (off) or more; got {soft_nms_sigma!r}.")
        self.score_threshold = float(score_threshold)
        self.nms_threshold = float(nms_threshold)
        self.max_detections = max_detections
        self.max_candidates = max_candidates
        self.class_agnostic = bool(class_agnostic)
        self.soft_nms_sigma = float(soft_nms_sigma)

    def call(self, anchors, cls_preds, bbox_preds):
        """Decode a batch.

        Args:
            anchors: float32 `(1, num_anchors, 4)` corners, normalised.
            cls_preds: `(batch, num_anchors, classes + 1)` logits, class 0 background.
            bbox_preds: `(batch, 4·num_anchors)` offsets.

        Returns:
            Dictionary of `boxes` float32 `(batch, max_detections, 4)`, normalised
            corners clipped to the image; `scores` float32 `(batch,
            max_detections)`, falling; `classes` int32 `(batch, max_detections)`,
            0 = first object class; `num_valid` int32 `(batch,)`. Rows from
            `num_valid` on are padding: class -1, all else 0.
        """
        anchors = tf.cast(anchors, tf.float32)[0]
        probabilities = _object_probabilities(tf.cast(cls_preds, tf.float32))
        num_anchors, num_classes = tf.shape(probabilities)[1], tf.shape(probabilities)[2]
        if self.class_agnostic:
            scores = tf.reduce_max(probabilities, axis=-1)  # (batch, anchors)
        else:
            scores = tf.reshape(probabilities, [-1, num_anchors * num_classes])
        # (batch, candidates) each, best first
        scores, chosen = tf.math.top_k(scores, tf.minimum(self.max_candidates, tf.shape(scores)[1]))
        anchor = chosen if self.class_agnostic else chosen // num_classes
        if self.class_agnostic:
            best = tf.argmax(tf.gather(probabilities, anchor, batch_dims=1), -1)
            classes = tf.cast(best, tf.int32)  # (batch, candidates)
        else:
            classes = chosen % num_classes
        batch = tf.shape(scores)[0] if scores.shape[0] is None else scores.shape[0]
        offsets = tf.reshape(tf.cast(bbox_preds, tf.float32), [batch, num_anchors, 4])
        boxes = offset_inverse(
            tf.gather(anchors, anchor), tf.gather(offsets, anchor, batch_dims=1)
        )  # (batch, candidates, 4)
        boxes = tf.clip_by_value(boxes, 0.0, 1.0)
        # The score -1 passes no threshold: what lies outside the image is no detection.
        in_image = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
        scores = tf.where(in_image, scores, -1.0)

        return best_of_each(
            boxes,
            scores,
            classes,
            1 if self.class_agnostic else num_classes,
            self.max_detections,
            1.0 if self.soft_nms_sigma else self.nms_threshold,
            self.score_threshold,
            self.soft_nms_sigma,
        )

    def compute_output_spec(self, anchors, cls_preds, bbox_preds):
        batch, rows = cls_preds.shape[0], self.max_detections
        return {
            "boxes": keras.KerasTensor((batch, rows, 4), "float32"),
            "scores": keras.KerasTensor((batch, rows), "float32"),
            "classes": keras.KerasTensor((batch, rows), "int32"),
            "num_valid": keras.KerasTensor((batch,), "int32"),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "nms_threshold": self.nms_threshold,
            "max_detections": self.max_detections,
            "max_candidates": self.max_candidates,
            "class_agnostic": self.class_agnostic,
            "soft_nms_sigma": self.soft_nms_sigma,
        }


def best_of_each(
    boxes,
    scores,
    classes,
    num_classes,
    count,
    nms_threshold,
    score_threshold,
    soft_sigma=0.0,
    box_voting=None,
):
    """Suppress candidates that overlap a better one of their class, and fill up with padding.

    Args:
        boxes: float32 `(batch, n, 4)` corners in [0, 1].
        scores: float32 `(batch, n)`.
        classes: int32 `(batch, n)`.
        num_classes: int or int scalar; 1 lets all classes suppress each other.
        count: int, detections of an image.
        nms_threshold: float, as `iou_threshold` of `batched_nms`.
        score_threshold: float, as of `batched_nms`.
        soft_sigma: float, as of `batched_nms`.
        box_voting: float, `iou_threshold` of `vote_boxes` for what stands; None leaves it as it is.

    Returns:
        dict of `boxes`, `scores`, `classes` and `num_valid`, as `DetectionDecoder.call` gives it.
    """
    apart = (
        boxes
        if isinstance(num_classes, int) and num_classes == 1
        else _set_classes_apart(boxes, classes, num_classes)
    )
    candidates = scores
    indices, scores, num_valid = batched_nms(
        apart, candidates, count, nms_threshold, score_threshold, soft_sigma
    )
    if not soft_sigma:
        # The same numbers, but with a derivative, which suppression has not.
        scores = tf.gather(candidates, indices, batch_dims=1)
    valid = tf.range(count) < num_valid[:, tf.newaxis]  # (batch, count)
    standing = tf.gather(boxes, indices, batch_dims=1)
    if box_voting is not None:
        before = tf.gather(apart, indices, batch_dims=1)
        moved = vote_boxes(before, apart, candidates, box_voting) - before
        standing = tf.clip_by_value(standing + moved, 0.0, 1.0)  # rounding may leave the image
    return {
        "boxes": tf.where(valid[..., tf.newaxis], standing, 0.0),
        "scores": tf.where(valid, scores, 0.0),
        "classes": tf.where(valid, tf.gather(classes, indices, batch_dims=1), -1),
        "num_valid": num_valid,
    }


def _object_probabilities(logits):
    """Softmax without the background's part, `(batch, anchors, classes)`.

    With one class it is the sigmoid of a difference, which takes a seventh of the time of a
    softmax over two.
    """
    if logits.shape[-1] == 2:
        return tf.sigmoid(logits[..., 1:] - logits[..., :1])
    return tf.nn.softmax(logits)[..., 1:]


def _set_classes_apart(boxes, classes, num_classes):
    """Move the boxes of each class to a place of their own, so that none overlap.

    Boxes are clipped to the image, and the classes stand on a square lattice: both keep
    coordinates small, and so the rounding of overlaps, which with 100 classes stays below
    1e-4 for boxes of a twentieth of the image.
    """
    columns = tf.cast(tf.math.ceil(tf.sqrt(tf.cast(num_classes, tf.float32))), tf.int32)
    place = tf.cast(tf.stack([classes % columns, classes // columns], -1), tf.float32)
    shift = 2.0 * place  # (batch, candidates, 2)
    return boxes + tf.concat([shift, shift], axis=-1)
