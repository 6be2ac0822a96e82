"""Which places of a detector without anchors stand for an object: those that do it best."""

import tensorflow as tf

from kerascv_d2l.ops.boxes import iou_of_corners
from kerascv_d2l.ops.region_matching import BACKGROUND, IGNORED

SCORE_POWER, IOU_POWER, MOST = 0.5, 6.0, 10  # YOLOv8's; TOOD has 1, 6 and 13


def match_task_aligned(boxes, classes, ignore, scores, predicted, points, strides):
    """Give each object the places whose predictions fit it best, in class and box together.

    How well a place fits an object is `score^0.5 · IoU^6`. Candidates are places inside the
    object's box, or within half a stride of its centre, so that a small object has one too.

    Args:
        boxes: float32 `(batch, m, 4)` corners.
        classes: int32 `(batch, m)`; class -1 marks a padding row.
        ignore: bool `(batch, m)`; places inside such an object that stand for no other one
            are neither.
        scores: float32 `(batch, n, classes)` in [0, 1].
        predicted: float32 `(batch, n, 4)` corners in the frame of `boxes`.
        points: float32 `(n, 2)`, x and y of each place in that frame.
        strides: float32 `(n,)`.

    Returns:
        Tuple of
        match: int32 `(batch, n)`: row of `boxes`, -1 for background, -2 for neither.
        quality: float32 `(batch, n)` in [0, 1], what the score of the object's class should
            be there: the place that fits best has the largest IoU of the object's places, the
            others less, in proportion to how they fit. 0 elsewhere.

    Source:
        Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", section 3.2; the powers
        and the ten places of an object (more where others fit as well as the tenth) are those of
        Jocher et al. 2023, "Ultralytics YOLOv8".
    """
    boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0]])  # one to find where there is none
    classes = tf.pad(classes, [[0, 0], [0, 1]], constant_values=-1)
    ignore = tf.pad(ignore, [[0, 0], [0, 1]]) & (classes >= 0)
    inside = _candidates(boxes, points, strides)  # (batch, m, n)
    wanted = ((classes >= 0) & ~ignore)[:, :, tf.newaxis]

    of_class = tf.gather(tf.transpose(scores, [0, 2, 1]), tf.maximum(classes, 0), batch_dims=1)
    iou = iou_of_corners(
        tf.unstack(predicted[:, tf.newaxis], axis=-1), tf.unstack(boxes[:, :, tf.newaxis], axis=-1)
    )
    iou = tf.where(inside & wanted, iou, 0.0)  # (batch, m, n)
    fit = tf.pow(of_class, SCORE_POWER) * tf.pow(iou, IOU_POWER)
    count = tf.minimum(MOST, tf.shape(fit)[2])
    least = tf.math.top_k(fit, count).values[..., -1:]  # (batch, m, 1)
    chosen = (fit >= least) & (fit > 0)

    # A place that several objects chose stands for the one that it overlaps most.
    overlap = tf.where(chosen, iou, 0.0)
    match = tf.argmax(overlap, axis=1, output_type=tf.int32)  # (batch, n)
    positive = tf.reduce_any(chosen, axis=1)
    owner = tf.one_hot(match, tf.shape(boxes)[1], axis=1, on_value=True, off_value=False)
    chosen &= owner & positive[:, tf.newaxis]

    best_fit = tf.reduce_max(tf.where(chosen, fit, 0.0), axis=2, keepdims=True)
    best_iou = tf.reduce_max(tf.where(chosen, iou, 0.0), axis=2, keepdims=True)
    quality = tf.math.divide_no_nan(tf.where(chosen, fit, 0.0), best_fit) * best_iou
    passed_over = tf.reduce_any(inside & ignore[:, :, tf.newaxis], axis=1)
    match = tf.where(positive, match, tf.where(passed_over, IGNORED, BACKGROUND))
    return match, tf.reduce_max(quality, axis=1)


def _candidates(boxes, points, strides):
    """Which places are in a box, or next to its centre: bool `(batch, m, n)`."""
    centre = (boxes[..., :2] + boxes[..., 2:])[:, :, tf.newaxis] / 2  # (batch, m, 1, 2)
    half = (boxes[..., 2:] - boxes[..., :2])[:, :, tf.newaxis] / 2
    reach = tf.maximum(half, strides[:, tf.newaxis] / 2)  # (batch, m, n, 2)
    return tf.reduce_all(tf.abs(points - centre) <= reach, axis=-1)


def match_by_distance(boxes, classes, ignore, points, strides, levels, radius=1.5):
    """Give each place the smallest object that it is near the centre of, and fit for by size.

    Args:
        boxes: float32 `(batch, m, 4)` corners, pixels.
        classes: int32 `(batch, m)`; class -1 marks a padding row.
        ignore: bool `(batch, m)`, as for `match_task_aligned`.
        points: float32 `(n, 2)`, x and y of each place, pixels.
        strides: float32 `(n,)`.
        levels: number of places of the first and of the last level.
        radius: float, strides from an object's centre to the places that stand for it, at most.

    Returns:
        int32 `(batch, n)`: row of `boxes`, -1 for background, -2 for neither.

    Source:
        Tian et al. 2019, "FCOS", section 3.2, with torchvision's ranges: the largest of the
        four distances is 4 to 8 strides.
    """
    boxes = tf.pad(boxes, [[0, 0], [0, 1], [0, 0]])
    classes = tf.pad(classes, [[0, 0], [0, 1]], constant_values=-1)
    ignore = tf.pad(ignore, [[0, 0], [0, 1]]) & (classes >= 0)
    centre = (boxes[..., :2] + boxes[..., 2:])[:, :, tf.newaxis] / 2
    near = tf.reduce_all(tf.abs(points - centre) < radius * strides[:, tf.newaxis], axis=-1)
    sides = tf.concat(
        [points - boxes[:, :, tf.newaxis, :2], boxes[:, :, tf.newaxis, 2:] - points], axis=-1
    )  # (batch, m, n, 4)
    inside = tf.reduce_min(sides, axis=-1) > 0
    index, n = tf.range(tf.shape(points)[0]), tf.shape(points)[0]
    low = tf.where(index < levels[0], 0.0, 4 * strides)
    high = tf.where(index >= n - levels[1], float("inf"), 8 * strides)
    longest = tf.reduce_max(sides, axis=-1)
    fits = near & inside & (longest > low) & (longest < high)
    fits &= ((classes >= 0) & ~ignore)[:, :, tf.newaxis]
    area = tf.reduce_prod(boxes[..., 2:] - boxes[..., :2], axis=-1)[:, :, tf.newaxis]
    area = tf.where(fits, area, float("inf"))  # (batch, m, n)
    passed_over = tf.reduce_any(inside & ignore[:, :, tf.newaxis], axis=1)
    missed = tf.where(passed_over, IGNORED, BACKGROUND)
    smallest = tf.argmin(area, axis=1, output_type=tf.int32)
    return tf.where(tf.reduce_any(fits, axis=1), smallest, missed)
