"""Losses with a class for every pixel."""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.devices import sum_over_replicas
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.segmentation import IGNORE_LABEL

# Compiled by XLA, softmax over few classes and its gradient take less than half the time.
_cross_entropy = tf.function(
    tf.nn.sparse_softmax_cross_entropy_with_logits, jit_compile=True, reduce_retracing=True
)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class SegmentationCrossEntropy(keras.losses.Loss):
    """Cross-entropy over the pixels of a batch without the ignored ones.

    The mean over a batch is `sum(w * loss) / sum(w)` over all its pixels, w being
    0 for ignored ones and otherwise the weight of the true class. Both sums are taken
    over all devices, so that several devices compute what one computes. Without ignored
    pixels and weights that is the book's mean over pixels, then over images. A
    batch in which every pixel is ignored has loss 0. Labels that are no class are ignored too.

    Args:
        ignore_label: int, the label to ignore, or None.
        class_weight: None or `num_classes` numbers, not negative.
        from_logits: whether scores come before the softmax, as those of FCN do.
        reduction: as for all Keras losses.

    Raises:
        InputError: if a class weight is negative or no number.
    """

    def __init__(
        self,
        ignore_label=IGNORE_LABEL,
        class_weight=None,
        from_logits=True,
        reduction="sum_over_batch_size",
        name="segmentation_cross_entropy",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        if class_weight is not None:
            class_weight = [float(weight) for weight in class_weight]
            if not class_weight or not np.isfinite(class_weight).all() or min(class_weight) < 0:
                raise InputError(
                    f"class_weight={class_weight}: expected one number >= 0 for every class."
                )
        self.ignore_label = ignore_label
        self.class_weight = class_weight
        self.from_logits = from_logits

    def call(self, y_true, y_pred):
        """Scale the weighted loss of every pixel so that its plain mean is the one above.

        Args:
            y_true: classes `(batch, height, width)` or `(batch, height, width, 1)`, any
                number type.
            y_pred: float scores `(batch, height, width, num_classes)`.

        Returns:
            `(batch, height, width)` in the type of `y_pred`.

        Raises:
            InputError: if the number of class weights is not that of the classes.
        """
        loss, weight = self.weighted(y_true, y_pred, _cross_entropy)
        # Counted in float32: float16 ends at 65504.
        pixels = tf.cast(tf.size(weight), tf.float32)
        sums = sum_over_replicas(tf.stack([pixels, tf.reduce_sum(tf.cast(weight, tf.float32))]))
        pixels, total = tf.unstack(sums)
        return loss * tf.cast(tf.math.divide_no_nan(pixels, total), loss.dtype)

    def weighted(
        self, y_true, y_pred, cross_entropy=tf.nn.sparse_softmax_cross_entropy_with_logits
    ):
        """Give the weighted loss and the weight of every pixel.

        Args:
            y_true: as for `call`.
            y_pred: as for `call`.
            cross_entropy: function that computes it from logits. (XLA, faster for batches of
                one size, compiles anew for each size of whole images.)

        Returns:
            `(w * loss, w)`, both `(batch, height, width)` in the type of `y_pred`.

        Raises:
            InputError: as `call`.
        """
        y_pred = tf.convert_to_tensor(y_pred)
        labels = tf.cast(tf.convert_to_tensor(y_true), tf.int32)
        if labels.shape.rank == y_pred.shape.rank:
            labels = tf.squeeze(labels, axis=-1)  # (batch, height, width)
        num_classes = y_pred.shape[-1]
        known = (labels >= 0) & (labels < num_classes)
        if self.ignore_label is not None:
            known &= labels != self.ignore_label
        labels = tf.where(known, labels, 0)
        weight = tf.cast(known, y_pred.dtype)  # (batch, height, width)
        if self.class_weight is not None:
            if len(self.class_weight) != num_classes:
                raise InputError(
                    f"class_weight has {len(self.class_weight)} numbers for {num_classes} classes."
                )
            weight *= tf.gather(tf.constant(self.class_weight, y_pred.dtype), labels)
        if self.from_logits:
            loss = cross_entropy(labels, y_pred)
        else:
            chosen = tf.gather(y_pred, labels, batch_dims=3)  # (batch, height, width)
            loss = -tf.math.log(tf.maximum(chosen, keras.config.epsilon()))
        return loss * weight, weight

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "ignore_label": self.ignore_label,
            "class_weight": self.class_weight,
            "from_logits": self.from_logits,
        }
