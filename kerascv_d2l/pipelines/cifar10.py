"""Small pictures that lie in memory, to batches: augmented a whole batch at once.

Each picture of a batch has a draw of its own. What is drawn and what is done with the draw are
separate functions.
"""

import tensorflow as tf

from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import ALGORITHM
from kerascv_d2l.pipelines.batches import check_batching, make_batches, picture_loader

AUGMENTATIONS = ("none", "flip", "crop-flip", "color", "all")
PADDING = 4  # pixels on each side: what networks for CIFAR-10 have been trained with since 2014
JITTER = 0.5  # the book's, for each of brightness, contrast, saturation and hue


def cifar10_batches(
    split,
    batch_size,
    *,
    training=False,
    augment="none",
    seed=0,
    initial_epoch=0,
    drop_remainder=False,
):
    """Batches of pictures of one size that are in memory, as `read_cifar10` gives them.

    For training the data set goes on for ever, as that of `classification_batches`; order and
    draws depend on the seed, the number of the epoch, the batch size and the picture only.
    Otherwise there is one pass in order, without augmentation.

    Args:
        split: `ClassificationSplit` whose pictures are an array.
        batch_size: int.
        training: bool: shuffled, augmented, and without end.
        augment: what `augmentation` takes, for training.
        seed: int, for order and draws.
        initial_epoch: int: the first epoch to give, counted from 0.
        drop_remainder: bool: leave out the last batch of an epoch if it is smaller.

    Returns:
        `tf.data.Dataset` of `(images, labels)`: uint8 `(batch, height, width, 3)`, or float32
        pixels 0-255 where colours are jittered, and int32 `(batch,)`.

    Raises:
        InputError: for a number out of range, or an unknown augmentation.
    """
    check_batching(split, batch_size, seed, initial_epoch, drop_remainder)
    pictures, labels = picture_loader(split), tf.constant(split.labels)
    change = augmentation(augment) if training else None

    def several(indices):
        return pictures(indices), tf.gather(labels, indices)

    def transform(batch, batch_seed):
        images, classes = batch
        return change(images, batch_seed), classes

    return make_batches(
        split,
        None,
        several,
        transform=None if change is None else transform,
        batch_size=batch_size,
        training=training,
        seed=seed,
        initial_epoch=initial_epoch,
        drop_remainder=drop_remainder,
    )


def augmentation(name):
    """Look up what `--augment` means.

    Args:
        name: `"none"`; `"flip"`, the book's: mirrored by chance; `"crop-flip"`: a window of a
            picture padded by four pixels of zeros, mirrored by chance; `"color"`: colour jitter
            with the book's .5 each; `"all"`: `"crop-flip"`, then `"color"`.

    Returns:
        Function of images `(batch, height, width, 3)` uint8 and a seed, integers `(2,)`, to
        images of the same shape; None for `"none"`.

    Raises:
        InputError: for another name.
    """
    if name not in AUGMENTATIONS:
        raise InputError(f"augment is {name!r}; wanted one of {', '.join(AUGMENTATIONS)}")
    steps = {"flip": [flip], "crop-flip": [crop, flip], "color": [], "all": [crop, flip]}
    changes = list(steps.get(name, ()))
    if name in ("color", "all"):
        changes.append(_color_jitter())
    if not changes:
        return None

    def change(images, seed):
        seeds = tf.unstack(tf.random.split(seed, len(changes), alg=ALGORITHM), num=len(changes))
        for step, step_seed in zip(changes, seeds, strict=True):
            images = step(images, step_seed)
        return images

    return change


def flip(images, seed):
    """Mirror each picture left to right by a chance of one half.

    Args:
        images: `(batch, height, width, channels)`.
        seed: integers `(2,)`: equal seeds, equal draws.

    Returns:
        The same shape and dtype.
    """
    draws = tf.random.stateless_uniform((tf.shape(images)[0],), seed, alg=ALGORITHM)  # (batch,)
    return mirror(images, draws < 0.5)


def mirror(images, mirrored):
    """Mirror those pictures left to right that `mirrored` says.

    Args:
        images: `(batch, height, width, channels)`.
        mirrored: bool `(batch,)`.

    Returns:
        The same shape and dtype.
    """
    return tf.where(mirrored[:, None, None, None], tf.reverse(images, [2]), images)


def crop(images, seed, padding=PADDING):
    """Pad each picture with zeros, and cut a window of its old size out somewhere.

    Args:
        images: `(batch, height, width, channels)`.
        seed: integers `(2,)`: equal seeds, equal draws.
        padding: int: pixels on each side.

    Returns:
        The same shape and dtype. Each of the (2 · padding + 1)² windows is as likely.
    """
    shape = (tf.shape(images)[0], 2)
    corners = tf.random.stateless_uniform(
        shape, seed, 0, 2 * padding + 1, tf.int32, alg=ALGORITHM
    )  # (batch, 2)
    return pad_and_crop(images, corners, padding)


def pad_and_crop(images, corners, padding=PADDING):
    """Pad each picture with zeros, and cut out the window that begins at its corner.

    Args:
        images: `(batch, height, width, channels)`.
        corners: int32 `(batch, 2)`: top and left of the windows in the padded pictures, 0 to
            2 · padding.
        padding: int: pixels on each side.

    Returns:
        The same shape and dtype.
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    rows = corners[:, :1] + tf.range(height)  # (batch, height)
    columns = corners[:, 1:] + tf.range(width)  # (batch, width)
    cut = tf.gather(padded, rows, axis=1, batch_dims=1)  # (batch, height, padded width, c)
    cut = tf.gather(cut, columns, axis=2, batch_dims=1)  # (batch, height, width, c)
    return tf.ensure_shape(cut, images.shape)


def _color_jitter():
    try:
        from kerascv_d2l.layers.augmentation import ColorJitter
    except ImportError as error:
        raise InputError("augment: this version has no colour jitter; take crop-flip") from error
    return ColorJitter(JITTER, JITTER, JITTER, JITTER).transform
