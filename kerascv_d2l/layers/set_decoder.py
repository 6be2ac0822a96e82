"""From a set of predictions, at most one an object, to a short list an image."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.checks import check_fraction


@keras.saving.register_keras_serializable("kerascv_d2l")
class SetDecoder(keras.layers.Layer):
    """Give each query its likeliest class, and keep the best ones; nothing is suppressed.

    Args:
        score_threshold: float in [0, 1]; detections at or below it are dropped.
        max_detections: int, rows of the result.
        **kwargs: as in `keras.layers.Layer`.

    Raises:
        InputError: if an argument is out of range.

    Source:
        Carion et al. 2020, "DETR", section 3.
    """

    def __init__(self, score_threshold=0.01, max_detections=100, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_fraction(score_threshold, "score_threshold")
        if not isinstance(max_detections, int) or max_detections < 1:
            raise InputError(f"max_detections must be at least 1; got {max_detections!r}.")
        self.score_threshold, self.max_detections = float(score_threshold), max_detections

    def call(self, scores, boxes):
        """Decode a batch.

        Args:
            scores: float32 `(batch, queries, classes)`.
            boxes: float32 `(batch, queries, 4)` normalised corners.

        Returns:
            dict of `boxes` float32 `(batch, max_detections, 4)`, normalised corners clipped to
            the image; `scores` float32 `(batch, max_detections)`, falling; `classes` int32
            `(batch, max_detections)`; `num_valid` int32 `(batch,)`. Rows from `num_valid` on
            are padding: class -1, all else 0.
        """
        count = scores.shape[1]  # None for a map of unknown size
        least = tf.minimum if count is None else min
        count = least(self.max_detections, tf.shape(scores)[1] if count is None else count)
        best, chosen = tf.math.top_k(tf.reduce_max(scores, axis=-1), count)
        classes = tf.argmax(tf.gather(scores, chosen, batch_dims=1), -1, output_type=tf.int32)
        boxes = tf.clip_by_value(tf.gather(boxes, chosen, batch_dims=1), 0.0, 1.0)
        solid = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
        valid = (best > self.score_threshold) & solid  # (batch, count)
        # Those that stand to the front, in their order.
        order = tf.argsort(tf.cast(~valid, tf.int32), axis=1, stable=True)
        valid, best, classes, boxes = (
            tf.gather(t, order, batch_dims=1) for t in (valid, best, classes, boxes)
        )
        padding = [[0, 0], [0, self.max_detections - count]]
        return {
            "boxes": tf.pad(tf.where(tf.expand_dims(valid, -1), boxes, 0.0), [*padding, [0, 0]]),
            "scores": tf.pad(tf.where(valid, best, 0.0), padding),
            "classes": tf.pad(tf.where(valid, classes, -1), padding, constant_values=-1),
            "num_valid": tf.reduce_sum(tf.cast(valid, tf.int32), axis=1),
        }

    def get_config(self):
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "max_detections": self.max_detections,
        }
