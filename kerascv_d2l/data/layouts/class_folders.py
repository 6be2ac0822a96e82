"""Folders of classes: every image lies in a folder that has the name of its class.

    train/CLASS/IMAGE  val/CLASS/IMAGE   and perhaps test/CLASS/IMAGE
    CLASS/IMAGE                          a share of each class is set apart; or train.txt and
                                         val.txt (test.txt) beside the classes name the images of
                                         each part, `CLASS/IMAGE`, one a line

The folders of parts may also be called training, valid, validation or testing. Where there is no
`val`, `test` is what is validated on. Images in `test/unknown` are those to predict: no labels.
A class may be called as a folder of another layout, such as `masks`, where there are others beside
it.
"""

import re

from kerascv_d2l.data.layouts import masks
from kerascv_d2l.data.layouts.files import (
    ALL,
    IMAGE_ENDINGS,
    TEST,
    TRAIN,
    VAL,
    listing,
    part_of,
    visible,
)
from kerascv_d2l.data.layouts.records import LabelledImage, Labels
from kerascv_d2l.data.splits import CLASSIFICATION, first_of
from kerascv_d2l.errors import InputError

UNKNOWN = "unknown"  # the book's only folder of test images whose classes Kaggle keeps
TITLE = "class folders"
LOOKS = (
    "train/CLASS/IMAGE and val/CLASS/IMAGE (or valid/, test/), or CLASS/IMAGE for at least two "
    "classes"
)
TASKS = (CLASSIFICATION,)
# `train`, `valid`, `test_set`; but not `test tubes`, which is a class.
_PART = re.compile(r"(train(ing)?|val(id(ation)?)?|test(ing)?)([ _-]?(set|data|images))?", re.I)
# Folders that other layouts have: by themselves they are no classes.
_OF_OTHER_LAYOUTS = (
    *("images", "masks", "labels", "annotations", "annots"),
    *("imagesets", "jpegimages", "segmentationclass", "segmentationobject"),
)


def recognises(root):
    """Whether there are folders of classes in `root` or in its folder `train`."""
    parts = _parts(root)
    if TRAIN in parts:
        return True
    classes = [folder for folder in _folders(root) if _has_image(folder)]
    return len(classes) >= 2 or bool(classes and _called_otherwise([root]))


def read(root, faults):
    """Read which image is of which class; classes are sorted by name.

    Raises:
        InputError: for a class that is not trained on, fewer than two classes, a class without
            an image (but for those to validate on), and what lies where no image belongs; names it.
    """
    parts = _parts(root)
    if TRAIN in parts:
        _check_rest(root, parts, faults)
    else:
        parts = {ALL: root}
    names = {part: {folder.name for folder in _folders(parts[part])} for part in parts}
    to_predict = None
    if names.pop(TEST, None) == {UNKNOWN} and UNKNOWN not in set().union(*names.values()):
        to_predict = parts.pop(TEST)
    if VAL not in parts and TEST in parts:
        parts[VAL] = parts.pop(TEST)
        faults.notes.append(f"{parts[VAL].name}/ is what is validated on")
    more = _called_otherwise(parts.values())
    found = {part: _class_folders(folder, more, faults) for part, folder in parts.items()}
    if VAL in found:  # where a rare class may have no image
        found[VAL] = {name: folder for name, folder in found[VAL].items() if visible(folder)}
    class_names = _common_classes(parts, found, faults)
    images = {
        part: [
            LabelledImage(file, str(folders[name].parent), label=label)
            for label, name in enumerate(class_names)
            if name in folders
            for file in _files(folders[name], faults)
        ]
        for part, folders in found.items()
    }
    if to_predict:
        files = _files(to_predict / UNKNOWN, faults)
        images[TEST] = [LabelledImage(file, str(to_predict)) for file in files]
    return Labels(images, class_names, _target)


def _target(image, info):
    return ({} if image.label is None else {"label": image.label}), []


def _is_image(path):
    return path.suffix.lower() in IMAGE_ENDINGS


def _has_image(folder):
    return any(map(_is_image, visible(folder)))


def _is_of_other_layout(folder):
    return folder.name.lower() in _OF_OTHER_LAYOUTS


def _folders(root):
    """The folders of classes, and of parts, that cannot be anything else."""
    return [c for c in visible(root) if c.is_dir() and not _is_of_other_layout(c)]


def _called_otherwise(roots):
    """Classes that are called as folders of other layouts, in folders of classes."""
    found = [c for root in roots for c in visible(root) if c.is_dir() and _is_of_other_layout(c)]
    found = [folder for folder in found if _has_image(folder)]
    classes = {folder.name for root in roots for folder in _folders(root)}
    # Beside a single other folder they may be the masks of its images.
    if len(classes) < 2 and found and any(map(masks.recognises, roots)):
        return []
    return found


def _parts(root):
    """dict from part to folder, of the folders that hold folders of classes."""
    parts = {}
    for folder in _folders(root):
        if _PART.fullmatch(folder.name) and _folders(folder):
            part = part_of(folder.name)
            if part in parts:
                raise InputError(
                    f"{root}: both {parts[part].name}/ and {folder.name}/ may be the {part} part: "
                    "rename or remove one"
                )
            parts[part] = folder
    return parts


def _check_rest(root, parts, faults):
    """See what else there is beside `train`."""
    rest = [folder for folder in _folders(root) if folder not in parts.values()]
    unlabelled = [folder for folder in rest if _PART.fullmatch(folder.name)]
    for folder in unlabelled:
        faults.notes.append(f"{folder.name}/ is not read: it has no folders of classes")
    if set(parts) == {TRAIN} and rest != unlabelled:
        raise InputError(
            f"{root}: {parts[TRAIN].name}/ is there, but neither val/ nor test/ to validate on. "
            f"It holds {listing(root)}"
        )


def _class_folders(folder, more, faults):
    """dict from the name of a class to its folder; images beside them are faults.

    `more`: `_called_otherwise`.
    """
    for child in visible(folder):
        if not child.is_dir() and _is_image(child):
            faults.add(f"{child}: an image beside the folders of classes; its class is unknown")
        elif child.is_dir() and _is_of_other_layout(child) and child not in more:
            faults.notes.append(f"{child}/ is not read: that name is of other layouts")
    return {
        child.name: child
        for child in sorted([*_folders(folder), *more], key=str)
        if child.parent == folder
    }


def _common_classes(parts, found, faults):
    """Names of the classes: those to train on. There must be no others to validate on."""
    main = found[ALL if ALL in found else TRAIN]
    names = sorted(main)
    if len(names) < 2:
        raise InputError(
            f"{parts[ALL if ALL in found else TRAIN]}: {len(names)} class folder(s) "
            f"({first_of(names)}); a classifier needs at least 2"
        )
    for part, folders in found.items():
        if unknown := sorted(set(folders) - set(main)):
            raise InputError(
                f"{parts[TRAIN]}: no folder for {first_of(unknown)}, which {parts[part]} has. "
                f"It has {first_of(names)}: is it another spelling?"
            )
        if part == VAL and (absent := sorted(set(main) - set(folders))):
            faults.notes.append(
                f"{parts[VAL].name}/ has no image of {first_of(absent)}: nothing is measured for it"
            )
    return names


def _files(folder, faults):
    """The files of a class."""
    files = []
    for child in visible(folder):
        if child.is_dir():
            faults.add(f"{child}: a folder among the images of a class")
        else:
            files.append(child)
    if not files:
        raise InputError(f"{folder}: no image")
    return files
