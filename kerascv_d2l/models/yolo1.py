"""YOLO of 2016: a grid of cells, each of which answers for the object whose centre it holds."""

import math
from typing import ClassVar

import keras
import tensorflow as tf

from kerascv_d2l.layers.batch_norm import BatchNormalization
from kerascv_d2l.layers.convolution import Conv2D
from kerascv_d2l.layers.dense_decoder import DenseDecoder
from kerascv_d2l.losses.detection import mean_over_replicas
from kerascv_d2l.models.backbones import BATCH_NORM_MOMENTUM, backbone as build_backbone
from kerascv_d2l.models.common import dtype_scope, settle_batch_norm
from kerascv_d2l.models.detector import Detector
from kerascv_d2l.models.registry import Recipe
from kerascv_d2l.ops.boxes import box_center_to_corner, box_corner_to_center, iou_of_corners
from kerascv_d2l.ops.checks import as_targets, check_whole
from kerascv_d2l.ops.roi_sampling import map_size
from kerascv_d2l.ops.upsampling import enlarge_to_multiple

STRIDE = 32  # 7 x 7 cells for images of 224 x 224
COORD_WEIGHT, NO_OBJECT_WEIGHT = 5.0, 0.5
HEAD_CHANNELS = 256
LOSSES = ("coordinates", "confidence", "classes")


@keras.saving.register_keras_serializable("kerascv_d2l")
class YOLO1(Detector):
    """The first YOLO, as a lesson: what it cannot do is why anchors and pyramids came.

    Two objects whose centres share a cell cannot both be found, and small objects share cells
    most. Call it on pixels 0-255 `(batch, height, width, 3)` for a dict of `boxes` float32 `(batch,
    rows, columns, boxes, 4)`, in [0, 1]: the centre within its cell, x and y, then the square roots
    of width and height as shares of the image; `confidence` `(batch, rows, columns, boxes)`; and
    `classes` `(batch, rows, columns, classes)`, probabilities. The backbone is one of the table
    where the paper has its own, and convolutions stand in place of its dense layers.

    Args:
        class_names: sequence of str, or the number of classes.
        backbone: name of a network with a map at stride 32.
        weights: of the backbone: None (random), "imagenet" or a path.
        image_size: as for `Detector`.
        boxes_of_a_cell: int.
        freeze_norm: whether the backbone's batch norm keeps its statistics and weights; None
            for where the backbone has `weights`.
        decoder: `DenseDecoder`, or None for one with its defaults.
        **kwargs: as in `keras.Model`.

    Source:
        Redmon et al. 2016, "You Only Look Once", section 2.
    """

    BACKBONE = "resnet18"
    MIN_SIZE = 64
    RECIPES: ClassVar = {"default": Recipe(learning_rate=1e-3, weight_decay=5e-4, batch_size=16)}
    ON_FOLDERS: ClassVar = {"options": {"freeze_norm": False}}

    def __init__(
        self,
        class_names,
        backbone="resnet18",
        weights=None,
        image_size=None,
        boxes_of_a_cell=2,
        freeze_norm=None,
        decoder=None,
        **kwargs,
    ):
        super().__init__(class_names, image_size, decoder or DenseDecoder(), **kwargs)
        check_whole(1, boxes_of_a_cell=boxes_of_a_cell)
        self.num_classes, self.boxes_of_a_cell = len(self.class_names), boxes_of_a_cell
        self.backbone_name = backbone
        with dtype_scope(self.dtype_policy):
            self.features = build_backbone(backbone, weights, (STRIDE,))
            self.head = keras.Sequential(
                [
                    keras.Input(self.features.output_shape[1:]),
                    Conv2D(HEAD_CHANNELS, 3, padding="same", name="head_conv"),
                    # As in YOLO9000 (2017), not in the paper: on a pretrained network's large
                    # features the first steps would else bring the sigmoids to where a squared
                    # error has no gradient. Keras' momentum of 0.99 would leave a third of the
                    # first statistics after a hundred steps, when detections are first measured.
                    BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="head_norm"),
                    keras.layers.LeakyReLU(0.1),
                    Conv2D(5 * boxes_of_a_cell + self.num_classes, 1, name="cells"),
                ],
                name="head",
            )
        self.freeze_norm = settle_batch_norm(self.features, weights, freeze_norm)
        self.parts = {name: keras.metrics.Mean(name=f"loss_{name}") for name in LOSSES}
        self.build((None, None, None, 3))

    def make_room(self, most_objects):
        """Let it find so many objects, see `Detector.make_room`, as far as its cells have boxes."""
        rows = super().make_room(most_objects)
        if self.image_size is None:
            return rows
        cells = math.prod(math.ceil(side / STRIDE) for side in self.image_size)
        return min(rows, cells * self.boxes_of_a_cell)

    def build(self, input_shape):
        self.built = True

    def call(self, images, training=False):
        """Predict for all cells; see the class."""
        self.check_images(images)
        images = enlarge_to_multiple(images, STRIDE)  # whole cells
        cells = self.head(self.features(images, training=training), training=training)
        cells, count = tf.cast(cells, tf.float32), self.boxes_of_a_cell
        boxes, confidence, classes = tf.split(cells, [4 * count, count, self.num_classes], axis=-1)
        batch, rows, columns, _ = map_size(boxes)
        return {
            "boxes": tf.sigmoid(tf.reshape(boxes, [batch, rows, columns, count, 4])),
            "confidence": tf.sigmoid(confidence),
            "classes": tf.nn.softmax(classes),
        }

    def decode(self, outputs):
        """Score boxes by confidence times class; see `Detector.decode`."""
        # TensorFlow Lite has no `tf.newaxis` where sizes are unknown.
        confidence = tf.expand_dims(outputs["confidence"], -1)
        scores = confidence * tf.expand_dims(outputs["classes"], -2)
        batch, rows, columns, count, classes = map_size(scores)
        places = rows * columns * count
        corners = box_center_to_corner(_in_image(outputs["boxes"]))
        flat = tf.reshape(scores, [batch, places, classes]), tf.reshape(corners, [batch, places, 4])
        return self.decoder([flat[0]], [flat[1]], tf.ones([2], tf.int32))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the sum of squared errors, equation 3, as a mean over images.

        Of two objects in one cell the larger is learned from; a cell that holds the centre of an
        ignored object teaches nothing.
        """
        y = as_targets(y, self.num_classes)
        boxes, confidence = y_pred["boxes"], y_pred["confidence"]
        _, rows, columns, _ = map_size(confidence)
        truth, classes, holds, ignored = assign_cells(y, rows, columns)
        iou = tf.stop_gradient(
            _iou(_in_image(boxes), truth[..., tf.newaxis, :])
        )  # (b, r, c, boxes)
        best = tf.one_hot(tf.argmax(iou, axis=-1), self.boxes_of_a_cell)
        responsible = best * tf.cast(holds, tf.float32)[..., tf.newaxis]
        wanted = _in_cell(truth, rows, columns)[..., tf.newaxis, :]
        box_error = tf.reduce_sum(tf.square(boxes - wanted), axis=-1)
        seen = tf.square(confidence - iou) * responsible
        idle = tf.square(confidence) * (1 - responsible)
        idle = tf.where(ignored[..., tf.newaxis], 0.0, idle)
        class_error = tf.square(y_pred["classes"] - tf.one_hot(classes, self.num_classes))
        class_error = tf.where(holds, tf.reduce_sum(class_error, axis=-1), 0.0)
        images = tf.shape(boxes)[0]
        sums = (
            COORD_WEIGHT * tf.reduce_sum(box_error * responsible),
            tf.reduce_sum(seen) + NO_OBJECT_WEIGHT * tf.reduce_sum(idle),
            tf.reduce_sum(class_error),
        )
        losses = [mean_over_replicas(part, images) for part in sums]
        return self.sum_of_parts(dict(zip(LOSSES, losses, strict=True)), images)

    def get_config(self):
        return super().get_config() | {
            "backbone": self.backbone_name,
            "boxes_of_a_cell": self.boxes_of_a_cell,
            "freeze_norm": self.freeze_norm,
        }


def assign_cells(y, rows, columns):
    """Give each cell the object whose centre it holds, the larger one where there are several.

    Args:
        y: dict of `boxes` `(batch, m, 4)` normalised corners, `classes` and `ignore`.
        rows: int or int scalar.
        columns: int or int scalar.

    Returns:
        Tuple of float32 `(batch, rows, columns, 4)`, the object's box, centre first; int32
        `(batch, rows, columns)`, its class; bool, whether there is one; and bool, whether the
        cell has none, but holds the centre of an ignored one.
    """
    centres = box_corner_to_center(tf.pad(y["boxes"], [[0, 0], [0, 1], [0, 0]]))
    real = tf.pad(y["classes"], [[0, 0], [0, 1]], constant_values=-1) >= 0
    ignore = tf.pad(y["ignore"], [[0, 0], [0, 1]])
    counts = tf.stack([columns, rows])
    place = tf.cast(tf.floor(centres[..., :2] * tf.cast(counts, tf.float32)), tf.int32)
    column, row = tf.unstack(tf.clip_by_value(place, 0, counts - 1), axis=-1)  # (batch, m)
    cells = tf.range(rows * columns)
    inside = (row * columns + column)[..., tf.newaxis] == cells  # (batch, m, cells)
    wanted = inside & (real & ~ignore)[..., tf.newaxis]
    size = (centres[..., 2] * centres[..., 3])[..., tf.newaxis]
    owner = tf.argmax(tf.where(wanted, size, -1.0), axis=1, output_type=tf.int32)
    shape = [tf.shape(row)[0], rows, columns]
    holds = tf.reshape(tf.reduce_any(wanted, axis=1), shape)
    hidden = tf.reshape(tf.reduce_any(inside & (real & ignore)[..., tf.newaxis], axis=1), shape)
    classes = tf.pad(y["classes"], [[0, 0], [0, 1]])
    return (
        tf.reshape(tf.gather(centres, owner, batch_dims=1), [*shape, 4]),
        tf.reshape(tf.gather(classes, owner, batch_dims=1), shape),
        holds,
        hidden & ~holds,
    )


def _in_cell(truth, rows, columns):
    """What a cell should say for a box, centre first: float32 `(batch, rows, columns, 4)`."""
    counts = tf.cast(tf.stack([columns, rows]), tf.float32)
    within = truth[..., :2] * counts - _corners(rows, columns)
    return tf.concat([within, tf.sqrt(truth[..., 2:])], axis=-1)


def _in_image(boxes):
    """The opposite of `_in_cell` for all boxes: `(batch, rows, columns, boxes, 4)`."""
    _, rows, columns, _, _ = map_size(boxes)
    centre = boxes[..., :2] + _corners(rows, columns)[:, :, tf.newaxis]
    centre /= tf.cast(tf.stack([columns, rows]), tf.float32)
    return tf.concat([centre, tf.square(boxes[..., 2:])], axis=-1)


def _corners(rows, columns):
    """Column and row of each cell: float32 `(rows, columns, 2)`."""
    y, x = tf.meshgrid(tf.range(rows), tf.range(columns), indexing="ij")
    return tf.cast(tf.stack([x, y], axis=-1), tf.float32)


def _iou(boxes1, boxes2):
    """IoU of boxes, centre first, that belong together."""
    return iou_of_corners(*(tf.unstack(box_center_to_corner(b), axis=-1) for b in (boxes1, boxes2)))
