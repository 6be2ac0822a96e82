"""What the pipelines of all tasks share: order, seeds, reading, keeping in memory."""

import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.data.images import (
    cut_out,
    decode_content,
    decode_image,
    decode_window,
    read_window,
)
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.prefetching import prefetched

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
    example,
    several,
    *,
    batch_size,
    training,
    seed,
    initial_epoch,
    drop_remainder,
    draws=None,
    transform=None,
):
    """Batches of the examples of a split: shuffled without end, or one pass in order.

    Args:
        split: anything with a length, n.
        example: function `(epoch, index, drawn)` of scalar tensors, and of what `draws` has
            for this index (`()` without `draws`), that gives an example.
        several: function of indices `(b,)` that gives a batch of them at once,
            where that is faster than one by one; or None.
        batch_size: int.
        training: bool.
        seed: int.
        initial_epoch: int.
        drop_remainder: bool.
        draws: function of a scalar tensor `epoch` that gives a structure of tensors `(n, ...)`:
            what is drawn for all examples at once, once an epoch.
        transform: function of a batch that `several` gave, and a seed, int32 `(2,)`, to a
            batch. Equal batches of equal epochs get equal seeds.

    Returns:
        `tf.data.Dataset`.
    """
    count = len(split)

    def in_order(epoch):
        """An epoch's `(epoch, index, drawn)`, one by one."""
        indices = _order(seed, epoch, count) if training else tf.range(count)
        if drop_remainder:
            indices = indices[: count - count % batch_size]
        drawn = () if draws is None else draws(epoch)
        drawn = tf.nest.map_structure(lambda values: tf.gather(values, indices), drawn)
        epochs = tf.fill(tf.shape(indices), epoch)
        return tf.data.Dataset.from_tensor_slices((epochs, indices, drawn))

    def at_once(epochs, indices, _):
        batch = several(indices)
        if transform is None:
            return batch
        # Each picture comes once an epoch, so the first one names the batch.
        return transform(batch, transform_seed(seed, epochs[0], indices[0]))

    def one_by_one(examples):
        made = examples.map(example, num_parallel_calls=os.cpu_count() or 1)
        return made.batch(batch_size, drop_remainder)

    def every_epoch(made):
        """Data set of what `made` makes of an epoch: of all, or of the only one."""
        if not training:
            return made(tf.constant(0, tf.int64))
        return tf.data.Dataset.counter(start=initial_epoch, dtype=tf.int64).flat_map(made)

    if several is not None:
        batches = every_epoch(lambda epoch: in_order(epoch).batch(batch_size, drop_remainder))
        batches = batches.map(at_once, num_parallel_calls=2)
    elif count % batch_size and not drop_remainder:
        # A batch must not reach into the next epoch: each makes its own, at the cost of
        # setting up the functions inside again (130 ms for windows of photographs).
        batches = every_epoch(lambda epoch: one_by_one(in_order(epoch)))
    else:
        batches = one_by_one(every_epoch(in_order))
    return prefetched(batches)


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
    return lambda index: decode_image(paths[index], plain[index])


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
