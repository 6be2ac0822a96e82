"""Data sets that tensorflow-datasets prepares: the chapter's own, CIFAR-10, and others by name."""

import contextlib
import importlib
import io
import time
from pathlib import Path

import absl.logging
import numpy as np
from PIL import Image

from kerascv_d2l.data import cifar10
from kerascv_d2l.data.splits import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    UNLABELLED,
    DataSet,
    Split,
)
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP
from kerascv_d2l.errors import InputError

VOC = "voc2012_segmentation"
OWN = ("banana_detection", "hotdog", VOC)  # of this package, and from an archive
_FEATURES = {CLASSIFICATION: "label", DETECTION: "objects", SEGMENTATION: "segmentation_mask"}


def is_at_hand(name, data_dir=None):
    """Whether a data set, of this package or TFDS, can be read without its files or a network."""
    import tensorflow_datasets as tfds

    return tfds.builder(name, data_dir=data_dir).is_prepared()


def prepare(name, *, data_dir=None, archive=None, skip_bad=False):
    """Download and prepare a data set unless that has been done.

    What was prepared from another folder, or with `skip_bad` where something was left out, is not
    taken for it. Without `archive`, though, what was prepared from a folder once is found again.

    Args:
        name: one of `OWN`, or any name of tensorflow-datasets.
        data_dir: TFDS' folder; None for its default.
        archive: archive or unpacked folder at hand, for those of `OWN`.
        skip_bad: bool: leave out damaged examples, for those of `OWN`.

    Returns:
        TFDS builder, ready for `as_dataset`.

    Raises:
        InputError: if `archive` is not there or is something else, or the data set can neither be
            found nor downloaded.
    """
    import tensorflow_datasets as tfds

    importlib.import_module("kerascv_d2l.data.builders")  # registers them
    options = {"archive": archive, "skip_bad": skip_bad}
    if name not in OWN:
        if archive is not None or skip_bad:
            raise InputError(f"archive and skip_bad are for {', '.join(OWN)}, not for {name}")
        options = {}
    with _quietly():
        builder = tfds.builder(name, data_dir=data_dir, **options)
        if name in OWN and not builder.is_prepared():
            builder = _variant_at_hand(builder, data_dir, options) or builder
    try:
        builder.download_and_prepare()
    except InputError:
        raise
    except OSError as error:  # requests' and urllib3's errors are among these
        raise InputError(
            f"{name} is not prepared in {builder.data_dir}, and preparing it failed: {error}"
        ) from error
    return builder


@contextlib.contextmanager
def _quietly():
    """Without TFDS' warnings of configurations that its lists do not have."""
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(before)


def _variant_at_hand(builder, data_dir, options):
    """A builder of what is prepared already and will do, or None."""
    import tensorflow_datasets as tfds

    make = type(builder)
    if options["skip_bad"]:
        strict = make(data_dir=data_dir, archive=options["archive"])
        if strict.is_prepared():  # nothing had to be left out
            return strict
    if options["archive"] is not None:
        return None
    root = Path(builder.data_dir).parent  # NAME, with a folder for the version
    if builder.builder_config:
        root = root.parent  # NAME/VARIANT/VERSION
    infos = sorted(
        root.glob(f"*/{builder.version}/dataset_info.json"), key=lambda file: file.stat().st_mtime
    )
    for info in reversed(infos):
        variant = info.parts[-3]
        if options["skip_bad"] or not variant.endswith("skip_bad"):
            config = tfds.core.BuilderConfig(name=variant, description="Found again.")
            return make(data_dir=data_dir, config=config)
    return None


def read_prepared(name, task, *, data_dir=None, archive=None, skip_bad=False):
    """Read a prepared data set into memory, images encoded as they are.

    Where all images have one size and three channels, as CIFAR-10's, they are decoded: a uint8
    array. Objects that VOC marks as difficult, and COCO's crowds, are ignored.

    Args:
        name: one of `OWN`, or another of tensorflow-datasets whose examples have `image` and
            what the task needs: `label`; `objects` with `bbox` and `label`; nothing for
            unlabelled images.
        task: one of `TASKS`.
        data_dir: as `prepare`.
        archive: as `prepare`; for CIFAR-10 `cifar-10-binary.tar.gz`, or the folder unpacked from
            it.
        skip_bad: as `prepare`.

    Returns:
        `DataSet`. What is measured on is the split named `validation`, else `test`.

    Raises:
        InputError: as `prepare`; if the data set has nothing for this task, or nothing to measure
            with.
    """
    start = time.perf_counter()
    if name == cifar10.NAME and archive is not None:
        if task != CLASSIFICATION:
            raise InputError(f"{name}: is for {CLASSIFICATION}, not {task}")
        return cifar10.read_archive(archive)
    builder = prepare(name, data_dir=data_dir, archive=archive, skip_bad=skip_bad)
    names = _class_names(builder, name, task)
    known = builder.info.splits
    val = next((split for split in ("validation", "test") if split in known), None)
    if "train" not in known or val is None:
        raise InputError(f"{name}: needs train and validation or test, has {', '.join(known)}")
    train = _read_split(builder, "train", task, names)
    train.skipped = list(getattr(builder, "skipped", ()))
    return DataSet(
        names,
        train,
        _read_split(builder, val, task, names),
        source=f"{name} {builder.version} in {builder.data_dir} ({val} to validate)",
        colors=VOC_COLORMAP if task == SEGMENTATION else None,
        seconds=time.perf_counter() - start,
    )


def _class_names(builder, name, task):
    """Names of the classes; an error where the data set is not for the task."""
    features = builder.info.features
    if task == SEGMENTATION:
        if name != VOC:
            raise InputError(f"{name}: no data set for {task}; known is {VOC}")
        return VOC_CLASSES
    needed = _FEATURES.get(task, "image")
    label = features[needed] if needed in features else None  # noqa: SIM401 - it has no `get`
    if task == DETECTION and label is not None:
        objects = getattr(label, "feature", {})
        label = objects["label"] if "bbox" in objects and "label" in objects else None
    if label is None or "image" not in features:
        raise InputError(f"{name}: not for {task} (its features are {', '.join(features)})")
    return () if task == UNLABELLED else label.names


def _read_split(builder, title, task, class_names):
    import tensorflow_datasets as tfds

    features = builder.info.features
    shape = features["image"].shape
    parts = [part for part in ("image", "segmentation_mask") if part in features]
    if None not in shape and shape[-1] == 3:
        parts.remove("image")
    # Records in their order. Caching is not left to TFDS' guess from the size of the files.
    examples = builder.as_dataset(
        split=title,
        decoders=dict.fromkeys(parts, tfds.decode.SkipDecoding()),
        shuffle_files=False,
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    examples = list(tfds.as_numpy(examples))
    images = [example["image"] for example in examples]
    if "image" in parts:
        sizes = np.array([_size(content) for content in images])
    else:
        images, sizes = np.stack(images), None
    names = [_name(example, k, task, title, class_names) for k, example in enumerate(examples)]
    return Split(images, _targets(task, examples), names, sizes)


def _size(content):
    with Image.open(io.BytesIO(content)) as opened:  # reads the header only
        return opened.size[::-1]


def _name(example, index, task, title, class_names):
    key = next((key for key in ("file_name", "image/filename") if key in example), None)
    name = f"{title} {index}" if key is None else example[key].decode(errors="replace")
    return f"{class_names[example['label']]}/{name}" if task == CLASSIFICATION else name


def _targets(task, examples):
    if task == CLASSIFICATION:
        return {"label": [example["label"] for example in examples]}
    if task == SEGMENTATION:
        return {"mask": [example["segmentation_mask"] for example in examples]}
    if task == UNLABELLED:
        return {}
    objects = [example["objects"] for example in examples]
    targets = {
        "boxes": [each["bbox"][:, [1, 0, 3, 2]] for each in objects],  # TFDS has y before x
        "classes": [each["label"] for each in objects],
    }
    marks = [mark for mark in ("is_difficult", "is_crowd") if objects and mark in objects[0]]
    if marks:
        targets["ignore"] = [each[marks[0]] for each in objects]
    return targets
