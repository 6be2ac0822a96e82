"""Pictures of one class each: what such a data set looks like, and a reader of folders."""

import dataclasses
import time

import numpy as np

from kerascv_d2l.data.images import check_images
from kerascv_d2l.data.layouts.records import Faults, unwrapped
from kerascv_d2l.errors import InputError

TRAIN_FOLDER = "train"
VAL_FOLDERS = ("val", "test")  # the first that is there
# What file managers leave behind; hidden files (.DS_Store) are passed over too.
LITTER = ("thumbs.db", "desktop.ini", "__macosx")


@dataclasses.dataclass
class ClassificationSplit:
    """Pictures and their classes.

    Attributes:
        images: paths of picture files, as `str`; or the bytes of plain ones
            (`ImageInfo.plain`); or a uint8 array `(n, h, w, 3)`.
        labels: int32 `(n,)`, the class of each, from 0 on.
        names: for each picture what to call it.
        sizes: int `(n, 2)`: height and width of each picture, pixels.
        plain: bool `(n,)`: `ImageInfo.plain` of each; all true for bytes and arrays.
        skipped: why pictures were left out, one message each.
    """

    images: list | np.ndarray
    labels: np.ndarray
    names: list
    sizes: np.ndarray = None
    plain: np.ndarray = None
    skipped: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        self.labels = np.asarray(self.labels, np.int32)
        if self.sizes is None:
            if not isinstance(self.images, np.ndarray):
                raise InputError("sizes is missing: the height and width of each picture file")
            self.sizes = np.tile(self.images.shape[1:3], (len(self.images), 1))
        if self.plain is None:
            files = len(self.images) and isinstance(self.images[0], str)
            self.plain = np.full(len(self.images), not files)
        fields = ("images", "labels", "names", "sizes", "plain")
        lengths = {field: len(getattr(self, field)) for field in fields}
        if len(set(lengths.values())) != 1:
            raise InputError(f"a split needs as many of each, not {lengths}")
        if len(self.labels) and self.labels.min() < 0:
            raise InputError(f"labels has the class {self.labels.min()}; wanted classes from 0 on")

    def __len__(self):
        return len(self.images)

    def subset(self, indices):
        """Take some of the pictures, in the order of `indices`, as another split."""
        if isinstance(self.images, np.ndarray):
            images = self.images[indices]
        else:
            images = [self.images[i] for i in indices]
        return ClassificationSplit(
            images,
            self.labels[indices],
            [self.names[i] for i in indices],
            self.sizes[indices],
            self.plain[indices],
        )


@dataclasses.dataclass
class ClassificationData:
    """A classification data set in two splits.

    Attributes:
        class_names: tuple of str; class k of the labels is `class_names[k]`.
        train: `ClassificationSplit`.
        val: `ClassificationSplit`: what results are measured on.
        source: str: where it came from, for printing.
        seconds: float: how long it took to read or generate.
    """

    class_names: tuple
    train: ClassificationSplit
    val: ClassificationSplit
    source: str
    seconds: float = 0.0

    def __post_init__(self):
        self.class_names = tuple(self.class_names)
        for title, split in (("training", self.train), ("test", self.val)):
            if len(split) == 0:
                raise InputError(f"{self.source}: no {title} picture")
            if split.labels.max() >= len(self.class_names):
                raise InputError(
                    f"{self.source}: class {split.labels.max()} among the labels, but there are "
                    f"{len(self.class_names)} class names"
                )

    def describe(self):
        """Say in a few lines what is in the data set.

        Returns:
            str, of one line for the data set, one for each split, and one for
            what was left out, if anything was.
        """
        lines = [
            f"{self.source} ({self.seconds:.1f} s), {len(self.class_names)} class(es): "
            f"{_first(self.class_names)}"
        ]
        for title, split in (("training", self.train), ("test", self.val)):
            counts = np.bincount(split.labels, minlength=len(self.class_names))
            each = [f"{n} {name}" for n, name in zip(counts, self.class_names, strict=True)]
            low, high = split.sizes.min(axis=0), split.sizes.max(axis=0)
            sides = [str(a) if a == b else f"{a}-{b}" for a, b in zip(low, high, strict=True)]
            lines.append(
                f"  {title}: {len(split)} pictures ({sides[0]} x {sides[1]} pixels), {_first(each)}"
            )
        skipped = self.train.skipped + self.val.skipped
        if skipped:
            lines.append(f"  left out: {len(skipped)}, the first because of: {skipped[0]}")
        return "\n".join(lines)


def read_classification_folder(path, skip_bad=False):
    """Read a folder with `train/` and `val/` (or `test/`), and in each a folder for each class.

    The names of the class folders are the classes, sorted. Every picture is
    decoded once, to find damaged ones now and not in the middle of training.
    Whatever Pillow reads is a picture (`read_image`); hidden files are passed
    over.

    Args:
        path: the folder, or a folder with nothing in it but that folder.
        skip_bad: bool: go on without what is no whole picture or lies where no
            picture belongs; the splits' `skipped` say what was left out and why.

    Returns:
        `ClassificationData`. Where there are `val/` and `test/`, the former is
        read and the latter left for later.

    Raises:
        InputError: for another layout, a class that is missing or empty in one
            split, fewer than two classes, a file that is no picture or is damaged or
            lies outside the class folders; names it.
    """
    start = time.perf_counter()
    root, val_folder = _find_splits(path)
    folders = {split: root / split for split in (TRAIN_FOLDER, val_folder)}
    faults = {split: Faults(skip_bad) for split in folders}
    found = {split: _class_folders(folders[split], faults[split]) for split in folders}
    _check_classes(folders, found)
    class_names = sorted(found[TRAIN_FOLDER])
    if len(class_names) < 2:
        raise InputError(
            f"{folders[TRAIN_FOLDER]}: {len(class_names)} class folder(s) ({_first(class_names)});"
            " a classifier needs at least 2"
        )
    train, val = (
        _read_split(folders[split], class_names, found[split], faults[split]) for split in folders
    )
    return ClassificationData(
        class_names, train, val, f"{root} ({val_folder}/ to test)", time.perf_counter() - start
    )


def _find_splits(path):
    """The folder that holds `train/`, and the name of the one to test on."""
    for folder in unwrapped(path):
        if (folder / TRAIN_FOLDER).is_dir():
            break
    inside = sorted(_visible(folder))
    shown = _first([child.name + "/" * child.is_dir() for child in inside]) or "nothing"
    if not (folder / TRAIN_FOLDER).is_dir():
        raise InputError(
            f"{folder}: no folder {TRAIN_FOLDER}/ in it. It holds {shown}. Wanted: "
            f"{TRAIN_FOLDER}/CLASS/PICTURE and {' or '.join(VAL_FOLDERS)}/CLASS/PICTURE"
        )
    val = next((name for name in VAL_FOLDERS if (folder / name).is_dir()), None)
    if val is None:
        raise InputError(
            f"{folder}: {TRAIN_FOLDER}/ is there, but neither {'/ nor '.join(VAL_FOLDERS)}/ to "
            f"test on. It holds {shown}"
        )
    return folder, val


def _class_folders(folder, faults):
    """Dict from class name to folder; files beside them are faults."""
    children = sorted(_visible(folder))
    for child in children:
        if not child.is_dir():
            faults.add(f"{child}: a file, where only folders of classes belong")
    return {child.name: child for child in children if child.is_dir()}


def _check_classes(folders, found):
    (train, in_train), (val, in_val) = ((folders[split], found[split]) for split in folders)
    for there, names, absent, others in (
        (train, in_train, val, in_val),
        (val, in_val, train, in_train),
    ):
        if missing := sorted(set(names) - set(others)):
            raise InputError(
                f"{absent}: no folder for {_first(missing)}, which {there} has. Both need the "
                f"same class folders; {absent} has {_first(sorted(others)) or 'none'}"
            )


def _read_split(folder, class_names, class_folders, faults):
    paths, labels = [], []
    for index, name in enumerate(class_names):
        files = []
        for child in sorted(_visible(class_folders[name])):
            if child.is_dir():
                faults.add(f"{child}: a folder among the pictures of a class")
            else:
                files.append(str(child))
        paths += files
        labels += [index] * len(files)
    infos, reasons = check_images(paths, faults.skip_bad)
    faults.reasons += reasons
    kept = [i for i, info in enumerate(infos) if info is not None]
    labels = np.array(labels, np.int32)[kept]
    counts = np.bincount(labels, minlength=len(class_names))
    if (empty := np.flatnonzero(counts == 0)).size:
        reason = f" left; the first fault was: {faults.reasons[0]}" if faults.reasons else ""
        raise InputError(f"{class_folders[class_names[empty[0]]]}: no picture{reason}")
    prefix = len(str(folder)) + 1
    return ClassificationSplit(
        [paths[i] for i in kept],
        labels,
        [paths[i][prefix:] for i in kept],  # CLASS/FILE
        np.array([infos[i][:2] for i in kept]),
        np.array([infos[i].plain for i in kept]),
        list(faults.reasons),
    )


def _visible(folder):
    for child in folder.iterdir():
        if not child.name.startswith(".") and child.name.lower() not in LITTER:
            yield child


def _first(names, most=10):
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if names[most:] else "")
