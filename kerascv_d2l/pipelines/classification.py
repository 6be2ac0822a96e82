"""Pictures with one class each to batches."""

import tensorflow as tf

from kerascv_d2l.ops.geometry import (
    ALGORITHM,
    CROP_AREA,
    flip_left_right,
    random_window,
    resize_and_center_crop,
    resize_as,
)
from kerascv_d2l.pipelines.batches import (
    as_size,
    cached,
    check_batching,
    fits_in_cache,
    make_batches,
    picture_loader,
    transform_seed,
    window_loader,
)

# Networks of ImageNet are tested on the middle 224 x 224 of pictures resized to 256 x 256.
IMAGE_SIZE = 224
RESIZED_SHARE = 256 / 224


def classification_batches(
    split,
    image_size=IMAGE_SIZE,
    batch_size=32,
    *,
    training=False,
    seed=0,
    initial_epoch=0,
    crop_area=CROP_AREA,
    drop_remainder=False,
    cache=None,
):
    """Batches of a classification split, cut as networks of ImageNet expect them.

    For training: a random window of, usually, 8 % to 100 % of the area, resized as the layer
    `RandomResizedCrop` does, antialiased only where pixels would be left out otherwise, and
    mirrored by chance. Without: resized to `resized_size(image_size)`, whatever
    the shape, antialiased, and the middle of that; what `export_classifier` puts into a model
    does the same. Of a JPEG file only the window is decoded, and that at a half, a
    quarter or an eighth of its size where it is as many times too large.

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
        crop_area: `(least, most)` share of a picture's area in a training window.
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
    size = as_size(image_size)
    check_batching(split, batch_size, seed, initial_epoch, drop_remainder)
    labels = tf.constant(split.labels)
    original, window_of = picture_loader(split), window_loader(split)

    def windows_and_flips(epoch):
        """Draw for all pictures at once: one by one, drawing takes as long as decoding."""
        window_seed, flip_seed = (transform_seed(seed, epoch, k) for k in range(2))
        windows = random_window(split.sizes, window_seed, crop_area)  # (n, 4)
        return windows, tf.random.stateless_uniform([len(split)], flip_seed, alg=ALGORITHM) < 0.5

    def cut(index, window, flip):
        image = resize_as(window_of(index, window, size), size, antialias=None)
        return tf.cond(flip, lambda: flip_left_right(image), lambda: image)

    def middle(index):
        return resize_and_center_crop(original(index), resized_size(size), size)

    if cache is None:
        cache = fits_in_cache(split, size, tf.float32)
    cache = cache and not training
    if cache:
        middle = cached(middle, len(split))

    def example(epoch, index, drawn):
        image = cut(index, *drawn) if training else middle(index)
        return tf.ensure_shape(image, (*size, 3)), labels[index]

    def several(indices):
        return tf.ensure_shape(middle(indices), (None, *size, 3)), tf.gather(labels, indices)

    return make_batches(
        split,
        example,
        several if cache else None,
        batch_size=batch_size,
        training=training,
        seed=seed,
        initial_epoch=initial_epoch,
        drop_remainder=drop_remainder,
        draws=windows_and_flips if training else None,
    )


def resized_size(image_size):
    """Size to which pictures are resized before the middle is cut out: 256 for 224.

    Args:
        image_size: int or `(height, width)`, pixels.

    Returns:
        `(height, width)`, pixels.
    """
    return tuple(max(side, round(side * RESIZED_SHARE)) for side in as_size(image_size))
