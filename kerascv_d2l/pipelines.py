"""Examples to batches: the one place where files and labels become tensors."""

import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.pictures import decode_picture

# Decoded and resized pictures are kept in memory up to this many bytes a split
# (5461 training pictures of 256 x 256); beyond, they are decoded every epoch.
CACHE_BYTES = 2**30
# Which of the streams of random numbers of a seed is for what.
ORDER_STREAM, TRANSFORM_STREAM = 0, 1
# The one generator whose numbers are the same on every device.
ALGORITHM = "philox"
PADDING_CLASS = -1.0


def steps_per_epoch(split, batch_size, drop_remainder=False):
    """Batches in an epoch, for `fit`, to which a training data set has no end.

    Args:
        split: anything with a length, as a `DetectionSplit`.
        batch_size: int.
        drop_remainder: bool: as for `detection_batches`.

    Returns:
        int, at least 1.

    Raises:
        InputError: if `drop_remainder` leaves no batch at all, or there is no
            picture.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; wanted at least 1")
    steps = len(split) // batch_size if drop_remainder else -(-len(split) // batch_size)
    if steps == 0:
        raise InputError(f"{len(split)} pictures make no batch of {batch_size}")
    return steps


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
        drop_remainder: bool: leave out the last batch of an epoch if it is smaller.
        cache: bool: keep decoded and resized pictures in memory; None for if
            they take at most `CACHE_BYTES`. They are decoded before this
            function returns.

    Returns:
        `tf.data.Dataset` of `(images, labels)`: float32 `(batch, height, width,
        3)` pixels 0-255, and float32 `(batch, m, 5)`, where m is the largest number of
        objects in the split, at least 1; the rest is filled with rows of -1.

    Raises:
        InputError: for a size or number out of range, or without a picture.
    """
    size = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"image_size is {image_size}; wanted pixels, or (height, width)")
    if not 0 <= seed < 2**31:
        raise InputError(f"seed is {seed}; wanted 0 to 2**31 - 1")
    if initial_epoch < 0:
        raise InputError(f"initial_epoch is {initial_epoch}; wanted 0 or more")
    steps_per_epoch(split, batch_size, drop_remainder)
    if full_resolution and (transform is None or cache):
        raise InputError("full_resolution is for a transform, and without cache")

    labels = tf.constant(_padded_labels(split.labels))  # (n, m, 5)
    pixel_dtype = tf.uint8 if training else tf.float32
    if cache is None:
        num_bytes = len(split) * size[0] * size[1] * 3 * pixel_dtype.size
        cache = not full_resolution and num_bytes <= CACHE_BYTES
    picture = _picture_loader(split, size, pixel_dtype, cache, full_resolution)

    def example(epoch, index):
        """One example, transformed: (height, width, 3), (m, 5)."""
        image, rows = tf.cast(picture(index), tf.float32), labels[index]
        if transform is not None:
            image, rows = transform(image, rows, _transform_seed(seed, epoch, index))
        if full_resolution:
            image = resize(image, size)
        rows = tf.ensure_shape(tf.cast(rows, tf.float32), labels.shape[1:])
        return tf.ensure_shape(tf.cast(image, tf.float32), (*size, 3)), rows

    def batches_of_epoch(epoch):
        indices = _order(seed, epoch, len(split)) if training else tf.range(len(split))
        indices = tf.data.Dataset.from_tensor_slices(indices)
        if cache and transform is None:
            batches = indices.batch(batch_size, drop_remainder)
            return batches.map(
                lambda rows: (tf.cast(picture(rows), tf.float32), tf.gather(labels, rows)),
                num_parallel_calls=2,
            )
        examples = indices.map(
            lambda index: example(epoch, index), num_parallel_calls=os.cpu_count() or 1
        )
        return examples.batch(batch_size, drop_remainder)

    if training:
        epochs = tf.data.Dataset.counter(start=initial_epoch, dtype=tf.int64)
        batches = epochs.flat_map(batches_of_epoch)
    else:
        batches = batches_of_epoch(tf.constant(0, tf.int64))
    return batches.prefetch(2)


def _padded_labels(labels):
    """List of `(objects, 5)` -> float32 `(n, m, 5)`, filled with rows of -1."""
    longest = max([1, *(len(rows) for rows in labels)])
    padded = np.full((len(labels), longest, 5), PADDING_CLASS, np.float32)
    for k, rows in enumerate(labels):
        padded[k, : len(rows)] = rows
    return padded


def _picture_loader(split, size, dtype, cache, full_resolution):
    """Function from an index (if cached also from several) to a picture."""
    if isinstance(split.images, np.ndarray):
        originals = tf.constant(split.images)

        def original(index):
            return tf.gather(originals, index)

        if tuple(originals.shape[1:3]) == size:  # in memory and of the right size already
            return original
    else:
        paths, plain = tf.constant(split.images), tf.constant(split.plain)

        def original(index):
            return decode_picture(paths[index], plain[index])

    def resized(index):
        image = resize(original(index), size)
        # Rounded half up; the filter's weights are not negative, so 0-255 holds.
        return tf.cast(tf.floor(image + 0.5), dtype) if dtype == tf.uint8 else image

    if full_resolution:
        return original
    if not cache:
        return resized
    everything = tf.data.Dataset.range(len(split))
    everything = everything.map(resized, num_parallel_calls=tf.data.AUTOTUNE)
    # One batch of all of them: a single tensor that later batches gather from.
    everything = everything.batch(len(split)).get_single_element()
    return lambda index: tf.gather(everything, index)


def _order(seed, epoch, count):
    """Permutation of 0 … count - 1 that depends on the seed and the epoch only."""
    draws = tf.random.stateless_uniform(
        [count], _fold([seed, ORDER_STREAM], epoch), alg=ALGORITHM, dtype=tf.float32
    )
    return tf.argsort(draws, stable=True)


def _transform_seed(seed, epoch, index):
    return _fold(_fold([seed, TRANSFORM_STREAM], epoch), index)


def _fold(seed, number):
    return tf.random.fold_in(tf.cast(seed, tf.int32), tf.cast(number, tf.int32), alg=ALGORITHM)
