"""The book's two Kaggle competitions: folders to train from, and the file to hand in.

`train/` and `test/` hold images named by their ids, a CSV file the classes of the training images.
The book copies them to `train_valid_test/`: `train/CLASS`, `valid/CLASS`, both together as
`train_valid/CLASS`, and `test/unknown`. `load` reads that folder; its `test` has no labels.
"""

import collections
import csv
import math
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l.data.generated import generate
from kerascv_d2l.data.layouts.class_folders import UNKNOWN
from kerascv_d2l.data.splits import CLASSIFICATION, first_of
from kerascv_d2l.errors import InputError
from kerascv_d2l.files import whole

CIFAR10, DOG = "cifar10", "dog"
ARRANGED = "train_valid_test"
# Of each competition: the CSV file, the name of its second column, the images' ending.
_FORMS = {CIFAR10: ("trainLabels.csv", "label", "png"), DOG: ("labels.csv", "breed", "jpg")}
_ID_LETTERS = 32  # hexadecimal digits of a dog's id
_GENERATED = {
    CIFAR10: {"num_classes": 10, "image_size": 32, "scenes": "one-light"},
    DOG: {"num_classes": 4, "image_size": 96},
}


def read_csv_labels(fname):
    """Read the classes of the training images.

    Args:
        fname: CSV file of a heading and lines `id,class`.

    Returns:
        dict from id to class, both str.

    Raises:
        InputError: if there is no such file, or a line is another or repeats an id.

    Source:
        D2L 1.0.3, section 14.13.
    """
    try:
        with open(fname, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{fname}: cannot be read ({error})") from error
    labels = {}
    for line, row in enumerate(rows, start=2):
        if len(row) != 2 or row[0] in labels:
            raise InputError(f"{fname}, line {line}: {row}; wanted id,class, and each id once")
        labels[row[0]] = row[1]
    return labels


def reorg_train_valid(data_dir, labels, valid_ratio):
    """Copy the training images into folders of classes, some of each apart to validate on.

    As many of every class are set apart, the first by id: the share `valid_ratio` of the
    rarest class, at least one. What `train_valid_test` held of these folders is replaced.

    Args:
        data_dir: folder with `train/ID.ENDING`.
        labels: dict from id to class.
        valid_ratio: float in (0, 1).

    Returns:
        int: number of validation images of each class.

    Raises:
        InputError: if the ratio is out of range or takes all images of a class, or an image
            or label lacks the other.

    Source:
        D2L 1.0.3, section 14.13; it takes files in the order of the file system.
    """
    if not 0 < valid_ratio < 1:
        raise InputError(f"valid_ratio is {valid_ratio}; wanted a share between 0 and 1")
    files = _files(Path(data_dir) / "train")
    if alone := sorted({file.stem for file in files} ^ labels.keys()):
        raise InputError(f"{data_dir}: image without a label, or the reverse: {first_of(alone)}")
    rarest, fewest = collections.Counter(labels.values()).most_common()[-1]
    num_valid = max(1, math.floor(fewest * valid_ratio))
    if num_valid >= fewest:
        raise InputError(f"valid_ratio is {valid_ratio}: no image of {rarest} is left to train on")
    parts, taken = {"train_valid": [], "train": [], "valid": []}, collections.Counter()
    for file in files:
        label = labels[file.stem]
        taken[label] += 1
        for part in ("train_valid", "valid" if taken[label] <= num_valid else "train"):
            parts[part].append((file, label))
    for part, pairs in parts.items():
        _copy(pairs, Path(data_dir) / ARRANGED / part)
    return num_valid


def reorg_test(data_dir):
    """Copy `test/` to `train_valid_test/test/unknown`, whatever that held.

    Args:
        data_dir: folder with `test/ID.ENDING`.

    Raises:
        InputError: if there is no image.

    Source:
        D2L 1.0.3, section 14.13.
    """
    files = _files(Path(data_dir) / "test")
    _copy([(file, UNKNOWN) for file in files], Path(data_dir) / ARRANGED / "test")


def reorg_cifar10_data(data_dir, valid_ratio):
    """Arrange Kaggle's CIFAR-10 by classes: `reorg_train_valid` and `reorg_test`."""
    _reorg(CIFAR10, data_dir, valid_ratio)


def reorg_dog_data(data_dir, valid_ratio):
    """Arrange Kaggle's dog breeds by classes: `reorg_train_valid` and `reorg_test`."""
    _reorg(DOG, data_dir, valid_ratio)


def write_submission(path, names, predictions, class_names):
    """Write the file to hand in.

    Ids that are numbers are sorted as numbers (2 before 10), others as text, as in Kaggle's
    sample files.

    Args:
        path: the file, `.csv`.
        names: sequence of n str, names of the test images: the id and an ending.
        predictions: int `(n,)`, classes, for a file `id,label`; or float `(n, classes)`,
            probabilities, for a column of each class.
        class_names: sequence of str.

    Raises:
        InputError: if the predictions are neither.
    """
    predictions, count = np.asarray(predictions), len(class_names)
    if predictions.shape not in ((len(names),), (len(names), count)):
        raise InputError(
            f"predictions are {predictions.shape}; wanted ({len(names)},) classes or "
            f"({len(names)}, {count}) probabilities"
        )
    ids = [Path(name).stem for name in names]
    classes = predictions.ndim == 1
    with whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label"] if classes else ["id", *class_names])
        for k in sorted(range(len(ids)), key=lambda k: _in_order(ids[k])):
            one = [class_names[predictions[k]]] if classes else predictions[k].tolist()
            writer.writerow([ids[k], *one])


def generate_kaggle(data_dir, competition, num_train=200, num_test=50, seed=0, **options):
    """Write generated images as Kaggle's archive of a competition is laid out.

    Args:
        data_dir: a new folder, or an empty one.
        competition: `"cifar10"`: `train/1.png`, ..., `test/1.png`, ..., `trainLabels.csv`; or
            `"dog"`: `train/ID.jpg`, `test/ID.jpg`, `labels.csv`, ids of 32 hexadecimal digits.
        num_train: int.
        num_test: int.
        seed: int, 0 or more.
        options: `num_classes`, `image_size`, `scenes`, as `generate`.

    Raises:
        InputError: as `generate`, or if the folder holds something.
    """
    if competition not in _FORMS:
        raise InputError(f"competition is {competition!r}; wanted {CIFAR10!r} or {DOG!r}")
    data_dir = Path(data_dir)
    if data_dir.exists() and any(data_dir.iterdir()):
        raise InputError(f"{data_dir}: holds something already; give a new folder")
    table, column, ending = _FORMS[competition]
    data = generate(CLASSIFICATION, num_train, num_test, seed, **_GENERATED[competition] | options)
    rng = np.random.default_rng(seed)
    for part, split in (("train", data.train), ("test", data.val)):
        ids = [str(k + 1) for k in range(len(split))]
        if competition == DOG:
            ids = [rng.bytes(_ID_LETTERS // 2).hex() for _ in ids]
        (data_dir / part).mkdir(parents=True)
        for k, name in enumerate(ids):
            Image.fromarray(split.image(k)).save(data_dir / part / f"{name}.{ending}", quality=95)
        if part == "train":
            rows = zip(ids, split.targets["label"], strict=True)
            lines = [f"{name},{data.class_names[label]}\n" for name, label in rows]
    (data_dir / table).write_text(f"id,{column}\n" + "".join(lines), encoding="utf-8")


def _reorg(competition, data_dir, valid_ratio):
    labels = read_csv_labels(Path(data_dir) / _FORMS[competition][0])
    reorg_train_valid(data_dir, labels, valid_ratio)
    reorg_test(data_dir)


def _in_order(name):
    """Sort key of an id: numbers by value, then text."""
    return (0, int(name), name) if re.fullmatch(r"\d+", name) else (1, 0, name)


def _files(folder):
    if not folder.is_dir() or not any(folder.iterdir()):
        raise InputError(f"{folder}: no such folder, or nothing in it; unpack Kaggle's archive")
    return sorted(folder.iterdir(), key=lambda file: _in_order(file.stem))


def _copy(pairs, folder):
    """Copy files to `folder/LABEL/`; the folder appears, or is replaced, when it is whole."""
    with whole(folder) as temporary:
        for label in {label for _, label in pairs}:
            (temporary / label).mkdir(parents=True)
        for file, label in pairs:
            shutil.copyfile(file, temporary / label / file.name)
