"""Localisation: what the one object of an image is, and where."""

import math

import keras
import tensorflow as tf

from kerascv_d2l.losses.detection import mean_over_replicas, reported
from kerascv_d2l.losses.set_prediction import with_a_row
from kerascv_d2l.metrics.localization import FOUND_IOU
from kerascv_d2l.models.classifier import Classifier
from kerascv_d2l.models.common import BuiltModel, any_images
from kerascv_d2l.ops.boxes import iou_of_corners, sides_of
from kerascv_d2l.ops.checks import as_targets

BOX = "box"  # of the names of the layers that find the box
BOX_CHANNELS = 64
BOX_WEIGHT = 20.0  # of the squared errors, which are some 0.01 where cross-entropy is some 1
_MIDDLE = (0.25, 0.25, 0.75, 0.75)
_FIRST_SCALE = 1e-3


@keras.saving.register_keras_serializable("kerascv_d2l")
class Localizer(BuiltModel, Classifier):
    """A classifier that also says where its one object is: one network, two outputs.

    The box is read from the whole last feature map, by a convolution of 1 x 1 and a dense layer:
    a mean over the map knows no places. Between them the channels of each place are normalised:
    without it a few steps at the rate of a new layer end in ReLUs that are 0 everywhere, and one
    box for all images. Calling it with pixels 0-255 `(batch, *image_size, 3)`
    gives a dict: float32 `logits` `(batch, classes)` and `boxes` `(batch, 4)`, normalised corners,
    not clipped, or with `box_per_class` `(batch, 4 · classes)`, of which that of the true class
    learns, and that of the most probable one is taken. Train it with `fit` on images and labels as
    a detector takes them, of which the first object counts; images without one count for nothing.
    The loss is the cross-entropy, and `box_weight` times the mean squared error of the four
    coordinates.

    Args:
        backbone: as for `Classifier`.
        class_names: as for `Classifier`.
        box_weight: float, weight of the squared errors in the loss.
        box_per_class: bool, whether each class has a box of its own, or one serves all.
        crop_pct: as for `Classifier`, but 1: of a crop the object may be outside.
        **kwargs: as for `Classifier`.

    Raises:
        InputError: as `Classifier`.

    Source:
        Sermanet et al. 2013, "OverFeat", section 4, whose table 4 finds one box for all classes
        better than one for each.
    """

    task = "localization"

    def __init__(
        self,
        backbone,
        class_names,
        box_weight=BOX_WEIGHT,
        box_per_class=False,
        crop_pct=1.0,
        **kwargs,
    ):
        self.box_per_class = bool(box_per_class)
        super().__init__(backbone, class_names, crop_pct=crop_pct, **kwargs)
        self.box_weight = float(box_weight)
        names = ("accuracy", "mean_iou", "iou_50", "localized")
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

    def _with_more(self, logits, network, image_size):
        """Add the box to the logits."""
        features = network.outputs[-1]
        shapes = network.compute_output_shape((1, *image_size, 3))
        shape = shapes[-1] if isinstance(shapes[-1], tuple) else shapes  # one map, or several
        layers = keras.layers
        x = layers.Conv2D(BOX_CHANNELS, 1, name=f"{BOX}_conv")(features)
        x = layers.LayerNormalization(name=f"{BOX}_norm")(x)
        x = layers.ReLU(name=f"{BOX}_relu")(x)
        x = layers.Reshape((math.prod(shape[1:3]) * BOX_CHANNELS,), name=f"{BOX}_flat")(x)
        regressors = logits.shape[-1] if self.box_per_class else 1
        middle = keras.initializers.Constant(_MIDDLE * regressors)
        # Small: the first boxes are about the middle one, and their errors small.
        small = keras.initializers.VarianceScaling(_FIRST_SCALE)
        box = layers.Dense(
            4 * regressors,
            kernel_initializer=small,
            bias_initializer=middle,
            dtype="float32",
            name=BOX,
        )(x)
        return {"logits": logits, "boxes": box}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Compute the loss of a batch, and the metrics from the same targets."""
        logits, boxes = y_pred["logits"], y_pred["boxes"]
        y = with_a_row(as_targets(y, len(self.class_names)))
        classes, truth = y["classes"][:, 0], y["boxes"][:, 0]  # (batch,) and (batch, 4)
        counts = tf.cast((classes >= 0) & ~y["ignore"][:, 0], tf.float32)  # (batch,)
        classes = tf.maximum(classes, 0)
        entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
        squares = tf.reduce_mean(tf.square(box_of_class(boxes, classes) - truth), axis=-1)
        taken = tf.argmax(logits, axis=-1, output_type=tf.int32)
        boxes = _clipped(box_of_class(boxes, taken))
        self._measure(tf.equal(taken, classes), boxes, truth, counts)
        losses = counts * (entropy + self.box_weight * squares)
        loss = mean_over_replicas(tf.reduce_sum(losses), tf.reduce_sum(counts))
        return reported(loss, tf.shape(logits)[0])

    def _measure(self, right, boxes, truth, counts):
        ious = iou_of_corners(tf.unstack(boxes, axis=-1), tf.unstack(truth, axis=-1))
        found = ious >= FOUND_IOU
        values = {
            "accuracy": right, "mean_iou": ious, "iou_50": found, "localized": right & found
        }  # fmt: skip
        for name, value in values.items():
            self.means[name].update_state(tf.cast(value, tf.float32), counts)

    def localize(self, images):
        """Say what is on images of any size, and where.

        Args:
            images: as for `classify`.

        Returns:
            dict of tensors: what `classify` gives, and float32 `(batch, 4)` `boxes`, normalised
            corners clipped to the image, and `boxes_px`, the same in its pixels.
        """
        return self.classify(images)

    def _answer(self, images):
        outputs = self(self._resized(images), training=False)
        taken = tf.argmax(outputs["logits"], axis=-1, output_type=tf.int32)
        boxes = _clipped(box_of_class(outputs["boxes"], taken))
        sides = sides_of(tf.shape(images)[1:3])
        return self._named(outputs["logits"]) | {"boxes": boxes, "boxes_px": boxes * sides}

    def endpoints(self):
        """Give what an export offers: `{"localize": (function, signature)}`."""
        return {"localize": (self._answer, (any_images(),))}

    def get_config(self):
        own = {"box_weight": self.box_weight, "box_per_class": self.box_per_class}
        return super().get_config() | own


def box_of_class(boxes, classes):
    """Choose boxes `(n, 4)` of `(n, 4 · classes)` by int `(n,)`; `(n, 4)` stays as it is."""
    if boxes.shape[-1] == 4:
        return boxes
    boxes = tf.reshape(boxes, (-1, boxes.shape[-1] // 4, 4))  # (n, classes, 4)
    return tf.gather(boxes, classes, batch_dims=1)


def _clipped(boxes):
    """Clip corners `(batch, 4)` to the image; inside out, a box is empty."""
    boxes = tf.clip_by_value(boxes, 0.0, 1.0)
    return tf.concat([boxes[:, :2], tf.maximum(boxes[:, :2], boxes[:, 2:])], axis=-1)
