"""The region proposal network: where objects may be, whatever their class.

Boxes and anchors here are pixels of the images given, `(x_min, y_min, x_max, y_max)`.
"""

import dataclasses

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.losses.detection import mean_over_replicas, smooth_l1
from kerascv_d2l.models.common import check_settings
from kerascv_d2l.models.rows import flat, rows_of, sum_where
from kerascv_d2l.ops.box_coding import decode_boxes, encode_boxes
from kerascv_d2l.ops.nms import batched_nms
from kerascv_d2l.ops.region_matching import match_by_iou, sample_balanced

# σ of smooth L1: β = 1/9 in torchvision's terms.
SMOOTH_L1_SIGMA = 3.0
_LEAST_SIDE = 1e-3  # pixels; a smaller proposal is none


@dataclasses.dataclass(frozen=True)
class RPNSettings:
    """Numbers of a region proposal network; the defaults are torchvision's.

    Attributes:
        train_before_nms: int, best anchors of each level that are looked at, in training.
        test_before_nms: int, the same in inference.
        train_proposals: int, proposals of an image at most, in training.
        test_proposals: int, the same in inference.
        nms_threshold: float; of two proposals of a level with a greater IoU the better stands.
        high: float, IoU from which an anchor stands for an object.
        low: float, IoU below which it is background.
        samples: int, anchors of an image that are learned from.
        positive_fraction: float, share of them that stand for objects, at most.
    """

    train_before_nms: int = 2000
    test_before_nms: int = 1000
    train_proposals: int = 2000
    test_proposals: int = 1000
    nms_threshold: float = 0.7
    high: float = 0.7
    low: float = 0.3
    samples: int = 256
    positive_fraction: float = 0.5

    def __post_init__(self):
        check_settings(self, ("nms_threshold", "high", "low", "positive_fraction"))
        if self.low > self.high:
            raise InputError(f"low={self.low} is above high={self.high}: give a low up to high.")


@keras.saving.register_keras_serializable("kerascv_d2l")
class RPNHead(keras.layers.Layer):
    """Say for every anchor how much it looks like an object, and how to move it there.

    Its layers `conv`, `cls_logits` and `bbox_pred` are torchvision's, the same for
    all levels. Called with a list of maps `(batch, h, w, c)` it gives float32
    logits `(batch, n)` and offsets `(batch, n, 4)`: levels one behind the other,
    each by row, then column, then anchor.

    Args:
        num_anchors: int, anchors at each pixel.
        **kwargs: as in `keras.layers.Layer`.
    """

    def __init__(self, num_anchors, **kwargs):
        super().__init__(**kwargs)
        self.num_anchors = num_anchors
        self.cls_logits = self._conv(num_anchors, 1, "rpn_cls_logits")
        self.bbox_pred = self._conv(4 * num_anchors, 1, "rpn_bbox_pred")
        self.conv = None  # made for the channels of the maps

    def _conv(self, channels, size, name):
        initializer = keras.initializers.RandomNormal(stddev=0.01)
        return Conv2D(
            channels, size, padding="same", kernel_initializer=initializer, name=name,
            dtype=self.dtype_policy,
        )  # fmt: skip

    def build(self, input_shape):
        shape = input_shape[0]
        self.conv = self._conv(shape[-1], 3, "rpn_conv")
        for layer in (self.conv, self.cls_logits, self.bbox_pred):
            layer.build(shape)
        self.built = True

    def call(self, maps):
        hidden = [tf.nn.relu(self.conv(m)) for m in maps]
        return (
            tf.concat([flat(self.cls_logits(h), 1)[..., 0] for h in hidden], axis=1),
            tf.concat([flat(self.bbox_pred(h), 4) for h in hidden], axis=1),
        )

    def compute_output_spec(self, maps):
        batch = maps[0].shape[0]
        return keras.KerasTensor((batch, None)), keras.KerasTensor((batch, None, 4))

    def get_config(self):
        return {**super().get_config(), "num_anchors": self.num_anchors}


def propose(logits, offsets, anchors, image_size, settings, training, builtin=False):
    """Choose proposals: the best anchors, moved, clipped, and suppressed level by level.

    No gradient goes through them.

    Args:
        logits: float32 `(batch, n)`.
        offsets: float32 `(batch, n, 4)`.
        anchors: list of float32 `(anchors of the level, 4)`, n in all.
        image_size: `(height, width)`, ints or int scalars.
        settings: `RPNSettings`.
        training: bool, which of the numbers to take.
        builtin: bool, whether to use only what TensorFlow Lite has; for batches of one.

    Returns:
        Tuple of
        boxes: float32 `(batch, proposals, 4)`, by falling score; 0 in padding rows.
        valid: bool `(batch, proposals)`, False in padding rows.

    Source:
        torchvision's `RegionProposalNetwork.filter_proposals`.
    """
    most = settings.train_before_nms if training else settings.test_before_nms
    count = settings.train_proposals if training else settings.test_proposals
    sizes = [level.shape[0] or tf.shape(level)[0] for level in anchors]
    boxes, scores = [], []
    of_logits, of_offsets = (tf.split(t, sizes, 1, len(sizes)) for t in (logits, offsets))
    for i in range(len(anchors)):
        best, chosen = tf.math.top_k(of_logits[i], tf.minimum(most, sizes[i]))  # (batch, best)
        moved = tf.gather(of_offsets[i], chosen, batch_dims=1)
        moved = decode_boxes(moved, tf.gather(anchors[i], chosen))  # (batch, best, 4)
        moved = clip_boxes(moved, image_size)
        solid = tf.reduce_all(moved[..., 2:] - moved[..., :2] >= _LEAST_SIDE, axis=-1)
        boxes.append(moved)
        scores.append(tf.where(solid, tf.sigmoid(best), -1.0))  # (batch, best)
    suppress = _suppress_one if builtin else _suppress
    boxes, num_valid = suppress(boxes, scores, count, settings.nms_threshold)
    valid = tf.range(count) < num_valid[:, tf.newaxis]  # (batch, proposals)
    return tf.stop_gradient(boxes), valid


def _suppress(boxes, scores, count, threshold):
    """Suppress level by level, and keep the best `count` of each image: boxes and their numbers."""
    levels = []
    for i, level in enumerate(scores):  # as classes
        own = tf.one_hot(i, len(scores), on_value=True, off_value=False)  # (levels,)
        levels.append(tf.where(own, level[..., tf.newaxis], -1.0))  # (batch, best, levels)
    found = tf.image.combined_non_max_suppression(
        tf.concat(boxes, axis=1)[:, :, tf.newaxis],
        tf.concat(levels, axis=1),
        count,
        count,
        threshold,
        score_threshold=-0.5,
        clip_boxes=False,
    )
    return found.nmsed_boxes, found.valid_detections


def _suppress_one(boxes, scores, count, threshold):
    """Do the same for one image with an operator that TensorFlow Lite has."""
    kept, kept_scores = [], []
    for level, level_scores in zip(boxes, scores, strict=True):
        index, best, number = batched_nms(level, level_scores, count, threshold, -0.5, 0.0)
        kept.append(tf.gather(level[0], index[0]))
        kept_scores.append(tf.where(tf.range(count) < number, best[0], -1.0))
    best, chosen = tf.math.top_k(tf.concat(kept_scores, axis=0), count)
    boxes = tf.gather(tf.concat(kept, axis=0), chosen)
    return boxes[tf.newaxis], tf.reduce_sum(tf.cast(best >= 0, tf.int32))[tf.newaxis]


def clip_boxes(boxes, image_size):
    """Cut boxes `(…, 4)` to the image of `(height, width)`."""
    height, width = (tf.cast(side, tf.float32) for side in image_size)
    x_min, y_min, x_max, y_max = tf.unstack(boxes, axis=-1)
    x_min, x_max = (tf.clip_by_value(x, 0.0, width) for x in (x_min, x_max))
    y_min, y_max = (tf.clip_by_value(y, 0.0, height) for y in (y_min, y_max))
    return tf.stack([x_min, y_min, x_max, y_max], axis=-1)


def rpn_losses(logits, offsets, anchors, y, settings, seed):
    """Compute the two losses of a region proposal network.

    Args:
        logits: float32 `(batch, n)`.
        offsets: float32 `(batch, n, 4)`.
        anchors: float32 `(n, 4)`.
        y: dict of `boxes` float32 `(batch, m, 4)`, pixels, `classes` and `ignore`.
        settings: `RPNSettings`.
        seed: int32 `(2,)`, of the sampling.

    Returns:
        dict of float32 scalars: `objectness`, binary cross-entropy, mean over
        the anchors sampled; `rpn_boxes`, smooth L1 of those with objects, over
        the number of all sampled.

    Source:
        Ren et al. 2015, "Faster R-CNN", equation 1, with torchvision's numbers.
    """
    match = match_by_iou(
        y["boxes"], y["classes"], anchors, settings.high, settings.low,
        allow_low_quality=True, ignore=y["ignore"],
    )  # fmt: skip
    index, drawn = sample_balanced(match, settings.samples, settings.positive_fraction, seed)
    objects = tf.gather(match, index, batch_dims=1)  # (batch, samples)
    positive = drawn & (objects >= 0)
    entropy = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(positive, tf.float32), logits=tf.gather(logits, index, batch_dims=1)
    )
    targets = encode_boxes(rows_of(y["boxes"], objects), tf.gather(anchors, index))
    distance = smooth_l1(tf.gather(offsets, index, batch_dims=1) - targets, SMOOTH_L1_SIGMA)
    count = tf.reduce_sum(tf.cast(drawn, tf.float32))
    return {
        "objectness": mean_over_replicas(sum_where(drawn, entropy), count),
        "rpn_boxes": mean_over_replicas(sum_where(positive[..., tf.newaxis], distance), count),
    }
