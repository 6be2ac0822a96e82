"""Pascal VOC XML.

    annotations/ (Annotations/, annots/, …)   one XML file for each image
    images/ or JPEGImages/                    images of the same names (or as <filename> says)
    train.txt, val.txt, test.txt              names, with or without ending, one a line; beside
    (or trainval.txt and test.txt)            these folders or in ImageSets/Main/
    SegmentationObject/                       masks: a PNG with the number of an object in its XML
                                              file, from 1, at each of its pixels

XML files and images may also lie in one folder, in subfolders, and in `train/`, `valid/` and
`test/`, as Roboflow exports them. Otherwise a share of the images is set apart. An image whose
XML file has no object is kept as one without objects.

Boxes are those of the VOC development kit: pixels counted from 1, xmin to xmax inclusive, so the
left edge is xmin - 1 and the right edge xmax. (Labelling tools that count from 0 are a pixel off
on one side by that, and clipped at the border.) Objects marked as difficult are ignored. VOC has
masks of some images only: for the others `skip_bad` leaves objects without one out.
"""

from pathlib import Path

from kerascv_d2l.data.layouts.files import (
    ABSENT,
    LIST_FOLDERS,
    ImageFiles,
    part_of_path,
    read_flag,
    read_lists,
    read_xml,
    relative,
    size_of,
    visible,
    walk,
)
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError

TITLE = "Pascal VOC XML"
LOOKS = (
    "annotations/*.xml (or Annotations/, annots/, or beside the images) and images/ (or "
    "JPEGImages/), with or without train.txt and val.txt there or in ImageSets/Main/"
)
TASKS = (DETECTION,)
ROOT_TAG, WRAPPER_TAG = "annotation", "annotations"
MOST_TRIED = 10  # files are looked into to recognise the layout
# Folders of labels, and those of the images beside them.
ANNOTATION_FOLDERS = ("annotations", "annots", "labels", "xml", "xmls")
IMAGE_FOLDERS = ("images", "jpegimages", "imgs", "img")
# What a file of an image without objects may have, beside single values.
EMPTY_HAS = ("size", "source", "owner")
MASKS_FOLDER = "segmentationobject"
BOX_TAGS = ("xmin", "ymin", "xmax", "ymax")


def recognises(root):
    """Whether a folder has this layout."""
    files = walk(root, (".xml",))[:MOST_TRIED]
    for file in files:
        try:
            tree = read_xml(file)
            if tree.tag == ROOT_TAG or (
                tree.tag == WRAPPER_TAG and tree.find(ROOT_TAG) is not None
            ):
                return True
        except InputError:  # nothing but the folder says what it should be
            if file.parent == root or file.parent.name.lower() in ANNOTATION_FOLDERS:
                return True
    return False


def read(root, faults):
    """Read the labels."""
    files = _label_files(root)
    parts = read_lists(root, LIST_FOLDERS, files, faults, "annotation (an XML file)")
    if parts is None:
        parts = {}
        for stem, file in files.items():
            parts.setdefault(part_of_path(file, root), []).append(stem)
    images, labels = ImageFiles(root, faults), {}
    for part, stems in parts.items():
        found = (_read_xml(files[stem], root, images, faults) for stem in stems)
        labels[part] = [image for image in found if image is not None]
    # Images whose labels are in no list are in a note of `read_lists`.
    unlisted = {Path(stem).name for stem in set(files).difference(*parts.values())}
    spoken_for = frozenset(
        f for f in walk(root) if f.parent.name.lower() == MASKS_FOLDER or f.stem in unlisted
    )
    return Labels(labels, spoken_for=spoken_for)


def read_objects(file):
    """Read the objects of one XML file.

    Args:
        file: file name, `str` or `Path`.

    Returns:
        List of `(name, box)`: the class, and the box in pixels from the image's corner,
        `(x_min, y_min, x_max, y_max)`.

    Raises:
        InputError: for a file that is missing or no XML, or an object without a name or box.
    """
    objects = [read_object(*item, file) for item in enumerate(_objects(read_xml(file)), start=1)]
    for item in objects:
        if item.problem:
            raise InputError(f"{item.where}: {item.problem}")
    return [(item.kind, item.box) for item in objects]


def _label_files(root):
    """Dict from stem, relative to the folder of the labels, to XML file."""
    table = {}
    for file in walk(root, (".xml",)):
        stem = _stem(file, root)
        if stem in table:
            raise InputError(f"{table[stem]} and {file} label the same image: remove one")
        table[stem] = file
    return table


def _stem(file, root):
    """The path of a file in the folder of the labels, without its ending."""
    parts = relative(file, root).split("/")
    is_inside = len(parts) > 1 and parts[0].lower() in ANNOTATION_FOLDERS
    return "/".join(parts[is_inside:])[: -len(file.suffix)]


def _unwrapped(tree):
    """The only <annotation> of a file, which may stand in <annotations>; else the top element."""
    inside = tree.findall(ROOT_TAG) if tree.tag == WRAPPER_TAG else []
    return inside[0] if len(inside) == 1 else tree


def _objects(tree):
    return list(tree.iter("object"))  # whatever they are wrapped in


def _problem(tree):
    """Why a file does not say what is on its image, or None."""
    if tree.tag == WRAPPER_TAG and (number := len(tree.findall(ROOT_TAG))):
        return f"it has {number} <{ROOT_TAG}>; save each as a file of its own, named as its image"
    if tree.tag != ROOT_TAG:
        return f"its top element is <{tree.tag}>, where VOC has <{ROOT_TAG}>"
    objects = _objects(tree)
    inside = sum(len(list(item.iter("bndbox"))) for item in objects)
    if len(list(tree.iter("bndbox"))) > inside:
        return "it has a <bndbox> that is in no <object>"
    other = [child.tag for child in tree if len(child) and child.tag not in EMPTY_HAS]
    if not objects and other:
        return f"it has no <object>, but <{other[0]}>, which is not read"
    if not objects and tree.find("filename") is None and tree.find("size") is None:
        return "it has no <object>, nor <filename> or <size> of an image without objects"
    return None


def _read_xml(file, root, images, faults):
    try:
        tree = _unwrapped(read_xml(file))
        problem = _problem(tree)
    except InputError as error:
        faults.add(str(error))
        return None
    path = None
    if problem is None:
        path, problem = _find(file, tree, root, images, faults)
    if problem:
        faults.add(f"{file}: {problem}")
        return None
    objects = [read_object(*item, file) for item in enumerate(_objects(tree), start=1)]
    if masks := _masks_file(file, root):
        for number, item in enumerate(objects, start=1):
            item.outline = (masks, number)
    return LabelledImage(
        path, str(file), objects, size_of(tree.findtext("size/height"), tree.findtext("size/width"))
    )


def _masks_file(file, root):
    """The PNG of the masks of an XML file's objects, or None."""
    if file.parent == root:
        return None
    folders = (f for f in visible(file.parent.parent) if f.name.lower() == MASKS_FOLDER)
    paths = (folder / f"{file.stem}.png" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _find(file, tree, root, images, faults):
    """`(path of the image or None, what is wrong)`: by the XML file's name, or by <filename>."""
    folders, part = _image_folders(file, root), part_of_path(file, root)
    stem = _stem(file, root)
    path, problem = images.find(stem, folders, part, stem=False)  # x.jpg.xml is of x.jpg
    if path is None:
        path, problem = images.find(stem, folders, part, stem=True)
    filename = (tree.findtext("filename") or "").strip()
    if path is not None:
        named, _ = images.find(filename, [path.parent], part) if filename else (None, None)
        if named not in (None, path):
            faults.count(
                "XML file(s) have the name of one image and the <filename> of another, which is "
                "there too; the XML file's own name is what counts",
                f"{file} ({filename})",
            )
        return path, None
    folder = (tree.findtext("folder") or "").strip()
    for name in (f"{folder}/{filename}", filename) if filename else ():
        path, _ = images.find(name, folders, part)
        # Of several images of the XML file's name <filename> tells which; with none it counts.
        if path is not None and (path.stem == file.stem or ABSENT in problem):
            return path, None
    if ABSENT in problem:
        named = f" ({filename} in the file)" if filename else ""
        tried = " or ".join(str(folder) for folder in folders)
        return None, f"no image of the name {file.stem}{named} in {tried}"
    return None, problem


def _image_folders(file, root):
    """Folders in which the image of an XML file may be, the likeliest first."""
    folders = [file.parent]
    for parent in dict.fromkeys((file.parent.parent, root)):
        if parent == root or root in parent.parents:
            folders += [
                f for f in visible(parent) if f.name.lower() in IMAGE_FOLDERS and f.is_dir()
            ]
            folders.append(parent)
    return list(dict.fromkeys(folders))


def read_object(number, item, file):
    """`LabelledObject` of an element <object>, its box with edges counted from 0."""
    problem, box = _read_box(item)
    name = (item.findtext("name") or "").strip()
    difficult = read_flag(item.findtext("difficult"))
    if not name:
        problem = "no <name>"
    elif difficult is None:
        problem = f"<difficult> is {item.findtext('difficult')!r}; wanted 0 or 1"
    return LabelledObject(name, box, f"{file}, object {number}", bool(difficult), problem=problem)


def _read_box(item):
    """`(what is wrong or None, box)`."""
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
