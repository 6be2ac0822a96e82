"""From the scores and boxes of every place of a feature pyramid to a short list an image."""

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.detection_decoder import best_of_each
from kerascv_d2l.ops.box_merging import check_voting
from kerascv_d2l.ops.boxes import sides_of
from kerascv_d2l.ops.checks import check_fraction
from kerascv_d2l.ops.roi_sampling import map_size


@keras.saving.register_keras_serializable("kerascv_d2l")
class DenseDecoder(keras.layers.Layer):
    """Keep the best candidates of each level, and suppress those of a class that overlap.

    A place may give a detection of every class. Boxes are clipped to the image; those that lie
    outside of it are dropped.

    Args:
        score_threshold: float in [0, 1]; detections at or below it are dropped.
        nms_threshold: float in [0, 1]; of two detections of a class whose IoU is
            greater, the better one stands.
        max_detections: int, rows of the result.
        candidates: int, of a level and image, that are looked at.
        box_voting: float in (0, 1]; each box that stands moves to the mean of the candidates
            of its class whose IoU with it is at least this, see `vote_boxes`. None: none moves.
        **kwargs: as in `keras.layers.Layer`.

    Raises:
        InputError: if a threshold is out of range or a number not positive.

    Source:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1; torchvision's
        `RetinaNet` and `FCOS`.
    """

    def __init__(
        self,
        score_threshold=0.01,
        nms_threshold=0.5,
        max_detections=100,
        candidates=1000,
        box_voting=None,
        **kwargs,
    ):
        # Under mixed precision Keras would round coordinates to half precision on their way in.
        super().__init__(**{**kwargs, "dtype": "float32"})
        check_fraction(score_threshold, "score_threshold")
        check_fraction(nms_threshold, "nms_threshold")
        for name, value in (("max_detections", max_detections), ("candidates", candidates)):
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be at least 1; got {value!r}.")
        if box_voting is not None:
            check_voting(box_voting, "box_voting")
        self.box_voting = box_voting
        self.score_threshold = float(score_threshold)
        self.nms_threshold = float(nms_threshold)
        self.max_detections, self.candidates = max_detections, candidates

    def call(self, scores, boxes, image_size):
        """Decode a batch.

        Args:
            scores: list of float32 `(batch, places of the level, classes)`, in [0, 1].
            boxes: list of float32 `(batch, places of the level, 4)` corners, pixels.
            image_size: int32 `(2,)`, height and width in pixels.

        Returns:
            dict of `boxes` float32 `(batch, max_detections, 4)`, normalised corners clipped to
            the image; `scores` float32 `(batch, max_detections)`, falling; `classes` int32
            `(batch, max_detections)`; `num_valid` int32 `(batch,)`. Rows from `num_valid` on
            are padding: class -1, all else 0.
        """
        sides = sides_of(image_size)
        num_classes = scores[0].shape[-1]
        kept = [
            self._best_of_level(*level, num_classes) for level in zip(scores, boxes, strict=True)
        ]
        scores, boxes, classes = (tf.concat(part, axis=1) for part in zip(*kept, strict=True))
        boxes = tf.clip_by_value(boxes / sides, 0.0, 1.0)
        # The score -1 passes no threshold: what has no area in the image is no detection.
        solid = tf.reduce_all(boxes[..., 2:] > boxes[..., :2], axis=-1)
        return best_of_each(
            boxes,
            tf.where(solid, scores, -1.0),
            classes,
            num_classes,
            self.max_detections,
            self.nms_threshold,
            self.score_threshold,
            box_voting=self.box_voting,
        )

    def _best_of_level(self, scores, boxes, num_classes):
        """The best pairs of place and class: `(batch, k)`, `(batch, k, 4)`, `(batch, k)`."""
        pairs = tf.reshape(scores, [map_size(scores)[0], -1])
        size = scores.shape[1] * num_classes if scores.shape[1] else tf.shape(pairs)[1]
        least = min if isinstance(size, int) else tf.minimum
        best, chosen = tf.math.top_k(pairs, least(self.candidates, size))
        return best, tf.gather(boxes, chosen // num_classes, batch_dims=1), chosen % num_classes

    def get_config(self):
        return {
            **super().get_config(),
            "score_threshold": self.score_threshold,
            "nms_threshold": self.nms_threshold,
            "max_detections": self.max_detections,
            "candidates": self.candidates,
            "box_voting": self.box_voting,
        }
