"""Images, and for each a PNG of every instance, or one of the instances' numbers.

    ID/images/ID.png  ID/masks/*.png   as in Kaggle's nuclei (Data Science Bowl 2018)
    images/a.png  masks/a/1.png …      and the other forms of `masks` with several for an image
    images/a.png  instances/a.png      (or `instance_masks/`; also in train/ and val/, or
                                       instances/train/a.png) 0 is the ground, and 255 void in a
                                       palette PNG; each other number is an instance

All objects are of one class, `object`, or what `classes` calls it. Boxes are those around masks.
"""

import concurrent.futures
import os
import re
import unicodedata

import numpy as np

from kerascv_d2l.data.layouts import masks
from kerascv_d2l.data.layouts.files import part_of_path, relative, walk
from kerascv_d2l.data.layouts.mask_classes import read_instance, read_numbers
from kerascv_d2l.data.layouts.records import Faults, LabelledImage, LabelledObject, Labels
from kerascv_d2l.data.splits import DETECTION
from kerascv_d2l.errors import InputError
from kerascv_d2l.ops.rle import encode_masks, mask_box

TITLE = "images and a mask of each instance"
LOOKS = (
    "ID/images/ID.png and ID/masks/*.png; images/NAME.jpg and masks/NAME/1.png, 2.png …; or "
    "images/NAME.jpg and instances/NAME.png with a number for each instance"
)
TASKS = (DETECTION,)
CLASS = "object"
NUMBERS_FOLDER = re.compile(r"instance(s|[ _-]?masks?|[ _-]?ids?)", re.I)
VOID = 255  # in a palette PNG


def recognises(root):
    """Whether a folder has this layout."""
    return bool(_numbers(root)[0]) or any(
        len(files) > 1 for files in masks.find(root, Faults())[1].values()
    )


def read(root, faults):
    """Read the masks, an object for each."""
    numbers, orphans = _numbers(root)
    if numbers:
        pairs = [(image, [file]) for file, image in numbers.items()]
    else:
        images, found, (orphans, *_) = masks.find(root, faults)
    for file in orphans:
        faults.add(f"{file}: no image for this mask: add it, or take the mask out")
    if not numbers:
        pairs = [(images[key], files) for key, files in found.items()]
    read_objects = _objects_by_number if numbers else _objects_by_file
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda pair: read_objects(pair[1]), pairs))
    parts = {}
    for (image, _), found in zip(pairs, objects, strict=True):
        part = part_of_path(image, root)
        parts.setdefault(part, []).append(LabelledImage(image, str(image), found))
    files = frozenset(file for _, several in pairs for file in several)
    return Labels(parts, [CLASS], unnamed=True, spoken_for=files)


def _numbers(root):
    """`(dict from a PNG of numbers to its image, list of those without one)`.

    The image has the same name, in the folder that goes with that of the PNG or else anywhere.
    """
    keys = {file: _key(root, file) for file in walk(root)}
    files = [file for file in keys if keys[file] is not None]
    if not files:
        return {}, []
    images = {file: masks.place(root, file)[1] for file in keys if keys[file] is None}
    found = _pairs({file: keys[file] for file in files}, images)
    rest = set(images).difference(found.values())
    found |= _pairs(
        {file: file.stem for file in files if file not in found},
        {image: image.stem for image in images if image in rest},
    )
    return found, [file for file in files if file not in found]


def _pairs(files, images):
    """Pair what has the same name, where that is of one image; two dicts from file to name."""
    named = {}
    for image, name in images.items():
        named.setdefault(name, []).append(image)
    return {f: named[name][0] for f, name in files.items() if len(named.get(name, ())) == 1}


def _key(root, file):
    """The path of a PNG of numbers without ending and its folder's name; None for other files."""
    parts = relative(file.with_suffix(""), root).split("/")
    for k in range(len(parts) - 2, -1, -1):
        if NUMBERS_FOLDER.fullmatch(parts[k]):
            return unicodedata.normalize("NFC", "/".join(parts[:k] + parts[k + 1 :]))
    return None


def _objects_by_file(files):
    return [_object(file, lambda file=file: read_instance(file), str(file)) for file in files]


def _objects_by_number(files):
    (file,) = files
    try:
        pixels, palette = read_numbers(file)
    except InputError as error:
        problem = str(error).removeprefix(f"{file}: ")
        return [LabelledObject(CLASS, None, str(file), problem=problem)]
    numbers = [n for n in np.unique(pixels).tolist() if n and not (palette and n == VOID)]
    return [_object(file, lambda n=n: pixels == n, f"{file}, instance {n}") for n in numbers]


def _object(file, mask, where):
    item = LabelledObject(CLASS, None, where)
    try:
        (item.outline,) = encode_masks([mask()])
        item.box = mask_box(item.outline)
    except InputError as error:
        item.problem = str(error).removeprefix(f"{file}: ")
        return item
    if item.box[2] == 0:
        item.problem = "its mask is empty"
    return item
