"""Pictures with a class for every pixel to batches."""

import math

import numpy as np
import tensorflow as tf
from kerascv_d2l.pipelines.batches import (
    CACHE_BYTES,
    as_size,
    check_batching,
    make_batches,
    picture_loader,
    transform_seed,
)
from kerascv_d2l.prefetching import prefetched

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM, random_flip
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.ops.segmentation import IGNORE_LABEL

AUGMENTATIONS = ("none", "flip", "scale")  # each does what those before it do
# Pictures are enlarged by a factor between these, its logarithm uniform: the usual half to double.
SCALES = (0.5, 2.0)
# What lies outside a picture: middle grey, with the label void.
OUTSIDE = 127.5


def segmentation_batches(
    split,
    crop_size,
    batch_size,
    *,
    training=False,
    seed=0,
    initial_epoch=0,
    augment="scale",
    transform=None,
    drop_remainder=False,
    cache=None,
):
    """Batches of windows of pictures, and of the same windows of their masks.

    For training: one random window of every picture in an epoch. With `augment`
    "flip" it is mirrored left to right by chance, with "scale" the picture is
    enlarged by a random factor (`SCALES`) as well; masks are never interpolated. Where the
    window reaches beyond a picture, the mask is void. The data set goes on for ever, as that of
    `detection_batches`, and as there order and draws depend on the seed, the number of
    the epoch and the picture only.

    Otherwise: one pass over the whole pictures in order, each in as few windows
    of at most `crop_size` as reach every pixel. A pixel that is in several windows is void
    in all but one, so that counts over all batches are those of the pictures.
    All windows have one size; smaller pictures are lengthened by their last row and
    column, void in the mask.

    Args:
        split: `SegmentationSplit`.
        crop_size: int or `(height, width)` of the windows, pixels.
        batch_size: int.
        training: bool: shuffled, cut at random, and without end.
        seed: int, for order, windows, `augment` and `transform`.
        initial_epoch: int: the first epoch to give, counted from 0.
        augment: one of `AUGMENTATIONS`, for training.
        transform: function `(image, mask, seed)` -> `(image, mask)` of one training
            example, in graph mode: float32 `(height, width, 3)` pixels 0-255,
            uint8 `(height, width)` with 255 for void, int32 `(2,)` seed for stateless
            random functions. Must keep the shapes.
        drop_remainder: bool: leave out the last batch of an epoch if it is smaller.
        cache: bool: keep decoded pictures and masks in memory; None for if they
            take at most `CACHE_BYTES`. They are decoded before this function
            returns.

    Returns:
        `tf.data.Dataset` of `(images, masks)`: float32 `(batch, height, width,
        3)` pixels 0-255, and uint8 `(batch, height, width)` classes, 255 void.

    Raises:
        InputError: for a size or number out of range, without a picture, or, for
            training, if no picture is as large as the window.
    """
    size = as_size(crop_size)
    if augment not in AUGMENTATIONS:
        raise InputError(f"augment is {augment!r}; wanted one of {', '.join(AUGMENTATIONS)}")
    load = _pair_loader(split, cache)
    if training:
        check_crop_size(split, size)
        count = len(split)

        def example(epoch, index, _):
            image, mask = load(index)
            seeds = tf.random.split(transform_seed(seed, epoch, index), 3, alg=ALGORITHM)
            window_seed, flip_seed, own_seed = tf.unstack(seeds)
            window = draw_window(
                tf.shape(mask), size, window_seed, SCALES if augment == "scale" else (1.0, 1.0)
            )
            image, mask = cut_window(image, mask, window, size, resized=augment == "scale")
            if augment != "none":  # the same seed: both or neither
                image = random_flip(image, flip_seed)
                mask = random_flip(mask[..., None], flip_seed)[..., 0]
            if transform is not None:
                image, mask = transform(image, mask, own_seed)
            return tf.ensure_shape(image, (*size, 3)), tf.ensure_shape(mask, size)

    else:
        size = _fitting(size, split)
        places = tf.constant(_places(split.sizes, size))  # (windows, 5)
        count = len(places)

        def example(epoch, index, _):
            return _part(*load(places[index, 0]), places[index, 1:], size)

    check_batching(range(count), batch_size, seed, initial_epoch, drop_remainder)
    return make_batches(
        range(count),
        example,
        None,
        batch_size=batch_size,
        training=training,
        seed=seed,
        initial_epoch=initial_epoch,
        drop_remainder=drop_remainder,
    )


def count_windows(split, crop_size):
    """Count the windows of one pass without training of `segmentation_batches`.

    Args:
        split: `SegmentationSplit`.
        crop_size: int or `(height, width)` of the windows, pixels.

    Returns:
        int: what `evaluation_batch_size` shares out among devices.
    """
    return len(_places(split.sizes, _fitting(as_size(crop_size), split)))


def whole_pictures(split, indices=None):
    """Pictures at their own sizes with their masks, one by one and in order.

    Args:
        split: `SegmentationSplit`.
        indices: which of the pictures; None for all.

    Returns:
        `tf.data.Dataset` of `(image, mask)`: uint8 `(height, width, 3)` and
        uint8 `(height, width)`, 255 void.
    """
    load = _pair_loader(split, cache=False)
    indices = tf.data.Dataset.from_tensor_slices(range(len(split)) if indices is None else indices)
    return prefetched(indices.map(load, num_parallel_calls=2))


def check_crop_size(split, crop_size):
    """Refuse windows that are larger than every picture.

    Args:
        split: `SegmentationSplit`.
        crop_size: `(height, width)`, pixels.

    Raises:
        InputError: if no picture is at least as high and as wide.
    """
    if not (split.sizes >= crop_size).all(axis=1).any():
        height, width = split.sizes[split.sizes.prod(axis=1).argmax()]
        raise InputError(
            f"crop_size {crop_size[0]} x {crop_size[1]} (height x width): larger than every "
            f"picture; the largest of the {len(split)} is {height} x {width}. Give a smaller one"
        )


def draw_window(picture_size, size, seed, scales=SCALES):
    """Draw a window of a picture that is enlarged by a random factor.

    Every place is as likely as every other. Along a side where the enlarged
    picture is smaller than the window, all of it is in the window, anywhere.

    Args:
        picture_size: int32 `(2,)`, height and width, pixels.
        size: `(height, width)` of the window, pixels of the enlarged picture.
        seed: integers `(2,)`: equal seeds, equal windows.
        scales: `(least, most)` factor; its logarithm is uniform between theirs.

    Returns:
        int32 `(4, 2)`, each of height and width. In the picture's own pixels:
        where the window begins in it, and how much of it the window shows. In
        the window's: how much of it that fills, and how much lies before that.
    """
    draws = tf.random.stateless_uniform((5,), seed, alg=ALGORITHM)
    low, high = math.log(scales[0]), math.log(scales[1])
    scale = tf.exp(low + draws[0] * (high - low))
    size = tf.constant(size, tf.int32)  # (2,)
    wanted = tf.maximum(1, _round(tf.cast(size, tf.float32) / scale))
    fits = wanted <= picture_size
    shown = tf.minimum(wanted, picture_size)
    enlarged = _round(tf.cast(picture_size, tf.float32) * scale)
    filled = tf.where(fits, size, tf.clip_by_value(enlarged, 1, size))
    start = _place(draws[1:3], picture_size - shown)
    before = _place(draws[3:5], size - filled)
    return tf.stack([start, shown, filled, before])


def cut_window(image, mask, window, size, resized=True):
    """Cut out what `draw_window` drew.

    Args:
        image: `(h, w, 3)`, uint8 or float, pixels 0-255.
        mask: uint8 `(h, w)`.
        window: int32 `(4, 2)`, as `draw_window` gives it.
        size: `(height, width)` of the window.
        resized: bool: False where it is known that nothing is enlarged.

    Returns:
        float32 `(height, width, 3)` and uint8 `(height, width)`.
    """
    start, shown, filled, before = tf.unstack(window)
    (top, left), (height, width) = tf.unstack(start), tf.unstack(shown)
    image = image[top : top + height, left : left + width]
    mask = mask[top : top + height, left : left + width]
    if resized:
        image = resize(image, filled)
        mask = tf.gather(
            tf.gather(mask, _nearest(height, filled[0])), _nearest(width, filled[1]), axis=1
        )
    padding = tf.stack([before, size - filled - before], axis=1)  # (2, 2)
    image = tf.pad(
        tf.cast(image, tf.float32), tf.pad(padding, [[0, 1], [0, 0]]), constant_values=OUTSIDE
    )
    mask = tf.pad(mask, padding, constant_values=IGNORE_LABEL)
    return tf.ensure_shape(image, (*size, 3)), tf.ensure_shape(mask, size)


def _round(x):
    return tf.cast(tf.round(x), tf.int32)


def _place(draw, free):
    """A whole number from 0 to `free`, each as likely as the others."""
    place = tf.cast(draw * tf.cast(free + 1, tf.float32), tf.int32)
    return tf.minimum(place, free)  # a draw just below 1 can round up


def _nearest(old, new):
    """int32 `(new,)`: which of `old` pixels has its centre nearest to that of each new one."""
    return (2 * tf.range(new) + 1) * old // (2 * new)


def _fitting(size, split):
    """`(height, width)` of windows that are no larger than the largest picture."""
    return tuple(min(a, int(b)) for a, b in zip(size, split.sizes.max(axis=0), strict=True))


def _places(sizes, size):
    """Windows that reach every pixel: int32 `(windows, 5)`.

    Each: index of the picture; row and column of the window in it; and the first
    row and column that are not in the window before.
    """
    places = []
    for index, picture in enumerate(sizes.tolist()):
        starts = [range(0, side, step) for side, step in zip(picture, size, strict=True)]
        for row in starts[0]:
            for column in starts[1]:
                top, left = (
                    max(0, min(first, side - step))
                    for first, side, step in zip((row, column), picture, size, strict=True)
                )
                places.append([index, top, left, row, column])
    return np.array(places, np.int32)


def _part(image, mask, place, size):
    """A window of a whole picture: float32 `(*size, 3)`, uint8 `size`."""
    top, left, first_row, first_column = tf.unstack(place, num=4)
    rows, columns = top + tf.range(size[0]), left + tf.range(size[1])
    height, width = tf.unstack(tf.shape(mask))
    counted = ((rows >= first_row) & (rows < height))[:, None] & (
        (columns >= first_column) & (columns < width)
    )  # (height, width)
    rows, columns = tf.minimum(rows, height - 1), tf.minimum(columns, width - 1)
    image = tf.gather(tf.gather(image, rows), columns, axis=1)
    mask = tf.gather(tf.gather(mask, rows), columns, axis=1)
    mask = tf.where(counted, mask, tf.constant(IGNORE_LABEL, tf.uint8))
    return tf.ensure_shape(tf.cast(image, tf.float32), (*size, 3)), tf.ensure_shape(mask, size)


def _pair_loader(split, cache):
    """Function from an index to a picture, uint8 `(h, w, 3)`, and its mask, uint8 `(h, w)`."""
    picture = picture_loader(split)
    if isinstance(split.masks, np.ndarray):
        masks = tf.constant(split.masks)

        def mask(index):
            return masks[index]

    else:
        contents = tf.constant(split.masks)

        def mask(index):
            return tf.io.decode_png(contents[index], channels=1)[..., 0]

    in_memory = isinstance(split.images, np.ndarray) and isinstance(split.masks, np.ndarray)
    bytes_needed = 4 * int(split.sizes.prod(axis=1).sum())
    if cache is None:
        cache = bytes_needed <= CACHE_BYTES
    if in_memory or not cache:
        return lambda index: (picture(index), mask(index))

    def stacked(index):
        return tf.concat([picture(index), mask(index)[..., None]], axis=-1)

    look_up = _cached_of_any_size(stacked, split.sizes, 4)

    def pair(index):
        both = look_up(index)
        return both[..., :3], both[..., 3]

    return pair


def _cached_of_any_size(load, sizes, channels):
    """Load uint8 pictures `(h, w, channels)` now; function that looks one up.

    They lie one behind the other in a single tensor.
    """
    ends = np.cumsum(sizes.prod(axis=1) * channels)
    everything = np.empty(ends[-1], np.uint8)
    pictures = tf.data.Dataset.range(len(sizes)).map(load, num_parallel_calls=tf.data.AUTOTUNE)
    for picture, end in zip(pictures.as_numpy_iterator(), ends, strict=True):
        everything[end - picture.size : end] = picture.ravel()
    everything = tf.constant(everything)
    starts = tf.constant(np.concatenate([[0], ends]))  # (n + 1,)
    shapes = tf.constant(np.insert(sizes, 2, channels, axis=1))  # (n, 3)

    def look_up(index):
        picture = tf.reshape(everything[starts[index] : starts[index + 1]], shapes[index])
        return tf.ensure_shape(picture, (None, None, channels))

    return look_up
