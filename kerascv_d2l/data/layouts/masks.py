"""Images, and for each a mask: a class for every pixel.

    images/a.jpg  masks/a.png         also train/images/a.jpg and train/masks/a.png, or
                                      images/train/a.jpg and masks/train/a.png, in folders or not
    a.jpg  a_mask.png                 beside each other
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

import concurrent.futures
import dataclasses
import os
import re

import numpy as np
from PIL import Image

from kerascv_d2l.data.layouts.files import (
    ALL,
    TEST,
    TRAIN,
    part_of_path,
    read_lines,
    read_lists,
    walk,
)
from kerascv_d2l.data.layouts.records import LabelledImage, Labels
from kerascv_d2l.data.splits import (
    IGNORE_LABEL,
    MAX_MASK_CLASSES,
    SEGMENTATION,
    default_colors,
    encode_mask,
    first_of,
)
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP, VOC_IGNORE_COLOR
from kerascv_d2l.errors import InputError

TITLE = "images and masks"
LOOKS = (
    "images/NAME.jpg and masks/NAME.png; train/images/ and train/masks/; NAME.jpg and "
    "NAME_mask.png; or VOC's JPEGImages/ and SegmentationClass/"
)
TASKS = (SEGMENTATION,)

IMAGE, MASK = "image", "mask"
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
IGNORED_NAMES = ("void", "ignore")
BINARY = ("background", "foreground")
CLASSES_FILE, PALETTE_FILE = "classes.txt", "palette.txt"
INDEX_MODES = ("P", "L", "1", "I", "I;16", "I;16B")  # Pillow's, of one number a pixel
# What the name of a mask has behind that of its image; a number where there are several.
_MASK_NAME = re.compile(
    r"(.+?)[ _.-](mask|masks|seg|segmentation|label|labels|gt)([ _-]?\d+)?", re.I
)
GREY_BAND = 32  # grey levels at each end that are still nearly black, or white
GREY_SHARE = 0.8
_UNKNOWN = -1
_COLOR_CODE = np.array([256 * 256, 256, 1])


@dataclasses.dataclass
class _Classes:
    """What the pixels of masks stand for.

    Attributes:
        names: list of str, of the classes.
        colors: uint8 `(classes, 3)`, to draw them in.
        by_index: int16 `(256,)` from an index in a mask to a label (255 ignored), -1 for
            none; or None where masks must be in colours.
        by_color: dict from a colour's code to a label; or None.
        where: str: the list they come from, for messages.
    """

    names: list
    colors: np.ndarray
    by_index: np.ndarray | None
    by_color: dict | None
    where: str


def recognises(root):
    """Whether any image file in `root` is, by its name or folder, a mask of another."""
    _, masks, _ = _find(root)
    return bool(masks)


def read(root, faults, classes=None, ignore=()):
    """Read which image has which mask, and what the pixels of masks stand for.

    Args:
        root: `Path` of the data set.
        faults: `Faults`.
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
    images, masks, (orphans, elsewhere, twice) = _find(root)
    if twice:
        raise InputError(
            f"{twice[0][0]}: {twice[0][1].name} is there too, and names without their endings "
            "must differ: rename or remove one"
        )
    voc = any("segmentationclass" in map(str.lower, m.parts) for ms in masks.values() for m in ms)
    if elsewhere:
        faults.notes.append(
            f"{len(elsewhere)} image(s) outside the folder of images are not read: "
            f"{first_of((file.relative_to(root) for file in elsewhere), 3)}"
        )
    listed = read_lists(root, (".", "ImageSets/Segmentation"), list(images), faults, "image")
    for file in orphans if listed is None else ():
        faults.add(f"{file}: no image for this mask: add it, or take the mask out")
    if voc and listed is None:  # most of VOC's images have no mask
        images = {key: file for key, file in images.items() if key in masks}
    parts = listed or _by_folder(root, images)
    parts = {part: _with_masks(part, keys, images, masks, faults) for part, keys in parts.items()}
    # Numbers beyond those in the training masks are faults of the others.
    learned = [m for part in (ALL, TRAIN) for key in parts.get(part, ()) for m in masks[key]]
    several = any(len(files) > 1 for files in masks.values())
    table = _read_classes(root, voc, classes, learned, ignore, several, faults)
    _leave_out(table, ignore)
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


def _find(root):
    """Tell images and masks apart.

    Returns:
        `(images, masks, others)`: dict from key to the file of an image; dict from key to the
        files of its masks; and three lists: masks without an image, images elsewhere, and
        pairs of images of one key.
    """
    files = [
        file for file in walk(root) if not set(OTHER_FOLDERS) & set(map(str.lower, file.parts))
    ]
    stems = {file.with_suffix("") for file in files}
    named = {file: _MASK_NAME.fullmatch(file.stem) for file in files}
    beside = any(match and file.with_name(match[1]) in stems for file, match in named.items())
    found = {IMAGE: {}, MASK: {}, None: {}}  # role -> file -> key
    for file in files:
        role, key = _place(root, file)
        found[MASK if role is None and beside and named[file] else role][file] = key
    images, twice = {}, []
    for file, key in (found[IMAGE] or found[None]).items():
        if key in images:
            twice.append((file, images[key]))
        images[key] = file
    masks, orphans = {}, []
    for file, key in found[MASK].items():
        image = _image_of(key, images)
        if image is None:
            orphans.append(file)
        else:
            masks.setdefault(image, []).append(file)
    return images, masks, (orphans, list(found[None]) if found[IMAGE] else [], twice)


def _place(root, file):
    """Tell by its folders what a file is, and its key: path without ending and that folder.

    Returns:
        `(role, key)`: `IMAGE`, `MASK` or None; str.
    """
    parts = list(file.relative_to(root).with_suffix("").parts)
    for k in range(len(parts) - 2, -1, -1):
        for role, pattern in _FOLDERS.items():
            if match := pattern.fullmatch(parts[k]):
                parts[k] = match[1].strip(" _-")  # `train` of `train_masks`
                return role, "/".join(filter(None, parts))
    return None, "/".join(parts)


def _image_of(key, images):
    """The key of the image that a mask of some key belongs to, or None."""
    folder, _, stem = key.rpartition("/")
    named = _MASK_NAME.fullmatch(stem)
    for candidate in (key, key[: len(key) - len(stem)] + named[1] if named else None, folder):
        if candidate in images:
            return candidate
    beside = [other for other in images if other.rpartition("/")[0] == folder]
    return beside[0] if folder and len(beside) == 1 else None


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


# ---------------------------------------------------------------- classes


def _read_classes(root, voc, classes, files, ignore, several, faults):
    """`_Classes` of the names given, of the folder's list, of VOC, or of the masks."""
    lists = [root / name for name in (CLASSES_FILE, PALETTE_FILE) if (root / name).is_file()]
    if len(lists) == 2:
        raise InputError(
            f"{lists[0]} and {lists[1]}: keep the first if masks are class indices, the second if "
            "they are in colours"
        )
    entries, where = None, "classes"
    if classes is not None:
        entries = [(name, None, "classes") for name in classes]
    elif lists:
        entries, where = _read_entries(lists[0]), str(lists[0])
        if lists[0].name == PALETTE_FILE and not several:
            return _colored(entries, where)
    if several:
        if entries is not None and len(entries) != 2:
            raise InputError(
                f"{where}: {len(entries)} classes, but there are several masks for an image, "
                "which are instances of one class: wanted two names, of the background and of it"
            )
        return _indexed(entries or [(name, None, "masks") for name in BINARY], where)
    unnamed = entries is None
    may_be_binary = (unnamed or len(entries) == 2) and not {"0", "255"} & set(map(str, ignore))
    if may_be_binary and _all_binary(files):
        if unnamed:
            entries, where = [(name, None, "masks") for name in BINARY], "masks of 0 and 255"
        faults.notes.append(
            f"masks have the values 0 and 255 only: read as {entries[0][0]} and {entries[1][0]}"
        )
        return _indexed(entries, where, binary=True)
    if entries is not None:
        return _indexed(entries, where)
    return _voc_classes() if voc else _classes_of_indices(files, root)


def _read_entries(file):
    entries = [
        _read_entry(line, f"{file}, line {number}")
        for number, line in enumerate(read_lines(file), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not entries:
        raise InputError(f"{file}: no class in it")
    return entries


def _read_entry(line, where):
    """`(name, colour or None, where)` of a line `R G B name` or `name`."""
    parts = line.split(maxsplit=3)
    numbers = [part for part in parts[:3] if part.isdecimal()]
    if len(numbers) < 3 or len(parts) < 4:
        if len(numbers) == 3:
            raise InputError(f"{where}: {line.strip()!r} has a colour but no name")
        return line.strip(), None, where
    color = [int(number) for number in numbers]
    if max(color) > 255:
        raise InputError(f"{where}: colour {color}; wanted R G B from 0 to 255")
    return parts[3].strip(), color, where


def _voc_classes():
    table = _indexed([(name, None, "VOC") for name in VOC_CLASSES], "Pascal VOC's classes")
    codes = np.array([*VOC_COLORMAP, VOC_IGNORE_COLOR]) @ _COLOR_CODE
    labels = [*range(len(VOC_CLASSES)), IGNORE_LABEL]
    table.by_color = dict(zip(codes.tolist(), labels, strict=True))
    return table


def _number(entries):
    """Labels of the entries (255: ignored), names of the classes, and their colours."""
    labels, names, given = [], [], []
    for name, color, where in entries:
        if name.lower() in IGNORED_NAMES:
            labels.append(IGNORE_LABEL)
            continue
        if name in names:
            raise InputError(f"{where}: the name {name!r} stands there twice")
        labels.append(len(names))
        names.append(name)
        given.append(color)
    if not names:
        raise InputError(f"{entries[0][2]}: no class but {entries[0][0]}")
    colors = default_colors(len(names))
    for k, color in enumerate(given):
        if color is not None:
            colors[k] = color
    return labels, names, colors


def _indexed(entries, where, binary=False):
    if not 1 <= len(entries) <= MAX_MASK_CLASSES:
        raise InputError(f"{where}: {len(entries)} classes; wanted 1 to {MAX_MASK_CLASSES}")
    labels, names, colors = _number(entries)
    by_index = np.full(256, _UNKNOWN, np.int16)
    by_index[IGNORE_LABEL] = IGNORE_LABEL
    by_index[[0, 255] if binary else range(len(labels))] = labels
    return _Classes(names, colors, by_index, None, where)


def _colored(entries, where):
    by_color = {}
    labels, names, colors = _number(entries)
    for (name, color, line), label in zip(entries, labels, strict=True):
        if color is None:
            raise InputError(f"{line}: {name!r} has no colour; wanted `R G B name`")
        code = int(np.dot(color, _COLOR_CODE))
        if code in by_color:
            raise InputError(f"{line}: the colour {color} stands there twice")
        by_color[code] = label
    return _Classes(names, colors, None, by_color, where)


def _all_binary(files):
    """Whether some masks have pixels of 0, and of 255, and of nothing else."""
    seen = set()
    for file in files:
        try:
            seen |= set(np.unique(_grey(file)).tolist())
        except InputError:  # named when the mask itself is read
            continue
        if not seen <= {0, 255}:
            return False
    return seen == {0, 255}


def _classes_of_indices(files, folder):
    """`_Classes` 0 … largest index in some masks, where nothing names them."""
    used = np.zeros(256, np.int64)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for counts in pool.map(_count_indices, files):
            used += counts
    _check_grey_levels(used, folder)
    used = np.flatnonzero(used[:IGNORE_LABEL])
    if used.size == 0:
        # No good mask at all: reading them one by one says what is wrong with the first.
        return _indexed([("class 0", None, str(folder))], str(folder))
    largest = int(used[-1])
    if 2 * used.size <= largest:
        raise InputError(
            f"{folder}: the indices in the training masks are "
            f"{', '.join(map(str, used[:20]))}: too far apart to be numbers of classes. If they "
            f"are, name all from 0 to {largest} in {CLASSES_FILE}; if they are grey levels, write "
            f"lines `R G B name` in {PALETTE_FILE}"
        )
    return _indexed(
        [(f"class {k}", None, str(folder)) for k in range(largest + 1)],
        f"{folder} (the training masks; {CLASSES_FILE} may name more)",
    )


def _check_grey_levels(counts, folder):
    """Refuse masks that were black and white once, and are so no more."""
    dark, light = counts[:GREY_BAND].sum(), counts[-GREY_BAND:].sum()
    between = np.count_nonzero(counts[1:-1])
    if (
        between
        and counts[-GREY_BAND:-1].any()
        and min(dark, light) > 0
        and (dark + light > GREY_SHARE * counts.sum())
    ):
        raise InputError(
            f"{folder}: the masks are nearly black and white, but have {between} grey levels in "
            "between, as resizing with interpolation and JPEG leave them. Set what is below 128 to "
            "0 and the rest to 255"
        )


def _count_indices(file):
    """Pixels of each index, int64 `(256,)`; zeros for what is no mask of indices."""
    try:
        return np.bincount(_grey(file).ravel(), minlength=256)
    except InputError:  # named when the mask itself is read
        return np.zeros(256, np.int64)


def _leave_out(table, ignore):
    """Ignore some classes, and move up the others."""
    for wanted in ignore:
        if table.by_index is not None and str(wanted).isdecimal():
            index = int(wanted)
            if index > IGNORE_LABEL:
                raise InputError(
                    f"ignore {wanted}: wanted an index from 0 to {IGNORE_LABEL}, or a name"
                )
            if table.by_index[index] == _UNKNOWN:  # it has no name, and needs none
                table.by_index[index] = IGNORE_LABEL
            label = int(table.by_index[index])
            if label == IGNORE_LABEL:
                continue
        elif wanted in table.names:
            label = table.names.index(wanted)
        elif str(wanted).lower() in IGNORED_NAMES:
            continue
        else:
            raise InputError(
                f"ignore {wanted}: no class of {table.where}, which has {', '.join(table.names)}"
            )
        _remove(table, label)


def _remove(table, label):
    if len(table.names) == 1:
        raise InputError(f"ignore {table.names[0]}: no class is left")

    def moved(old):
        if old == label:
            return IGNORE_LABEL
        return old - 1 if label < old < IGNORE_LABEL else old

    del table.names[label]
    table.colors = np.delete(table.colors, label, axis=0)
    if table.by_index is not None:
        table.by_index = np.array([moved(int(old)) for old in table.by_index], np.int16)
    if table.by_color is not None:
        table.by_color = {code: moved(old) for code, old in table.by_color.items()}


# ---------------------------------------------------------------- pixels


def _targets(image, info, table, several):
    """`(targets, problems)` of an image, as `Labels.targets`."""
    try:
        masks = []
        for file in image.label:
            mask = _instance(file) if several else _labels(file, table)
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


def _open(file):
    """A decoded mask, as Pillow has it."""
    try:
        with Image.open(file) as opened:
            kind = opened.format
            opened.load()
    except Exception as error:  # Pillow raises SyntaxError, struct.error and more
        raise InputError(f"{file}: damaged or truncated mask, or no image ({error})") from error
    if kind == "JPEG":
        raise InputError(
            f"{file}: a mask as JPEG, which changes pixels and so invents classes: save masks as "
            "PNG, from where they were drawn (of masks of two classes, set what is below 128 to "
            "0 and the rest to 255 first)"
        )
    return opened


def _grey(file):
    """uint8 `(height, width)` of a mask whose pixels are numbers; of RGB, where it is grey."""
    opened = _open(file)
    if opened.mode in INDEX_MODES:
        return np.clip(np.asarray(opened).astype(np.int64), 0, 255).astype(np.uint8)
    pixels = np.asarray(opened.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise InputError(
            f"{file}: a mask in colours (Pillow calls it {opened.mode}). Wanted is a PNG of class "
            f"indices, or a list {PALETTE_FILE} of lines `R G B name` beside the folder"
        )
    return pixels[..., 0]


def _instance(file):
    """Where the one instance of a mask file is: uint8 `(height, width)`, 0 and 1."""
    pixels = _grey(file)
    values = np.unique(pixels)
    if np.count_nonzero(values) > 1:
        raise InputError(
            f"{file}: one of several masks of an image, of which each may have 0 and one other "
            f"value; this has {first_of(values)}"
        )
    return (pixels > 0).astype(np.uint8)


def _labels(file, table):
    """Labels of a mask file, uint8 `(height, width)`."""
    opened = _open(file)
    numbers = opened.mode in INDEX_MODES
    indexed = table.by_index is not None and (numbers or table.by_color is None)
    if indexed:
        pixels = np.asarray(opened) if numbers else _grey(file)
        inside = np.clip(pixels.astype(np.int64), 0, 255)
        labels = np.where(inside == pixels, table.by_index[inside], _UNKNOWN)  # (h, w)
    else:
        pixels = np.asarray(opened.convert("RGB"))
        labels = _labels_of_colors(pixels, table.by_color)
    unknown = np.flatnonzero(labels == _UNKNOWN)
    if unknown.size:
        row, column = divmod(int(unknown[0]), labels.shape[1])
        value = pixels[row, column]
        kind = f"index {int(value)}" if indexed else f"colour {tuple(value.tolist())}"
        raise InputError(
            f"{file}: {kind} at row {row}, column {column} is no class of {table.where} (the first "
            f"of {unknown.size} such pixels)" + _remedy(indexed, value)
        )
    return labels.astype(np.uint8)


def _remedy(indexed, value):
    if indexed:
        return f". Name it, or mark it as ignored (index {IGNORE_LABEL})"
    if value[0] == value[1] == value[2]:
        return f". Add it to the list; or, if masks are class indices, use {CLASSES_FILE} instead"
    return f". Add a line `{value[0]} {value[1]} {value[2]} NAME`, or with the name void"


def _labels_of_colors(pixels, by_color):
    """RGB `(h, w, 3)` -> labels `(h, w)`, -1 where a colour is no class."""
    known = np.array(sorted(by_color))
    labels = np.array([by_color[code] for code in known.tolist()], np.int16)
    codes = pixels @ _COLOR_CODE  # (h, w, 3) @ (3,) -> (h, w)
    place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return np.where(known[place] == codes, labels[place], _UNKNOWN)
