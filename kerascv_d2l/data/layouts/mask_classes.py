"""What the pixels of masks stand for: lists of classes, indices, colours, black and white."""

import concurrent.futures
import dataclasses
import os

import numpy as np

from kerascv_d2l.data.images import opened
from kerascv_d2l.data.layouts.files import read_lines
from kerascv_d2l.data.splits import IGNORE_LABEL, MAX_MASK_CLASSES, default_colors, first_of
from kerascv_d2l.data.voc_classes import VOC_CLASSES, VOC_COLORMAP, VOC_IGNORE_COLOR
from kerascv_d2l.errors import InputError

IGNORED_NAMES = ("void", "ignore")
BINARY = ("background", "foreground")
CLASSES_FILE, PALETTE_FILE = "classes.txt", "palette.txt"
INDEX_MODES = ("P", "L", "1", "I", "I;16", "I;16B")  # Pillow's, of one number a pixel
GREY_BAND = 32  # grey levels at each end that are still nearly black, or white
GREY_SHARE = 0.8
# Pillow's names. JPEG 2000, AVIF and HEIF may keep pixels, but do not say so.
LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")
_RIFF_HEADER, _WEBP_LOSSLESS = 12, b"VP8L"  # bytes before the first chunk; the name of one
_UNKNOWN = -1
_COLOR_CODE = np.array([256 * 256, 256, 1])


@dataclasses.dataclass
class MaskClasses:
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


def read_classes(folders, voc, classes, files, ignore, several, faults):
    """Find out what the pixels of masks stand for.

    Args:
        folders: `Path`s that may have `classes.txt` or `palette.txt`.
        voc: bool: whether the folders are those of Pascal VOC.
        classes: names of the indices 0, 1, … instead of a list; None for none.
        files: masks to look at where there are no names.
        ignore: indices and names that are to be ignored.
        several: bool: whether the masks are of one instance each.
        faults: `Faults`, for notes.

    Returns:
        `MaskClasses`.

    Raises:
        InputError: for two lists, a bad line in one, or masks that cannot be told.
    """
    names = (CLASSES_FILE, PALETTE_FILE)
    lists = [folder / name for folder in dict.fromkeys(folders) for name in names]
    lists = [file for file in lists if file.is_file()]
    if len(lists) > 1:
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
    return voc_classes() if voc else _classes_of_indices(files, folders[0])


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


def voc_classes():
    """Give the `MaskClasses` of Pascal VOC, for masks of indices and in colours."""
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
    return MaskClasses(names, colors, by_index, None, where)


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
    return MaskClasses(names, colors, None, by_color, where)


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
    """`MaskClasses` 0 … largest index in some masks, where nothing names them."""
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


def leave_out(table, ignore):
    """Ignore classes of `MaskClasses`, by index in the masks or name, and move up the others.

    Raises:
        InputError: for a class that is not there, or if none is left.
    """
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


def _open(file, content=None):
    """A decoded mask, as Pillow has it."""
    with opened(file, content, "mask") as mask:
        kind = _lossy_kind(mask)
        mask.load()
    if kind:
        raise InputError(
            f"{file}: a mask as {kind}, which changes pixels and so invents classes: save masks as "
            "PNG, from where they were drawn (of masks of two classes, set what is below 128 to "
            "0 and the rest to 255 first)"
        )
    return mask


def _lossy_kind(mask):
    """What a freshly opened mask is stored as, if that does not keep its pixels; else None."""
    if mask.format in LOSSY_FORMATS:
        return mask.format
    if mask.format == "TIFF" and (kind := mask.info.get("compression")) in LOSSY_TIFF:
        return f"TIFF with {kind} compression"
    if mask.format == "WEBP" and _WEBP_LOSSLESS not in _chunks(mask.fp.getvalue()):
        return "lossy WebP"
    return None


def _chunks(content):
    """Names of the chunks of a RIFF file, such as WebP."""
    place, names = _RIFF_HEADER, set()
    while place + 8 <= len(content):
        names.add(content[place : place + 4])
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + size + size % 2
    return names


def _grey(file, content=None):
    """uint8 `(height, width)` of a mask whose pixels are numbers; of RGB, where it is grey."""
    mask = _open(file, content)
    if mask.mode in INDEX_MODES:
        return np.clip(np.asarray(mask).astype(np.int64), 0, 255).astype(np.uint8)
    pixels = np.asarray(mask.convert("RGB"))
    if (pixels != pixels[..., :1]).any():
        raise InputError(
            f"{file}: a mask in colours (Pillow calls it {mask.mode}). Wanted is a PNG of class "
            f"indices, or a list {PALETTE_FILE} of lines `R G B name` beside the folder"
        )
    return pixels[..., 0]


def read_instance(file):
    """Where the one instance of a mask file is: uint8 `(height, width)`, 0 and 1."""
    pixels = _grey(file)
    values = np.unique(pixels)
    if np.count_nonzero(values) > 1:
        raise InputError(
            f"{file}: one of several masks of an image, of which each may have 0 and one other "
            f"value; this has {first_of(values)}"
        )
    return (pixels > 0).astype(np.uint8)


def read_numbers(file):
    """Read a PNG in which each instance has a number.

    Returns:
        `(pixels, has_palette)`: integers `(height, width)`; bool, 255 is then no instance.

    Raises:
        InputError: if it cannot be read, or has no single number for each pixel.
    """
    mask = _open(file, None)
    pixels = np.asarray(mask)
    if pixels.ndim != 2:
        raise InputError(
            f"{file}: {pixels.shape[-1]} channels, where one is wanted: a number for each pixel"
        )
    return pixels, mask.mode == "P"


def read_labels(file, table, content=None):
    """Read the labels of a mask.

    Args:
        file: `Path` of the mask, or what to call it in messages.
        table: `MaskClasses`.
        content: bytes of the file, if they are at hand.

    Returns:
        uint8 `(height, width)`: classes, and 255 for what is ignored.

    Raises:
        InputError: if it is damaged, stored lossily, or has a pixel that is no class.
    """
    mask = _open(file, content)
    numbers = mask.mode in INDEX_MODES
    indexed = table.by_index is not None and (numbers or table.by_color is None)
    if indexed:
        pixels = np.asarray(mask) if numbers else _grey(file, content)
        inside = np.clip(pixels.astype(np.int64), 0, 255)
        labels = np.where(inside == pixels, table.by_index[inside], _UNKNOWN)  # (h, w)
    else:
        pixels = np.asarray(mask.convert("RGB"))
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
