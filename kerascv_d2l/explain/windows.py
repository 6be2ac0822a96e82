"""What a classifier sees in each window of an image, at several scales, and boxes from that."""

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.explain.occlusion import sum_patches
from kerascv_d2l.models.localizer import box_of_class
from kerascv_d2l.models.sliding import SlidingClassifier
from kerascv_d2l.ops.box_merging import THRESHOLD, merge_boxes
from kerascv_d2l.ops.resize import resize

SCALES = (1.0, 1.5, 2.0)
MOST_BOXES = 200  # of a class that are merged


def slide(model, image, scales=SCALES, score_threshold=0.5, merge_threshold=THRESHOLD):
    """Classify all windows of an image at several scales, and merge their boxes by class.

    A window counts for its most probable class, with the box of a `Localizer` in it, or else
    with the window itself.

    Args:
        model: as for `SlidingClassifier`; or a `SlidingClassifier`.
        image: pixels 0-255 `(height, width, 3)`, uint8 or float.
        scales: sequence of float, at least 1: the shorter side of the image over the window's. Both
            sides become multiples of the stride.
        score_threshold: float: windows with less do not count.
        merge_threshold: float, see `merge_boxes`.

    Returns:
        dict of `maps`, for each scale float32 `(height, width, classes)`: at each pixel of the
        image the mean probability of the windows over it; and of `boxes` float32 `(k, 4)`,
        normalised corners, `scores` float32 `(k,)`, sums over the merged windows, falling, and
        `classes` int32 `(k,)`.

    Raises:
        InputError: if the model cannot slide, or a scale is less than 1.

    Source:
        Sermanet et al. 2013, "OverFeat", sections 3.3 and 4.3.
    """
    if not scales or min(scales) < 1:
        raise InputError(f"scales={tuple(scales)}: expected at least one, of at least 1.")
    sliding = model if isinstance(model, SlidingClassifier) else SlidingClassifier(model)
    maps, rows = [], []
    for scale in scales:
        probabilities, corners, boxes, size = _at_scale(sliding, image, scale)
        maps.append(_on_pixels(sliding, probabilities, corners, size, image.shape[:2]))
        rows.append((probabilities.reshape(-1, probabilities.shape[-1]), boxes))
    probabilities, boxes = (np.concatenate(part) for part in zip(*rows, strict=True))
    classes = probabilities.argmax(axis=1)
    scores = probabilities.max(axis=1)
    return {"maps": maps} | _merged(boxes, scores, classes, score_threshold, merge_threshold)


def _at_scale(sliding, image, scale):
    """Probabilities `(rows, columns, classes)`, corners, and normalised boxes `(windows, 4)`."""
    shape, window, stride = np.array(image.shape[:2]), np.array(sliding.window), sliding.stride
    factor = scale * max(window / shape)
    size = np.maximum(np.round(shape * factor / stride) * stride, window).astype(int)
    outputs = sliding(resize(tf.cast(image, tf.float32)[None], tuple(map(int, size))))
    located = isinstance(outputs, dict)
    logits = outputs["logits"] if located else outputs
    probabilities = tf.nn.softmax(logits)[0].numpy()
    corners = sliding.corners(probabilities.shape[:2]).reshape(-1, 2)
    inside = [[0, 0, 1, 1]]
    if located:
        classes = probabilities.reshape(len(corners), -1).argmax(axis=1)
        inside = outputs["boxes"][0].numpy().reshape(len(corners), -1)
        inside = np.asarray(box_of_class(inside, classes))
    # From the window, normalised, to the image: x, y, x, y.
    boxes = (corners[:, [1, 0, 1, 0]] + inside * window[[1, 0, 1, 0]]) / size[[1, 0, 1, 0]]
    return probabilities, corners, np.clip(boxes, 0, 1).astype(np.float32), size


def _on_pixels(sliding, probabilities, corners, size, shape):
    """Mean over the windows at each pixel, `(height, width, classes)` of the image."""
    values = probabilities.reshape(len(corners), -1)
    times = sum_patches(corners, sliding.window, np.ones(len(corners)), size)
    sums = [sum_patches(corners, sliding.window, value, size) for value in values.T]
    means = np.stack(sums, axis=-1) / np.maximum(times, 1)[..., None]
    return tf.image.resize(means.astype(np.float32), shape).numpy()


def _merged(boxes, scores, classes, score_threshold, merge_threshold):
    found = [(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))]
    for k in np.unique(classes[scores >= score_threshold]):
        rows = np.flatnonzero((classes == k) & (scores >= score_threshold))
        rows = rows[np.argsort(-scores[rows], kind="stable")][:MOST_BOXES]
        merged = merge_boxes(boxes[rows], scores[rows], tf.constant(merge_threshold, tf.float32))
        found.append((merged[0], merged[1], np.full(len(merged[1]), k, np.int32)))
    boxes, scores, classes = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-scores, kind="stable")
    return {"boxes": boxes[order], "scores": scores[order], "classes": classes[order]}
