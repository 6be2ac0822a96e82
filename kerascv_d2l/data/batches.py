"""Batches of any split: the one place where files and targets become tensors."""

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from kerascv_d2l.data.loading import (
    as_float,
    compact,
    image_loader,
    resized_example,
    resized_images,
    rounded_up,
    target_loader,
    whole_loader,
    window_loader,
    with_whole_masks,
)
from kerascv_d2l.data.splits import CLASSIFICATION, DETECTION, SEGMENTATION, UNLABELLED, Split
from kerascv_d2l.devices import without_autograph
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation import (
    Compose,
    classification_augmentation,
    segmentation_augmentation,
)
from kerascv_d2l.layers.augmentation.base import FILLING, PADDING, Example, pair
from kerascv_d2l.ops.geometry import ALGORITHM, CROP_PCT, crop_mask
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.ops.windows import whole_window

PREFETCHED = 2  # batches that are ready while one is used
# Which of the streams of random numbers of a seed is for what.
ORDER_STREAM, TRANSFORM_STREAM, SIZE_STREAM = 0, 1, 2
PARTNER_STREAM = 2**30  # far from the numbers that transforms fold into their seeds
MASK_BYTES = 2**29  # instance masks of the examples that are made at one time, about
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
    pipeline = _Pipeline(split, size, batch_size, training, transform, seed, initial_epoch, masks)
    batched = pipeline.batches(cache, crop_pct, {} if decoded is None else decoded)
    if sizes is not None and len(sizes) > 1:
        first = initial_epoch * steps_per_epoch(split, batch_size)
        batched = _of_sizes(batched, split.task, sizes, seed, first)
    return prefetched(batched)


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
    image, target = image_loader(split), target_loader(split)
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


@dataclasses.dataclass
class _Pipeline:
    """From the numbers of images to batches; the attributes are arguments of `batches`.

    Images of one size that are in memory are augmented in whole batches. All others are loaded,
    augmented and resized one by one, and put together at the end.
    """

    split: Split
    size: tuple | None
    batch_size: int
    training: bool
    transform: Compose | None
    seed: int
    initial_epoch: int
    masks: bool

    def __post_init__(self):
        layers = self.transform
        # Images at their own sizes are loaded; else they are resized before anything is done.
        self.whole = self.size is None or (layers is not None and layers.full_resolution)
        # Layers that can tell what they draw without an image draw for an epoch at once.
        self.ahead = layers is not None and layers.draw_for is not None
        cuts_first = layers is not None and layers.cuts_first
        self.whole_masks = self.masks and self.whole and not cuts_first

    def batches(self, cache, crop_pct, decoded):
        """Make the data set of batches at `size`; see the function `batches`."""
        targets = target_loader(self.split, self.masks)
        if self.whole:
            cache = cache if self.training else bool(cache)
            load = whole_loader(self.split, targets, cache, decoded)
            load = with_whole_masks(load) if self.whole_masks else load
            return self._one_by_one(load)
        in_memory, image = resized_images(
            self.split, self.size, self.training, cache, crop_pct, decoded
        )
        if in_memory and not self.masks and (self.transform is None or self.ahead):
            return self._by_whole_batches(image, targets)
        return self._one_by_one(
            lambda index: resized_example(Example(image(index), **targets(index)), self.size)
        )

    def _by_whole_batches(self, image, targets):
        labels = self._labels()

        def several(epochs, indices, drawn):
            example = Example(image(indices), **targets(indices))
            if self.transform is not None:
                example = self.transform.apply_batch(example, drawn)
            return _finished(example, labels, indices)

        indices = self._in_order(batched=True)
        return indices.map(without_autograph(several), num_parallel_calls=2)

    def _one_by_one(self, load):
        labels = self._labels()
        example_of = self._augmented(load)

        def one(epoch, index, drawn):
            example = example_of(epoch, index, drawn)
            example = example if self.size is None else resized_example(example, self.size)
            return _finished(compact(example), labels, index)

        indices = self._in_order(batched=False)
        calls = self._calls() if self.masks else os.cpu_count() or 1
        examples = indices.map(without_autograph(one), num_parallel_calls=calls)
        return _batched(examples, self.batch_size, self.training, self.split.task)

    def _augmented(self, load):
        """Make a function of `(epoch, index, drawn)` to an augmented `Example`."""
        if self.transform is None:
            return lambda epoch, index, drawn: load(index)
        if self.ahead:
            augmented = window_loader(self.split, self.transform, load)
            return lambda epoch, index, drawn: augmented(index, drawn)

        def from_members(epoch, index, drawn):
            own_seed = transform_seed(self.seed, epoch, index)
            member = _members(load, index, self.transform.partners, len(self.split), own_seed)
            return self.transform.transform_members(member, own_seed)

        return from_members

    def _in_order(self, batched):
        """Data set of `(epoch, index, drawn)`: every epoch's, shuffled, or the only one's.

        In training, what is left of an epoch after whole batches is left out.
        """
        count = len(self.split)

        def of_epoch(epoch):
            indices = tf.range(count)
            if self.training:
                whole_batches = count // self.batch_size * self.batch_size
                indices = _order(self.seed, epoch, count)[:whole_batches]
            drawn = self._draws(epoch)
            drawn = tf.nest.map_structure(lambda values: tf.gather(values, indices), drawn)
            epochs = tf.fill(tf.shape(indices), epoch)
            found = tf.data.Dataset.from_tensor_slices((epochs, indices, drawn))
            return found.batch(self.batch_size, self.training) if batched else found

        if not self.training:
            return of_epoch(tf.constant(0, tf.int64))
        return tf.data.Dataset.counter(start=self.initial_epoch, dtype=tf.int64).flat_map(
            without_autograph(of_epoch)
        )

    def _draws(self, epoch):
        """Draw for all images at once: one by one, drawing takes as long as decoding."""
        if not self.ahead:
            return ()
        shapes = self.split.sizes if self.whole else self._sizes()
        return self.transform.draw_for(shapes, fold([self.seed, TRANSFORM_STREAM], epoch))

    def _sizes(self):
        return np.tile(self.size, (len(self.split), 1))

    def _calls(self):
        """How many examples to make at one time, so that their masks fit into `MASK_BYTES`."""
        shapes = self.split.sizes if self.whole_masks else self._sizes()
        pairs = zip(self.split.targets["boxes"], shapes, strict=True)
        most = max(len(boxes) * height * width for boxes, (height, width) in pairs)
        images_each = 1 + (self.transform.partners if self.transform is not None else 0)
        room = MASK_BYTES // max(1, int(most) * images_each)
        return max(1, min(os.cpu_count() or 1, room))

    def _labels(self):
        if self.split.task != CLASSIFICATION:
            return None
        return tf.constant(self.split.targets["label"])


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
        return images, {name: rounded_up(y[name], FILLING[name]) for name in y}

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


def _members(one, index, partners, count, seed):
    """Make a function from 0 … `partners` to the example of `index` (0) or of a random other."""
    others = tf.random.stateless_uniform(
        (partners,), fold(seed, PARTNER_STREAM), 0, count, tf.int32, alg=ALGORITHM
    )
    chosen = tf.concat([[tf.cast(index, tf.int32)], others], 0)
    return lambda k: as_float(one(chosen[k]))


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
