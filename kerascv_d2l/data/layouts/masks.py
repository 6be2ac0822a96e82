"""Images, and for each a mask: a class for every pixel.

    images/a.jpg  masks/a.png         also train/images/a.jpg and train/masks/a.png, or
                                      images/train/a.jpg and masks/train/a.png, in folders or not
    a.jpg  a_mask.png                 beside each other; also mask_a.png, and image_a.jpg with it
    masks/a/1.png, 2.png …            one file for each instance; or a_mask_1.png; or, with one
                                      image in a folder images/, all files in masks/ beside it
    JPEGImages/  SegmentationClass/   Pascal VOC 2012
    train.txt, val.txt                names, one a line, with or without ending (in VOC in
                                      ImageSets/Segmentation); else the folders say the part, or
                                      a share of the images is set apart
    classes.txt                       for masks of class indices (grey or palette PNG): line k,
                                      counted from 0, is the name of class k, or `R G B name` with
                                      the colour to draw it in
    palette.txt                       for masks in colours: lines `R G B name`, 0-255

At most one of the two lists of classes is there. Without either, masks are class indices and the
classes are called after them; but 0 and 255 by themselves are background and foreground. Index
255, and a class named void or ignore (several colours may be), are ignored. In both lists blank
lines and lines that begin with # are passed over.
"""

import os
import re
import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l.data.layouts.files import (
    ALL,
    OTHER_CASE,
    TEST,
    TRAIN,
    part_of_path,
    read_lists,
    walk,
)
from kerascv_d2l.data.layouts.mask_classes import (
    leave_out,
    read_classes,
    read_instance,
    read_labels,
)
from kerascv_d2l.data.layouts.records import Faults, LabelledImage, Labels
from kerascv_d2l.data.splits import SEGMENTATION, encode_mask, first_of
from kerascv_d2l.errors import InputError

TITLE = "images and masks"
LOOKS = (
    "images/NAME.jpg and masks/NAME.png; train/images/ and train/masks/; NAME.jpg and "
    "NAME_mask.png; or VOC's JPEGImages/ and SegmentationClass/"
)
TASKS = (SEGMENTATION,)

IMAGE, MASK = "image", "mask"
NAME, FOLDER = "name", "folder"  # how the image of a mask is found
# What the names of folders say: `masks`, `train_masks`, `trainannot` hold masks.
_FOLDERS = {
    IMAGE: re.compile(r"(|.*[ _-]|train|val|valid|test)(jpeg)?(images?|imgs?)", re.I),
    MASK: re.compile(
        r"(|.*[ _-]|train|val|valid|test)"
        r"(masks?|segmentationclass|labels?|annot(ation)?s?|ground[ _-]?truth|gt)",
        re.I,
    ),
}
OTHER_FOLDERS = ("segmentationobject",)  # VOC's instances
# What the name of a mask has behind that of its image (with a number where there are several), or
# before it; and the name of an image beside that of an object.
_MASK_WORD, _IMAGE_WORD = "masks?|seg|segmentation|labels?|gt", "image|img|im|photo"
_MASK_SUFFIX = re.compile(rf"(.+?)[ _.-]({_MASK_WORD})([ _-]?\d+)?", re.I)
_MASK_PREFIX = re.compile(rf"({_MASK_WORD})([ _.-]|(?=\d))(.+)", re.I)
_IMAGE_NAME = re.compile(
    rf"({_IMAGE_WORD})([ _.-]|(?=\d))(?P<before>.+)|(?P<behind>.+?)[ _.-]({_IMAGE_WORD})", re.I
)


def recognises(root):
    """Whether any image file in `root` is, by its name or folder, a mask of another."""
    _, masks, _ = find(root, Faults())
    return bool(masks)


def read(root, faults, classes=None, ignore=()):
    """Read which image has which mask, and what the pixels of masks stand for.

    Args:
        root: as for every layout.
        faults: as for every layout.
        classes: names of the classes with the indices 0, 1, …, instead of `classes.txt`; one
            that is named void or ignore is ignored.
        ignore: what is ignored, by index in the masks (of a class, or of none) or by a class's
            name, beside index 255. The other classes move up.

    Returns:
        `Labels`.

    Raises:
        InputError: for an image without a mask or a mask without an image, unless `faults`
            skips it; a bad line in a list; indices that cannot be class numbers.
    """
    images, masks, (orphans, elsewhere, twice) = find(root, faults)
    if twice:
        raise InputError(
            f"{twice[0][0]}: {twice[0][1].name} is there too, and names without their endings "
            "must differ (of masks, unless they have numbers): rename or remove one"
        )
    voc = any("segmentationclass" in map(str.lower, m.parts) for ms in masks.values() for m in ms)
    if elsewhere:
        faults.notes.append(
            f"{len(elsewhere)} image(s) outside the folder of images are not read: "
            f"{first_of((file.relative_to(root) for file in elsewhere), 3)}"
        )
    inside = _common_folder(root, images, masks)  # below `root`, where that holds other things too
    places = (".", inside, inside / "ImageSets" / "Segmentation")
    listed = read_lists(root, places, list(images), faults, "image")
    for file in orphans if listed is None else ():
        faults.add(f"{file}: no image for this mask: add it, or take the mask out")
    if voc and listed is None:  # most of VOC's images have no mask
        images = {key: file for key, file in images.items() if key in masks}
    parts = listed or _by_folder(root, images)
    parts = {part: _with_masks(part, keys, images, masks, faults) for part, keys in parts.items()}
    # Numbers beyond those in the training masks are faults of the others.
    learned = [
        mask
        for part in (ALL, TRAIN)
        for key in parts.get(part, ())
        for mask in masks[key]
        if classes is not None or _same_size(images[key], mask)  # others are faults, too
    ]
    several = any(len(files) > 1 for files in masks.values())
    table = read_classes((root, inside), voc, classes, learned, ignore, several, faults)
    leave_out(table, ignore)
    return Labels(
        {
            part: [LabelledImage(images[key], str(images[key]), label=masks[key]) for key in keys]
            for part, keys in parts.items()
        },
        table.names,
        lambda image, info: _targets(image, info, table, several),
        table.colors,
        table.where if classes is not None or table.where.endswith(".txt") else None,
    )


# ---------------------------------------------------------------- files


def find(root, faults):
    """Tell images and masks apart: `(images, masks, others)`.

    That is a dict from key to the file of an image; one from key to the files of its masks; and
    three lists: masks without an image, images elsewhere, and pairs of images of one key.
    """
    files = [
        file for file in walk(root) if not set(OTHER_FOLDERS) & set(map(str.lower, file.parts))
    ]
    named = {file: _mask_name(file.stem) for file in files}
    stems = {(f.parent, stem) for f in files for stem in (f.stem, None if named[f] else _bare(f))}
    beside = any(found and (file.parent, found[0]) in stems for file, found in named.items())
    found = {IMAGE: {}, MASK: {}, None: {}}  # role -> file -> key
    for file in files:
        role, key = place(root, file)
        found[MASK if role is None and beside and named[file] else role][file] = key
    images, twice = {}, []
    for file, key in (found[IMAGE] or found[None]).items():
        if key in images:
            twice.append((file, images[key]))
        images[key] = file
    masks, orphans, whole = {}, [], {}
    tables = _tables(images)
    for file, key in found[MASK].items():
        image, how = _image_of(key, named[file], images, tables)
        if image is None:
            orphans.append(file)
        else:
            masks.setdefault(image, []).append(file)
            if how == OTHER_CASE:
                faults.count(OTHER_CASE, f"{file.name} ({images[image].name})")
            # Of masks of instances there are several: they have a number, or a folder.
            numbered = named[file] and named[file][1]
            if how != FOLDER and not numbered and whole.setdefault(image, file) != file:
                twice.append((file, whole[image]))
    if not masks:  # one side is in folders, the other is not
        stems = [key.rpartition("/")[2] for key in images]
        known = dict(zip(stems, images, strict=True)) if len(set(stems)) == len(stems) else {}
        for file in [file for file in orphans if file.stem in known]:
            masks.setdefault(known[file.stem], []).append(file)
        if max(map(len, masks.values()), default=1) > 1:
            masks = {}
        orphans = [file for file in orphans if not masks or file.stem not in known]
    return images, masks, (orphans, list(found[None]) if found[IMAGE] else [], twice)


def place(root, file):
    """Tell by its folders what a file is, `IMAGE`, `MASK` or None, and its key.

    A key is the path without ending and that folder.
    """
    # Macs decompose accents in the names of files.
    name = unicodedata.normalize("NFC", str(file.relative_to(root).with_suffix("")))
    parts = list(Path(name).parts)
    for k in range(len(parts) - 2, -1, -1):
        for role, pattern in _FOLDERS.items():
            if match := pattern.fullmatch(parts[k]):
                parts[k] = match[1].strip(" _-")  # `train` of `train_masks`
                return role, "/".join(filter(None, parts))
    return None, "/".join(parts)


def _mask_name(stem):
    """`(name of the image, number or None)` that the name of a mask says, or None."""
    if match := _MASK_SUFFIX.fullmatch(stem):
        return match[1], match[3]
    match = _MASK_PREFIX.fullmatch(stem)
    return match and (match[3], None)


def _bare(name):
    """The name of an image without `image_` or the like; of a key without folders, of a `Path`."""
    stem = name.stem if isinstance(name, Path) else name
    match = _IMAGE_NAME.fullmatch(stem)
    return match["before"] or match["behind"] if match else stem


def _tables(images):
    """What to look images up by: dicts to lists of keys, by bare name, in lower case, by folder."""
    bare, lower, inside = {}, {}, {}
    for key in images:
        folder, _, stem = key.rpartition("/")
        bare.setdefault((folder, _bare(stem)), []).append(key)
        lower.setdefault((folder.casefold(), stem.casefold()), []).append(key)
        inside.setdefault(folder, []).append(key)
    return bare, lower, inside


def _image_of(key, named, images, tables):
    """`(key of the image that a mask belongs to, how it was found)`; `(None, None)` for none.

    `named` is what `_mask_name` says of the mask's name.
    """
    folder, _, stem = key.rpartition("/")
    bare, lower, inside = tables
    stems = [stem, *([named[0]] if named else [])]
    for candidate in stems:
        if (other := f"{folder}/{candidate}" if folder else candidate) in images:
            return other, NAME
    if folder in images:
        return folder, FOLDER
    several = [(bare.get((folder, candidate), ()), NAME) for candidate in stems]
    several += [
        (lower.get((folder.casefold(), candidate.casefold()), ()), OTHER_CASE)
        for candidate in stems
    ]
    several.append((inside.get(folder, ()) if folder else (), FOLDER))
    return next(((found[0], how) for found, how in several if len(found) == 1), (None, None))


def _common_folder(root, images, masks):
    """The innermost folder in `root` that holds all folders of images and masks."""
    files = [*images.values(), *(file for several in masks.values() for file in several)]
    folders = [root if file.parent == root else file.parent.parent for file in files]
    return Path(os.path.commonpath(folders))


def _by_folder(root, images):
    parts = {}
    for key, file in images.items():
        parts.setdefault(part_of_path(file, root), []).append(key)
    return parts


def _with_masks(part, keys, images, masks, faults):
    """The keys of a part that have a mask; the others are faults."""
    found = [key for key in keys if key in masks]
    if part == TEST and not found:
        faults.notes.append(f"the {len(keys)} image(s) of the test part have no masks: not read")
        return []
    for key in keys:
        if key not in masks:
            faults.add(
                f"{images[key]}: no mask for this image: add it, or take the image out of the "
                "list or folder"
            )
    return found


def _same_size(image, mask):
    """Whether a mask has as many pixels as its image, also on its side; True where one is bad."""
    try:
        with Image.open(image) as one, Image.open(mask) as other:  # reads no more than the headers
            return sorted(one.size) == sorted(other.size)
    except Exception:  # Pillow's of any kind: named when the file itself is read
        return True


def _targets(image, info, table, several):
    """`(targets, problems)` of an image, as `Labels.targets`."""
    try:
        masks = []
        for file in image.label:
            mask = read_instance(file) if several else read_labels(file, table)
            if mask.shape != (info.height, info.width):
                raise InputError(
                    f"{file}: the mask is {mask.shape[0]} x {mask.shape[1]} pixels (height x "
                    f"width), its image {image.path.name} {info.height} x {info.width}: a mask "
                    "needs a class for each pixel of the upright image. Make it anew, or resize "
                    "it without interpolation"
                )
            masks.append(mask)
    except InputError as error:
        return None, [str(error)]
    mask = np.maximum.reduce(masks)  # of instances: where any of them is
    if several:
        mask = table.by_index[mask].astype(np.uint8)
    return {"mask": encode_mask(mask)}, []
