"""What the pipelines of all tasks share: order, seeds, reading, keeping in memory."""

import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.pictures import (
    cut_out,
    decode_content,
    decode_picture,
    decode_window,
    read_window,
)

# Decoded and resized pictures are kept in memory up to this many bytes a split
# (5461 training pictures of 256 x 256); beyond, they are decoded every epoch.
CACHE_BYTES = 2**30
# Which of the streams of random numbers of a seed is for what.
ORDER_STREAM, TRANSFORM_STREAM = 0, 1


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


def check_batching(split, batch_size, seed, initial_epoch, drop_remainder):
    """Raise `InputError` for what no pipeline can work with."""
    if not 0 <= seed < 2**31:
        raise InputError(f"seed is {seed}; wanted 0 to 2**31 - 1")
    if initial_epoch < 0:
        raise InputError(f"initial_epoch is {initial_epoch}; wanted 0 or more")
    steps_per_epoch(split, batch_size, drop_remainder)


def as_size(image_size):
    """`(height, width)` of an int or a pair."""
    size = (image_size, image_size) if np.ndim(image_size) == 0 else tuple(image_size)
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"image_size is {image_size}; wanted pixels, or (height, width)")
    return size


def make_batches(
    split,
    examples,
    several,
    *,
    batch_size,
    training,
    seed,
    initial_epoch,
    drop_remainder,
    transform=None,
):
    """Batches of the examples of a split: shuffled without end, or one pass in order.

    Args:
        split: anything with a length.
        examples: function of a scalar tensor `epoch` that gives a function of a scalar tensor
            `index` that gives an example. What it computes outside the latter, such as the
            draws for all pictures, it computes once an epoch.
        several: function of indices `(b,)` that gives a batch of them at once,
            where that is faster than one by one; or None.
        batch_size: int.
        training: bool.
        seed: int.
        initial_epoch: int.
        drop_remainder: bool.
        transform: function of a batch that `several` gave, and a seed, int32 `(2,)`, to a
            batch. Equal batches of equal epochs get equal seeds.

    Returns:
        `tf.data.Dataset`.
    """

    def whole_batch(epoch, indices):
        batch = several(indices)
        if transform is None:
            return batch
        # Each picture comes once an epoch, so the first one names the batch.
        return transform(batch, transform_seed(seed, epoch, indices[0]))

    def batches_of_epoch(epoch):
        indices = _order(seed, epoch, len(split)) if training else tf.range(len(split))
        indices = tf.data.Dataset.from_tensor_slices(indices)
        if several is not None:
            batches = indices.batch(batch_size, drop_remainder)
            return batches.map(lambda part: whole_batch(epoch, part), num_parallel_calls=2)
        made = indices.map(examples(epoch), num_parallel_calls=os.cpu_count() or 1)
        return made.batch(batch_size, drop_remainder)

    if training:
        epochs = tf.data.Dataset.counter(start=initial_epoch, dtype=tf.int64)
        batches = epochs.flat_map(batches_of_epoch)
    else:
        batches = batches_of_epoch(tf.constant(0, tf.int64))
    # Several machines: each takes its part of every batch; there are no files to share out.
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(2).with_options(options)


def picture_loader(split):
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


def window_loader(split):
    """Function `(index, window, enough)` that gives a window of a picture, uint8 `(h, w, 3)`.

    `window` and `enough` are as for `pictures.decode_window`: of JPEG files no
    more is decoded than the window needs.
    """
    if isinstance(split.images, np.ndarray):
        originals = tf.constant(split.images)
        return lambda index, window, enough: cut_out(originals[index], window)
    if isinstance(split.images[0], bytes):
        contents = tf.constant(split.images)
        return lambda index, window, enough: decode_window(contents[index], window, enough)
    paths, plain = tf.constant(split.images), tf.constant(split.plain)
    return lambda index, window, enough: read_window(paths[index], plain[index], window, enough)


def is_array_of_size(split, size):
    """Whether the pictures are in memory and of the right size already."""
    return isinstance(split.images, np.ndarray) and split.images.shape[1:3] == size


def fits_in_cache(split, size, dtype):
    """Whether the split's pictures of that size take at most `CACHE_BYTES`."""
    return len(split) * size[0] * size[1] * 3 * dtype.size <= CACHE_BYTES


def cached(picture, count):
    """Compute the pictures 0 … count - 1 of one size now; function that looks up one or several."""
    everything = tf.data.Dataset.range(count).map(picture, num_parallel_calls=tf.data.AUTOTUNE)
    # One batch of all of them: a single tensor that later batches gather from.
    everything = everything.batch(count).get_single_element()
    return lambda index: tf.gather(everything, index)


def _order(seed, epoch, count):
    """Permutation of 0 … count - 1 that depends on the seed and the epoch only."""
    draws = tf.random.stateless_uniform(
        [count], fold([seed, ORDER_STREAM], epoch), alg=ALGORITHM, dtype=tf.float32
    )
    return tf.argsort(draws, stable=True)


def transform_seed(seed, epoch, index):
    """int32 `(2,)` for the random draws of one example in one epoch."""
    return fold(fold([seed, TRANSFORM_STREAM], epoch), index)


def fold(seed, number):
    """A seed of its own for each number, made from `seed` `(2,)`."""
    return tf.random.fold_in(tf.cast(seed, tf.int32), tf.cast(number, tf.int32), alg=ALGORITHM)
