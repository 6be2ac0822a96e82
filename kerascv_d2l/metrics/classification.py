"""Metrics of classifiers."""

from functools import partial

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError

_LEAST = 1e-12  # of a probability, for its logarithm


def evaluate_classification(model, batches, class_names):
    """Measure a classifier on a data set.

    Args:
        model: `keras.Model` from images to logits `(batch, classes)`.
        batches: finite iterable of `(images, labels)`, labels int `(batch,)`.
        class_names: sequence of str, a name for each class.

    Returns:
        Tuple of the dict of `classification_metrics`, and the probabilities of all images,
        float32 `(n, classes)`, in order.

    Raises:
        InputError: if there is no image.
    """
    call = tf.function(partial(model, training=False), reduce_retracing=True, autograph=False)
    found = [(tf.nn.softmax(call(images)).numpy(), np.asarray(y)) for images, y in batches]
    if not found:
        raise InputError("batches has no image to measure on; pass a data set that is not empty")
    probabilities, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    return classification_metrics(probabilities, labels, class_names), probabilities


def worst_images(probabilities, labels, names, class_names, count):
    """Find the images whose true class got the least probability.

    Args:
        probabilities: float `(n, classes)`.
        labels: int `(n,)`.
        names: sequence of n str, names of the images.
        class_names: sequence of str.
        count: int, how many to find.

    Returns:
        Tuple of their indices, int `(k,)`, the worst first, and a list of k dicts with `image`,
        `class`, `probability`, `predicted` and `predicted_probability`.
    """
    truth = probabilities[np.arange(len(labels)), labels]
    worst = np.argsort(truth, kind="stable")[:count]
    return worst, [
        {
            "image": names[i],
            "class": class_names[labels[i]],
            "probability": float(truth[i]),
            "predicted": class_names[probabilities[i].argmax()],
            "predicted_probability": float(probabilities[i].max()),
        }
        for i in worst
    ]


def classification_metrics(probabilities, labels, class_names):
    """Compare predicted probabilities with the true classes.

    Args:
        probabilities: float `(n, classes)`, each row with the sum 1.
        labels: int `(n,)`, the true classes.
        class_names: sequence of str.

    Returns:
        dict: `accuracy` and `loss` (mean cross-entropy), floats; `accuracy_by_class`, a dict
        from name to float, NaN for a class without images; and `confusion`, int64 `(classes,
        classes)`: rows are true classes, columns predicted ones.

    Raises:
        InputError: if there is no image, the shapes do not fit, or a label is no class.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    count = len(class_names)
    if labels.ndim != 1 or not len(labels) or probabilities.shape != (len(labels), count):
        raise InputError(
            f"probabilities of shape {probabilities.shape}, labels {labels.shape}: expected "
            f"(n, {count}), for the class names given, and (n,), and at least one."
        )
    # Of a short type `labels * count`, below, would run over.
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are {labels.dtype}; wanted whole numbers, the true classes")
    labels = labels.astype(np.int64)
    if labels.min() < 0 or labels.max() >= count:
        raise InputError(
            f"labels go from {labels.min()} to {labels.max()}; wanted 0 to {count - 1}, for the "
            "class names given"
        )
    predicted = probabilities.argmax(axis=1)  # (n,)
    truth = probabilities[np.arange(len(labels)), labels]  # (n,)
    confusion = np.bincount(labels * count + predicted, minlength=count**2).reshape(count, count)
    totals, right = confusion.sum(axis=1), np.diag(confusion)  # (classes,) each
    recalls = np.divide(right, totals, out=np.full(count, np.nan), where=totals > 0)
    return {
        "accuracy": float(right.sum() / len(labels)),
        "loss": abs(float(np.log(np.maximum(truth, _LEAST)).mean())),  # no -0
        "accuracy_by_class": dict(zip(class_names, recalls.tolist(), strict=True)),
        "confusion": confusion,
    }


def precision_recall(scores, right, num_objects):
    """Compute precision and recall as a score threshold falls.

    Args:
        scores: float `(n,)`, of all predictions of one class.
        right: bool `(n,)`, which of them are right.
        num_objects: int, how many there are to find.

    Returns:
        Tuple of float arrays `(n,)`, by falling score: recall, precision, threshold. Equal
        scores keep their order.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    found = np.cumsum(np.asarray(right)[order])
    precision = found / np.arange(1, len(order) + 1)
    return found / max(num_objects, 1), precision, np.asarray(scores)[order]
