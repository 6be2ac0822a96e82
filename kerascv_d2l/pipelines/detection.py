"""Pictures with boxes to batches."""

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.pipelines.batches import (
    as_size,
    cached,
    check_batching,
    fits_in_cache,
    fold,
    is_array_of_size,
    make_batches,
    picture_loader,
    transform_seed,
)

PADDING_CLASS = -1.0
PARTNER_STREAM = 2**30  # far from the numbers that transforms fold into their seeds


def detection_batches(
    split,
    image_size,
    batch_size,
    *,
    training=False,
    seed=0,
    initial_epoch=0,
    transform=None,
    full_resolution=False,
    partners=0,
    drop_remainder=False,
    cache=None,
):
    """Batches of a detection split.

    For training, the data set goes on for ever: `fit` it with
    `steps_per_epoch=steps_per_epoch(split, batch_size)`. The order of an epoch
    and what `transform` draws depend on the seed, the number of the epoch and
    the picture only, so a run that is resumed at epoch k with `initial_epoch=k` gets
    the batches that an undisturbed one gets. Otherwise there is one pass in order.

    Resized pixels are rounded to whole grey levels for training, which lets
    four times as many stay in memory; for evaluation they are exactly what
    `resize` gives, as in `detect`.

    Args:
        split: `DetectionSplit`.
        image_size: int or `(height, width)` of the batches, pixels.
        batch_size: int.
        training: bool: shuffled and without end.
        seed: int, for the order and `transform`.
        initial_epoch: int: the first epoch to give, counted from 0.
        transform: function `(image, labels, seed)` -> `(image, labels)` of one
            example, in graph mode: float32 `(height, width, 3)` pixels 0-255,
            float32 `(m, 5)` rows with class -1 for padding, int32 `(2,)` seed for stateless
            random functions. Must keep the shapes.
        full_resolution: bool: `transform` gets the picture at its own size, and
            may return one of any size, which is resized then. Nothing is cached.
        partners: int: other pictures that `transform` needs, drawn for each example
            from the seed, the epoch and the picture. It is called as `transform(member,
            seed)` then, where `member(k)` gives image and labels of the example (k =
            0) or of a partner, and reads no sooner. It returns an image and
            `((1 + partners)·m, 5)` rows.
        drop_remainder: bool: leave out the last batch of an epoch if it is smaller.
        cache: bool: keep decoded and resized pictures in memory; None for if
            they take at most `CACHE_BYTES`. They are decoded before this
            function returns.

    Returns:
        `tf.data.Dataset` of `(images, labels)`: float32 `(batch, height, width,
        3)` pixels 0-255, and float32 `(batch, m, 5)`, where m is the largest number of
        objects in the split, at least 1 (times 1 + `partners`); the rest is filled
        with rows of -1.

    Raises:
        InputError: for a size or number out of range, or without a picture.
    """
    size = as_size(image_size)
    check_batching(split, batch_size, seed, initial_epoch, drop_remainder)
    if (full_resolution or partners) and (transform is None or cache):
        raise InputError("full_resolution and partners are for a transform, and without cache")

    labels = tf.constant(_padded_labels(split.labels))  # (n, m, 5)
    pixel_dtype = tf.uint8 if training else tf.float32
    if cache is None:
        cache = not full_resolution and fits_in_cache(split, size, pixel_dtype)
    original = picture_loader(split)

    def resized(index):
        image = resize(original(index), size)
        # Rounded half up; the filter's weights are not negative, so 0-255 holds.
        return tf.cast(tf.floor(image + 0.5), tf.uint8) if training else image

    if full_resolution or is_array_of_size(split, size):
        picture = original
    else:
        picture = cached(resized, len(split)) if cache else resized

    def labelled(index):
        return tf.cast(picture(index), tf.float32), labels[index]

    def members(index, draw):
        """Function from 0 … `partners` to an image and its labels."""
        others = tf.random.stateless_uniform(
            (partners,), fold(draw, PARTNER_STREAM), 0, len(split), tf.int32, alg=ALGORITHM
        )
        chosen = tf.concat([[tf.cast(index, tf.int32)], others], 0)
        return lambda k: labelled(chosen[k])

    def example(epoch, index, _):
        """One example, transformed: (height, width, 3), (m, 5)."""
        draw = transform_seed(seed, epoch, index)
        if partners:
            image, rows = transform(members(index, draw), draw)
        elif transform is not None:
            image, rows = transform(*labelled(index), draw)
        else:
            image, rows = labelled(index)
        if full_resolution:
            image = resize(image, size)
        rows = tf.ensure_shape(tf.cast(rows, tf.float32), ((1 + partners) * labels.shape[1], 5))
        return tf.ensure_shape(tf.cast(image, tf.float32), (*size, 3)), rows

    def several(indices):
        return tf.cast(picture(indices), tf.float32), tf.gather(labels, indices)

    return make_batches(
        split,
        example,
        several if cache and transform is None else None,
        batch_size=batch_size,
        training=training,
        seed=seed,
        initial_epoch=initial_epoch,
        drop_remainder=drop_remainder,
    )


def _padded_labels(labels):
    """List of `(objects, 5)` -> float32 `(n, m, 5)`, filled with rows of -1."""
    longest = max([1, *(len(rows) for rows in labels)])
    padded = np.full((len(labels), longest, 5), PADDING_CLASS, np.float32)
    for k, rows in enumerate(labels):
        padded[k, : len(rows)] = rows
    return padded
