"""RetinaNet: anchors on a feature pyramid, and a loss that lets no easy background count."""

from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.losses.regions import sigmoid_focal_loss
from kerascv_d2l.models.dense import (
    DenseDetector,
    class_predictor,
    predictor,
    torchvision_recipe,
)
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.models.rows import flat, in_pixels, one_hot_of, rows_of
from kerascv_d2l.ops.anchor_choice import choose_anchors
from kerascv_d2l.ops.box_coding import decode_boxes, encode_boxes
from kerascv_d2l.ops.checks import as_targets
from kerascv_d2l.ops.pyramid_anchors import RETINANET_SIZES, RPN_RATIOS, check_anchor_sizes
from kerascv_d2l.ops.region_matching import BACKGROUND, IGNORED, match_by_iou

POSITIVE, NEGATIVE = 0.5, 0.4  # IoU from which an anchor stands for an object; for background
LOSSES = ("classes", "boxes")


@keras.saving.register_keras_serializable("kerascv_d2l")
class RetinaNet(DenseDetector):
    """A one-stage detector with anchors and focal loss.

    Call it on pixels 0-255 `(batch, height, width, 3)` for a dict of lists, one entry a level:
    `logits` float32 `(batch, n, classes)`, `offsets` float32 `(batch, n, 4)`, `anchors` float32
    `(n, 4)` in pixels; and `size`. With `channels=256, depth=4, norm=False` and the
    backbone "resnet50_v1.5" it is torchvision's `retinanet_resnet50_fpn`.

    Args:
        class_names: sequence of str, or the number of classes.
        anchor_sizes: sequences of float, for each level the sides of its anchors in pixels.
        anchor_ratios: sequence of float, height over width.
        **kwargs: as in `DenseDetector`.

    Raises:
        InputError: if there are sizes of more or fewer levels than `levels`, or not equally many
            for each.

    Source:
        Lin et al. 2017, "Focal Loss for Dense Object Detection".
    """

    TORCHVISION = "retinanet_resnet50_fpn"
    RECIPES: ClassVar = {
        "default": Recipe(learning_rate=5e-4, weight_decay=1e-4, batch_size=16),
        "torchvision": torchvision_recipe(0.01, channels=256, depth=4, norm=False),
    }
    ON_FOLDERS: ClassVar = {"options": {"freeze_norm": False}}

    def __init__(
        self, class_names, anchor_sizes=RETINANET_SIZES, anchor_ratios=RPN_RATIOS, **kwargs
    ):
        self.anchor_sizes = tuple(tuple(sizes) for sizes in anchor_sizes)
        self.anchor_ratios = tuple(anchor_ratios)
        self.parts = {name: keras.metrics.Mean(name=f"loss_{name}") for name in LOSSES}
        super().__init__(class_names, **kwargs)

    @classmethod
    def anchor_options(cls, boxes, image_size):
        """Choose `anchor_sizes`, three a level, and `anchor_ratios`; see `Detector`."""
        found = choose_anchors(boxes, image_size, (8, 16, 32, 64, 128))
        if found is None:
            return {}
        sizes = [tuple(round(size * 2 ** (k / 3), 1) for k in range(3)) for size in found[0]]
        return {"anchor_sizes": tuple(sizes), "anchor_ratios": found[1]}

    def make_predictors(self):
        check_anchor_sizes(self.anchor_sizes, self.levels)
        at_a_place = len(self.anchor_ratios) * len(self.anchor_sizes[0])
        self.predictors = {
            "logits": class_predictor(at_a_place * self.num_classes, "cls_logits"),
            "offsets": predictor(4 * at_a_place, "bbox_reg"),
        }

    def call(self, images, training=False):
        """Predict for all anchors; see the class."""
        class_maps, box_maps, anchors, size = self.towers(images, training)
        logits = [flat(self.predictors["logits"](m), self.num_classes) for m in class_maps]
        offsets = [flat(self.predictors["offsets"](m), 4) for m in box_maps]
        return {"logits": logits, "offsets": offsets, "anchors": anchors, "size": size}

    def scores_of(self, outputs):
        return [tf.sigmoid(logits) for logits in outputs["logits"]]

    def boxes_of(self, outputs):
        pairs = zip(outputs["offsets"], outputs["anchors"], strict=True)
        return [decode_boxes(offsets, anchors) for offsets, anchors in pairs]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the focal loss and L1 of the offsets, each over an image's positive anchors."""
        y = in_pixels(as_targets(y, self.num_classes), y_pred["size"])
        logits, offsets = (tf.concat(y_pred[name], axis=1) for name in ("logits", "offsets"))
        anchors = tf.concat(y_pred["anchors"], axis=0)
        match = match_by_iou(
            y["boxes"], y["classes"], anchors, POSITIVE, NEGATIVE,
            allow_low_quality=True, ignore=y["ignore"],
        )  # fmt: skip
        positive = match > BACKGROUND  # (batch, n)
        focal = sigmoid_focal_loss(one_hot_of(y, match, self.num_classes), logits)
        focal = tf.where((match != IGNORED)[..., tf.newaxis], focal, 0.0)
        distance = tf.abs(offsets - encode_boxes(rows_of(y["boxes"], match), anchors))
        distance = tf.where(positive[..., tf.newaxis], distance, 0.0)
        count = tf.maximum(tf.reduce_sum(tf.cast(positive, tf.float32), axis=1), 1.0)  # (batch,)
        images = tf.shape(logits)[0]
        losses = {
            name: mean_over_replicas(
                tf.reduce_sum(tf.reduce_sum(part, axis=(1, 2)) / count), images
            )
            for name, part in zip(LOSSES, (focal, distance), strict=True)
        }
        return self.sum_of_parts(losses, images)

    def get_config(self):
        return super().get_config() | {
            "anchor_sizes": self.anchor_sizes,
            "anchor_ratios": self.anchor_ratios,
        }
