"""Pixel accuracy and intersection over union, from one table of counts.

All of them come from the confusion matrix, so `SegmentationMetrics` counts once
and reports everything; `PixelAccuracy` and `MeanIoU` are for one figure alone.
"""

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.segmentation import (
    VOID_LABEL,
    confusion_cells,
    confusion_matrix,
    count_cells,
)


def iou_by_class(confusion):
    """Intersection over union of each class, void pixels left out.

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
    """Mean of `iou_by_class` over the classes that occur.

    Args:
        confusion: as for `iou_by_class`.

    Returns:
        float64 scalar, 0 if no class occurs.
    """
    iou = iou_by_class(confusion)
    occurs = ~tf.math.is_nan(iou)
    total = tf.reduce_sum(tf.where(occurs, iou, 0))
    return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(occurs, tf.float64)))


def pixel_accuracy(confusion, void_is=0):
    """Share of the pixels that are classed right, as the book counts.

    Args:
        confusion: as for `iou_by_class`.
        void_is: class that void pixels count as (the book: 0, background), or
            None to leave them out.

    Returns:
        float64 scalar, 0 if there are no pixels.
    """
    confusion = tf.cast(confusion, tf.float64)
    right = tf.linalg.trace(confusion[:-1])
    if void_is is None:
        confusion = confusion[:-1]
    else:
        right += confusion[-1, void_is]
    return tf.math.divide_no_nan(right, tf.reduce_sum(confusion))


def evaluate_segmentation(segment, pictures, class_names, void_label=VOID_LABEL):
    """Measure class maps of whole pictures.

    Args:
        segment: function from pixels `(height, width, 3)` to int classes `(height,
            width)`, such as a `Segmenter`.
        pictures: iterable of pairs of such pixels and labels `(height, width)`,
            of any sizes, as `whole_pictures` gives them.
        class_names: sequence of str, a name for each class.
        void_label: int, the label to leave out, or None.

    Returns:
        dict: `mean_iou` and `pixel_accuracy`, floats; `iou_by_class`, a dict from
        name to float, NaN for a class that neither truth nor prediction has; and
        `confusion`, int64 `(classes + 1, classes)`, as `confusion_matrix`
        counts. All but the last leave void out.
    """
    confusion = np.zeros((len(class_names) + 1, len(class_names)), np.int64)
    for image, labels in pictures:
        counts = confusion_matrix(labels, segment(image), len(class_names), void_label)
        confusion += counts.numpy()
    iou = iou_by_class(confusion).numpy()
    return {
        "mean_iou": float(mean_iou(confusion)),
        "pixel_accuracy": float(pixel_accuracy(confusion, void_is=None)),
        "iou_by_class": {n: float(i) for n, i in zip(class_names, iou, strict=True)},
        "confusion": confusion,
    }


class ConfusionMetric(keras.metrics.Metric):
    """What all metrics here share: a table that grows batch by batch.

    Args:
        num_classes: int.
        void_label: int or None, as for `confusion_matrix`.
        name: str.
        dtype: as for all metrics; the table is always float64, whose counts
            are exact up to 9e15 pixels (float32 stops counting at 1.7e7).

    Raises:
        InputError: if `num_classes` is less than 1 or `void_label` is a class.
    """

    def __init__(self, num_classes, void_label=VOID_LABEL, name=None, dtype=None):
        super().__init__(name=name, dtype=dtype)
        if num_classes < 1:
            raise InputError(f"num_classes={num_classes}: expected at least 1.")
        if void_label is not None and 0 <= void_label < num_classes:
            raise InputError(
                f"void_label={void_label} is one of the {num_classes} classes: "
                "give a label that no class has, or None."
            )
        self.num_classes = num_classes
        self.void_label = void_label
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
            sample_weight: must be None: mark pixels to leave out as void.

        Raises:
            InputError: if weights are given or the scores are of another number of
                classes.
        """
        if sample_weight is not None:
            raise InputError(
                f"{self.name} counts pixels and takes no sample_weight: "
                f"set the labels of pixels to leave out to {self.void_label}, or list the metric "
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
        counts = count_cells(self._compiled_cells(y_true, y_pred), self.num_classes)
        self.confusion.assign_add(tf.cast(counts, tf.float64))

    def _cells(self, y_true, y_pred):
        if y_pred.dtype.is_floating:
            y_pred = tf.argmax(y_pred, axis=-1, output_type=tf.int32)
        return confusion_cells(y_true, y_pred, self.num_classes, self.void_label)

    def iou_by_class(self):
        """Give the intersection over union of each class so far.

        Returns:
            float64 NumPy `(num_classes,)`, NaN for classes that did not occur.
        """
        return iou_by_class(self.confusion.value).numpy()

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {
            "num_classes": self.num_classes,
            "void_label": self.void_label,
        }


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class MeanIoU(ConfusionMetric):
    """Mean intersection over union of the classes that occur, void left out.

    Args:
        num_classes: int.
        void_label: int, the label to leave out, or None.
        name: str.
        dtype: of the result.
    """

    def __init__(self, num_classes, void_label=VOID_LABEL, name="mean_iou", dtype=None):
        super().__init__(num_classes, void_label, name=name, dtype=dtype)

    def result(self):
        """Give the figure so far, 0 before the first batch."""
        return tf.cast(mean_iou(self.confusion), self.dtype)


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class PixelAccuracy(ConfusionMetric):
    """Share of pixels classed right; void pixels count as a class, in the book as background.

    Args:
        num_classes: int.
        void_label: int, the label of void pixels, or None.
        void_is: class that void pixels count as, or None to leave them out.
        name: str.
        dtype: of the result.
    """

    def __init__(
        self, num_classes, void_label=VOID_LABEL, void_is=0, name="pixel_accuracy", dtype=None
    ):
        super().__init__(num_classes, void_label, name=name, dtype=dtype)
        self.void_is = _check_void_is(void_is, num_classes)

    def result(self):
        """Give the figure so far, 0 before the first batch."""
        return tf.cast(pixel_accuracy(self.confusion, self.void_is), self.dtype)

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {"void_is": self.void_is}


@keras.saving.register_keras_serializable(package="kerascv_d2l")
class SegmentationMetrics(ConfusionMetric):
    """`pixel_accuracy` and `mean_iou`, and on demand `iou_<class>`, counted once for all.

    In `fit` and `evaluate` each figure is logged under its own name.

    Args:
        num_classes: int.
        void_label: int, the label of void pixels, or None.
        void_is: class that void pixels count as in the pixel accuracy, or None
            to leave them out. Mean IoU always leaves them out.
        class_names: None, or `num_classes` str: then each class's IoU is
            reported too (NaN for a class that has not occurred).
        name: str.
        dtype: of the results.

    Raises:
        InputError: if `void_is` is no class, or the number of names is wrong.
    """

    def __init__(
        self,
        num_classes,
        void_label=VOID_LABEL,
        void_is=0,
        class_names=None,
        name="segmentation",
        dtype=None,
    ):
        super().__init__(num_classes, void_label, name=name, dtype=dtype)
        self.void_is = _check_void_is(void_is, num_classes)
        if class_names is not None and len(set(class_names)) != num_classes:
            raise InputError(
                f"class_names has {len(set(class_names))} different names, "
                f"num_classes={num_classes}: give each class one of its own."
            )
        self.class_names = None if class_names is None else list(class_names)

    def result(self):
        """Give a dict of the figures so far."""
        figures = {
            "pixel_accuracy": pixel_accuracy(self.confusion, self.void_is),
            "mean_iou": mean_iou(self.confusion),
        }
        if self.class_names is not None:
            iou = tf.unstack(iou_by_class(self.confusion))
            figures |= {f"iou_{n}": i for n, i in zip(self.class_names, iou, strict=True)}
        return {name: tf.cast(figure, self.dtype) for name, figure in figures.items()}

    def get_config(self):
        """Give the arguments of the constructor."""
        return super().get_config() | {"void_is": self.void_is, "class_names": self.class_names}


def _check_void_is(void_is, num_classes):
    if void_is is not None and not 0 <= void_is < num_classes:
        raise InputError(f"void_is={void_is}: expected a class 0-{num_classes - 1}, or None.")
    return void_is
