"""Losses of detectors: classes of anchors, and offsets of boxes."""

import keras
import tensorflow as tf

from kerascv_d2l.devices import sum_over_replicas
from kerascv_d2l.errors import InputError
from kerascv_d2l.losses.regions import giou_loss
from kerascv_d2l.ops.anchors import offset_inverse

CLASS_LOSSES = ("cross_entropy", "focal")
BOX_LOSSES = ("l1", "smooth_l1", "giou")
UNIT_ANCHOR = (-0.5, -0.5, 0.5, 0.5)
_LEAST_WRONG = 1e-12
NORMALIZERS = ("anchors", "positives")


def smooth_l1(difference, sigma=1.0):
    """L1 with a parabola around 0: `(σx)²/2` where `|x| < 1/σ²`, else `|x| - 0.5/σ²`.

    Args:
        difference: float tensor of any shape.
        sigma: float > 0; the larger, the closer to L1.

    Returns:
        float tensor of the same shape.

    Source:
        D2L 1.0.3, section 14.7, exercise 1; Girshick 2015, "Fast R-CNN", equation 3 (σ = 1).
    """
    size = tf.abs(difference)
    bound = 1 / sigma**2
    return tf.where(size < bound, tf.square(sigma * difference) / 2, size - bound / 2)


def class_losses(logits, classes, kind="cross_entropy", alpha=1.0, gamma=2.0):
    """Loss of each anchor's class: cross-entropy, or focal loss.

    Focal loss, `-α(1 - p)^γ log p` with p the probability of the true class,
    turns down what is already right, such as the thousands of easy background
    anchors of an image.

    Args:
        logits: float32 `(batch, anchors, classes + 1)`.
        classes: int32 `(batch, anchors)`, 0 = background.
        kind: "cross_entropy" or "focal".
        alpha: float, weight of the focal loss.
        gamma: float ≥ 0; 0 gives cross-entropy times alpha.

    Returns:
        float32 `(batch, anchors)`.

    Raises:
        InputError: for another kind.

    Source:
        Lin et al. 2017, "Focal Loss for Dense Object Detection", equation 5.
    """
    entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
    if kind == "cross_entropy":
        return entropy
    if kind != "focal":
        raise InputError(f"kind={kind!r}: expected cross_entropy or focal.")
    # entropy is -log p. expm1 keeps 1 - p exact where p is close to 1; the bound keeps the
    # gradient of the power finite where it is 1.
    wrong = tf.maximum(-tf.math.expm1(-entropy), _LEAST_WRONG)
    return alpha * tf.pow(wrong, gamma) * entropy


def hard_negatives(losses, classes, per_positive):
    """Choose the background anchors with the largest loss.

    Args:
        losses: float32 `(batch, anchors)`.
        classes: int32 `(batch, anchors)`, 0 = background, -1 = ignored.
        per_positive: float, how many to keep for each anchor with an object, rounded, at
            least 1. An image without objects keeps as many as one with a single anchor,
            so that it still teaches what background is.

    Returns:
        bool `(batch, anchors)`, True for the chosen background anchors: exactly as many as
        wanted, or all if there are fewer. Equal losses go to the lowest index.

    Source:
        Liu et al. 2016, "SSD", section 2.2 (3 per positive).
    """
    background = classes == 0
    positives = tf.reduce_sum(tf.cast(classes > 0, tf.float32), axis=-1)  # (batch,)
    wanted = tf.cast(tf.round(per_positive * tf.maximum(positives, 1.0)), tf.int32)
    wanted = tf.clip_by_value(wanted, 1, tf.shape(losses)[1])[:, tf.newaxis]  # (batch, 1)
    candidates = tf.where(background, losses, -1.0)
    ranked = tf.sort(candidates, axis=-1, direction="DESCENDING")  # (batch, anchors)
    least = tf.gather(ranked, wanted - 1, batch_dims=1)  # (batch, 1)
    above = candidates > least
    # Of the anchors with this very loss, the first ones fill what is left.
    ties = tf.cast(tf.equal(candidates, least), tf.int32)
    left = wanted - tf.reduce_sum(tf.cast(above, tf.int32), axis=-1, keepdims=True)
    first = (ties == 1) & (tf.cumsum(ties, axis=-1) <= left)
    return background & (above | first)


def mean_over_replicas(total, count):
    """Divide a sum by a count, both over all devices: a loss for `compute_loss` to return.

    `tf.reduce_mean` on each device weights a device with few objects like one with many.
    Here every object of the whole batch counts alike. On one device it is `total / count`.

    Args:
        total: float32 scalar, sum of the losses on this device.
        count: number, scalar: what was summed, for instance objects, on this device.

    Returns:
        float32 scalar: this device's part of the mean, as Keras sums up losses and gradients
        of all devices. A count below 1 on all devices together counts as 1.
    """
    count = sum_over_replicas(tf.cast(count, tf.float32))
    return total / tf.maximum(count, 1.0)


def reported(part, images):
    """Scale a device's part of a mean so that Keras reports the mean; its gradient stays.

    Keras weighs what each device gives by the images that it has. In the last batch of an
    evaluation one may have more than another, and parts are to be added up.

    Args:
        part: float32 scalar, as of `mean_over_replicas`, or several of them in a tensor.
        images: int32 scalar, images of this device.

    Returns:
        float32 of the same shape, for `compute_loss` to return; `part` itself on one device.
    """
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    if devices == 1:
        return part
    images = tf.cast(images, tf.float32)
    share = tf.math.divide_no_nan(sum_over_replicas(images) / devices, images)
    return part + tf.stop_gradient(part * share - part)


@keras.saving.register_keras_serializable("kerascv_d2l")
class SSDLoss(keras.losses.Loss):
    """Class loss of all anchors plus box loss of those with an object.

    The defaults are the book's: cross-entropy and L1, each averaged over the
    anchors (and coordinates), summed, averaged over the batch.

    Args:
        class_loss: "cross_entropy" or "focal".
        box_loss: "l1" or "smooth_l1" of the offsets, or "giou" of the boxes.
        class_weight: float, weight of the class part.
        box_weight: float, weight of the box part.
        sigma: float > 0, of the smooth L1 loss.
        alpha: float, of the focal loss.
        gamma: float, of the focal loss.
        negatives_per_positive: None for all background anchors, or how many of
            the hardest to count for each anchor with an object.
        normalizer: "anchors" divides the sums by the number of anchors (box: of
            coordinates), as the book; "positives" by the number of anchors with
            an object, as SSD and RetinaNet, so that an image counts alike
            whatever share of it is background.

    Raises:
        InputError: if a name is none of these, or a number out of range.

    Source:
        D2L 1.0.3, section 14.7.2; Liu et al. 2016, "SSD", equation 1.
    """

    def __init__(
        self,
        class_loss="cross_entropy",
        box_loss="l1",
        class_weight=1.0,
        box_weight=1.0,
        sigma=1.0,
        alpha=1.0,
        gamma=2.0,
        negatives_per_positive=None,
        normalizer="anchors",
        name="ssd_loss",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        _check_choice("class_loss", class_loss, CLASS_LOSSES)
        _check_choice("box_loss", box_loss, BOX_LOSSES)
        _check_choice("normalizer", normalizer, NORMALIZERS)
        for argument, value, low in (
            ("class_weight", class_weight, 0.0),
            ("box_weight", box_weight, 0.0),
            ("alpha", alpha, 0.0),
            ("gamma", gamma, 0.0),
        ):
            if not value >= low:  # nor NaN
                raise InputError(f"{argument} must be {low:g} or more; got {value!r}.")
        for argument, value in (
            ("sigma", sigma),
            ("negatives_per_positive", negatives_per_positive),
        ):
            if value is not None and not value > 0:
                raise InputError(f"{argument} must be above 0; got {value!r}.")
        self.settings = {
            "class_loss": class_loss,
            "box_loss": box_loss,
            "class_weight": class_weight,
            "box_weight": box_weight,
            "sigma": sigma,
            "alpha": alpha,
            "gamma": gamma,
            "negatives_per_positive": negatives_per_positive,
            "normalizer": normalizer,
        }

    def call(self, y_true, y_pred):
        """Loss of each image.

        Args:
            y_true: `(bbox_offset (batch, 4·anchors), bbox_mask (batch, 4·anchors),
                class_labels (batch, anchors))` as `multibox_target` gives them: anchors
                with the label -1 are left out of the class part.
            y_pred: `(cls_preds (batch, anchors, classes + 1), bbox_preds (batch,
                4·anchors))`.

        Returns:
            float32 `(batch,)`.
        """
        options = self.settings
        offsets, mask, classes = y_true
        cls_preds, bbox_preds = y_pred
        classes = tf.cast(classes, tf.int32)  # Keras casts the targets to float32
        counted = classes >= 0  # (batch, anchors)
        settings = options["class_loss"], options["alpha"], options["gamma"]
        losses = class_losses(cls_preds, tf.maximum(classes, 0), *settings)  # (batch, anchors)
        losses = tf.where(counted, losses, 0.0)
        if options["negatives_per_positive"] is not None:
            hard = hard_negatives(
                tf.stop_gradient(losses), classes, options["negatives_per_positive"]
            )
            losses = tf.where(hard | (classes > 0), losses, 0.0)
        distances = self._box_losses(bbox_preds, offsets, mask)  # (batch, …), 0 for background

        if options["normalizer"] == "anchors":
            anchors = tf.maximum(tf.reduce_sum(tf.cast(counted, tf.float32), -1), 1.0)
            class_part = tf.reduce_sum(losses, -1) / anchors
            box_part = tf.reduce_mean(distances, -1)
        else:
            positives = tf.maximum(tf.reduce_sum(tf.cast(classes > 0, tf.float32), -1), 1.0)
            class_part = tf.reduce_sum(losses, -1) / positives
            box_part = tf.reduce_sum(distances, -1) / positives
        return options["class_weight"] * class_part + options["box_weight"] * box_part

    def _box_losses(self, predicted, offsets, mask):
        """Loss of each offset, or of each anchor: 0 where the mask is 0."""
        if self.settings["box_loss"] == "giou":
            # GIoU does not change when both boxes are moved and stretched alike, so all anchors
            # may be the same one.
            rows = [tf.shape(predicted)[0], -1, 4]
            # What background predicts may be beyond any number, which a mask of 0 does not undo.
            boxes = [
                offset_inverse(tf.constant(UNIT_ANCHOR), tf.reshape(o, rows))
                for o in (tf.where(mask > 0, predicted, 0.0), offsets)
            ]
            return giou_loss(*boxes) * tf.reshape(mask, rows)[..., 0]  # (batch, anchors)
        difference = (predicted - offsets) * mask  # (batch, 4·anchors)
        if self.settings["box_loss"] == "smooth_l1":
            return smooth_l1(difference, self.settings["sigma"])
        return tf.abs(difference)

    def get_config(self):
        return {**super().get_config(), **self.settings}


def _check_choice(argument, value, choices):
    if value not in choices:
        raise InputError(f"{argument} must be one of {', '.join(choices)}; got {value!r}.")
