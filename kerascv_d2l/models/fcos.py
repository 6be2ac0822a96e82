"""FCOS: no anchors; every place says how far the sides of its object are."""

import math
from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.dense_decoder import DenseDecoder
from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.losses.regions import (
    distribution_focal_loss,
    giou_loss,
    sigmoid_focal_loss,
)
from kerascv_d2l.models.dense import (
    DenseDetector,
    class_predictor,
    predictor,
    task_aligned_losses,
    torchvision_recipe,
)
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rows import flat, in_pixels, one_hot_of, rows_of, sum_where
from kerascv_d2l.ops.checks import as_targets, check_whole
from kerascv_d2l.ops.region_matching import BACKGROUND, IGNORED
from kerascv_d2l.ops.roi_sampling import map_size
from kerascv_d2l.ops.task_aligned import match_by_distance

ASSIGNMENTS = ("task_aligned", "centre")
SIZES = ((8,), (16,), (32,), (64,), (128,))  # pixels, a stride of each level
# Strides from a place to each side of its box before anything is learned: the boxes of three
# levels are then 64, 128 and 256 pixels large, and some place overlaps an object of any size.
UNIT = 4.0
LARGEST_LOG = 5.0  # of a distance in units: beyond any image
BINS = 17
# Logarithms of distances in units, of the first bin and of the last: 0.3 to 55 strides.
RANGE = (-2.6, 2.6)
DISTRIBUTION_WEIGHT = 0.5
NMS_THRESHOLD = 0.6  # torchvision's
# Not torchvision's; by folds, see docs/experiments.md. A score that is trained to be the IoU is a
# good weight of a mean.
BOX_VOTING = 0.7
LOSSES = ("classes", "boxes")


@keras.saving.register_keras_serializable("kerascv_d2l")
class FCOS(DenseDetector):
    """A one-stage detector without anchors.

    Call it on pixels 0-255 `(batch, height, width, 3)` for a dict of lists, one entry a level:
    `logits` float32 `(batch, n, classes)`; `distances` float32 `(batch, n, 4)` to the left,
    top, right and bottom side, in strides; `anchors` float32 `(n, 4)`, squares of a stride around
    each place, in pixels; and `size`. With `bins` also `distributions` `(batch, n, 4, bins)`,
    logits; with `assignment="centre"` also `centerness` `(batch, n, 1)`.

    With "task_aligned" (the default) those places learn to be an object's that already
    predict it best, and the score is trained to be the IoU. A distance is the mean of a
    distribution: how sure a side is need not be the same for all, and labels of real images
    are loose. Boxes learn by CIoU, and their distributions towards the label. With "centre",
    `channels=256, depth=4` and the backbone "resnet50_v1.5" it is torchvision's
    `fcos_resnet50_fpn`: places near the centre, focal loss, GIoU, and centerness.

    Args:
        class_names: sequence of str, or the number of classes.
        assignment: "task_aligned" or "centre".
        bins: int ≥ 2, of the distribution of a distance's logarithm; 0: a distance is one number;
            None: 17, with "centre" 0, which has none.
        decoder: `DenseDecoder`, or None for one that lets boxes with an IoU up to 0.6 stand,
            and with "task_aligned" moves them by voting.
        **kwargs: as in `DenseDetector`.

    Raises:
        InputError: if there is no such assignment, it has no such bins, or as `DenseDetector`.

    Source:
        Tian et al. 2019, "FCOS"; Feng et al. 2021, "TOOD", section 3.2, with the numbers of
        Jocher et al. 2023, "Ultralytics YOLOv8"; Li et al. 2020, "Generalized Focal Loss",
        equation 2, for the class loss, with a power of 1, and section 3.2 for the
        distributions, there of distances, here of their logarithms.
    """

    TORCHVISION = "fcos_resnet50_fpn"
    RECIPES: ClassVar = {
        "default": Recipe(learning_rate=1e-3, weight_decay=1e-4, batch_size=16),
        "torchvision": torchvision_recipe(0.01, channels=256, depth=4, assignment="centre"),
    }
    # What measured best on folds of raccoons and blood cells, see docs/experiments.md.
    ON_FOLDERS: ClassVar = {
        "augment": "mosaic",
        "options": {"channels": 64, "levels": 3, "freeze_norm": False},
    }
    anchor_ratios = (1.0,)

    def __init__(self, class_names, assignment="task_aligned", bins=None, decoder=None, **kwargs):
        if assignment not in ASSIGNMENTS:
            raise InputError(
                f"assignment must be one of {', '.join(ASSIGNMENTS)}; got {assignment!r}."
            )
        aligned = assignment == "task_aligned"
        if bins is None:
            bins = BINS if aligned else 0
        check_whole(0, bins=bins)
        if bins == 1 or (bins and not aligned):
            raise InputError(
                f"bins={bins}: with assignment={assignment!r} 0"
                f"{', or 2 and more,' if aligned else ''} can be chosen."
            )
        self.assignment, self.bins = assignment, bins
        names = list(LOSSES)
        if not aligned:
            names.append("centerness")
        elif bins:
            names.append("distributions")
        self.parts = {name: keras.metrics.Mean(name=f"loss_{name}") for name in names}
        voting = BOX_VOTING if aligned else None
        decoder = decoder or DenseDecoder(nms_threshold=NMS_THRESHOLD, box_voting=voting)
        super().__init__(class_names, decoder=decoder, **kwargs)

    @property
    def anchor_sizes(self):
        return SIZES[: self.levels]

    def make_predictors(self):
        self.predictors = {
            "logits": class_predictor(self.num_classes, "cls_logits"),
            "distances": predictor(4 * max(1, self.bins), "bbox_reg"),
        }
        if self.assignment == "centre":
            self.predictors["centerness"] = predictor(1, "bbox_ctrness")

    def call(self, images, training=False):
        """Predict for all places; see the class."""
        class_maps, box_maps, anchors, size = self.towers(images, training)
        outputs = {
            "logits": [flat(self.predictors["logits"](m), self.num_classes) for m in class_maps],
            "anchors": anchors,
            "size": size,
        }
        raw = [flat(self.predictors["distances"](m), 4 * max(1, self.bins)) for m in box_maps]
        if self.assignment == "centre":
            outputs["distances"] = [tf.nn.relu(r) for r in raw]
            outputs["centerness"] = [flat(self.predictors["centerness"](m), 1) for m in box_maps]
            return outputs
        # torchvision's places are at whole multiples of the stride, these in the middle.
        outputs["anchors"] = [a + (a[:, 2:3] - a[:, :1]) / 2 for a in anchors]
        if self.bins:
            shapes = [(*map_size(r)[:2], 4, self.bins) for r in raw]
            raw = [tf.reshape(r, shape) for r, shape in zip(raw, shapes, strict=True)]
            outputs["distributions"] = raw
            logarithms = tf.linspace(*RANGE, self.bins)
            raw = [tf.reduce_sum(tf.nn.softmax(r) * logarithms, axis=-1) for r in raw]
        outputs["distances"] = [UNIT * tf.exp(tf.minimum(r, LARGEST_LOG)) for r in raw]
        return outputs

    def scores_of(self, outputs):
        scores = [tf.sigmoid(logits) for logits in outputs["logits"]]
        if self.assignment == "task_aligned":
            return scores
        pairs = zip(scores, outputs["centerness"], strict=True)
        return [tf.sqrt(s * tf.sigmoid(c)) for s, c in pairs]

    def boxes_of(self, outputs):
        pairs = zip(outputs["distances"], outputs["anchors"], strict=True)
        return [_boxes_at(distances, *_places(anchors)) for distances, anchors in pairs]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the sum of the losses of a batch, which the metrics keep apart."""
        y = in_pixels(as_targets(y, self.num_classes), y_pred["size"])
        logits = tf.concat(y_pred["logits"], axis=1)
        predicted = tf.concat(self.boxes_of(y_pred), axis=1)  # (batch, n, 4)
        points, strides = _places(tf.concat(y_pred["anchors"], axis=0))
        if self.assignment == "task_aligned":
            losses, *match = task_aligned_losses(y, logits, predicted, points, strides)
            if self.bins:
                distributions = tf.concat(y_pred["distributions"], axis=1)
                losses["distributions"] = DISTRIBUTION_WEIGHT * _distribution_loss(
                    y["boxes"], distributions, points, strides, *match
                )
        else:
            levels = [tf.shape(y_pred["anchors"][i])[0] for i in (0, -1)]
            objects = y["boxes"], y["classes"], y["ignore"]
            match = match_by_distance(*objects, points, strides, levels)
            centerness = tf.concat(y_pred["centerness"], axis=1)[..., 0]
            losses = self._centre_losses(y, logits, predicted, centerness, points, match)
        return self.sum_of_parts(losses, tf.shape(logits)[0])

    def _centre_losses(self, y, logits, predicted, centerness, points, match):
        """Focal loss, GIoU and centerness, each over the number of positive places."""
        positive = match > BACKGROUND
        count = tf.reduce_sum(tf.cast(positive, tf.float32))
        focal = sigmoid_focal_loss(one_hot_of(y, match, self.num_classes), logits)
        boxes = rows_of(y["boxes"], match)
        # (batch, n, 2) each: distances to left and top, to right and bottom
        low, high = points - boxes[..., :2], boxes[..., 2:] - points
        ratio = tf.math.divide_no_nan(tf.minimum(low, high), tf.maximum(low, high))
        ratio = tf.where(positive[..., tf.newaxis], ratio, 0.0)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(
            labels=tf.sqrt(tf.reduce_prod(ratio, axis=-1)), logits=centerness
        )
        sums = (  # of the classes, the boxes, and centerness
            sum_where((match != IGNORED)[..., tf.newaxis], focal),
            sum_where(positive, giou_loss(predicted, boxes)),
            sum_where(positive, entropy),
        )
        return {n: mean_over_replicas(s, count) for n, s in zip(self.parts, sums, strict=True)}

    def get_config(self):
        return super().get_config() | {"assignment": self.assignment, "bins": self.bins}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Models that were saved before there were distributions have none.
        return super().from_config({"bins": 0} | config, custom_objects)


def _distribution_loss(boxes, distributions, points, strides, match, quality):
    """Distribution focal loss of the sides, a mean weighted by the quality: 0 of no object."""
    boxes = rows_of(boxes, match)
    distances = tf.concat([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)
    distances /= UNIT * strides[:, tf.newaxis]  # (batch, n, 4); of a place outside negative
    low, high = RANGE
    logarithms = tf.math.log(tf.maximum(distances, math.exp(low)))
    in_bins = (logarithms - low) / (high - low) * (distributions.shape[-1] - 1)
    losses = tf.reduce_mean(distribution_focal_loss(in_bins, distributions), axis=-1)
    return mean_over_replicas(tf.reduce_sum(quality * losses), tf.reduce_sum(quality))


def _places(anchors):
    """Centre `(n, 2)` and side `(n,)` of squares `(n, 4)`."""
    return (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2] - anchors[:, 0]


def _boxes_at(distances, points, strides):
    """Corners `(batch, n, 4)` from distances in strides."""
    low, high = tf.split(distances * strides[:, tf.newaxis], 2, axis=-1)
    return tf.concat([points - low, points + high], axis=-1)
