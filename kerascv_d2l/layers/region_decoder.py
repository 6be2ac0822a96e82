"""From the predictions of an R-CNN's head to a short list of boxes an image."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.detection_decoder import best_of_each
from kerascv_d2l.ops.box_coding import HEAD_WEIGHTS, decode_boxes
from kerascv_d2l.ops.boxes import sides_of
from kerascv_d2l.ops.checks import check_fraction

_LEAST_SIDE = 1e-2  # pixels; a smaller detection is none


@keras.saving.register_keras_serializable("kerascv_d2l")
class RegionDecoder(keras.layers.Layer):
    """Turn class scores and offsets of proposals into at most `max_detections` boxes an image.

    A proposal may give a detection of every class; only detections of the same
    class suppress each other.

    Args:
        score_threshold: float in [0, 1]; detections at or below it are dropped.
        nms_threshold: float in [0, 1]; of two detections of a class whose IoU is
            greater, the better one stands.
        max_detections: int, rows of the result.
        **kwargs: as in `keras.layers.Layer`.

    Raises:
        InputError: if a threshold is out of range or the number not positive.

    Source:
        Girshick 2015, "Fast R-CNN"; the numbers are torchvision's.
    """

    def __init__(self, score_threshold=0.05, nms_threshold=0.5, max_detections=100, **kwargs):
        # Under mixed precision Keras would round coordinates to half precision on their way in.
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_fraction(score_threshold, "score_threshold")
        check_fraction(nms_threshold, "nms_threshold")
        if not isinstance(max_detections, int) or max_detections < 1:
            raise InputError(f"max_detections must be at least 1; got {max_detections!r}.")
        self.score_threshold = float(score_threshold)
        self.nms_threshold = float(nms_threshold)
        self.max_detections = max_detections

    def call(self, proposals, valid, logits, offsets, image_size, builtin=False):
        """Decode a batch.

        Args:
            proposals: float32 `(batch, n, 4)` corners, pixels.
            valid: bool `(batch, n)`, False in padding rows.
            logits: float32 `(batch, n, classes + 1)`, class 0 background.
            offsets: float32 `(batch, n, classes + 1, 4)`.
            image_size: int32 `(2,)`, height and width in pixels.
            builtin: bool, whether to use only what TensorFlow Lite has; for batches of one.

        Returns:
            dict of `boxes` float32 `(batch, max_detections, 4)`, normalised corners clipped to
            the image; `scores` float32 `(batch, max_detections)`, falling; `classes` int32
            `(batch, max_detections)`, 0 = first object class; `num_valid` int32 `(batch,)`.
            Rows from `num_valid` on are padding: class -1, all else 0.
        """
        scores = tf.nn.softmax(logits)[..., 1:]  # (batch, n, classes)
        boxes = decode_boxes(offsets[..., 1:, :], proposals[:, :, tf.newaxis], HEAD_WEIGHTS)
        sides = sides_of(image_size)
        boxes = tf.clip_by_value(boxes, 0.0, sides)  # (batch, n, classes, 4)
        solid = tf.reduce_all(boxes[..., 2:] - boxes[..., :2] >= _LEAST_SIDE, axis=-1)
        scores = tf.where(solid & valid[..., tf.newaxis], scores, -1.0)
        if builtin:  # all classes at once, each in a place of its own
            num_classes = scores.shape[2]
            boxes, scores = tf.reshape(boxes / sides, [1, -1, 4]), tf.reshape(scores, [1, -1])
            classes = tf.range(tf.shape(scores)[1])[tf.newaxis] % num_classes
            settings = self.max_detections, self.nms_threshold, self.score_threshold
            return best_of_each(boxes, scores, classes, num_classes, *settings)
        found = tf.image.combined_non_max_suppression(
            boxes,
            scores,
            self.max_detections,
            self.max_detections,
            self.nms_threshold,
            self.score_threshold,
            clip_boxes=False,
        )
        kept = tf.range(self.max_detections) < found.valid_detections[:, tf.newaxis]
        return {
            "boxes": found.nmsed_boxes / sides,
            "scores": found.nmsed_scores,
            "classes": tf.where(kept, tf.cast(found.nmsed_classes, tf.int32), -1),
            "num_valid": found.valid_detections,
        }

    def get_config(self):
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "nms_threshold": self.nms_threshold,
            "max_detections": self.max_detections,
        }
