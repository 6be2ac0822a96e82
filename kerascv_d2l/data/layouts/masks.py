"""Segmentation data sets in a user's own folder: pictures, and a mask for each.

    images/             pictures of any kind and size
    masks/              a PNG of the same name and size for each: a class for every pixel
    train.txt, val.txt  names, with or without ending, one a line; without them a share of the
                        pictures is set apart
    classes.txt         for masks of class indices (grey or palette PNG): line k, counted from 0,
                        is the name of class k, or `R G B name` with the colour to draw it in
    palette.txt         for masks in colours: lines `R G B name`, 0-255

At most one of the two lists is there. Without either, masks are class indices
and the classes are called after them. Index 255, and a class named void (several colours may
be), count for nothing. In both lists blank lines and lines that begin with # are passed over.

The folder VOC2012 of Pascal VOC is read too: JPEGImages/, SegmentationClass/,
ImageSets/Segmentation/train.txt and val.txt.
"""

import concurrent.futures
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from kerascv_d2l.data.images import check_images
from kerascv_d2l.data.layouts.records import (
    PICTURE_ENDINGS,
    Faults,
    read_lines,
    read_split_files,
    split_by_name,
    unwrapped,
)
from kerascv_d2l.data.segmentation import (
    SegmentationData,
    SegmentationSplit,
    check_size,
    count_labels,
    default_colors,
    encode_mask,
)
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP, VOC_VOID, VOC_VOID_COLOR
from kerascv_d2l.errors import InputError

VOID_NAME = "void"
CLASSES_FILE, PALETTE_FILE = "classes.txt", "palette.txt"
INDEX_MODES = ("P", "L", "1", "I", "I;16", "I;16B")  # Pillow's, of one number a pixel
_UNKNOWN = -1
_COLOR_CODE = np.array([256 * 256, 256, 1])


@dataclasses.dataclass
class _Layout:
    title: str
    images: str
    masks: str
    lists: tuple


LAYOUTS = (
    _Layout("images and masks", "images", "masks", (".",)),
    _Layout("Pascal VOC", "JPEGImages", "SegmentationClass", ("ImageSets/Segmentation",)),
)


@dataclasses.dataclass
class _Classes:
    """What the pixels of masks stand for.

    Attributes:
        names: list of str, of the classes.
        colors: uint8 `(classes, 3)`, to draw them in.
        by_index: int16 `(256,)` from an index in a mask to a label (255 void), -1 for
            none; or None where masks must be in colours.
        by_color: dict from a colour's code to a label; or None.
        where: str: the list they come from, for messages.
    """

    names: list
    colors: np.ndarray
    by_index: np.ndarray | None
    by_color: dict | None
    where: str


def read_segmentation_folder(path, val_fraction=0.2, seed=0, skip_bad=False, classes=None, void=()):
    """Read a segmentation data set from a folder; the module says what it may look like.

    Every picture and mask is decoded once, to find bad ones now and not in the
    middle of training. Masks are kept in memory, compressed.

    Args:
        path: the folder, or a folder with nothing in it but that folder.
        val_fraction: float in (0, 1): share of the pictures to validate on,
            where there are no split files.
        seed: int: which pictures these are. The choice goes by file name.
        skip_bad: bool: go on without pictures that are bad or have no good
            mask; the splits' `skipped` say which and why.
        classes: names of the classes with the indices 0, 1, …, instead of
            `classes.txt`; one that is named void counts for nothing.
        void: what counts for nothing, by index in the masks (of a class, or of none) or by
            a class's name, beside index 255 and the name void. The other classes move up.

    Returns:
        `SegmentationData`.

    Raises:
        InputError: for a folder of another layout, a picture without a mask, a
            mask of another size than its picture, a colour or index in it that is no
            class, a file that is missing or damaged, or a bad line in a list; names it.
    """
    start = time.perf_counter()
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}; wanted a share between 0 and 1")
    root, layout = _recognise(path)
    pictures = _files_by_stem(root / layout.images, PICTURE_ENDINGS)
    masks = _files_by_stem(root / layout.masks, PICTURE_ENDINGS)
    faults = {"train": Faults(skip_bad), "val": Faults(skip_bad)}
    stems = read_split_files(
        root, layout.lists, pictures, faults, lambda stem: f"no picture in {root / layout.images}"
    )
    if stems is None:
        if layout.images == "JPEGImages":  # most of VOC's pictures have no mask
            pictures = {stem: file for stem, file in pictures.items() if stem in masks}
        stems = split_by_name(sorted(pictures), str, val_fraction, seed, root / layout.images)
    table = _read_classes(root, layout, classes)
    if table is None:
        train = [masks[stem] for stem in stems["train"] if stem in masks]
        table = _classes_of_indices(train, root / layout.masks)
    _leave_out(table, void)
    splits = {
        split: _read_split(root, layout, stems[split], pictures, masks, table, faults[split])
        for split in ("train", "val")
    }
    return SegmentationData(
        class_names=table.names,
        colors=table.colors,
        source=f"{root}, {layout.title}",
        seconds=time.perf_counter() - start,
        **splits,
    )


def _recognise(path):
    tried = []
    for folder in unwrapped(path):
        for candidate in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
            tried.append(candidate)
            for layout in LAYOUTS:
                if (candidate / layout.images).is_dir() and (candidate / layout.masks).is_dir():
                    return candidate, layout
    inside = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    shown = ", ".join(inside[:10]) + (f" and {len(inside) - 10} more" if inside[10:] else "")
    known = " or ".join(f"{layout.images}/ and {layout.masks}/" for layout in LAYOUTS)
    raise InputError(f"{folder}: no folders {known} in it. It holds {shown or 'nothing'}")


def _files_by_stem(folder, endings):
    """Dict from stem to `Path`, of the files with a picture's ending."""
    files = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() not in endings or file.name.startswith("."):
            continue
        if file.stem in files:
            raise InputError(
                f"{file}: {files[file.stem].name} is there too, and names without their endings "
                "must differ: rename or remove one"
            )
        files[file.stem] = file
    return files


# ---------------------------------------------------------------- classes


def _read_classes(root, layout, classes):
    """`_Classes` of the names given, of the folder's list, or of VOC; None without any."""
    lists = [root / name for name in (CLASSES_FILE, PALETTE_FILE) if (root / name).is_file()]
    if len(lists) == 2:
        raise InputError(
            f"{lists[0]} and {lists[1]}: keep the first if masks are class indices, the second if "
            "they are in colours"
        )
    if classes is not None:
        return _indexed([(name, None, "classes") for name in classes], "classes")
    if lists:
        entries = [
            _read_entry(line, f"{lists[0]}, line {number}")
            for number, line in enumerate(read_lines(lists[0]), start=1)
            if line.strip() and not line.lstrip().startswith("#")
        ]
        if not entries:
            raise InputError(f"{lists[0]}: no class in it")
        return (_indexed if lists[0].name == CLASSES_FILE else _colored)(entries, str(lists[0]))
    if layout.images == "JPEGImages":
        codes = np.array([*VOC_COLORMAP, VOC_VOID_COLOR]) @ _COLOR_CODE
        by_index = _no_index()
        by_index[: len(VOC_CLASSES)] = np.arange(len(VOC_CLASSES))
        labels = [*range(len(VOC_CLASSES)), VOC_VOID]
        return _Classes(
            list(VOC_CLASSES),
            np.array(VOC_COLORMAP, np.uint8),
            by_index,
            dict(zip(codes.tolist(), labels, strict=True)),
            "Pascal VOC's classes",
        )
    return None


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


def _no_index():
    by_index = np.full(256, _UNKNOWN, np.int16)
    by_index[VOC_VOID] = VOC_VOID
    return by_index


def _number(entries):
    """Labels of the entries (255 for void), names of the classes, and their colours."""
    labels, names, given = [], [], []
    for name, color, where in entries:
        if name.lower() == VOID_NAME:
            labels.append(VOC_VOID)
            continue
        if name in names:
            raise InputError(f"{where}: the name {name!r} stands there twice")
        labels.append(len(names))
        names.append(name)
        given.append(color)
    if not names:
        raise InputError(f"{entries[0][2]}: no class but {VOID_NAME}")
    colors = default_colors(len(names))
    for k, color in enumerate(given):
        if color is not None:
            colors[k] = color
    return labels, names, colors


def _indexed(entries, where):
    if not 1 <= len(entries) <= VOC_VOID:
        raise InputError(f"{where}: {len(entries)} classes; wanted 1 to {VOC_VOID}")
    labels, names, colors = _number(entries)
    by_index = _no_index()
    by_index[: len(labels)] = labels
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


def _classes_of_indices(files, folder):
    """`_Classes` 0 … largest index in some masks, where nothing names them."""
    used = np.zeros(256, np.int64)
    for counts in _in_threads(_count_indices, files):
        used += counts
    used = np.flatnonzero(used[:VOC_VOID])
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


def _count_indices(file):
    """Pixels of each index, int64 `(256,)`; zeros for what is no mask of indices."""
    try:
        with Image.open(file) as opened:
            if opened.mode in INDEX_MODES:
                indices = np.asarray(opened)
                return np.bincount(np.clip(indices, 0, 255).astype(np.uint8).ravel(), minlength=256)
    except Exception:  # whatever Pillow raises: named when the mask itself is read
        pass
    return np.zeros(256, np.int64)


def _leave_out(table, void):
    """Turn some classes into void, and move up the others."""
    for wanted in void:
        if table.by_index is not None and str(wanted).isdecimal():
            index = int(wanted)
            if index > VOC_VOID:
                raise InputError(f"void {wanted}: wanted an index from 0 to {VOC_VOID}, or a name")
            if table.by_index[index] == _UNKNOWN:  # it has no name, and needs none
                table.by_index[index] = VOC_VOID
            label = int(table.by_index[index])
            if label == VOC_VOID:
                continue
        elif wanted in table.names:
            label = table.names.index(wanted)
        elif str(wanted).lower() == VOID_NAME:
            continue
        else:
            raise InputError(
                f"void {wanted}: no class of {table.where}, which has {', '.join(table.names)}"
            )
        _remove(table, label)


def _remove(table, label):
    if len(table.names) == 1:
        raise InputError(f"void {table.names[0]}: no class is left")

    def moved(old):
        if old == label:
            return VOC_VOID
        return old - 1 if label < old < VOC_VOID else old

    del table.names[label]
    table.colors = np.delete(table.colors, label, axis=0)
    if table.by_index is not None:
        table.by_index = np.array([moved(int(old)) for old in table.by_index], np.int16)
    if table.by_color is not None:
        table.by_color = {code: moved(old) for code, old in table.by_color.items()}


# ---------------------------------------------------------------- pictures and masks


def _read_split(root, layout, stems, pictures, masks, table, faults):
    present = []
    for stem in stems:
        if stem in masks:
            present.append(stem)
        else:
            faults.add(
                f"{pictures[stem]}: no mask {layout.masks}/{stem}.png for this picture: add it, "
                "or take the picture out of the list or folder"
            )
    infos, reasons = check_images([pictures[stem] for stem in present], faults.skip_bad)
    faults.reasons += reasons
    good = [(stem, info) for stem, info in zip(present, infos, strict=True) if info is not None]
    read = _in_threads(
        lambda pair: _read_mask(masks[pair[0]], pictures[pair[0]], pair[1], table), good
    )
    images, encoded, names, sizes, plain = [], [], [], [], []
    pixels = np.zeros(256, np.int64)
    for (stem, info), (problem, content, counts) in zip(good, read, strict=True):
        if problem:
            faults.add(problem)
            continue
        images.append(str(pictures[stem]))
        encoded.append(content)
        names.append(pictures[stem].name)
        sizes.append((info.height, info.width))
        plain.append(info.plain)
        pixels += counts
    if not images:
        reason = f" left; the first fault was: {faults.reasons[0]}" if faults.reasons else ""
        raise InputError(f"{root / layout.images}: no picture with a mask{reason}")
    return SegmentationSplit(
        images, encoded, names, np.array(sizes), np.array(plain), pixels, list(faults.reasons)
    )


def _in_threads(function, items):
    """Map on several threads: Pillow and NumPy work outside the interpreter's lock."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(function, items))


def _read_mask(file, picture, info, table):
    """`(problem or None, encoded mask, pixels of each label)`."""
    try:
        mask = _labels(file, table)
        check_size(mask.shape, (info.height, info.width), str(file), Path(picture).name)
    except InputError as error:
        return str(error), None, None
    return None, encode_mask(mask), count_labels(mask)


def _labels(file, table):
    """Labels of a mask file, uint8 `(height, width)`."""
    try:
        with Image.open(file) as opened:
            opened.load()
            mode = opened.mode
            indexed = mode in INDEX_MODES and table.by_index is not None
            if not indexed and table.by_color is None:
                raise InputError(
                    f"{file}: a mask in colours (Pillow calls it {mode}). Wanted is a PNG of class "
                    f"indices, or a list {PALETTE_FILE} of lines `R G B name` beside the folder"
                )
            pixels = np.asarray(opened if indexed else opened.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # Pillow raises SyntaxError, struct.error and more
        raise InputError(f"{file}: damaged or truncated mask, or no picture ({error})") from error
    if indexed:
        inside = np.clip(pixels.astype(np.int64), 0, 255)
        labels = np.where(inside == pixels, table.by_index[inside], _UNKNOWN)  # (h, w)
    else:
        labels = _labels_of_colors(pixels, table.by_color)
    unknown = np.flatnonzero(labels == _UNKNOWN)
    if unknown.size:
        row, column = divmod(int(unknown[0]), labels.shape[1])
        value = pixels[row, column]
        kind = f"index {int(value)}" if indexed else f"colour {tuple(value.tolist())}"
        raise InputError(
            f"{file}: {kind} at row {row}, column {column} is no class of {table.where} (the first "
            f"of {unknown.size} such pixels)" + _remedy(file, indexed, value)
        )
    return labels.astype(np.uint8)


def _remedy(file, indexed, value):
    if file.suffix.lower() in (".jpg", ".jpeg"):
        return ". JPEG changes the pixels of a mask: save masks as PNG"
    if indexed:
        return f". Name it, or mark it as void (index {VOC_VOID})"
    if value[0] == value[1] == value[2]:
        return f". Add it to the list; or, if masks are class indices, use {CLASSES_FILE} instead"
    return f". Add a line `{value[0]} {value[1]} {value[2]} NAME`, or with the name {VOID_NAME}"


def _labels_of_colors(pixels, by_color):
    """RGB `(h, w, 3)` -> labels `(h, w)`, -1 where a colour is no class."""
    known = np.array(sorted(by_color))
    labels = np.array([by_color[code] for code in known.tolist()], np.int16)
    codes = pixels @ _COLOR_CODE  # (h, w, 3) @ (3,) -> (h, w)
    place = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return np.where(known[place] == codes, labels[place], _UNKNOWN)
