"""COCO JSON.

    annotations*.json, result.json, …        one file, of which a share is set apart; or
    annotations/instances_train*.json and
    annotations/instances_val*.json          (also without the folder, `train.json`, `_test`); or
    a.json, b.json …                         a file for each image, beside it or in annotations/; or
    train/_annotations.coco.json and valid/, test/ as Roboflow exports them

Images lie in `images/`, in a folder named as the JSON file is after `instances_` (`train2017/`),
in one of that name in `images/`, beside the JSON file, or in the folder of the data set. Boxes
are `[x, y, width, height]` in pixels, counted from 0. Crowds (`iscrowd`) are ignored. Images
without an annotation are kept as images without objects.
"""

import os

from kerascv_d2l.data.layouts.files import (
    ImageFiles,
    files_by_part,
    image_folders,
    part_of,
    part_of_path,
    read_flag,
    read_json,
    size_of,
    visible,
)
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels
from kerascv_d2l.data.splits import DETECTION, first_of
from kerascv_d2l.errors import InputError

TITLE = "COCO JSON"
LOOKS = (
    "annotations.json (or result.json) and images/, annotations/instances_train*.json and "
    "instances_val*.json with images in folders of the same names, or train/, valid/ and test/ "
    "with _annotations.coco.json in each"
)
TASKS = (DETECTION,)
PREFIXES = ("instances", "annotations", "_annotations")
OTHERS = ("person_keypoints", "stuff", "panoptic", "captions")  # that come with COCO itself
ANNOTATION_FOLDERS = ("annotations", "annots", "labels", "json", "images")
KEYS = ("images", "annotations", "categories")
MOST_FILES = 50  # more JSON files in a folder than these are labels of one image each


def recognises(root):
    """Whether a folder has this layout."""
    return bool(_label_files(root))


def read(root, faults):
    """Read the labels, classes in the order of their ids."""
    parts = _by_part(_label_files(root), root)
    contents = {file: read_json(file, KEYS, "COCO") for _, file in parts}
    names, supers = {}, {}
    for _, file in parts:
        _read_categories(contents[file]["categories"], file, names, supers)
    found, labels = ImageFiles(root, faults), {}
    for part, file in parts:
        folders = image_folders(file, root, part)
        images = _read_images(contents[file], file, part, folders, faults, names, found)
        labels.setdefault(part, []).extend(images)
    used = {item.kind for part in labels.values() for image in part for item in image.objects}
    return Labels(labels, _class_names(names, supers, used, faults))


def _label_files(root):
    """The JSON files of all parts: by their names or, where none has one, by what is in them."""
    inside = _folders(root)
    found = []
    for folder in (root, *inside, *(deep for one in inside for deep in _folders(one))):
        files = [file for file in visible(folder) if file.suffix.lower() == ".json"]
        # Of very many, look into one: labelme's, too, are one for each image.
        if len(files) <= MOST_FILES or _looks_like_coco(files[0]):
            found += files
    found = [f for f in found if f.stem.lower().startswith(PREFIXES) or _looks_like_coco(f)]
    return [file for file in found if not file.stem.lower().startswith(OTHERS)] or found


def _folders(folder):
    """The folders in a folder that may have label files."""
    return [
        child
        for child in visible(folder)
        if (child.name.lower() in ANNOTATION_FOLDERS or part_of(child.name)) and child.is_dir()
    ]


def _by_part(files, root):
    """List of `(part, file)`; the folder tells it, where there is a file for each image."""
    named = {part_of_path(file, root, own_name=True) for file in files}
    if len(named) < len(files) and all(map(_is_of_one_image, files)):
        return [(part_of_path(file, root), file) for file in files]
    return list(files_by_part(files, root).items())


def _is_of_one_image(file):
    """Whether a file has but the image that it is named after."""
    try:
        (image,) = read_json(file, KEYS, "COCO")["images"]
        name = image["file_name"].replace("\\", "/").rpartition("/")[2]
    except (InputError, ValueError, TypeError, KeyError, AttributeError):
        return False
    return file.stem.casefold() in (name.casefold(), os.path.splitext(name)[0].casefold())


def _looks_like_coco(file):
    content = file.read_bytes()
    return all(f'"{key}"'.encode() in content for key in KEYS)


def _read_categories(categories, file, names, supers):
    """Add the categories of a file to `names` (id -> name) and `supers` (id -> supercategory)."""
    for number, entry in enumerate(categories):
        if not isinstance(entry, dict) or _id(entry, "id") is None or "name" not in entry:
            raise InputError(f"{file}, categories[{number}]: no id or no name: {entry}")
        key = _id(entry, "id")
        known = names.setdefault(key, str(entry["name"]))
        if known != str(entry["name"]):
            raise InputError(
                f"{file}, categories[{number}]: id {entry['id']} is {entry['name']!r}, "
                f"but stands for {known!r} already"
            )
        supers[key] = str(entry.get("supercategory"))


def _class_names(names, supers, used, faults):
    """Names by id, without the unused ones that are but the parents of others (Roboflow's 0)."""
    kept = []
    for number in sorted(names, key=_order):
        name = names[number]
        children = {other for other in names if supers[other] == name and names[other] != name}
        if name not in used and children:
            faults.notes.append(
                f"category {number} ({name}) has no object and is the supercategory of others: no "
                "class"
            )
        else:
            kept.append(number)
    same = {}
    for number in kept:
        same.setdefault(names[number], []).append(number)
    for name, numbers in same.items():
        if len(numbers) > 1:
            faults.notes.append(
                f"{len(numbers)} categories ({first_of(numbers)}) are named {name!r}: read as one "
                "class"
            )
    return list(same)


def _read_images(content, file, part, folders, faults, names, found):
    """List of `LabelledImage` of a file."""
    entries, twice = {}, set()
    for number, entry in enumerate(content["images"]):
        where = f"{file}, images[{number}]"
        if not (
            isinstance(entry, dict)
            and _id(entry, "id") is not None
            and isinstance(entry.get("file_name"), str)
        ):
            faults.add(f"{where}: no id or no file_name: {entry}")
        elif (key := _id(entry, "id")) in entries:
            faults.add(f"{where} ({entry['file_name']}): the id {key} is given twice")
            twice.add(key)
        else:
            entries[key] = where, entry
    for key in twice:  # whose annotations are they?
        where, entry = entries[key]
        faults.reasons.append(f"{where} ({entry['file_name']}): the id {key} is given twice")
    objects = _read_annotations(content["annotations"], file, faults, entries, names)
    images = []
    for key, (where, entry) in entries.items():
        if key in twice:
            continue
        where = f"{where} (id {key})"
        path, problem = found.find(entry["file_name"], folders, part)
        if problem:
            faults.add(f"{where}: {problem}")
            continue
        stated = size_of(entry.get("height"), entry.get("width"))
        images.append(LabelledImage(path, where, objects[key], stated))
    return images


def _read_annotations(annotations, file, faults, entries, names):
    """Dict from the id of an image to its list of `LabelledObject`."""
    objects = {key: [] for key in entries}
    for number, entry in enumerate(annotations):
        where = f"{file}, annotations[{number}]"
        if not isinstance(entry, dict):
            faults.add(f"{where}: not an annotation: {entry!r}")
            continue
        if "id" in entry:
            where += f" (id {entry['id']})"
        key = _id(entry, "image_id")
        if key not in objects:
            faults.add(f"{where}: image_id {entry.get('image_id')!r} names no image")
            continue
        problem = _problem(entry, names)
        item = LabelledObject("", None, where, problem=problem)
        if not problem:
            x, y, width, height = map(float, entry["bbox"])
            item.kind, item.box = names[_id(entry, "category_id")], (x, y, x + width, y + height)
            item.ignore = bool(read_flag(entry.get("iscrowd")) or read_flag(entry.get("ignore")))
            item.outline = entry.get("segmentation")
        objects[key].append(item)
    return objects


def _problem(entry, names):
    """What is wrong with an annotation, or None."""
    if _id(entry, "category_id") not in names:
        return f"unknown class: category_id {entry.get('category_id')!r} is in no category"
    box = entry.get("bbox")
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) and not abs(value) > 1e300 for value in box)
    ):
        return f"bbox is not four numbers [x, y, width, height]: {box!r}"
    for flag in ("iscrowd", "ignore"):
        if read_flag(entry.get(flag)) is None:
            return f"{flag} is {entry[flag]!r}; wanted 0 or 1"
    return None


def _id(entry, name):
    """An id as text, for some tools write 7, others 7.0 or "7"; None for what is none."""
    value = entry.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int | str) else None


def _order(key):
    """Sort ids as numbers, before those that are none."""
    is_number = key.removeprefix("-").isdecimal()
    return (0, int(key), "") if is_number else (1, 0, key)
