"""The chapter's data sets as batches, under the book's names.

Pictures come as uint8 0-255, because the networks of this package scale inside;
elsewhere put `keras.layers.Rescaling(1 / 255)` in front. Nothing is held in
memory but data sets that fit (bananas, CIFAR-10, the hot dogs' test set); the
others are read from records as they are used.

With `seed` (or after `keras.utils.set_random_seed`) batches come out the same
in every run, however many threads read; each epoch has its own order and its
own windows.
"""

import io
import time

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from kerascv_d2l.data import builders  # noqa: F401 - registers them
from kerascv_d2l.data.classification import ClassificationData, ClassificationSplit
from kerascv_d2l.data.detection import DetectionData, DetectionSplit
from kerascv_d2l.data.images import decode_content
from kerascv_d2l.data.segmentation import (
    SegmentationData,
    SegmentationSplit,
    count_labels,
    decode_mask,
)
from kerascv_d2l.data.voc import draw_window
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.geometry import (
    crop_and_resize,
    random_flip,
    random_window,
    resize_and_center_crop,
)
from kerascv_d2l.ops.resize import resize
from kerascv_d2l.prefetching import prefetched

BANANA_SIZE = (256, 256)
HOTDOG_CROP = (224, 224)  # what ImageNet networks were trained at
HOTDOG_RESIZED = (256, 256)  # what test pictures are resized to before the crop
# Encoded pictures that wait to be shuffled: a bound on memory whatever the size
# of the data set. TFDS has shuffled the records once already.
SHUFFLE_BYTES = 64 << 20
# The one that Pillow uses; TensorFlow's default is up to 16 grey levels off.
ACCURATE_DCT = "INTEGER_ACCURATE"
# Test windows are the same in every epoch, so that figures can be compared.
_TEST_SEED = 0


def prepare(name, *, data_dir=None, archive=None, skip_bad=False):
    """Download and prepare a data set unless that has been done.

    Args:
        name: `"banana_detection"`, `"hotdog"`, `"voc2012_segmentation"`, or any
            name of tensorflow-datasets.
        data_dir: TFDS' folder; `None` for its default.
        archive: archive or unpacked folder at hand, for the first three.
        skip_bad: bool: leave out damaged examples, for the first three.

    Returns:
        TFDS builder, ready for `as_dataset`.

    Raises:
        InputError: if `archive` is not there or is something else, or the data
            set can neither be found nor downloaded.
    """
    arguments = {"data_dir": data_dir}
    if archive is not None:
        arguments["archive"] = archive
    if skip_bad:
        arguments["skip_bad"] = True
    builder = tfds.builder(name, **arguments)
    try:
        builder.download_and_prepare()
    except InputError:
        raise
    except OSError as error:  # requests' and urllib3's errors are among these
        raise InputError(
            f"{name} is not prepared in {builder.data_dir}, and preparing it failed: {error}"
        ) from error
    return builder


def label_rows(objects):
    """Turn TFDS' objects of a picture into this package's rows.

    Args:
        objects: dict with `bbox`, float `(m, 4)` normalised yxyx, and `label`,
            integers `(m,)`.

    Returns:
        float32 tensor `(m, 5)`, rows `[class, x_min, y_min, x_max, y_max]`.
    """
    y_min, x_min, y_max, x_max = tf.unstack(objects["bbox"], num=4, axis=-1)  # (m,) each
    classes = tf.cast(objects["label"], tf.float32)
    return tf.stack([classes, x_min, y_min, x_max, y_max], axis=-1)


def describe(builder, seconds=None):
    """Say in a few lines what a prepared data set holds.

    Args:
        builder: TFDS builder, prepared.
        seconds: float: how long preparing or finding it took.

    Returns:
        str: name, version, place and time; the classes; each split's number of
        examples, range of heights and widths, and size on disk.
    """
    info = builder.info
    time_taken = "" if seconds is None else f" ({seconds:.1f} s)"
    lines = [f"{info.name} {info.version} in {builder.data_dir}{time_taken}"]
    features = info.features
    label = features["label"] if "label" in features else features["objects"].feature["label"]
    names = label.names
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    lines.append(f"  {len(names)} class(es): {shown}")
    for name, split in info.splits.items():
        lines.append(
            f"  {name}: {split.num_examples:,} pictures ({_size_range(builder, name)}), "
            f"{split.num_bytes / 1e6:,.1f} MB"
        )
    return "\n".join(lines)


def _size_range(builder, split):
    """Heights and widths of a split's pictures, as text."""
    known = builder.info.features["image"].shape[:2]
    if None in known:
        encoded = _read(builder, split, {"image": tfds.decode.SkipDecoding()})
        sizes = np.stack([*encoded.map(_picture_size, tf.data.AUTOTUNE).as_numpy_iterator()])
        low, high = sizes.min(0), sizes.max(0)  # (2,) each
    else:
        low = high = known
    height, width = (str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True))
    return f"{height} high, {width} wide"


def _picture_size(example):
    content = example["image"]
    return tf.cond(
        tf.io.is_jpeg(content),
        lambda: tf.io.extract_jpeg_shape(content)[:2],
        lambda: _png_size(content),
    )


def read_detection(
    name, *, image_size=None, difficult=False, data_dir=None, archive=None, skip_bad=False
):
    """Read a prepared detection data set into memory, as the readers of folders give theirs.

    Args:
        name: `"banana_detection"` or `"voc2012_segmentation"` (its boxes), or
            another of tensorflow-datasets whose examples have `image` and
            `objects` with `bbox` and `label`.
        image_size: `(height, width)` to resize to; needed where pictures differ
            in size. VOC's training pictures take 290 MB at 256 x 256.
        difficult: bool: keep objects that VOC marks as difficult.
        data_dir: as `prepare`.
        archive: as `prepare`.
        skip_bad: as `prepare`.

    Returns:
        `DetectionData`, its pictures uint8 arrays `(n, height, width, 3)`. The
        validation split is the one named `validation`, else `test`.

    Raises:
        InputError: as `prepare`; if the data set has no boxes, or none to
            validate with; if pictures differ in size and `image_size` is `None`.
    """
    start = time.perf_counter()
    builder = prepare(name, data_dir=data_dir, archive=archive, skip_bad=skip_bad)
    features, splits = builder.info.features, builder.info.splits
    objects = features["objects"].feature if "objects" in features else ()
    if "image" not in features or "bbox" not in objects or "label" not in objects:
        raise InputError(f"{name}: has no boxes (features: {', '.join(features)})")
    val = next((split for split in ("validation", "test") if split in splits), None)
    if "train" not in splits or val is None:
        raise InputError(f"{name}: needs train and validation or test, has {', '.join(splits)}")

    def example(features):
        image = features["image"]
        image = image if image_size is None else to_uint8(resize(image, image_size))
        rows = label_rows(features["objects"])
        if "is_difficult" in features["objects"] and not difficult:
            rows = tf.boolean_mask(rows, ~features["objects"]["is_difficult"])
        return image, rows

    def split(title):
        images = None
        labels = []
        for i, (image, rows) in enumerate(_read(builder, title).map(example, tf.data.AUTOTUNE)):
            if images is None:  # filled as they come: never two copies of all
                images = np.empty((splits[title].num_examples, *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise InputError(
                    f"{name}: pictures of different sizes ({tuple(images.shape[1:3])} and "
                    f"{tuple(image.shape[:2])}, height and width): `image_size` must be given"
                )
            images[i] = image
            labels.append(rows.numpy())
        names = [f"{name}, {title} {i}" for i in range(len(labels))]
        return DetectionSplit(images, labels, names)

    train_split, val_split = split("train"), split(val)
    train_split.skipped += getattr(builder, "skipped", [])  # of both splits
    return DetectionData(
        class_names=objects["label"].names,
        train=train_split,
        val=val_split,
        source=f"{name} {builder.version} in {builder.data_dir}",
        seconds=time.perf_counter() - start,
    )


def read_classification(name, *, data_dir=None, archive=None, skip_bad=False):
    """Read a prepared classification data set into memory, its pictures encoded as they are.

    Args:
        name: `"hotdog"`, or another of tensorflow-datasets whose examples have
            `image` and `label`.
        data_dir: as `prepare`.
        archive: as `prepare`.
        skip_bad: as `prepare`.

    Returns:
        `ClassificationData`. What to measure with is the split named
        `validation`, else `test`.

    Raises:
        InputError: as `prepare`; if the data set has no labels, or nothing to
            measure with.
    """
    start = time.perf_counter()
    builder = prepare(name, data_dir=data_dir, archive=archive, skip_bad=skip_bad)
    features, splits = builder.info.features, builder.info.splits
    if "image" not in features or "label" not in features:
        raise InputError(f"{name}: has no classes (features: {', '.join(features)})")
    val = next((split for split in ("validation", "test") if split in splits), None)
    if "train" not in splits or val is None:
        raise InputError(f"{name}: needs train and validation or test, has {', '.join(splits)}")

    def split(title):
        images, labels, names, sizes = [], [], [], []
        undecoded = {"image": tfds.decode.SkipDecoding()}
        for i, example in enumerate(tfds.as_numpy(_read(builder, title, undecoded))):
            images.append(example["image"])
            labels.append(example["label"])
            file_name = example.get("file_name", str(i).encode()).decode()
            names.append(f"{features['label'].names[labels[-1]]}/{file_name}")
            with Image.open(io.BytesIO(images[-1])) as picture:  # reads the header only
                sizes.append(picture.size[::-1])
        return ClassificationSplit(images, labels, names, np.array(sizes))

    train_split, val_split = split("train"), split(val)
    train_split.skipped = list(getattr(builder, "skipped", ()))
    return ClassificationData(
        class_names=features["label"].names,
        train=train_split,
        val=val_split,
        source=f"{name} {builder.version} in {builder.data_dir} ({val} to test)",
        seconds=time.perf_counter() - start,
    )


def read_segmentation(name, *, data_dir=None, archive=None, skip_bad=False):
    """Read a prepared segmentation data set into memory, pictures and masks compressed as they are.

    Args:
        name: `"voc2012_segmentation"`.
        data_dir: as `prepare`.
        archive: as `prepare`.
        skip_bad: as `prepare`.

    Returns:
        `SegmentationData`.

    Raises:
        InputError: as `prepare`; if it is another data set.
    """
    start = time.perf_counter()
    if name != "voc2012_segmentation":
        raise InputError(f"{name}: no segmentation data set; known is voc2012_segmentation")
    builder = prepare(name, data_dir=data_dir, archive=archive, skip_bad=skip_bad)
    parts = ("image", "segmentation_mask")
    undecoded = dict.fromkeys(parts, tfds.decode.SkipDecoding())

    def split(title):
        images, masks, names, sizes = [], [], [], []
        pixels = np.zeros(256, np.int64)
        for example in tfds.as_numpy(_read(builder, title, undecoded)):
            mask = decode_mask(example["segmentation_mask"])
            images.append(example["image"])
            masks.append(example["segmentation_mask"])
            names.append(example["file_name"].decode())
            sizes.append(mask.shape)
            pixels += count_labels(mask)
        return SegmentationSplit(images, masks, names, np.array(sizes), pixels=pixels)

    train_split, val_split = split("train"), split("validation")
    train_split.skipped = list(getattr(builder, "skipped", ()))
    return SegmentationData(
        VOC_CLASSES,
        train_split,
        val_split,
        source=f"{name} {builder.version} in {builder.data_dir}",
        colors=VOC_COLORMAP,
        seconds=time.perf_counter() - start,
    )


def read_data_bananas(is_train=True, *, data_dir=None, archive=None):
    """Read all pictures of a split and their boxes.

    Args:
        is_train: bool: the 1000 training or the 100 validation examples.
        data_dir: as `prepare`.
        archive: as `prepare`.

    Returns:
        `(images, labels)`: list of uint8 arrays `(256, 256, 3)`, and float32
        `(n, 1, 5)` rows `[class, x_min, y_min, x_max, y_max]`, normalised, in
        the order of the file names' numbers.

    Raises:
        InputError: as `prepare`.

    Source:
        D2L 1.0.3, section 14.6.
    """
    builder = prepare("banana_detection", data_dir=data_dir, archive=archive)
    examples = [
        (example["file_name"].decode(), example["image"], label_rows(example["objects"]).numpy())
        for example in tfds.as_numpy(_read(builder, "train" if is_train else "validation"))
    ]
    examples.sort(key=lambda example: (len(example[0]), example[0]))  # 9.png before 10.png
    rows = max((len(labels) for _, _, labels in examples), default=1)
    padded = [
        tf.pad(labels, [[0, rows - len(labels)], [0, 0]], constant_values=-1)
        for _, _, labels in examples
    ]
    return [image for _, image, _ in examples], tf.stack(padded).numpy()


def load_data_bananas(batch_size, *, data_dir=None, archive=None, seed=None):
    """Batches of the banana data set, decoded once and kept in memory.

    Args:
        batch_size: int.
        data_dir: as `prepare`.
        archive: as `prepare`.
        seed: int: the same order in every run.

    Returns:
        `(train, validation)`: `tf.data.Dataset`s of `(images, labels)`, uint8
        `(batch, 256, 256, 3)` and float32 `(batch, m, 5)` rows
        `[class, x_min, y_min, x_max, y_max]`, normalised; m is 1, as every
        picture has one banana. Training examples are shuffled; last batches
        may be smaller.

    Raises:
        InputError: as `prepare`, or for a batch size below 1.

    Source:
        D2L 1.0.3, section 14.6.
    """
    check_batch_size(batch_size)
    builder = prepare("banana_detection", data_dir=data_dir, archive=archive)

    def split(name, shuffle):
        examples = _read(builder, name).map(_banana, tf.data.AUTOTUNE).cache()
        if shuffle:
            examples = examples.shuffle(_count(builder, name), seed)
        batches = examples.padded_batch(
            batch_size,
            padded_shapes=((*BANANA_SIZE, 3), (None, 5)),
            padding_values=(tf.constant(0, tf.uint8), tf.constant(-1.0)),
        )
        return prefetched(batches)

    return split("train", True), split("validation", False)


def load_data_voc(batch_size, crop_size, *, data_dir=None, archive=None, seed=None):
    """Batches of windows of VOC 2012 pictures and their class masks.

    Pictures smaller than the window are left out. Only the window of a picture
    is decoded, and memory does not grow with the data set.

    Args:
        batch_size: int.
        crop_size: `(height, width)` of the windows; the book's (320, 480)
            leaves 1114 pictures for training and 1078 for validation.
        data_dir: as `prepare`.
        archive: as `prepare`.
        seed: int: the same order and windows in every run.

    Returns:
        `(train, validation)`: `tf.data.Dataset`s of `(images, masks)`, uint8
        `(batch, height, width, 3)` and int32 `(batch, height, width)` class
        indices, 0 background, 255 void. Training pictures are shuffled, with
        new windows in every epoch; validation windows are random as well but
        always the same. Last batches that are not full are dropped, as in the
        book.

    Raises:
        InputError: as `prepare`; for a batch size or window below 1; if fewer
            than `batch_size` pictures are as large as the window.

    Source:
        D2L 1.0.3, section 14.9.
    """
    check_batch_size(batch_size)
    height, width = _check_crop_size(crop_size)
    builder = prepare("voc2012_segmentation", data_dir=data_dir, archive=archive)
    parts = ("image", "segmentation_mask")
    undecoded = tfds.decode.PartialDecoding(
        dict.fromkeys(parts, True), decoders=dict.fromkeys(parts, tfds.decode.SkipDecoding())
    )

    def fits(example):
        # The mask is a PNG, whose header says the size of both.
        size = _png_size(example["segmentation_mask"])
        return tf.reduce_all(size >= [height, width])

    def cut(example, seed):
        return _voc_window(example, height, width, seed)

    def split(name, shuffle):
        examples = _read(builder, name, undecoded).filter(fits)
        count = int(examples.reduce(0, lambda total, _: total + 1))
        if count < batch_size:
            raise InputError(
                f"`crop_size` {height} x {width} (height x width): {count} of the "
                f"{_count(builder, name)} pictures of {name} are that large, fewer than "
                f"`batch_size` {batch_size}"
            )
        if shuffle:
            examples = examples.shuffle(_buffer(builder, name), seed)
        examples = _with_seeds(examples, seed if shuffle else _TEST_SEED, again=not shuffle)
        batches = examples.map(cut, tf.data.AUTOTUNE).batch(batch_size, drop_remainder=True)
        # So that `fit` shows its progress; a filtered data set does not know its size.
        batches = batches.apply(tf.data.experimental.assert_cardinality(count // batch_size))
        return prefetched(batches)

    return split("train", True), split("validation", False)


def load_data_hotdog(batch_size=128, *, data_dir=None, archive=None, seed=None):
    """Batches of hot dogs and other things, cut as ImageNet networks expect them.

    Args:
        batch_size: int.
        data_dir: as `prepare`.
        archive: as `prepare`.
        seed: int: the same order, windows and flips in every run.

    Returns:
        `(train, test)`: `tf.data.Dataset`s of `(images, labels)`, uint8
        `(batch, 224, 224, 3)` and int32 `(batch,)`, 0 for hot dogs. Training:
        a random window of 8 % to 100 % of the area, resized to 224 x 224,
        flipped by chance. Test: resized to 256 x 256, the middle 224 x 224.

    Raises:
        InputError: as `prepare`, or for a batch size below 1.

    Source:
        D2L 1.0.3, section 14.2.
    """
    check_batch_size(batch_size)
    builder = prepare("hotdog", data_dir=data_dir, archive=archive)
    undecoded = {"image": tfds.decode.SkipDecoding()}
    encoded = _read(builder, "train", undecoded).shuffle(_buffer(builder, "train"), seed)
    train = _with_seeds(encoded, seed).map(_hotdog_train, tf.data.AUTOTUNE)
    test = _read(builder, "test", undecoded).map(_hotdog_test, tf.data.AUTOTUNE).cache()
    return prefetched(train.batch(batch_size)), prefetched(test.batch(batch_size))


def check_batch_size(batch_size):
    if batch_size < 1:
        raise InputError(f"`batch_size` must be at least 1, got {batch_size}")


def _check_crop_size(crop_size):
    try:
        height, width = (int(side) for side in crop_size)
    except (TypeError, ValueError):
        raise InputError(f"`crop_size` must be (height, width), got {crop_size!r}") from None
    if height < 1 or width < 1:
        raise InputError(f"`crop_size` must be at least 1 x 1, got {crop_size!r}")
    return height, width


def _read(builder, split, decoders=None):
    """Examples in the order of the records, the same in every epoch."""
    # Caching is decided here, by name and not by TFDS' guess from the size of the files.
    config = tfds.ReadConfig(try_autocache=False)
    return builder.as_dataset(
        split=split, decoders=decoders, shuffle_files=False, read_config=config
    )


def _count(builder, split):
    return builder.info.splits[split].num_examples


def _buffer(builder, split):
    """Examples that fill `SHUFFLE_BYTES`."""
    info = builder.info.splits[split]
    mean = max(1, info.num_bytes // max(1, info.num_examples))
    return max(1, min(info.num_examples, SHUFFLE_BYTES // mean))


def _with_seeds(examples, seed, again=False):
    """`example` -> `(example, int64 (2,) seed)`; `again`: the same seeds in every epoch.

    Stateless draws from these do not depend on which thread draws first.
    """
    seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=not again)
    return tf.data.Dataset.zip(examples, seeds.batch(2, drop_remainder=True))


def _banana(example):
    return to_uint8(resize(example["image"], BANANA_SIZE)), label_rows(example["objects"])


def to_uint8(pixels):
    return tf.saturate_cast(tf.round(pixels), tf.uint8)


def _png_size(content):
    """`(height, width)` int32 from the header of a PNG."""
    # 8 bytes of signature, 8 of chunk length and type, then width and height.
    header = tf.io.decode_raw(tf.strings.substr(content, 16, 8), tf.int32, little_endian=False)
    return header[::-1]


def _voc_window(example, height, width, seed):
    """Window of an encoded picture and of its encoded mask, the same one."""
    mask = tf.io.decode_png(example["segmentation_mask"], channels=1)[..., 0]  # (h, w)
    top, left = draw_window(tf.shape(mask), height, width, seed)
    content = example["image"]

    def from_jpeg():  # decodes the window only
        window = tf.stack([top, left, height, width])
        return tf.io.decode_and_crop_jpeg(content, window, channels=3, dct_method=ACCURATE_DCT)

    def from_png():
        return decode_content(content)[top : top + height, left : left + width]

    image = tf.cond(tf.io.is_jpeg(content), from_jpeg, from_png)
    mask = tf.cast(mask[top : top + height, left : left + width], tf.int32)
    return tf.ensure_shape(image, (height, width, 3)), tf.ensure_shape(mask, (height, width))


def _hotdog_train(example, seed):
    window_seed, flip_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    pixels = decode_content(example["image"])
    window = random_window(tf.shape(pixels)[:2], window_seed)
    pixels = random_flip(crop_and_resize(pixels, window, HOTDOG_CROP, antialias=True), flip_seed)
    return to_uint8(pixels), tf.cast(example["label"], tf.int32)


def _hotdog_test(example):
    pixels = resize_and_center_crop(decode_content(example["image"]), HOTDOG_RESIZED, HOTDOG_CROP)
    return to_uint8(pixels), tf.cast(example["label"], tf.int32)
