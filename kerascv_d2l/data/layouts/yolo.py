"""YOLO: a text file of boxes or polygons for each image.

    data.yaml                     train: images/train, val: images/val, (test: …,) names: […]
    images/train/a.jpg            (or train/images/a.jpg, or images and labels in one folder)
    labels/train/a.txt            lines `class x y width height`, or `class x y x y x y …`

Numbers are shares of the image from 0 to 1, (x, y) the centre of a box. Without `data.yaml` the
parts are told by the folders, and the names by `classes.txt` (or `obj.names`); without that,
classes are called by their numbers. An image without a label file has no object. What `data.yaml`
names may lie outside its folder; labels are then in a folder labels/ instead of images/, or beside
the images.
"""

import os
from pathlib import Path

import yaml

from kerascv_d2l.data.layouts.files import (
    ALL,
    OTHER_CASE,
    TEST,
    TRAIN,
    VAL,
    ImageFiles,
    is_inside,
    part_of_path,
    read_lines,
    read_text,
    relative,
    visible,
    walk,
)
from kerascv_d2l.data.layouts.records import LabelledImage, LabelledObject, Labels, hull
from kerascv_d2l.data.splits import DETECTION, first_of
from kerascv_d2l.errors import InputError

TITLE = "YOLO"
LOOKS = "data.yaml, images/ and labels/ with a .txt file for each image (or train/images/, …)"
TASKS = (DETECTION,)
NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
IMAGE_FOLDERS, LABEL_FOLDER = ("images", "jpegimages"), "labels"
MIN_NUMBERS = 5  # of a line of labels
NOTHING = (None, "", "null", "~")
PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "test": TEST}


def recognises(root):
    """Whether a folder has this layout."""
    if _config_file(root) is not None:
        return True
    texts = _texts(root)
    for image in walk(root) if texts else ():
        file = _label_file(image, root, texts)
        if file is not None:
            lines = read_lines(file)
            return not lines or _numbers(lines[0]) is not None
    return False


def read(root, faults):
    """Read the labels, classes in the order of their numbers."""
    file = _config_file(root)
    config = {} if file is None else _config(file)
    names = _names(config, file, root)
    parts = _images_by_part(config, file, root, faults) or {}
    if not parts:
        for image in walk(root):
            parts.setdefault(part_of_path(image, root), []).append(image)
    outside = _folders_outside(parts, root)
    owners, labels, missing, texts = {}, {}, [], _texts(root, outside)
    for part, images in parts.items():
        labels[part] = []
        for image in images:
            label_file = _label_file(image, root, texts)
            if label_file is None:
                missing.append(image.name)
            elif _differ(owners.setdefault(label_file, image), image):
                faults.add(f"{label_file}: is it of {owners[label_file]} or of {image}?")
                labels[part] = [i for i in labels[part] if i.path != owners[label_file]]
                continue
            elif label_file.stem != image.stem:
                faults.count(OTHER_CASE, f"{label_file.name} ({image.name})")
            objects = [] if label_file is None else _read_objects(label_file, names)
            labels[part].append(LabelledImage(image, str(label_file or image), objects))
    if names is None:
        faults.notes.append(
            f"nothing names the classes (data.yaml in {root}, or {NAME_FILES[0]}): they are called "
            "by their numbers"
        )
    images = [*walk(root), *(file for folder in outside for file in walk(folder))]
    _check_files(owners, missing, images, root, texts, faults)
    return Labels(labels, None if names is None else [names[k] for k in sorted(names)])


def _differ(one, other):
    return one != other and os.path.realpath(one) != os.path.realpath(other)


def _folders_outside(parts, root):
    """Folders of images that are not in the data set's own folder."""
    images = (image for part in parts.values() for image in part)
    return sorted({image.parent for image in images if not is_inside(image, root)})


def _check_files(owners, missing, images, root, texts, faults):
    folders = {file.parent for file in owners}
    unused = {f for folder in folders for f in visible(folder) if f.suffix.lower() == ".txt"}
    if unused := unused - set(owners):  # some may be of images that no part has
        unused -= {_label_file(image, root, texts) for image in images}
    for file in sorted(file for file in unused if file.name not in NAME_FILES):
        if any(len(_numbers(line) or ()) >= MIN_NUMBERS for line in read_lines(file)[:1]):
            faults.add(f"{file}: there is no image for these labels")
    if missing:
        faults.notes.append(
            f"{len(missing)} image(s) have no label file, and so no object: {first_of(missing, 3)}"
        )


def _config_file(root):
    files = [file for file in visible(root) if file.suffix.lower() in (".yaml", ".yml")]
    files = [file for file in files if "names" in read_text(file)]
    named = [file for file in files if file.stem.lower() == "data"]
    if len(named or files) > 1:
        raise InputError(f"{root}: which file is to be read, {first_of(f.name for f in files)}?")
    return next(iter(named or files), None)


def _config(file):
    try:
        config = yaml.load(read_text(file), yaml.BaseLoader)  # a class `no` is no `False`
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{file}: not YAML ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("names"), list | dict):
        raise InputError(f"{file}: no `names` of classes, a list or a table from number to name")
    if "kpt_shape" in config:
        raise InputError(f"{file}: labels of keypoints, where boxes or polygons are wanted")
    return config


def _names(config, file, root):
    """Dict from number to name of the classes, or None if nothing names them."""
    if config:
        names = config["names"]
        names = names if isinstance(names, dict) else dict(enumerate(names))
        if str(config.get("nc", len(names))) != str(len(names)):
            raise InputError(f"{file}: nc is {config['nc']}, but there are {len(names)} names")
        try:
            return {int(number): str(name) for number, name in names.items()}
        except ValueError as error:
            raise InputError(f"{file}: the numbers of names are {first_of(names)}") from error
    endings = tuple({os.path.splitext(name)[1] for name in NAME_FILES})
    found = {f: _listed_names(f) for f in walk(root, endings) if f.name.lower() in NAME_FILES}
    for other, names in found.items():
        if names != next(iter(found.values())):
            raise InputError(
                f"{next(iter(found))} and {other} name the classes differently: keep the right one"
            )
    return next(iter(found.values()), None)


def _listed_names(file):
    """Dict from number to name, line k, counted from 0, being the name of class k."""
    lines = read_text(file).strip().splitlines()
    if "" in (names := [line.strip() for line in lines]):
        raise InputError(f"{file}, line {names.index('') + 1}: empty, where a class is named")
    return dict(enumerate(names))


def _images_by_part(config, file, root, faults):
    """Dict from part to image files that `data.yaml` names; empty without any."""
    parts = {}
    for key in PARTS:
        entries = config.get(key)
        entries = entries if isinstance(entries, list) else [entries]
        for entry in (entry for entry in entries if entry not in NOTHING):
            place = _place(str(entry), str(config.get("path") or ""), root)
            if place is None:
                if key == "test":  # often written down and left out
                    continue
                raise InputError(f"{file}: {key} is {entry}, and there is no such file or folder")
            images = walk(place) if place.is_dir() else _listed(place, root, faults)
            parts.setdefault(PARTS[key], []).extend(images)
    _leave_out_repeated(parts, file, faults)
    return {ALL if set(parts) == {TRAIN} else part: images for part, images in parts.items()}


def _leave_out_repeated(parts, file, faults):
    """Take images once that are named for two parts, as small examples of YOLO have them."""
    files = {part: set(images) for part, images in parts.items()}
    if files.get(VAL) and files[VAL] == files.get(TRAIN):
        del parts[VAL]
        faults.notes.append(
            f"{file}: train and val are the same images, so a share of them is set apart to "
            "validate on. Name other images for val if you have some"
        )
    for other in (TRAIN, VAL):
        if TEST in parts and files[TEST] == files.get(other):
            del parts[TEST]
            faults.notes.append(f"{file}: test and {other} are the same images; there is no test")


def _place(entry, base, root):
    """The folder or list that an entry of `data.yaml` means, inside the data set if it is there."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    inside = [root.joinpath(*parts[first:]) for first in range(len(parts))]
    for place in inside:
        if place.exists():
            return place
    place = root / base / entry
    return _resolved(place, root) if place.exists() else None


def _resolved(path, root):
    """A path without `..`, relative if that of `root` is."""
    path = os.path.realpath(path)
    return Path(path if root.is_absolute() else os.path.relpath(path))


def _listed(file, root, faults):
    root = root if is_inside(file, root) else file.parent
    found, images = ImageFiles(root, faults), []
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            path, problem = found.find(line.strip(), (file.parent, root))
            if problem and (other := file.parent / line.strip()).is_file():
                images.append(_resolved(other, root))
            elif problem:
                faults.add(f"{file}, line {number}: {problem}")
            else:
                images.append(path)
    return images


def _texts(root, outside=()):
    """Dict from path to `Path` of all text files; also in lower case, where that is of one.

    `outside`: folders of images elsewhere, whose text files are given, too.
    """
    files = walk(root, (".txt",))
    for folder in outside:
        parts = str(folder).split(os.sep)
        for place in map(os.sep.join, [parts, *_instead_of_images(parts)]):
            files += walk(Path(place), (".txt",)) if os.path.isdir(place) else []
    exact, lower = {str(file): file for file in files}, {}
    for path, file in exact.items():
        lower.setdefault(path.lower(), []).append(file)
    return {path: files[0] for path, files in lower.items() if len(files) == 1} | exact


def _label_file(image, root, texts):
    """The label file of an image, or None; `texts`: dict from path to `Path` of all."""
    if is_inside(image, root):
        parts = os.path.splitext(relative(image, root))[0].split("/")
        places = [parts, [LABEL_FOLDER, *parts], *_instead_of_images(parts[:-1], parts[-1:])]
        base = "" if str(root) == "." else root
        names = [os.path.join(base, *place) + ".txt" for place in reversed(places)]
    else:
        parts = os.path.splitext(str(image))[0].split(os.sep)
        places = [parts, *_instead_of_images(parts[:-1], parts[-1:])]
        names = [os.sep.join(place) + ".txt" for place in reversed(places)]
    return next(filter(None, map(texts.get, [*names, *map(str.lower, names)])), None)


def _instead_of_images(folders, name=()):
    """Paths, as lists, with the folder of labels in the place of each folder of images."""
    return [
        [*folders[:i], LABEL_FOLDER, *folders[i + 1 :], *name]
        for i, folder in enumerate(folders)
        if folder.lower() in IMAGE_FOLDERS
    ]


def _numbers(line):
    try:
        return [float(field) for field in line.split()]
    except ValueError:
        return None


def _read_objects(file, names):
    objects = []
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            item = LabelledObject(0, None, f"{file}, line {number}", shares=True)
            item.problem = _read_line(line, item, names)
            objects.append(item)
    return objects


def _read_line(line, item, names):
    """Fill in an object; returns what is wrong with the line, or None."""
    values = _numbers(line)
    if values is None or len(values) < MIN_NUMBERS or len(values) % 2 == 0:
        return f"{line.strip()!r} is not `class x y width height` or `class x y x y x y …`"
    kind, *values = values
    if not kind.is_integer() or kind < 0:
        return f"the class is {kind:g}; wanted a whole number from 0 on"
    item.kind = int(kind) if names is None else names.get(int(kind), int(kind))
    if len(values) == 4:
        x, y, width, height = values
        item.box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        item.box, item.outline = hull(values), [values]
    return None
