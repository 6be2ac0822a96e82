"""The book's functions for data sets and for training, under their names.

Images come as uint8 0-255, because the networks of this package scale inside; elsewhere put
`keras.layers.Rescaling(1 / 255)` in front. With `seed` (or after `keras.utils.set_random_seed`)
batches are the same in every run, however many threads read; each epoch has its own order and its
own windows. Last batches may be smaller, except where the book drops them.

The scripts use `load` and `batches` instead, which these functions are made of.
"""

import functools
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerascv_d2l.data import cifar10
from kerascv_d2l.data.batches import batches, prefetched
from kerascv_d2l.data.images import crop, decode_content, read_image
from kerascv_d2l.data.load import load
from kerascv_d2l.data.prepared import is_at_hand, read_prepared
from kerascv_d2l.data.splits import CLASSIFICATION, DETECTION, IGNORE_LABEL, SEGMENTATION
from kerascv_d2l.data.voc_classes import VOC_COLORMAP
from kerascv_d2l.devices import resolve_jit_compile, without_autograph
from kerascv_d2l.errors import InputError
from kerascv_d2l.layers.augmentation import RandomHorizontalFlip
from kerascv_d2l.layers.augmentation.base import pair
from kerascv_d2l.models.resnet import resnet18_small
from kerascv_d2l.ops.geometry import as_dtype, random_window, resize_as
from kerascv_d2l.ops.windows import random_scaled_window
from kerascv_d2l.training.callbacks import AverageReplicas, Throughput
from kerascv_d2l.training.curves import LiveCurves
from kerascv_d2l.training.devices import describe_strategy

BANANA_SIZE = (256, 256)
HOTDOG_CROP = (224, 224)  # what ImageNet networks were trained at
GENERATED_TRAIN, GENERATED_VAL = 2000, 500  # images that stand in for CIFAR-10
_LEVELS = 256  # of each channel
UNSCALED = (1.0, 1.0)  # windows are cut from images as they are
# Test windows are the same in every epoch, so that results can be compared.
_TEST_SEED = 0

resnet18 = resnet18_small  # the book's name; in this package that is torchvision's


# ---------------------------------------------------------------- 14.6 bananas


def read_data_bananas(is_train=True, *, data_dir=None, archive=None):
    """Read all images of a split and their boxes.

    Args:
        is_train: bool: the 1000 training or the 100 validation examples.
        data_dir: as `read_prepared`.
        archive: as `read_prepared`.

    Returns:
        `(images, labels)`: list of uint8 arrays `(256, 256, 3)`, and float32
        `(n, 1, 5)` rows `[class, x_min, y_min, x_max, y_max]`, normalised, in
        the order of the file names' numbers.

    Raises:
        InputError: as `read_prepared`.

    Source:
        D2L 1.0.3, section 14.6.
    """
    data = read_prepared("banana_detection", DETECTION, data_dir=data_dir, archive=archive)
    split = data.train if is_train else data.val
    order = sorted(range(len(split)), key=lambda k: (len(split.names[k]), split.names[k]))
    split = split.subset(order)  # 9.png before 10.png
    return [decode_content(content).numpy() for content in split.images], label_rows(split)


def load_data_bananas(batch_size, *, data_dir=None, archive=None, seed=None):
    """Batches of the banana data set, decoded once and kept in memory.

    Args:
        batch_size: int.
        data_dir: as `read_prepared`.
        archive: as `read_prepared`.
        seed: int: the same order in every run.

    Returns:
        `(train, validation)`: `tf.data.Dataset`s of `(images, labels)`, uint8
        `(batch, 256, 256, 3)` and float32 `(batch, m, 5)` rows
        `[class, x_min, y_min, x_max, y_max]`, normalised; m is 1, as every
        image has one banana. Training examples are shuffled.

    Raises:
        InputError: as `read_prepared`, or for a batch size below 1.

    Source:
        D2L 1.0.3, section 14.6.
    """
    _check_batch_size(batch_size)
    data = read_prepared("banana_detection", DETECTION, data_dir=data_dir, archive=archive)

    return tuple(
        _batches_of_arrays(
            _resized(split, BANANA_SIZE), label_rows(split), batch_size, split is data.train, seed
        )
        for split in (data.train, data.val)
    )


def label_rows(split):
    """Give the objects of a detection split as the book has them.

    Args:
        split: `Split`.

    Returns:
        float32 `(n, m, 5)` rows `[class, x_min, y_min, x_max, y_max]`; m is the most objects
        on one image, but at least 1, and other rows are -1. Ignored objects are left out.
    """
    kept = [~ignore for ignore in split.targets["ignore"]]
    rows = np.full((len(split), max([1, *map(np.count_nonzero, kept)]), 5), -1, np.float32)
    for i, keep in enumerate(kept):
        count = np.count_nonzero(keep)
        rows[i, :count, 0] = split.targets["classes"][i][keep]
        rows[i, :count, 1:] = split.targets["boxes"][i][keep]
    return rows


# ---------------------------------------------------------------- 14.2 hot dogs


def load_data_hotdog(batch_size=128, *, data_dir=None, archive=None, seed=None):
    """Batches of hot dogs and other things, cut as ImageNet networks expect them.

    Args:
        batch_size: int.
        data_dir: as `read_prepared`.
        archive: as `read_prepared`.
        seed: int: the same order, windows and flips in every run.

    Returns:
        `(train, test)`: `tf.data.Dataset`s of `(images, labels)`, uint8
        `(batch, 224, 224, 3)` and int32 `(batch,)`, 0 for hot dogs. Training:
        a random window of 8 % to 100 % of the area, resized as `RandomResizedCrop` does, and a
        random horizontal flip. Test: resized to 256 x 256, the middle 224 x 224.

    Raises:
        InputError: as `read_prepared`, or for a batch size below 1.

    Source:
        D2L 1.0.3, section 14.2.
    """
    _check_batch_size(batch_size)
    data = read_prepared("hotdog", CLASSIFICATION, data_dir=data_dir, archive=archive)
    contents, labels = tf.constant(data.train.images), tf.constant(data.train.targets["label"])
    sizes, flip = tf.constant(data.train.sizes, tf.int32), RandomHorizontalFlip()

    def example(index, seed):
        seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        window = random_window(sizes[index], seeds[0])
        pixels = decode_content(contents[index], window, HOTDOG_CROP)
        pixels = flip.transform(resize_as(pixels, HOTDOG_CROP, antialias=None), seeds[1])
        return as_dtype(tf.ensure_shape(pixels, (*HOTDOG_CROP, 3)), tf.uint8), labels[index]

    train = _examples(len(data.train), example, True, seed).batch(batch_size)
    test = batches(data.val, HOTDOG_CROP, batch_size, cache=False)
    return prefetched(train), test.map(lambda x, y: (as_dtype(x, tf.uint8), y)).cache()


# ---------------------------------------------------------------- 14.9 Pascal VOC


@functools.cache
def voc_colormap2label():
    """Table from RGB colours to class indices.

    Returns:
        uint8 tensor `(256**3,)`, indexed by `(red * 256 + green) * 256 + blue`.
        255 (ignored) for the border colour (224, 224, 192) and for every colour
        that is no class: such pixels count neither in the loss nor in mean
        IoU. The book's table has 0 (background) there.

    Source:
        D2L 1.0.3, section 14.9.
    """
    with tf.init_scope():  # one tensor for eager code and for every graph
        return tf.constant(_voc_table())


@functools.cache
def _voc_table():
    table = np.full(_LEVELS**3, IGNORE_LABEL, np.uint8)
    table[np.array(VOC_COLORMAP) @ [_LEVELS**2, _LEVELS, 1]] = np.arange(len(VOC_COLORMAP))
    return table


def voc_label_indices(colormap, colormap2label):
    """Class indices of a mask that is given in colours.

    Args:
        colormap: `(…, height, width, 3)`, RGB 0-255 of any integer or float
            dtype.
        colormap2label: table `(256**3,)`, `voc_colormap2label()`.

    Returns:
        Tensor `(…, height, width)` of the table's dtype.

    Raises:
        InputError: if the last dimension is not 3.
    """
    colormap = tf.convert_to_tensor(colormap)
    if colormap.shape.rank is not None and (
        colormap.shape.rank < 3 or colormap.shape[-1] not in (3, None)
    ):
        raise InputError(
            f"`colormap` must be (…, height, width, 3), got {colormap.shape}; a mask of class "
            "indices needs no table"
        )
    plain = tf.executing_eagerly() and colormap.dtype == tf.uint8
    if plain and colormap2label is voc_colormap2label():  # in a third of TensorFlow's time
        red, green, blue = np.moveaxis(np.asarray(colormap), -1, 0)  # (…, h, w) each
        index = (red.astype(np.int64) << 8 | green) << 8 | blue
        return tf.constant(_voc_table().take(index, mode="wrap"))
    red, green, blue = tf.unstack(tf.cast(colormap, tf.int32), num=3, axis=-1)  # (…, h, w) each
    return tf.gather(colormap2label, (red * _LEVELS + green) * _LEVELS + blue)


def voc_rand_crop(feature, label, height, width, seed=None):
    """Cut the same random window out of an image and its mask.

    Args:
        feature: `(h, w, channels)`.
        label: `(h, w)` or `(h, w, channels)`, of the same h and w.
        height: int, pixels.
        width: int, pixels.
        seed: integers `(2,)`: the same seed cuts the same window. `None` draws
            from TensorFlow's global generator.

    Returns:
        `(feature, label)`, `(height, width, …)` each.

    Raises:
        InputError: if image and mask differ in size, or the image is
            smaller than the window (in a graph where sizes are unknown:
            `tf.errors.InvalidArgumentError`).

    Source:
        D2L 1.0.3, section 14.9.
    """
    feature, label = tf.convert_to_tensor(feature), tf.convert_to_tensor(label)
    _check_sizes(feature, label, height, width)
    size, room = (height, width), tf.shape(feature)[:2]
    fits = tf.debugging.assert_greater_equal(room, size, "the image is smaller than the window")
    with tf.control_dependencies([fits]):
        room = tf.identity(room)
    if seed is None:
        seed = tf.random.uniform((2,), 0, tf.int32.max, tf.int32)
    window = random_scaled_window(room, size, seed, UNSCALED)
    return tuple(tf.ensure_shape(crop(x, window), (*size, *x.shape[2:])) for x in (feature, label))


def _check_sizes(feature, label, height, width):
    if feature.shape.rank != 3 or label.shape.rank not in (2, 3):
        raise InputError(
            "`feature` must be (h, w, channels) and `label` (h, w) or (h, w, channels), got "
            f"{feature.shape} and {label.shape}"
        )
    if not feature.shape[:2].is_compatible_with(label.shape[:2]):
        raise InputError(
            f"`feature` is {feature.shape[0]} x {feature.shape[1]} (height x width) but `label` "
            f"{label.shape[0]} x {label.shape[1]}"
        )
    names = ("height", "width")
    for name, side, wanted in zip(names, feature.shape[:2], (height, width), strict=True):
        if wanted < 1 or (side is not None and side < wanted):
            raise InputError(f"`{name}` is {wanted}, but the image's is {side}")


def read_voc_images(voc_dir, is_train=True):
    """Read all images of a split and their masks in colours.

    Everything is held in memory, about 1.6 GB for either split;
    `load_data_voc` reads as it goes.

    Args:
        voc_dir: the folder `VOC2012` of the unpacked archive, or one that holds
            `VOCdevkit/VOC2012`.
        is_train: bool: `train.txt` or `val.txt`.

    Returns:
        `(features, labels)`, lists of uint8 arrays `(height, width, 3)`.

    Raises:
        InputError: for a missing or damaged file, by name.
    """
    voc_dir = Path(voc_dir)
    listing = f"ImageSets/Segmentation/{'train' if is_train else 'val'}.txt"
    roots = [voc_dir, voc_dir / "VOC2012", voc_dir / "VOCdevkit/VOC2012"]
    root = next((root for root in roots if (root / listing).is_file()), None)
    if root is None:
        raise InputError(f"{voc_dir / listing}: no such file; `voc_dir` is the folder VOC2012")
    names = (root / listing).read_text().split()
    features = [read_image(root / "JPEGImages" / f"{name}.jpg") for name in names]
    labels = [read_image(root / "SegmentationClass" / f"{name}.png") for name in names]
    for name, feature, label in zip(names, features, labels, strict=True):
        if feature.shape != label.shape:
            raise InputError(
                f"{root}: image {name} is {feature.shape[:2]} (height, width), its mask "
                f"{label.shape[:2]}"
            )
    return features, labels


def load_data_voc(batch_size, crop_size, *, data_dir=None, archive=None, seed=None):
    """Batches of windows of VOC 2012 images and their class masks.

    Images smaller than the window are left out. Of a JPEG only the window is decoded; the files
    themselves are held in memory, about 170 MB for either split.

    Args:
        batch_size: int.
        crop_size: int or `(height, width)` of the windows; the book's (320, 480)
            leaves 1114 images for training and 1078 for validation.
        data_dir: as `read_prepared`.
        archive: as `read_prepared`.
        seed: int: the same order and windows in every run.

    Returns:
        `(train, validation)`: `tf.data.Dataset`s of `(images, masks)`, uint8
        `(batch, height, width, 3)` and int32 `(batch, height, width)` class
        indices, 0 background, 255 ignored. Training images are shuffled, with
        new windows in every epoch; validation windows are random as well but
        always the same. Last batches that are not full are dropped, as in the
        book.

    Raises:
        InputError: as `read_prepared`; for a batch size or window below 1; if fewer
            than `batch_size` images are as large as the window.

    Source:
        D2L 1.0.3, section 14.9.
    """
    _check_batch_size(batch_size)
    size = height, width = pair(crop_size, "`crop_size`")
    data = read_prepared("voc2012_segmentation", SEGMENTATION, data_dir=data_dir, archive=archive)

    def windows(title, split, shuffle):
        large = np.flatnonzero((split.sizes >= size).all(axis=1))
        if len(large) < batch_size:
            raise InputError(
                f"`crop_size` {height} x {width} (height x width): {len(large)} of the "
                f"{len(split)} images of {title} are that large, fewer than `batch_size` "
                f"{batch_size}"
            )
        split = split.subset(large)
        contents, masks = tf.constant(split.images), tf.constant(split.targets["mask"])
        sizes = tf.constant(split.sizes, tf.int32)

        def example(index, seed):
            window = random_scaled_window(sizes[index], size, seed, UNSCALED)
            image = decode_content(contents[index], window, size)
            mask = tf.cast(tf.io.decode_png(masks[index], channels=1)[..., 0], tf.int32)
            mask = tf.ensure_shape(crop(mask, window), size)
            return tf.ensure_shape(image, (*size, 3)), mask

        examples = _examples(len(split), example, shuffle, seed)
        return prefetched(examples.batch(batch_size, drop_remainder=True))

    return windows("train", data.train, True), windows("validation", data.val, False)


# ---------------------------------------------------------------- 14.1 CIFAR-10, training


def load_cifar10(is_train, augs, batch_size, *, data=None, archive=None, data_dir=None, seed=None):
    """Batches of CIFAR-10, or what stands in for it, decoded once and kept in memory.

    Says on screen where the images come from, if `data` leaves it open.

    Args:
        is_train: bool: the 50,000 training images, shuffled, or the 10,000 test images.
        augs: function of a batch of images, `(batch, 32, 32, 3)` uint8, to a batch of images:
            an augmentation layer, or several in a `keras.Sequential`. None for none.
        batch_size: int.
        data: `"cifar10"`; another source of `load`, whose images are resized to 32 x 32;
            `"generated"`: ten shapes, light on dark; or None for `"cifar10"` where it is at hand
            (`archive`, or prepared in `data_dir`) and `"generated"` elsewhere. None never
            downloads.
        archive: as `read_prepared`, for `"cifar10"`.
        data_dir: as `read_prepared`.
        seed: int: the same order in every run. Layers have seeds of their own.

    Returns:
        `tf.data.Dataset` of `(images, labels)`, `(batch, 32, 32, 3)` as `augs`
        gives it (uint8 without) and int32 `(batch,)`.

    Raises:
        InputError: as `load`, or for a batch size below 1.

    Source:
        D2L 1.0.3, section 14.1.
    """
    _check_batch_size(batch_size)
    source, options = data, {"archive": archive, "data_dir": data_dir}
    if data is None:
        at_hand = archive is not None or is_at_hand(cifar10.NAME, data_dir)
        source = cifar10.NAME if at_hand else "generated"
    if source == "generated":
        options = {"num_train": GENERATED_TRAIN, "num_val": GENERATED_VAL, "scenes": "one-light"}
        options |= {"num_classes": cifar10.NUM_CLASSES, "image_size": cifar10.SIZE}
    loaded = load(source, CLASSIFICATION, **options)
    if data is None:
        why = f" ({cifar10.NAME} is not prepared on this machine; nothing is downloaded unasked)"
        print(loaded.source + why * (source == "generated"), flush=True)
    split = loaded.train if is_train else loaded.val
    images = _resized(split, cifar10.SIZE)
    return _batches_of_arrays(images, split.targets["label"], batch_size, is_train, seed, augs)


def train_batch_ch13(net, X, y, loss, trainer):  # noqa: N803 (the book's names)
    """Train on one batch: `train_on_batch`.

    Args:
        net: `keras.Model` that gives logits; compiled here unless it is already with this
            `trainer` and `loss`.
        X: images of a batch.
        y: int `(batch,)`, their classes.
        loss: `keras.losses.Loss` of classes and logits.
        trainer: `keras.optimizers.Optimizer`.

    Returns:
        `(sum of the losses, number of images classed right)` over the batch, floats, as seen
        while it learnt.

    Source:
        D2L 1.0.3, section 14.1.
    """
    _compile(net, loss, trainer)
    net.reset_metrics()  # of this batch only
    logs = net.train_on_batch(X, y, return_dict=True)
    return float(logs["loss"]) * len(y), float(logs["accuracy"]) * len(y)


def train_ch13(net, train_iter, test_iter, loss, trainer, num_epochs, *, callbacks=()):
    """Train a classifier and test it after each epoch: `compile` and `fit`.

    In a notebook the curves grow with each epoch (`LiveCurves`). At the end it prints the book's
    two lines: loss and accuracies, and images a second, waiting for data included.

    Args:
        net: `keras.Model` that gives logits, made in the scope of the strategy that
            it is to train with.
        train_iter: `tf.data.Dataset` of `(images, classes)` batches, one epoch.
        test_iter: the same, to test on; None for no test.
        loss: `keras.losses.Loss` of classes and logits, the mean over a batch.
        trainer: `keras.optimizers.Optimizer`. The book's rates hold for Adam; with SGD, see
            `mean_loss_rates`.
        num_epochs: int.
        callbacks: further Keras callbacks.

    Returns:
        dict of name -> list, one value an epoch: what `fit` returns as `History.history`, with
        `images_per_second`, where the last batch of an epoch counts as full.

    Source:
        D2L 1.0.3, section 14.1.
    """
    _compile(net, loss, trainer)
    first, _ = next(iter(train_iter))
    history = net.fit(
        train_iter,
        validation_data=test_iter,
        epochs=num_epochs,
        callbacks=[AverageReplicas(), Throughput(len(first)), *callbacks, LiveCurves()],
        verbose=0,
    ).history
    text = f"loss {history['loss'][-1]:.3f}, train acc {history['accuracy'][-1]:.3f}"
    if test_iter is not None:
        text += f", test acc {history['val_accuracy'][-1]:.3f}"
    print(text)
    rate = np.mean([r for r in history["images_per_second"] if np.isfinite(r)] or [np.nan])
    print(f"{rate:.1f} examples/sec on {describe_strategy(net.distribute_strategy)}", flush=True)
    return history


def train_with_data_aug(
    train_augs, test_augs, net, lr=0.001, *, batch_size=256, num_epochs=10, data=None
):
    """Train a classifier on augmented CIFAR-10 with Adam: `load_cifar10`, `compile` and `fit`.

    Args:
        train_augs: as `load_cifar10`: an augmentation layer, several in a `keras.Sequential`, or
            None.
        test_augs: the same for the test images; usually None.
        net: `keras.Model` from pixels 0-255 `(batch, 32, 32, 3)` to logits of ten classes, as
            `resnet18(10)`.
        lr: learning rate.
        batch_size: int, the book's on all devices together.
        num_epochs: int, the book's.
        data: as `load_cifar10`: what to train on; None for CIFAR-10 if it is at hand.

    Returns:
        dict, as `train_ch13`.

    Source:
        D2L 1.0.3, section 14.1.
    """
    return train_ch13(
        net,
        load_cifar10(True, train_augs, batch_size, data=data),
        load_cifar10(False, test_augs, batch_size, data=data),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.optimizers.Adam(lr),
        num_epochs,
    )


def _compile(net, loss, trainer):
    if net.compiled:
        inner = getattr(net.optimizer, "inner_optimizer", net.optimizer)  # float16: it is wrapped
        if inner is trainer and net.loss is loss:
            return
    with net.distribute_strategy.scope():
        net.compile(trainer, loss, metrics=["accuracy"], jit_compile=resolve_jit_compile("auto"))


# ---------------------------------------------------------------- what these have in common


def _check_batch_size(batch_size):
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, got {batch_size}")


def _resized(split, size):
    """All images of a split decoded and resized, uint8 `(n, *size, 3)`."""
    if isinstance(split.images, np.ndarray) and split.images.shape[1:3] == size:
        return split.images
    found = batches(replace(split, targets={}), size, 256, cache=False, crop_pct=1)
    return np.concatenate([as_dtype(images, tf.uint8) for images in found])


def _batches_of_arrays(images, labels, batch_size, shuffle, seed, augs=None):
    """Batches of two arrays, one epoch; `augs` is a function of a batch of images."""
    images, labels = tf.constant(images), tf.constant(labels)

    def batch(indices):
        chosen = tf.gather(images, indices)  # (batch, h, w, 3)
        return chosen if augs is None else augs(chosen), tf.gather(labels, indices)

    if isinstance(augs, keras.Layer):  # a Sequential would augment only where something trains
        augs = functools.partial(augs, training=True)
    indices = tf.data.Dataset.range(len(images))
    if shuffle:
        indices = indices.shuffle(len(images), seed)
    return prefetched(indices.batch(batch_size).map(without_autograph(batch), tf.data.AUTOTUNE))


def _examples(count, example, shuffle, seed):
    """One epoch of what a function of an index and a seed, int64 `(2,)`, makes.

    Stateless draws from these seeds do not depend on which thread draws first. Without
    `shuffle` they are the same in every epoch.
    """
    indices = tf.data.Dataset.range(count)
    if shuffle:
        indices = indices.shuffle(count, seed)
    seeds = tf.data.Dataset.random(
        seed if shuffle else _TEST_SEED, rerandomize_each_iteration=shuffle
    )
    pairs = tf.data.Dataset.zip(indices, seeds.batch(2, drop_remainder=True))
    return pairs.map(without_autograph(example), tf.data.AUTOTUNE)
