"""Pascal VOC XML.

    annotations/ or Annotations/    one XML file for each picture
    images/ or JPEGImages/          pictures of the same names (or as <filename> says)
    train.txt and val.txt           names, with or without ending, one a line;
                                    beside these folders or in ImageSets/Main/

XML files and pictures may also lie in the folder itself. Without split files a share of the
pictures is set apart. A picture whose XML file has no object is kept as one
without objects.

Boxes are those of the VOC development kit: pixels counted from 1, xmin to xmax
inclusive, so the left edge is xmin - 1 and the right edge xmax. (Labelling
tools that count from 0 are a pixel off on one side by that, and clipped at the
border.) The picture's own size counts, not that in the XML file.
"""

import xml.etree.ElementTree as ElementTree

from kerascv_d2l.data.layouts.records import (
    PICTURE_ENDINGS,
    LabelledObject,
    LabelledPicture,
    read_split_files,
    split_by_name,
)
from kerascv_d2l.errors import InputError

TITLE = "Pascal VOC XML"
LOOKS = (
    "annotations/*.xml (or Annotations/) and images/ (or JPEGImages/), with or without "
    "train.txt and val.txt there or in ImageSets/Main/"
)
ANNOTATION_FOLDERS = ("annotations", "Annotations", ".")
IMAGE_FOLDERS = ("images", "JPEGImages", ".")
SPLIT_FOLDERS = (".", "ImageSets/Main")
BOX_TAGS = ("xmin", "ymin", "xmax", "ymax")


def recognises(root):
    """Whether a folder has this layout."""
    return _annotation_folder(root) is not None


def read(root, faults, val_fraction, seed, classes, difficult=False):
    """Read the labels.

    Args:
        root: `Path` for which `recognises` holds.
        faults: dict from "train" and "val" to `Faults`.
        val_fraction: float in (0, 1), where there are no split files.
        seed: int, likewise.
        classes: tuple of names, or None for the names found, sorted.
        difficult: bool: keep objects that are marked as difficult.

    Returns:
        `(class_names, class_of, pictures)`: the names in order, a dict from
        name to class index, and a dict from "train" and "val" to lists of
        `LabelledPicture`.

    Raises:
        InputError: for a bad file or object, unless `faults` skips it.
    """
    annotations = _annotation_folder(root)
    by_stem = {file.stem: file for file in annotations.glob("*.xml")}
    splits = read_split_files(
        root, SPLIT_FOLDERS, by_stem, faults, lambda stem: f"no annotation {stem}.xml"
    )
    if splits is None:
        splits = split_by_name(sorted(by_stem), str, val_fraction, seed, annotations)
    picture_files = _picture_files(root)
    pictures = {split: [] for split in splits}
    for split, stems in splits.items():
        for stem in stems:
            picture = _read_xml(by_stem[stem], root, picture_files, faults[split], difficult)
            if picture is not None:
                pictures[split].append(picture)
    if classes is None:
        classes = sorted({o.kind for part in pictures.values() for p in part for o in p.objects})
    return classes, {name: index for index, name in enumerate(classes)}, pictures


def _annotation_folder(root):
    for name in ANNOTATION_FOLDERS:
        if next((root / name).glob("*.xml"), None) is not None:
            return root / name
    return None


def _picture_files(root):
    """Pictures by stem and by full name."""
    files = {}
    for name in IMAGE_FOLDERS:
        if (root / name).is_dir():
            for file in sorted((root / name).iterdir()):
                if file.suffix.lower() in PICTURE_ENDINGS:
                    files.setdefault(file.stem, file)
                    files.setdefault(file.name, file)
    return files


def read_objects(file):
    """Read the objects of one XML file.

    Args:
        file: file name, `str` or `Path`.

    Returns:
        List of `(name, box)`: the class, and the box in pixels from the picture's
        corner, `(x_min, y_min, x_max, y_max)`.

    Raises:
        InputError: for a file that is missing or no XML, or an object without a name
            or box.
    """
    try:
        found = _objects(_parsed(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
    objects = []
    for number, name, box, problem in found:
        if problem:
            raise InputError(f"{file}, object {number}: {problem}")
        objects.append((name, box))
    return objects


def _parsed(file):
    try:
        return ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, UnicodeDecodeError, ValueError, LookupError) as error:
        raise InputError(f"{file}: not a whole XML file ({error})") from error


def _objects(tree, difficult=True):
    """`(number, name, box, what is wrong or None)` of each object."""
    found = []
    for number, item in enumerate(tree.findall("object"), start=1):
        if not difficult and (item.findtext("difficult") or "").strip() == "1":
            continue
        name = (item.findtext("name") or "").strip()
        problem, box = _read_box(item)
        found.append((number, name, box, problem if name else "no <name>"))
    return found


def _read_xml(file, root, picture_files, faults, difficult):
    try:
        tree = _parsed(file)
    except InputError as error:
        faults.add(str(error))
        return None
    filename = (tree.findtext("filename") or "").strip().replace("\\", "/").rsplit("/", 1)[-1]
    path = picture_files.get(file.stem) or picture_files.get(filename)
    if path is None:
        tried = " or ".join(str(root / f) for f in IMAGE_FOLDERS if (root / f).is_dir())
        named = f" ({filename} in the file)" if filename else ""
        faults.add(f"{file}: no picture of the name {file.stem}{named} in {tried}")
        return None
    objects, num_bad = [], 0
    for number, name, box, problem in _objects(tree, difficult):
        where = f"{file}, object {number}"
        if problem:
            num_bad += 1
            faults.add(f"{where}: {problem}")
            continue
        objects.append(LabelledObject(name, box, where))
    if num_bad and not objects:
        faults.reasons.append(f"{path}: left out, for none of its objects is usable")
        return None
    return LabelledPicture(path, path.name, str(file), objects, _stated_size(tree))


def _read_box(item):
    """`(what is wrong or None, box with edges counted from 0)`."""
    box = item.find("bndbox")
    if box is None:
        return "no <bndbox>", None
    texts = [(box.findtext(tag) or "").strip() for tag in BOX_TAGS]
    try:
        x_min, y_min, x_max, y_max = (float(text) for text in texts)
    except ValueError:
        shown = ", ".join(f"{tag} {text!r}" for tag, text in zip(BOX_TAGS, texts, strict=True))
        return f"<bndbox> is not four numbers: {shown}", None
    return None, (x_min - 1, y_min - 1, x_max, y_max)


def _stated_size(tree):
    try:
        return int(tree.findtext("size/height")), int(tree.findtext("size/width"))
    except (TypeError, ValueError):
        return None
