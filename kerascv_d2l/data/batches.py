"""Batches of any split: the one place where files and targets become tensors."""

import functools
import math
import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.data.images import crop, decode_content, decode_image
from kerascv_d2l.data.splits import CLASSIFICATION, DETECTION, SEGMENTATION, UNLABELLED
from kerascv_d2l.devices import without_autograph
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation import (
    Compose,
    classification_augmentation,
    segmentation_augmentation,
)
from kerascv_d2l.layers.augmentation.base import FILLING, PADDING, Example, pair
from kerascv_d2l.layers.augmentation.windows import RandomWindow
from kerascv_d2l.ops.geometry import (
    ALGORITHM,
    CROP_PCT,
    crop_mask,
    resize_and_center_crop,
    resize_as,
    resized_size,
)
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.ops.rle import decode_masks
from kerascv_d2l.ops.windows import whole_window

# Decoded images of a split are kept in memory up to this many bytes (5461 training images of
# 256 x 256); beyond, they are decoded every epoch.
CACHE_BYTES = 2**30
PREFETCHED = 2  # batches that are ready while one is used
# Which of the streams of random numbers of a seed is for what.
ORDER_STREAM, TRANSFORM_STREAM, SIZE_STREAM = 0, 1, 2
PARTNER_STREAM = 2**30  # far from the numbers that transforms fold into their seeds
MASK_BYTES = 2**29  # instance masks of the examples that are made at one time, about
MOST_ROUNDED = 20  # the power of two up to which numbers of objects are rounded up
COARSEST_STRIDE = 32  # of usual networks; sides of batches of several sizes are multiples of it


def batches(
    split,
    image_size,
    batch_size,
    *,
    training=False,
    transform=None,
    seed=0,
    initial_epoch=0,
    cache=None,
    crop_pct=CROP_PCT,
    masks=False,
    sizes=None,
    decoded=None,
):
    """Make batches of a split of any task.

    Training: shuffled, augmented, without end and without smaller batches: `fit` with
    `steps_per_epoch=steps_per_epoch(split, batch_size)`. Order and augmentation depend on
    the seed, the number of the epoch and the image only, so a run that is resumed at epoch k with
    `initial_epoch=k` gets the batches of an undisturbed one.

    Evaluation: one pass in order, every image once. Images are resized; those to classify to
    `resized_size(image_size, crop_pct)`, of which the middle is cut out. With `image_size=None`
    every image has its own size.

    Args:
        split: `Split`.
        image_size: int or `(height, width)` of the batches, pixels; or None, for evaluation of
            images of one size or with `batch_size=1`.
        batch_size: int.
        training: bool.
        transform: augmentation layer (`RandomTransform`, as `Compose`), for training. Layers that
            crop get images at their own size; if none does, images are resized first and may be
            cached. None: `classification_augmentation` and `segmentation_augmentation` for these
            tasks, nothing for detection. `Compose([])` changes nothing.
        seed: int, for order and augmentation.
        initial_epoch: int: the first epoch to give, counted from 0.
        cache: bool: keep images in memory, decoded before this function returns (but not those to
            classify, where they are cropped before they are resized); None: if they
            take at most `CACHE_BYTES`. Cached pixels for training are rounded to whole grey
            levels; those for evaluation are exactly what `resize` gives.
        crop_pct: float in (0, 1]: share of each side that is cut out of images to classify, for
            evaluation; 1 resizes only.
        masks: bool, for detection: give the instance masks of the split. They are kept encoded,
            and are decoded to the size that is wanted. A training image that is cropped loses
            objects of whose masks nothing is left.
        sizes: int array `(n, 2)` of heights and widths, pixels, for training: each batch, made at
            `image_size`, is resized to one of them, which is drawn. See `sizes_around`.
        decoded: dict, empty at first, in which training data sets of one split share the images
            that they keep in memory; None for none.

    Returns:
        `tf.data.Dataset` of `(images, y)`, float32 `(b, height, width, 3)` pixels 0-255, and by
        the task:

        - classification: int32 `(b,)`;
        - detection: dict of `boxes` float32 `(b, m, 4)`, normalised corners, `classes` int32
          `(b, m)`, `ignore` bool `(b, m)` and, if asked for, `masks` uint8 `(b, m, height,
          width)`, 0 and 1. m is the most objects of an image in this batch, rounded up to a power
          of two so that few shapes are traced; the other rows are filled with -1, -1, False, 0;
        - segmentation: int32 `(b, height, width)`, 255 is ignored;
        - unlabelled: `images` alone.

    Raises:
        InputError: if a size or number is out of range, or there is no image, or no masks.

    Source:
        D2L 1.0.3, sections 14.2, 14.6 and 14.9.
    """
    size = None if image_size is None else pair(image_size, "image_size")
    _check(split, size, batch_size, training, transform, seed, initial_epoch)
    if sizes is not None and not training:
        raise InputError("sizes is for training; evaluation has one size, image_size")
    if masks and not split.has_masks:
        raise InputError("masks=True, but the split has no instance masks")
    transform = _composed(transform, split.task, size) if training else None
    whole = size is None or (transform is not None and transform.full_resolution)
    ahead = transform is not None and transform.draw_for is not None
    targets, decoded = _target_loader(split, masks), {} if decoded is None else decoded
    whole_masks = masks and whole and not (transform is not None and transform.cuts_first)
    if whole:
        cache = cache if training else bool(cache)
        in_memory, load = False, _whole_loader(split, targets, cache, decoded)
        load = _with_whole_masks(load) if whole_masks else load
    else:
        in_memory, image = _resized_images(split, size, training, cache, crop_pct, decoded)
        in_memory = in_memory and not masks
        load = lambda index: _resized(Example(image(index), **targets(index)), size)  # noqa: E731
    augmented = _window_loader(split, transform, load) if ahead else None
    labels = tf.constant(split.targets["label"]) if split.task == CLASSIFICATION else None

    def one(epoch, index, drawn):
        if transform is None:
            example = load(index)
        elif ahead:
            example = augmented(index, drawn)
        else:
            own_seed = transform_seed(seed, epoch, index)
            member = _members(load, index, transform.partners, len(split), own_seed)
            example = transform.transform_members(member, own_seed)
        example = example if size is None else _resized(example, size)
        return _finished(_compact(example), labels, index)

    def several(epochs, indices, drawn):
        example = Example(image(indices), **targets(indices))
        if transform is not None:
            example = transform.apply_batch(example, drawn)
        return _finished(example, labels, indices)

    def draws(epoch):
        """Draw for all images at once: one by one, drawing takes as long as decoding."""
        shapes = split.sizes if whole else np.tile(size, (len(split), 1))
        return transform.draw_for(shapes, fold([seed, TRANSFORM_STREAM], epoch)) if ahead else ()

    def finished(batched):
        if sizes is not None and len(sizes) > 1:
            first = initial_epoch * steps_per_epoch(split, batch_size)
            batched = _of_sizes(batched, split.task, sizes, seed, first)
        return prefetched(batched)

    order = functools.partial(_in_order, len(split), batch_size, training, seed, initial_epoch)
    if in_memory and (transform is None or ahead):
        batched = order(draws, batched=True)
        return finished(batched.map(without_autograph(several), num_parallel_calls=2))
    calls = os.cpu_count() or 1
    if masks:
        shapes = split.sizes if whole_masks else np.tile(size, (len(split), 1))
        most = max(len(b) * h * w for b, (h, w) in zip(split.targets["boxes"], shapes, strict=True))
        examples_each = 1 + (transform.partners if transform is not None else 0)
        calls = max(1, min(calls, MASK_BYTES // max(1, int(most) * examples_each)))
    single = order(draws, batched=False)
    examples = single.map(without_autograph(one), num_parallel_calls=calls)
    return finished(_batched(examples, batch_size, training, split.task))


def sizes_around(image_size, multi_scale):
    """List sizes of one shape for training at several scales: `sizes` of `batches`.

    Args:
        image_size: int or `(height, width)`, pixels.
        multi_scale: float in [0, 1): sizes are from 1 - this to 1 + this times `image_size`.

    Returns:
        int32 array `(n, 2)`: heights and widths, multiples of 32, falling. The first is the
        `image_size` to make batches at. `image_size` alone if no other multiple is in reach.

    Raises:
        InputError: if `multi_scale` is out of range.

    Source:
        Redmon and Farhadi 2017, "YOLO9000", section 2, "Multi-Scale Training".
    """
    if not 0 <= multi_scale < 1:
        raise InputError(f"multi_scale is {multi_scale}; wanted at least 0 and less than 1")
    size = np.array(pair(image_size, "image_size"))
    least, most = np.array([1 - multi_scale, 1 + multi_scale]) * size.max() / COARSEST_STRIDE
    longer = np.arange(math.floor(most), max(math.ceil(least), 1) - 1, -1)
    if multi_scale == 0 or len(longer) < 2:
        return size[np.newaxis].astype(np.int32)
    each = longer[:, np.newaxis] * size / size.max()  # (n, 2), in strides
    return np.maximum(np.rint(each), 1).astype(np.int32) * COARSEST_STRIDE


def steps_per_epoch(split, batch_size):
    """Count the training batches of an epoch, for `fit`, to which their data set has no end.

    Args:
        split: anything with a length, as a `Split`.
        batch_size: int.

    Returns:
        int, at least 1: a smaller batch at the end is left out.

    Raises:
        InputError: if there are fewer images than a batch has.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; wanted at least 1")
    if len(split) < batch_size:
        raise InputError(f"batch_size is {batch_size}; wanted at most {len(split)}, the images")
    return len(split) // batch_size


def names_of_batch(split, batch_size, seed, epoch, step):
    """List the names of the images in a training batch of `batches`; epoch and step count from 0.

    Where the transform puts several images together, these are those that each is made around.
    """
    order = _order(seed, tf.constant(epoch, tf.int64), len(split)).numpy()
    return [split.names[k] for k in order[step * batch_size : (step + 1) * batch_size]]


def whole_images(split, indices=None):
    """Give images at their own sizes with their segmentation masks, one by one and in order.

    Args:
        split: `Split` for segmentation.
        indices: which of the images; None for all.

    Returns:
        `tf.data.Dataset` of `(image, mask)`: uint8 `(height, width, 3)` and
        uint8 `(height, width)`, 255 is ignored.
    """
    image, target = image_loader(split), _target_loader(split)
    indices = tf.data.Dataset.from_tensor_slices(range(len(split)) if indices is None else indices)
    pair_of = without_autograph(lambda k: (image(k), target(k)["mask"]))
    return prefetched(indices.map(pair_of, num_parallel_calls=2))


def check_crop_size(split, crop_size):
    """Refuse windows, `(height, width)` in pixels, that are larger than every image.

    Raises:
        InputError: if no image of the `Split` is at least as high and as wide.
    """
    if not (split.sizes >= crop_size).all(axis=1).any():
        height, width = split.sizes[split.sizes.prod(axis=1).argmax()]
        raise InputError(
            f"crop_size {crop_size[0]} x {crop_size[1]} (height x width): larger than every "
            f"image; the largest of the {len(split)} is {height} x {width}. Give a smaller one"
        )


def prefetched(batches):
    """Let the batches of a `tf.data.Dataset` be made while others are used."""
    options = tf.data.Options()
    # TensorFlow's tuner looks at a pipeline 10, 20, 40 ... ms after the last time, and what ends
    # in between often waits for the next look: a pass of 1.4 s took 2.6 s (TensorFlow 2.21).
    # Without it AUTOTUNE means as many calls at once as there are threads.
    options.autotune.enabled = False
    # Several machines: each takes its part of every batch; there are fewer files than machines.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(PREFETCHED).with_options(options)


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


def _whole_loader(split, targets, cache, decoded):
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


def _resized_images(split, size, training, cache, crop_pct, decoded):
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


def _in_order(count, batch_size, training, seed, initial_epoch, draws, batched):
    """Data set of `(epoch, index, drawn)`: every epoch's, shuffled, or the only one's.

    In training, what is left of an epoch after whole batches is left out. `draws` is a function
    of an epoch that gives a structure of tensors `(count, ...)`.
    """

    def of_epoch(epoch):
        indices = tf.range(count)
        if training:
            indices = _order(seed, epoch, count)[: count // batch_size * batch_size]
        drawn = tf.nest.map_structure(lambda values: tf.gather(values, indices), draws(epoch))
        epochs = tf.fill(tf.shape(indices), epoch)
        found = tf.data.Dataset.from_tensor_slices((epochs, indices, drawn))
        return found.batch(batch_size, drop_remainder=training) if batched else found

    if not training:
        return of_epoch(tf.constant(0, tf.int64))
    return tf.data.Dataset.counter(start=initial_epoch, dtype=tf.int64).flat_map(
        without_autograph(of_epoch)
    )


def _batched(examples, batch_size, training, task):
    """Make batches of examples one by one; objects are padded to the fullest image."""
    if task != DETECTION:
        return examples.batch(batch_size, drop_remainder=training)
    rows = examples.element_spec[1]
    filling = {name: tf.cast(FILLING[name], spec.dtype) for name, spec in rows.items()}
    batches = examples.padded_batch(
        batch_size, padding_values=(0.0, filling), drop_remainder=training
    )

    def rounded(images, y):
        return images, {name: _rounded_up(y[name], FILLING[name]) for name in y}

    return batches.map(without_autograph(rounded))


def _of_sizes(batches, task, sizes, seed, first):
    """Resize each batch to one of `sizes`, drawn by its number; they are counted from `first`."""
    sizes = tf.constant(sizes, tf.int32)  # (n, 2)

    def resized(number, batch):
        images, y = batch if isinstance(batch, tuple) else (batch, None)
        draw = fold([seed, SIZE_STREAM], number)
        chosen = tf.random.stateless_uniform((), draw, 0, len(sizes), tf.int32, alg=ALGORITHM)
        size = tf.unstack(sizes[chosen])
        images = resize(images, size)
        if task == SEGMENTATION:
            y = crop_mask(y, whole_window(tf.shape(y)[1:]), size, axis=1)
        elif task == DETECTION and "masks" in y:
            window = whole_window(tf.shape(y["masks"])[2:])
            y = y | {"masks": crop_mask(y["masks"], window, size, axis=2)}
        return images if y is None else (images, y)

    return batches.enumerate(first).map(without_autograph(resized), num_parallel_calls=2)


def _check(split, size, batch_size, training, transform, seed, initial_epoch):
    """Raise `InputError` for what no pipeline can work with."""
    if len(split) == 0:
        raise InputError("split has no image")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; wanted at least 1")
    if not 0 <= seed < 2**31:
        raise InputError(f"seed is {seed}; wanted 0 to 2**31 - 1")
    if initial_epoch < 0:
        raise InputError(f"initial_epoch is {initial_epoch}; wanted 0 or more")
    if training:
        steps_per_epoch(split, batch_size)
        if size is None:
            raise InputError("image_size is None; wanted the size of training batches")
        if split.task == SEGMENTATION:
            check_crop_size(split, size)
    elif transform is not None:
        raise InputError("transform is for training; evaluation takes images as they are")
    elif size is None and batch_size > 1 and (split.sizes != split.sizes[0]).any():
        raise InputError(
            f"batch_size is {batch_size} with image_size=None, and images have different sizes; "
            "wanted batch_size=1"
        )


def _composed(transform, task, size):
    """Give `transform`, or that of the task, as a `Compose`; None if it changes nothing."""
    if transform is None and task in (CLASSIFICATION, UNLABELLED):
        transform = classification_augmentation(size)
    elif transform is None and task == SEGMENTATION:
        transform = segmentation_augmentation(size)
    if transform is None or isinstance(transform, Compose):
        return transform if transform is not None and transform.layers else None
    return Compose([transform])


def _target_loader(split, masks=False):
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
            chosen = _rounded_up(chosen, 0)
            return {name: tf.gather(values, chosen) for name, values in fields.items()}
        found = {name: tf.gather(values, rows[index]) for name, values in fields.items()}
        return found | ({"masks": masks_of(index)} if masks else {})

    return objects


def _rounded_up(rows, filling):
    """Pad rows of a batch, `(b, k, ...)`, until k is a power of two, at least 1."""
    count = tf.shape(rows)[1]
    powers = tf.constant([2**k for k in range(MOST_ROUNDED + 1)])
    wanted = powers[tf.reduce_sum(tf.cast(powers < count, tf.int32))]
    margins = tf.pad([[0, wanted - count]], [[1, rows.shape.rank - 2], [0, 0]])
    padded = tf.pad(rows, margins, constant_values=tf.cast(filling, rows.dtype))
    return tf.ensure_shape(padded, (rows.shape[0], None, *rows.shape[2:]))


def _window_loader(split, transform, load):
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
            found = first.apply(_as_float(found) if transform.full_resolution else found, drawn[0])
        for layer, draw in zip(others, drawn[1:], strict=True):
            found = layer.apply(found, draw)
        return found

    return example


def _members(one, index, partners, count, seed):
    """Make a function from 0 … `partners` to the example of `index` (0) or of a random other."""
    others = tf.random.stateless_uniform(
        (partners,), fold(seed, PARTNER_STREAM), 0, count, tf.int32, alg=ALGORITHM
    )
    chosen = tf.concat([[tf.cast(index, tf.int32)], others], 0)
    return lambda k: _as_float(one(chosen[k]))


def _with_whole_masks(load):
    """Decode masks, as `load` gives them, at the size of their image."""

    def loaded(index):
        example = load(index)
        return example._replace(masks=example.masks(tf.unstack(example.size)))

    return loaded


def _resized(example, size):
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


def _as_float(example):
    return example._replace(image=tf.cast(example.image, tf.float32))


def _compact(example):
    """Take out the rows of an `Example` that are no objects."""
    if example.classes is None:
        return example
    there = example.classes >= 0
    fields = example.fields()
    return example._replace(
        **{name: tf.boolean_mask(fields[name], there) for name in FILLING if name in fields}
    )


def _finished(example, labels, index):
    """Give `(image, y)` of an `Example`, or of batches; `image` where there is no target."""
    image = tf.cast(example.image, tf.float32)
    if labels is not None:
        return image, tf.gather(labels, index)
    if example.mask is not None:
        return image, tf.cast(example.mask, tf.int32)
    if example.classes is None:
        return image
    there = example.classes >= 0
    boxes = tf.where(there[..., None], example.boxes, tf.cast(PADDING, tf.float32))
    rows = {"boxes": boxes, "classes": example.classes, "ignore": example.ignore & there}
    return image, rows if example.masks is None else rows | {"masks": example.masks}


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
