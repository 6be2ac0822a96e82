"""Noised objects, from which a transformer learns to find the true ones."""

import tensorflow as tf

from kerascv_d2l.ops.boxes import box_corner_to_center

BOX_NOISE = 0.4  # of half a side that a middle moves at most, and of a side that it grows
LABEL_NOISE = 0.2  # share of the objects that are given a class by lot
NUM_DRAWS = 6  # for an object: x, y, width, height, whether it has another class, which


def noise_objects(boxes, classes, num_classes, draws, box_noise=BOX_NOISE, label_noise=LABEL_NOISE):
    """Move and resize boxes, and change some of the classes.

    With noise up to 0.5 the true centre stays inside a noised box, and the other way round.

    Args:
        boxes: float32 `(batch, m, 4)`, normalised corners.
        classes: int32 `(batch, m)`; -1 is padding.
        num_classes: int.
        draws: float32 `(batch, groups, m, NUM_DRAWS)`, uniform in [0, 1).
        box_noise: float in [0, 1).
        label_noise: float in [0, 1].

    Returns:
        Tuple of float32 `(batch, groups·m, 4)`, normalised, centre first, not clipped; and int32
        `(batch, groups·m)` classes, 0 for padding. One group follows the other.

    Source:
        Li et al. 2022, "DN-DETR", section 4.3.
    """
    shape = tf.shape(draws)
    centre, size = tf.split(box_corner_to_center(boxes)[:, tf.newaxis], 2, axis=-1)
    moves, growth = tf.split(box_noise * (2 * draws[..., :4] - 1), 2, axis=-1)
    noised = tf.concat([centre + moves * size / 2, size * (1 + growth)], axis=-1)
    drawn = tf.cast(draws[..., 5] * num_classes, tf.int32)  # (batch, groups, m)
    classes = tf.where(draws[..., 4] < label_noise, drawn, tf.maximum(classes, 0)[:, tf.newaxis])
    rows = [shape[0], shape[1] * shape[2]]
    return tf.reshape(noised, [*rows, 4]), tf.reshape(classes, rows)


def group_mask(real, groups):
    """Say which of the noised objects may attend to which: those of a group that are no padding.

    Args:
        real: bool `(batch, m)`.
        groups: int.

    Returns:
        bool `(batch, 1, groups·m, groups·m)`, as `allowed` of `Attention`.
    """
    group = tf.repeat(tf.range(groups), tf.shape(real)[1])  # (groups·m,)
    same = group[:, tf.newaxis] == group
    return (same & tf.tile(real, [1, groups])[:, tf.newaxis])[:, tf.newaxis]
