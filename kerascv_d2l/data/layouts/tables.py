"""Boxes in a table (CSV): TensorFlow's object detection tutorials, and the book's bananas.

    filename,width,height,class,xmin,ymin,xmax,ymax      train_labels.csv, test_labels.csv, …
    img_name,label,xmin,ymin,xmax,ymax                   bananas_train/label.csv, bananas_val/…

Corners are in pixels, counted from 0; width and height are optional. An image with several
objects has several lines, one without objects a line with only its name; images without a line
are not part of the data set. Images lie beside the table, in `images/` there, or in a folder
named as the part. A column `split` (or `set`, `subset`) says the part of each line. Without a
validation part a share of the images is set apart.
"""

import csv
import functools
import io

from kerascv_d2l.data.layouts.files import (
    ImageFiles,
    files_by_part,
    image_folders,
    part_of,
    read_text,
    size_of,
    walk,
)
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError

TITLE = "CSV"
LOOKS = (
    "bananas_train/label.csv and bananas_train/images/, the same in bananas_val/; or "
    "train_labels.csv with filename,width,height,class,xmin,ymin,xmax,ymax and images/"
)
TASKS = (DETECTION,)
BOX_COLUMNS = ("xmin", "ymin", "xmax", "ymax")
NAME_COLUMNS = ("img_name", "filename", "file_name", "image", "file", "path", "image_path")
CLASS_COLUMNS = ("label", "class", "class_name")
PART_COLUMNS = ("split", "set", "subset")
BANANA_FILE, BANANA_FOLDERS = "label.csv", ("bananas_train", "bananas_val", "bananas_test")
# What the only label, 0, of the book's own data set stands for.
BOOK_CLASS = "banana"


def recognises(root):
    """Whether a folder has this layout."""
    return bool(_label_files(root))


def read(root, faults):
    """Read the labels. Where those of all objects are whole numbers, these are the classes."""
    images, labels = ImageFiles(root, faults), {}
    for part, file in files_by_part(_label_files(root), root).items():
        found = _read_table(file, root, part, images, faults)
        if not found:
            labels[part] = []
        for image in found:
            labels.setdefault(image.label, []).append(image)
    items = [o for part in labels.values() for image in part for o in image.objects]
    items = [item for item in items if item.problem is None]
    class_names = None
    if all(item.kind.isdecimal() for item in items):  # "0" and "00" are one class
        for item in items:
            item.kind = int(item.kind)
        if {item.kind for item in items} == {0} and _is_book(root):
            class_names = [BOOK_CLASS]
            for item in items:
                item.kind = BOOK_CLASS
    return Labels(labels, class_names)


def _label_files(root):
    bananas = [root / name / BANANA_FILE for name in BANANA_FOLDERS if (root / name).is_dir()]
    if bananas:
        return bananas
    return [file for file in walk(root, (".csv",)) if file.name == BANANA_FILE or _has_boxes(file)]


def _is_book(root):
    return root.name == BANANA_FOLDERS[0] or (root / BANANA_FOLDERS[0]).is_dir()


def _has_boxes(file):
    try:
        names = _open(read_text(file)).fieldnames or ()
    except csv.Error:  # no table at all
        return False
    return set(BOX_COLUMNS) <= {name.strip().lower() for name in names}


def _open(text):
    first = text.split("\n", 1)[0]
    delimiter = next((sign for sign in ";\t" if sign in first and "," not in first), ",")
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)


def _read_table(file, root, part, found, faults):
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    folders = image_folders(file, root, part)
    images, find = {}, functools.partial(found.find, folders=folders, part=part)
    try:
        lines = _open(read_text(file))
        columns = _columns(lines, file, faults)
        for line in lines:
            where = f"{file}, line {lines.line_num}"
            _read_line(line, columns, where, find, images, faults, part)
    except csv.Error as error:
        raise InputError(f"{file}: not a CSV file ({error})") from error
    return list(images.values())


def _columns(lines, file, faults):
    """Dict from what is needed to the name of its column."""
    names = [column.strip().lower() for column in lines.fieldnames or []]
    lines.fieldnames = names
    columns = {name: name for name in (*BOX_COLUMNS, "width", "height") if name in names}
    meanings = (("name", NAME_COLUMNS), ("class", CLASS_COLUMNS), ("part", PART_COLUMNS))
    for meaning, known in meanings:
        if present := [name for name in known if name in names]:
            columns[meaning] = present[0]
            if meaning == "class" and present[1:]:
                faults.notes.append(f"{file}: the column {present[0]} is read, {present[1]} is not")
    if twice := [name for name in columns.values() if names.count(name) > 1]:
        raise InputError(f"{file}, line 1: the column {twice[0]} is there twice")
    missing = [name for name in ("name", "class", *BOX_COLUMNS) if name not in columns]
    if missing:
        raise InputError(
            f"{file}, line 1: no column {', '.join(missing)}; it has {', '.join(names) or 'none'}, "
            f"wanted {' or '.join(NAME_COLUMNS[:2])}, {' or '.join(CLASS_COLUMNS[:2])}, "
            f"{', '.join(BOX_COLUMNS)}"
        )
    return columns


def _read_line(line, columns, where, find, images, faults, part):
    if None in line:
        faults.add(f"{where}: {len(line[None])} more fields than columns")
        return
    fields = {meaning: (line[column] or "").strip() for meaning, column in columns.items()}
    if not fields["name"]:
        faults.add(f"{where}: {columns['name']} is empty")
        return
    path, problem = find(fields["name"])
    if problem:
        faults.add(f"{where}: {problem}")
        return
    part = part_of(fields.get("part", "")) or part
    image = images.setdefault((path, part), LabelledImage(path, where, label=part))
    stated = size_of(fields.get("height"), fields.get("width"))
    image.stated_size = image.stated_size or stated
    if not any(fields[column] for column in ("class", *BOX_COLUMNS)):
        return  # only the name: an image without objects
    item = LabelledObject(fields["class"], None, where)
    try:
        item.box = tuple(float(fields[column]) for column in BOX_COLUMNS)
    except ValueError:
        shown = ", ".join(f"{column} {fields[column]!r}" for column in BOX_COLUMNS)
        item.problem = f"not four numbers: {shown}"
    if not fields["class"]:
        item.problem = f"{columns['class']} is empty"
    if stated not in (None, image.stated_size):
        item.problem = f"width and height are not those of {image.where}"
    image.objects.append(item)
