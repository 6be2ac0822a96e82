"""The layout of the book's banana data set.

    bananas_train/label.csv
    bananas_train/images/0.png …
    bananas_val/label.csv
    bananas_val/images/…

`label.csv` has the columns img_name, label, xmin, ymin, xmax, ymax: corners in
pixels, counted from 0. A picture with several objects has several lines, one
without objects a line with only its name; pictures without a line are not part of the
data set. Without `bananas_val` (or for a folder that is itself such a part) a
share of the pictures is set apart.
"""

import csv

from kerascv_d2l.data.layouts.records import LabelledObject, LabelledPicture, split_by_name
from kerascv_d2l.errors import InputError

TITLE = "banana layout"
LOOKS = "bananas_train/label.csv and bananas_train/images/, the same in bananas_val/"
LABEL_FILE = "label.csv"
BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
COLUMNS = ("img_name", "label") + BOX_COLUMNS
# What the only label, 0, of the book's own data set stands for.
BOOK_CLASS = "banana"


def recognises(root):
    """Whether a folder has this layout."""
    return (root / "bananas_train").is_dir() or (root / LABEL_FILE).is_file()


def read(root, faults, val_fraction, seed, classes):
    """Read the labels.

    Args:
        root: `Path` for which `recognises` holds.
        faults: dict from "train" and "val" to `Faults`.
        val_fraction: float in (0, 1).
        seed: int.
        classes: tuple of names, or None. Where the labels are numbers, number k
            is the class `classes[k]`.

    Returns:
        `(class_names, class_of, pictures)`: the names in order, a dict from
        label to class index, and a dict from "train" and "val" to lists of
        `LabelledPicture`.

    Raises:
        InputError: for a bad file or line, unless `faults` skips it.
    """
    if (root / "bananas_val").is_dir():
        pictures = {
            split: _read_labels(root / f"bananas_{split}", faults[split])
            for split in ("train", "val")
        }
    else:
        folder = root if (root / LABEL_FILE).is_file() else root / "bananas_train"
        pictures = split_by_name(
            _read_labels(folder, faults["train"]),
            lambda picture: picture.name,
            val_fraction,
            seed,
            folder,
        )
    kinds = {
        item.kind for part in pictures.values() for picture in part for item in picture.objects
    }
    numbers = all(_is_number(kind) for kind in kinds)
    if numbers:  # one label written as "0" and as "00" is one class
        for item in (o for part in pictures.values() for p in part for o in p.objects):
            item.kind = int(item.kind)
        kinds = {int(kind) for kind in kinds}
    if classes is not None:
        keys = range(len(classes)) if numbers else classes
    else:
        keys = sorted(kinds)
        classes = [str(key) for key in keys]
        if keys == [0] and (root / "bananas_train").is_dir():
            classes = [BOOK_CLASS]
    return classes, {key: index for index, key in enumerate(keys)}, pictures


def _is_number(text):
    try:
        return int(text) >= 0
    except ValueError:
        return False


def _read_labels(folder, faults):
    file = folder / LABEL_FILE
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    pictures = {}
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            lines = csv.DictReader(stream)
            columns = [column.strip() for column in lines.fieldnames or []]
            missing = [column for column in COLUMNS if column not in columns]
            if missing:
                raise InputError(
                    f"{file}, line 1: no column {', '.join(missing)}; it has "
                    f"{', '.join(columns) or 'none'}, wanted {', '.join(COLUMNS)}"
                )
            lines.fieldnames = columns
            for line in lines:
                _read_line(line, f"{file}, line {lines.line_num}", folder, pictures, faults)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not a CSV file in UTF-8 ({error})") from error
    return list(pictures.values())


def _read_line(line, where, folder, pictures, faults):
    if None in line:
        faults.add(f"{where}: {len(line[None])} more fields than columns")
        return
    fields = {column: (line[column] or "").strip() for column in COLUMNS}
    name = fields["img_name"]
    if not name:
        faults.add(f"{where}: img_name is empty")
        return
    picture = pictures.setdefault(
        name, LabelledPicture(folder / "images" / name, name, where, objects=[])
    )
    if not any(fields[column] for column in COLUMNS[1:]):
        return  # only the name: a picture without objects
    try:
        box = tuple(float(fields[column]) for column in BOX_COLUMNS)
    except ValueError:
        shown = ", ".join(f"{column} {fields[column]!r}" for column in BOX_COLUMNS)
        faults.add(f"{where}: not four numbers: {shown}")
        box = None
    if not fields["label"]:
        faults.add(f"{where}: label is empty")
        box = None
    if box is None:
        # Its object is unknown: without another one it must not pass for empty.
        if not picture.objects:
            del pictures[name]
        return
    picture.objects.append(LabelledObject(fields["label"], box, where))
