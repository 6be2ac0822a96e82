"""Pixel accuracy and intersection over union, from one table of counts."""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.segmentation import (
    IGNORE_LABEL,
    confusion_cells,
    confusion_matrix,
    count_cells,
)


def iou_by_class(confusion):
    """Compute the intersection over union of each class, without ignored pixels.

    Args:
        confusion: numbers `(num_classes + 1, num_classes)` as `ops.segmentation.
            confusion_matrix` gives them.

    Returns:
        float64 `(num_classes,)`; NaN for a class that neither the truth nor the
        prediction has.
    """
    confusion = tf.cast(confusion, tf.float64)[:-1]  # (num_classes, num_classes)
    both = tf.linalg.diag_part(confusion)
    either = tf.reduce_sum(confusion, 0) + tf.reduce_sum(confusion, 1) - both
    return tf.where(either > 0, both / either, np.nan)


def mean_iou(confusion):
    """Average `iou_by_class` over the classes that occur.

    Args:
        confusion: as for `iou_by_class`.

    Returns:
        float64 scalar, 0 if no class occurs.
    """
    iou = iou_by_class(confusion)
    occurs = ~tf.math.is_nan(iou)
    total = tf.reduce_sum(tf.where(occurs, iou, 0))
    return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(occurs, tf.float64)))


def pixel_accuracy(confusion, ignored_as=0):
    """Compute the share of pixels with the right class.

    Args:
        confusion: as for `iou_by_class`.
        ignored_as: class that ignored pixels are counted as (the book: 0, background),
            or None to ignore them.

    Returns:
        float64 scalar, 0 if there are no pixels.
    """
    confusion = tf.cast(confusion, tf.float64)
    right = tf.linalg.trace(confusion[:-1])
    if ignored_as is None:
        confusion = confusion[:-1]
    else:
        right += confusion[-1, ignored_as]
    return tf.math.divide_no_nan(right, tf.reduce_sum(confusion))


def evaluate_segmentation(segment, images, class_names, ignore_label=IGNORE_LABEL, loss=None):
    """Measure the class maps of whole images.

    Args:
        segment: function from pixels `(height, width, 3)` to int classes `(height,
            width)`, such as a `Segmenter`.
        images: iterable of pairs of such pixels and labels `(height, width)`, of any sizes.
        class_names: sequence of str, a name for each class.
        ignore_label: int, the label to ignore, or None.
        loss: None, or a `SegmentationCrossEntropy`, for which `segment` must be a `Segmenter`.

    Returns:
        dict: `mean_iou` and `pixel_accuracy`, floats; `iou_by_class`, a dict from
        name to float, NaN for a class that neither truth nor prediction has; and
        `confusion`, int64 `(classes + 1, classes)`, as `confusion_matrix`
        counts. All but the last ignore what `ignore_label` marks. With `loss` also
        `loss`: `sum(w * loss) / sum(w)` over the pixels of all images.
    """
    confusion = np.zeros((len(class_names) + 1, len(class_names)), np.int64)
    sums = np.zeros(2)
    for image, labels in images:
        if loss is None:
            classes = segment(image)
        else:
            classes, *parts = segment.with_loss(image, labels, loss)
            sums += parts
        confusion += confusion_matrix(labels, classes, len(class_names), ignore_label).numpy()
    result = segmentation_results(confusion, class_names)
    if loss is not None:
        result["loss"] = float(sums[0] / sums[1]) if sums[1] else 0.0
    return result


def segmentation_results(confusion, class_names):
    """Give the metrics of a confusion matrix; see `evaluate_segmentation`."""
    iou = iou_by_class(confusion).numpy()
    return {
        "mean_iou": float(mean_iou(confusion)),
        "pixel_accuracy": float(pixel_accuracy(confusion, ignored_as=None)),
        "iou_by_class": {n: float(i) for n, i in zip(class_names, iou, strict=True)},
        "confusion": confusion,
    }


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class SegmentationMetrics(keras.metrics.Metric):
    """`pixel_accuracy` and `mean_iou`, and on demand `iou_<class>`, counted once for all.

    In `fit` and `evaluate` each is logged under its own name. `confusion` has the table so
    far, as `confusion_matrix` counts, in float64, whose counts are exact up to 9e15 pixels
    (float32 stops counting at 1.7e7).

    Args:
        num_classes: int.
        ignore_label: int, the label to ignore, or None.
        ignored_as: class that ignored pixels are counted as in the pixel accuracy (the book:
            0, background), or None to ignore them there too. Mean IoU always ignores them.
        class_names: None, or `num_classes` str: then each class's IoU is
            reported too (NaN for a class that has not occurred).
        name: str.
        dtype: of the results.

    Raises:
        InputError: if `num_classes` is less than 1, `ignore_label` is a class, `ignored_as`
            is none, or the number of names is wrong.
    """

    def __init__(
        self,
        num_classes,
        ignore_label=IGNORE_LABEL,
        ignored_as=0,
        class_names=None,
        name="segmentation",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        if num_classes < 1:
            raise InputError(f"num_classes={num_classes}: expected at least 1.")
        if ignore_label is not None and 0 <= ignore_label < num_classes:
            raise InputError(
                f"ignore_label={ignore_label} is one of the {num_classes} classes: "
                "give a label that no class has, or None."
            )
        if ignored_as is not None and not 0 <= ignored_as < num_classes:
            raise InputError(
                f"ignored_as={ignored_as}: expected a class 0-{num_classes - 1}, or None."
            )
        if class_names is not None and len(set(class_names)) != num_classes:
            raise InputError(
                f"class_names has {len(set(class_names))} different names, "
                f"num_classes={num_classes}: give each class one of its own."
            )
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.ignored_as = ignored_as
        self.class_names = None if class_names is None else list(class_names)
        self.confusion = self.add_weight(
            name="confusion",
            shape=(num_classes + 1, num_classes),
            initializer="zeros",
            dtype="float64",
        )
        # Compiled by XLA, argmax over few classes is 10 times faster than TensorFlow's own, and
        # finding the cells takes one pass. Counting them is faster outside, on several threads.
        self._compiled_cells = tf.function(self._cells, jit_compile=True, reduce_retracing=True)

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Count a batch.

        Args:
            y_true: classes `(batch, height, width)` or `(..., 1)`, of any number type.
            y_pred: float scores `(batch, height, width, num_classes)`; or int classes
                in the shape of `y_true`.
            sample_weight: must be None: give pixels to ignore the label `ignore_label`.

        Raises:
            InputError: if weights are given, the scores are of another number of
                classes, or the shapes do not fit.
        """
        if sample_weight is not None:
            raise InputError(
                f"{self.name} counts pixels and takes no sample_weight: "
                f"set the labels of pixels to ignore to {self.ignore_label}, or list the metric "
                "in compile(metrics=...), not weighted_metrics."
            )
        y_pred = tf.convert_to_tensor(y_pred)
        y_true = tf.convert_to_tensor(y_true)
        if y_pred.dtype.is_floating and y_pred.shape[-1] != self.num_classes:
            raise InputError(
                f"{self.name} of {self.num_classes} classes got scores of shape "
                f"{tuple(y_pred.shape)}: the last axis must be the classes. "
                "(Class maps must be ints.)"
            )
        maps = y_pred.shape[:-1] if y_pred.dtype.is_floating else y_pred.shape
        labels = y_true.shape
        if labels.rank is not None and labels.rank != maps.rank and labels[-1] == 1:
            labels = labels[:-1]
        if not labels.is_compatible_with(maps):
            raise InputError(
                f"{self.name}: labels of shape {tuple(y_true.shape)} are not those of "
                f"{tuple(maps)} predictions, one for each pixel"
            )
        counts = count_cells(self._compiled_cells(y_true, y_pred), self.num_classes)
        self.confusion.assign_add(tf.cast(counts, tf.float64))

    def _cells(self, y_true, y_pred):
        if y_pred.dtype.is_floating:
            y_pred = tf.argmax(y_pred, axis=-1, output_type=tf.int32)
        return confusion_cells(y_true, y_pred, self.num_classes, self.ignore_label)

    def result(self):
        """Give a dict of the results so far, 0 before the first batch."""
        results = {
            "pixel_accuracy": pixel_accuracy(self.confusion, self.ignored_as),
            "mean_iou": mean_iou(self.confusion),
        }
        if self.class_names is not None:
            iou = tf.unstack(iou_by_class(self.confusion))
            results |= {f"iou_{n}": i for n, i in zip(self.class_names, iou, strict=True)}
        return {name: tf.cast(value, self.dtype) for name, value in results.items()}

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "num_classes": self.num_classes,
            "ignore_label": self.ignore_label,
            "ignored_as": self.ignored_as,
            "class_names": self.class_names,
        }
