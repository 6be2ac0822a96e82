"""Examples to batches: the one place where files and labels become tensors."""

import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import (
    ALGORITHM,
    crop_and_resize,
    random_flip,
    random_window,
    resize_and_center_crop,
)
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.pictures import decode_content, decode_picture

# Decoded and resized pictures are kept in memory up to this many bytes a split
# (5461 training pictures of 256 x 256); beyond, they are decoded every epoch.
CACHE_BYTES = 2**30
# Which of the streams of random numbers of a seed is for what.
ORDER_STREAM, TRANSFORM_STREAM = 0, 1
PADDING_CLASS = -1.0
# Networks of ImageNet are tested on the middle 224 x 224 of pictures resized to 256 x 256.
IMAGE_SIZE = 224
RESIZED_SHARE = 256 / 224


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
    size = _as_size(image_size)
    _check(split, batch_size, seed, initial_epoch, drop_remainder)
    if full_resolution and (transform is None or cache):
        raise InputError("full_resolution is for a transform, and without cache")

    labels = tf.constant(_padded_labels(split.labels))  # (n, m, 5)
    pixel_dtype = tf.uint8 if training else tf.float32
    if cache is None:
        cache = not full_resolution and _fits_in_cache(split, size, pixel_dtype)
    original = _picture_loader(split)

    def resized(index):
        image = resize(original(index), size)
        # Rounded half up; the filter's weights are not negative, so 0-255 holds.
        return tf.cast(tf.floor(image + 0.5), tf.uint8) if training else image

    if full_resolution or _is_array_of_size(split, size):
        picture = original
    else:
        picture = _cached(resized, len(split)) if cache else resized

    def example(epoch, index):
        """One example, transformed: (height, width, 3), (m, 5)."""
        image, rows = tf.cast(picture(index), tf.float32), labels[index]
        if transform is not None:
            image, rows = transform(image, rows, _transform_seed(seed, epoch, index))
        if full_resolution:
            image = resize(image, size)
        rows = tf.ensure_shape(tf.cast(rows, tf.float32), labels.shape[1:])
        return tf.ensure_shape(tf.cast(image, tf.float32), (*size, 3)), rows

    def several(indices):
        return tf.cast(picture(indices), tf.float32), tf.gather(labels, indices)

    return _batches(
        split,
        example,
        several if cache and transform is None else None,
        batch_size=batch_size,
        training=training,
        seed=seed,
        initial_epoch=initial_epoch,
        drop_remainder=drop_remainder,
    )


def classification_batches(
    split,
    image_size=IMAGE_SIZE,
    batch_size=32,
    *,
    training=False,
    seed=0,
    initial_epoch=0,
    drop_remainder=False,
    cache=None,
):
    """Batches of a classification split, cut as networks of ImageNet expect them.

    For training: a random window of 8 % to 100 % of the area, resized and
    mirrored by chance. Otherwise: resized to `resized_size(image_size)`, whatever
    the shape, and the middle of that; what `export_classifier` puts into a model
    does the same.

    For training, the data set goes on for ever, as that of `detection_batches`, and
    as there order and draws depend on the seed, the number of the epoch and the
    picture only. Otherwise there is one pass in order.

    Args:
        split: `ClassificationSplit`.
        image_size: int or `(height, width)` of the batches, pixels.
        batch_size: int.
        training: bool: shuffled, cut at random, and without end.
        seed: int, for order, windows and mirroring.
        initial_epoch: int: the first epoch to give, counted from 0.
        drop_remainder: bool: leave out the last batch of an epoch if it is smaller.
        cache: bool: keep what is not for training in memory, cut and resized;
            None for if it takes at most `CACHE_BYTES`. It is decoded before
            this function returns.

    Returns:
        `tf.data.Dataset` of `(images, labels)`: float32 `(batch, height, width,
        3)` pixels 0-255, and int32 `(batch,)`.

    Raises:
        InputError: for a size or number out of range, or without a picture.

    Source:
        D2L 1.0.3, section 14.2.
    """
    size = _as_size(image_size)
    _check(split, batch_size, seed, initial_epoch, drop_remainder)
    labels = tf.constant(split.labels)
    original = _picture_loader(split)

    def cut(epoch, index):
        image = original(index)
        window_seed, flip_seed = tf.unstack(
            tf.random.split(_transform_seed(seed, epoch, index), 2, alg=ALGORITHM)
        )
        window = random_window(tf.shape(image)[:2], window_seed)
        return random_flip(crop_and_resize(image, window, size), flip_seed)

    def middle(index):
        return resize_and_center_crop(original(index), resized_size(size), size)

    if cache is None:
        cache = _fits_in_cache(split, size, tf.float32)
    cache = cache and not training
    if cache:
        middle = _cached(middle, len(split))

    def example(epoch, index):
        image = cut(epoch, index) if training else middle(index)
        return tf.ensure_shape(image, (*size, 3)), labels[index]

    def several(indices):
        return tf.ensure_shape(middle(indices), (None, *size, 3)), tf.gather(labels, indices)

    return _batches(
        split,
        example,
        several if cache else None,
        batch_size=batch_size,
        training=training,
        seed=seed,
        initial_epoch=initial_epoch,
        drop_remainder=drop_remainder,
    )


def resized_size(image_size):
    """Size to which pictures are resized before the middle is cut out: 256 for 224.

    Args:
        image_size: int or `(height, width)`, pixels.

    Returns:
        `(height, width)`, pixels.
    """
    return tuple(max(side, round(side * RESIZED_SHARE)) for side in _as_size(image_size))


def _check(split, batch_size, seed, initial_epoch, drop_remainder):
    if not 0 <= seed < 2**31:
        raise InputError(f"seed is {seed}; wanted 0 to 2**31 - 1")
    if initial_epoch < 0:
        raise InputError(f"initial_epoch is {initial_epoch}; wanted 0 or more")
    steps_per_epoch(split, batch_size, drop_remainder)


def _as_size(image_size):
    size = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"image_size is {image_size}; wanted pixels, or (height, width)")
    return size


def _batches(
    split,
    example,
    several,
    *,
    batch_size,
    training,
    seed,
    initial_epoch,
    drop_remainder,
):
    """Batches of the examples of a split: shuffled without end, or one pass in order.

    Args:
        split: anything with a length.
        example: function of scalar tensors `epoch` and `index` that gives an example.
        several: function of indices `(b,)` that gives a batch of them at once,
            where that is faster than one by one; or None.
        batch_size: int.
        training: bool.
        seed: int.
        initial_epoch: int.
        drop_remainder: bool.

    Returns:
        `tf.data.Dataset`.
    """

    def batches_of_epoch(epoch):
        indices = _order(seed, epoch, len(split)) if training else tf.range(len(split))
        indices = tf.data.Dataset.from_tensor_slices(indices)
        if several is not None:
            return indices.batch(batch_size, drop_remainder).map(several, num_parallel_calls=2)
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


def _picture_loader(split):
    """Function from an index to a picture at its own size, uint8 `(h, w, 3)`.

    For pictures in an array also from indices `(b,)` to `(b, h, w, 3)`.
    """
    if isinstance(split.images, np.ndarray):
        originals = tf.constant(split.images)
        return lambda index: tf.gather(originals, index)
    if isinstance(split.images[0], bytes):
        contents = tf.constant(split.images)
        return lambda index: decode_content(contents[index])
    paths, plain = tf.constant(split.images), tf.constant(split.plain)
    return lambda index: decode_picture(paths[index], plain[index])


def _is_array_of_size(split, size):
    """Whether the pictures are in memory and of the right size already."""
    return isinstance(split.images, np.ndarray) and split.images.shape[1:3] == size


def _fits_in_cache(split, size, dtype):
    return len(split) * size[0] * size[1] * 3 * dtype.size <= CACHE_BYTES


def _cached(picture, count):
    """Compute the pictures 0 … count - 1 of one size now; function that looks up one or several."""
    everything = tf.data.Dataset.range(count).map(picture, num_parallel_calls=tf.data.AUTOTUNE)
    # One batch of all of them: a single tensor that later batches gather from.
    everything = everything.batch(count).get_single_element()
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
