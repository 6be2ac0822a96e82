"""Why a loss became NaN: what is wrong with the batches, before the learning rate is blamed."""

import numpy as np

from kerascv_d2l.data.splits import IGNORE_LABEL

LARGEST_PIXEL = 1000  # beyond, images were not scaled to 0-255 (16 bits, for one)


def explain_by_batches(batches_of, num_classes=None, names_of=None):
    """Make an `explain_divergence` for `Run`, of any training data.

    Args:
        batches_of: function of `initial_epoch`, an int, that gives the training batches from the
            beginning of that epoch on: an iterable of `(images, y)`, `(images, y, weights)` or
            `images`, as `fit` got them.
        num_classes: int, classes of the model; None: classes are not looked at.
        names_of: function of epoch and step, ints from 0, to the names of the images of that
            batch; None: they are counted.

    Returns:
        function of an epoch and a range of its steps, ints from 0, that gives a str: the first
        fault in these batches, and on which image; None if there is none.
    """

    def explain(epoch, steps):
        for step, batch in enumerate(batches_of(initial_epoch=epoch)):
            if step >= steps.stop:
                break
            if step in steps and (fault := fault_of_batch(batch, num_classes)):
                index, what = fault
                image = f"image {index + 1}" if names_of is None else names_of(epoch, step)[index]
                return f"in step {step + 1}, {image} {what}"
        return None

    return explain


def fault_of_batch(batch, num_classes=None):
    """Find what makes no finite loss in a batch.

    Args:
        batch: `(images, y)`, `(images, y, weights)` or images: float `(b, h, w, 3)`; y as of
            `batches`, or rows `(b, m, 5)` as in the book, or any array `(b, …)`.
        num_classes: int, or None.

    Returns:
        `(index of the image, what is wrong with it)`, or None.
    """
    images, y, *weights = batch if isinstance(batch, (tuple, list)) else (batch, {})
    images = np.asarray(images)
    bad = ~np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if bad.any():
        return _first(bad), "has pixels that are NaN or infinite"
    largest = np.abs(images).reshape(len(images), -1).max(axis=1)
    if (largest > LARGEST_PIXEL).any():
        index = _first(largest > LARGEST_PIXEL)
        return index, f"has pixels of up to {largest[index]:g}, where 0 to 255 are wanted"
    parts = dict(y) if isinstance(y, dict) else {"label": y}
    parts = {name: np.asarray(value) for name, value in parts.items()}
    for name, values in [*parts.items(), *(("weight", np.asarray(w)) for w in weights)]:
        if values.ndim and values.dtype.kind == "f":
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            if bad.any():
                return _first(bad), f"has {name} of NaN or infinity"
    if "label" in parts and parts["label"].ndim == 3 and parts["label"].shape[-1] == 5:
        parts = {"classes": parts["label"][..., 0], "boxes": parts["label"][..., 1:]}
    return _fault_of_objects(parts, num_classes) or _fault_of_labels(parts, num_classes)


def _fault_of_objects(parts, num_classes):
    if "boxes" not in parts or "classes" not in parts:
        return None
    classes, boxes = parts["classes"], parts["boxes"]  # (b, m), (b, m, 4)
    there = classes >= 0
    empty = there & ~(boxes[..., :2] < boxes[..., 2:]).all(axis=-1)
    if empty.any():
        index, row = np.argwhere(empty)[0]
        return int(index), f"has a box without area: {boxes[index, row].tolist()}"
    return _beyond(np.where(there, classes, 0), num_classes)


def _fault_of_labels(parts, num_classes):
    labels = parts.get("label")
    if labels is None or labels.ndim not in (1, 3):  # (b,), or masks (b, h, w)
        return None
    if labels.ndim == 3:
        labels = np.where(labels == IGNORE_LABEL, 0, labels)
    return _beyond(labels, num_classes)


def _beyond(classes, num_classes):
    """The first of the images with a class, `(b, …)`, that the model has not."""
    if num_classes is None:
        return None
    bad = (classes < 0) | (classes >= num_classes)
    if not bad.any():
        return None
    index = _first(bad.reshape(len(bad), -1).any(axis=1))
    value = classes[index][bad[index]].flat[0] if bad.ndim > 1 else classes[index]
    return index, f"has the class {value:g}, but there are classes 0 to {num_classes - 1}"


def _first(bad):
    return int(np.argmax(bad))
