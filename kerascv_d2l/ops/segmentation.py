"""Class maps from scores, and what comparing class maps starts from."""

import tensorflow as tf

# The label of pixels that losses and metrics ignore: what Pascal VOC's masks have on borders.
IGNORE_LABEL = 255


def class_map(scores):
    """Find the class of the highest score at every place.

    The same as `tf.argmax`, in half of its time when classes are few.

    Args:
        scores: float `(..., num_classes)`.

    Returns:
        int32 `(...)`; of equal scores the first class.
    """
    return tf.math.top_k(scores, k=1).indices[..., 0]


def confusion_matrix(labels, predictions, num_classes, ignore_label=IGNORE_LABEL):
    """Count the pixels of every pair of true and predicted class.

    Args:
        labels: int tensor of any shape: classes, or `ignore_label`.
        predictions: int tensor with as many elements: classes.
        num_classes: int.
        ignore_label: int, or None if there is none.

    Returns:
        int32 `(num_classes + 1, num_classes)`: rows are true classes, the last
        one the ignored, columns predicted ones. Pixels of a label or prediction that is
        no class are not counted.
    """
    return count_cells(confusion_cells(labels, predictions, num_classes, ignore_label), num_classes)


def confusion_cells(labels, predictions, num_classes, ignore_label=IGNORE_LABEL):
    """Number the cell of `confusion_matrix` in which each pixel counts, row by row.

    Arguments are those of `confusion_matrix`.

    Returns:
        int32 `(pixels,)`; one more than the last cell for what is not counted.
    """
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    predictions = tf.cast(tf.reshape(predictions, [-1]), tf.int32)
    nowhere = (num_classes + 1) * num_classes  # beyond the table, where bincount drops it
    is_class = (labels >= 0) & (labels < num_classes)
    row = tf.where(is_class, labels, num_classes)
    known = is_class if ignore_label is None else is_class | (labels == ignore_label)
    known &= (predictions >= 0) & (predictions < num_classes)
    return tf.where(known, row * num_classes + predictions, nowhere)


def count_cells(cells, num_classes):
    """Count how often each cell comes: `confusion_matrix` from `confusion_cells`."""
    counts = tf.raw_ops.DenseBincount(
        input=cells,
        size=(num_classes + 1) * num_classes,
        weights=tf.constant([], tf.int32),
        binary_output=False,
    )
    return tf.reshape(counts, [num_classes + 1, num_classes])
