"""Functions from the index of an image to the image and its targets, as tensors.

What they give for one image is an `Example`. Images that are asked for often stay in memory.
"""

import functools

import numpy as np
import tensorflow as tf

from kerascv_d2l.data.images import crop, decode_content, decode_image
from kerascv_d2l.data.splits import CLASSIFICATION, DETECTION, SEGMENTATION, UNLABELLED
from kerascv_d2l.devices import without_autograph
from kerascv_d2l.layers.augmentation.base import FILLING, Example
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.geometry import crop_mask, resize_and_center_crop, resize_as, resized_size
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.ops.rle import decode_masks
from kerascv_d2l.ops.windows import whole_window

# Decoded images of a split are kept in memory up to this many bytes (5461 training images of
# 256 x 256); beyond, they are decoded every epoch.
CACHE_BYTES = 2**30
MOST_ROUNDED = 20  # the power of two up to which numbers of objects are rounded up


def image_loader(split):
    """Make a function from an index to an image at its own size, uint8 `(h, w, 3)`.

    For images in an array also from indices `(b,)` to `(b, h, w, 3)`. With `window` and `enough`,
    as for `decode_content`, it gives the window and decodes no more of a JPEG file than that.
    """
    if isinstance(split.images, np.ndarray):
        originals = tf.constant(split.images)

        def load(index, window=None, enough=None):
            image = tf.gather(originals, index)
            return image if window is None else crop(image, window)

    elif isinstance(split.images[0], bytes):
        contents = tf.constant(split.images)

        def load(index, window=None, enough=None):
            return decode_content(contents[index], window, enough)

    else:
        paths, plain = tf.constant(split.images), tf.constant(split.plain)

        def load(index, window=None, enough=None):
            return decode_image(paths[index], plain[index], window, enough)

    return load


def target_loader(split, masks=False):
    """Make a function from an index to the fields of an `Example` but for its image, as a dict.

    But for instance masks and encoded segmentation masks it takes indices `(b,)`, too; rows of
    objects are then padded to a power of two.
    """
    targets = split.targets
    if split.task == DETECTION:
        return _object_loader(targets, masks)
    if split.task != SEGMENTATION:
        return lambda index: {}
    masks = tf.constant(targets["mask"])
    if isinstance(targets["mask"], np.ndarray):
        return lambda index: {"mask": tf.gather(masks, index)}
    return lambda index: {"mask": tf.io.decode_png(masks[index], channels=1)[..., 0]}


def _object_loader(targets, masks):
    lengths = [len(boxes) for boxes in targets["boxes"]]
    # Row 0 is padding, so that one ragged look-up serves all fields of a batch.
    rows = tf.RaggedTensor.from_row_lengths(np.arange(1, sum(lengths) + 1), lengths)
    fields = {
        name: tf.constant(np.concatenate([np.full_like(padding, FILLING[name]), *targets[name]]))
        for name, padding in (
            ("boxes", np.zeros((1, 4), np.float32)),
            ("classes", np.zeros(1, np.int32)),
            ("ignore", np.zeros(1, bool)),
        )
    }

    def masks_of(index):
        """Function of a size, and of a window, to the masks of an image: `Example.masks`."""

        def decode(size, *window):
            decoded = tf.numpy_function(
                lambda k, *where: decode_masks(targets["masks"][k], *where),
                [index, tf.stack(size), *window],
                tf.uint8,
                stateful=False,
            )
            known = [None if tf.is_tensor(side) else side for side in size]
            return tf.ensure_shape(decoded, (None, *known))

        return decode

    def objects(index):
        if index.shape.rank == 1:
            chosen = tf.gather(rows, index).to_tensor(0, shape=[index.shape[0], None])
            chosen = rounded_up(chosen, 0)
            return {name: tf.gather(values, chosen) for name, values in fields.items()}
        found = {name: tf.gather(values, rows[index]) for name, values in fields.items()}
        return found | ({"masks": masks_of(index)} if masks else {})

    return objects


def whole_loader(split, targets, cache, decoded):
    """Make a function from an index to an `Example` at the image's own size."""
    image, rows = image_loader(split), targets
    if cache is None:
        cache = 4 * split.sizes.prod(axis=1).sum() <= CACHE_BYTES
    # Images to classify are decoded as far as their window goes, which takes little.
    cache = cache and split.task in (DETECTION, SEGMENTATION)
    if cache and not isinstance(split.images, np.ndarray):
        cached = functools.partial(_cached_of_any_size, image, split.sizes, 3)
        image = _once(decoded, "images", cached)
        if split.task == SEGMENTATION:
            one_mask = lambda k: targets(k)["mask"][..., None]  # noqa: E731
            cached = functools.partial(_cached_of_any_size, one_mask, split.sizes, 1)
            mask = _once(decoded, "masks", cached)
            rows = lambda index: {"mask": mask(index)[..., 0]}  # noqa: E731
    return lambda index: Example(image(index), **rows(index))


def with_whole_masks(load):
    """Decode masks, as `load` gives them, at the size of their image."""

    def loaded(index):
        example = load(index)
        return example._replace(masks=example.masks(tf.unstack(example.size)))

    return loaded


def resized_images(split, size, training, cache, crop_pct, decoded):
    """Make a function from an index to a resized image.

    Returns:
        `(in_memory, image)`: whether images are in memory, so that `image` takes indices `(b,)`,
        too (and so do the split's targets); and the function.
    """
    centred = not training and split.task in (CLASSIFICATION, UNLABELLED) and crop_pct < 1
    original = image_loader(split)

    def resized(index):
        if centred:
            image = resize_and_center_crop(original(index), resized_size(size, crop_pct), size)
        else:
            image = resize(original(index), size)
        # Rounded half up, which lets four times as many stay in memory. The filter's weights
        # are not negative, so 0-255 holds.
        image = tf.cast(tf.floor(image + 0.5), tf.uint8) if training else image
        return tf.ensure_shape(image, (*size, 3))

    of_size = (split.sizes == size).all()
    if isinstance(split.images, np.ndarray) and of_size and not centred:
        cache, image = True, original
    else:
        if cache is None:
            cache = len(split) * size[0] * size[1] * 3 * (1 if training else 4) <= CACHE_BYTES
        image = _once(decoded, size, lambda: _cached(resized, len(split))) if cache else resized
    one_by_one = split.task == SEGMENTATION and not (
        isinstance(split.targets["mask"], np.ndarray) and of_size
    )
    return cache and not one_by_one, image


def window_loader(split, transform, load):
    """Make a function `(index, drawn)` to an `Example` augmented by draws that are made already.

    If the first layer cuts a window of images without boxes and masks, of JPEG files only that
    is decoded, at a half, a quarter or an eighth of its size where it is as many times too large.
    """
    first, *others = transform.layers
    window = isinstance(first, RandomWindow) and first.size is not None
    bare = split.task in (CLASSIFICATION, UNLABELLED)
    pixels = image_loader(split) if window and bare and first.fill is None else None

    def example(index, drawn):
        if pixels is not None:
            image = resize_as(pixels(index, drawn[0], first.size), first.size, first.antialias)
            found = Example(tf.ensure_shape(image, (*first.size, 3)))
        elif window:  # floats only of what is shown
            found = first.apply(load(index), drawn[0], tf.float32)
        else:
            found = load(index)
            found = first.apply(as_float(found) if transform.full_resolution else found, drawn[0])
        for layer, draw in zip(others, drawn[1:], strict=True):
            found = layer.apply(found, draw)
        return found

    return example


def resized_example(example, size):
    """Resize an `Example`'s image and masks to `size`, each if it has another."""
    image, mask, masks = example.image, example.mask, example.masks
    if image.shape[:2] != size:
        image = resize(image, size)
    if mask is not None and mask.shape[:2] != size:
        mask = crop_mask(mask, whole_window(tf.shape(mask)[:2]), size)
    if callable(masks):
        masks = masks(size)
    elif masks is not None and masks.shape[1:] != size:
        masks = crop_mask(masks, whole_window(tf.shape(masks)[1:]), size, axis=1)
    return example._replace(image=image, mask=mask, masks=masks)


def as_float(example):
    return example._replace(image=tf.cast(example.image, tf.float32))


def compact(example):
    """Take out the rows of an `Example` that are no objects."""
    if example.classes is None:
        return example
    there = example.classes >= 0
    fields = example.fields()
    return example._replace(
        **{name: tf.boolean_mask(fields[name], there) for name in FILLING if name in fields}
    )


def rounded_up(rows, filling):
    """Pad rows of a batch, `(b, k, ...)`, until k is a power of two, at least 1."""
    count = tf.shape(rows)[1]
    powers = tf.constant([2**k for k in range(MOST_ROUNDED + 1)])
    wanted = powers[tf.reduce_sum(tf.cast(powers < count, tf.int32))]
    margins = tf.pad([[0, wanted - count]], [[1, rows.shape.rank - 2], [0, 0]])
    padded = tf.pad(rows, margins, constant_values=tf.cast(filling, rows.dtype))
    return tf.ensure_shape(padded, (rows.shape[0], None, *rows.shape[2:]))


def _once(decoded, key, make):
    """What `make()` gave the first time."""
    if key not in decoded:
        decoded[key] = make()
    return decoded[key]


def _cached(image, count):
    """Compute the images 0 … count - 1 of one size now; function that looks up one or several."""
    everything = tf.data.Dataset.range(count).map(without_autograph(image), tf.data.AUTOTUNE)
    # One batch of all of them: a single tensor that later batches gather from.
    everything = everything.batch(count).get_single_element()
    return lambda index: tf.gather(everything, index)


def _cached_of_any_size(load, sizes, channels):
    """Load uint8 images `(h, w, channels)` now; function that looks one up.

    They lie one behind the other in a single tensor.
    """
    counts = sizes.prod(axis=1) * channels
    pixels, end = np.empty(counts.sum(), np.uint8), 0
    images = tf.data.Dataset.range(len(sizes)).map(without_autograph(load), tf.data.AUTOTUNE)
    for image in images.as_numpy_iterator():
        pixels[end : end + image.size] = image.ravel()
        end += image.size
    pixels = tf.RaggedTensor.from_row_lengths(pixels, counts)
    shapes = tf.constant(np.insert(sizes, 2, channels, axis=1))  # (n, 3)

    def look_up(index):
        image = tf.reshape(pixels[index], shapes[index])
        return tf.ensure_shape(image, (None, None, channels))

    return look_up
