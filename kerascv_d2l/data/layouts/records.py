"""What the readers of all layouts share: from boxes in pixels to checked labels."""

import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np

from kerascv_d2l.data.detection import DetectionSplit
from kerascv_d2l.data.images import SIDEWAYS, check_images
from kerascv_d2l.errors import InputError

# Labelling tools round, count from 0 or from 1, and put the last edge on or
# behind the last pixel: a box may exceed its picture by this much, and is clipped.
ROUNDING_PX = 1.0
MAX_WRAPPING_FOLDERS = 3
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")


@dataclasses.dataclass
class LabelledObject:
    """An object as the label file has it.

    Attributes:
        kind: the class: its name or number in the file.
        box_px: four floats, corners in pixels, unchecked.
        where: str: file and line or object, for messages.
    """

    kind: str | int
    box_px: tuple
    where: str


@dataclasses.dataclass
class LabelledPicture:
    """A picture as the label file has it.

    Attributes:
        path: `Path` of the picture.
        name: str: what to call it.
        where: str: where the labels name it, for messages.
        objects: list of `LabelledObject`.
        stated_size: `(height, width)` according to the labels, or None.
    """

    path: Path
    name: str
    where: str
    objects: list
    stated_size: tuple | None = None


class Faults:
    """Raises what is wrong with the data or, if asked to skip it, keeps a list."""

    def __init__(self, skip_bad):
        self.skip_bad = skip_bad
        self.reasons = []

    def add(self, message):
        """Report something bad; returns only if it is to be left out."""
        if not self.skip_bad:
            raise InputError(f"{message}. (skip_bad, or --skip-bad, goes on without it.)")
        self.reasons.append(message)


def unwrapped(path):
    """Look for a data set in a folder, and where it wraps but one folder, in that.

    An archive often unpacks into folders with nothing but one folder in them.

    Args:
        path: the folder.

    Yields:
        `Path`s to look at, from the outside in.

    Raises:
        InputError: if there is no such folder.
    """
    folder = Path(path)
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise InputError(f"{folder}: a file, where the folder of a data set is expected")
    for _ in range(MAX_WRAPPING_FOLDERS):
        yield folder
        inside = [child for child in folder.iterdir() if not child.name.startswith(".")]
        if len(inside) != 1 or not inside[0].is_dir():
            return
        folder = inside[0]


def split_by_name(items, name_of, val_fraction, seed, where):
    """Split into a training and a validation part that depend on names only.

    Args:
        items: list.
        name_of: function from an item to its name.
        val_fraction: float in (0, 1).
        seed: int.
        where: str: the folder, for messages.

    Returns:
        `{"train": list, "val": list}`, each sorted by name.

    Raises:
        InputError: if there are fewer than two items.
    """
    if len(items) < 2:
        raise InputError(f"{where}: {len(items)} labelled picture(s); a split needs at least 2")

    def rank(item):
        return hashlib.sha256(f"{seed}:{name_of(item)}".encode()).hexdigest()

    num_val = min(max(1, round(len(items) * val_fraction)), len(items) - 1)
    ranked = sorted(items, key=rank)
    return {
        "train": sorted(ranked[num_val:], key=name_of),
        "val": sorted(ranked[:num_val], key=name_of),
    }


def read_split_files(root, folders, known, faults, absence):
    """Read which pictures `train.txt` and `val.txt` name, one a line.

    Args:
        root: `Path` of the data set.
        folders: folders of `root` to look for the two files in; the first that
            has one counts.
        known: stems that may be named, anything with `in`.
        faults: dict from "train" and "val" to `Faults`.
        absence: function from a stem to what is missing of it, for messages.

    Returns:
        `{"train": stems, "val": stems}` in the order of the lines, or None without
        such files.

    Raises:
        InputError: if one of the two is missing or no text, or a line is bad and
            `faults` does not skip it.
    """
    for name in folders:
        files = {split: root / name / f"{split}.txt" for split in ("train", "val")}
        present = [file for file in files.values() if file.is_file()]
        if len(present) == 1:
            absent = next(file for file in files.values() if file not in present)
            raise InputError(f"{present[0]} is there, but {absent} is missing")
        if present:
            break
    else:
        return None
    seen, splits = {}, {}
    for split, file in files.items():
        splits[split] = []
        for number, line in enumerate(read_lines(file), start=1):
            stem = _stem(line.strip())
            where = f"{file}, line {number}"
            if not stem:
                continue
            if stem not in known:
                faults[split].add(f"{where}: {line.strip()!r} has {absence(stem)}")
            elif stem in seen:
                faults[split].add(f"{where}: {line.strip()!r} is already in {seen[stem]}")
            else:
                seen[stem] = where
                splits[split].append(stem)
    return splits


def read_lines(file):
    """Give the lines of a text file in UTF-8; an `InputError` names one of another kind."""
    try:
        return file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not a text file in UTF-8 ({error})") from error


def _stem(name):
    """A name of a split file without folder and, if it has a known one, without ending."""
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    for ending in PICTURE_ENDINGS + (".xml",):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def build_split(pictures, class_of, faults, where):
    """Check pictures and labels, and bring the labels to the package's form.

    Args:
        pictures: list of `LabelledPicture`.
        class_of: dict from `LabelledObject.kind` to the class index.
        faults: `Faults`.
        where: str: the split, for messages.

    Returns:
        `DetectionSplit`.

    Raises:
        InputError: for the first fault, unless `faults` skips it; and always if
            no picture is left.
    """
    present = []
    for picture in pictures:
        if picture.path.is_file():
            present.append(picture)
        else:
            faults.add(f"{picture.where}: the picture {picture.path} does not exist")
    infos, reasons = check_images([picture.path for picture in present], faults.skip_bad)
    faults.reasons += reasons

    images, labels, names, sizes, plain = [], [], [], [], []
    for picture, info in zip(present, infos, strict=True):
        if info is None:
            continue
        rows = _label_rows(picture, info, class_of, faults)
        if picture.objects and not rows:
            faults.reasons.append(f"{picture.path}: left out, for none of its objects is usable")
            continue
        images.append(str(picture.path))
        labels.append(np.array(rows, np.float32).reshape(-1, 5))
        names.append(picture.name)
        sizes.append((info.height, info.width))
        plain.append(info.plain)
    if not images:
        raise InputError(
            f"{where}: no picture"
            + (f" left; the first fault was: {faults.reasons[0]}" if faults.reasons else "")
        )
    return DetectionSplit(
        images, labels, names, np.array(sizes), np.array(plain), list(faults.reasons)
    )


def _label_rows(picture, info, class_of, faults):
    """Rows `[class, x_min, y_min, x_max, y_max]` of the good objects of a picture."""
    rows = []
    for item in picture.objects:
        if item.kind not in class_of:
            known = ", ".join(str(kind) for kind in class_of)
            faults.add(f"{item.where}: unknown class {item.kind!r}; known: {known}")
            continue
        problem, box = _normalised(item.box_px, picture.stated_size, info)
        if problem:
            faults.add(f"{item.where}: {problem}")
            continue
        rows.append([class_of[item.kind], *box])
    return rows


def _normalised(box, stated_size, info):
    """`(what is wrong or None, normalised box)` of a box in pixels."""
    x_min, y_min, x_max, y_max = box
    # Edges count from 0 here, whatever the label file counts from.
    shown = f"the box with edges x {x_min:g} to {x_max:g} and y {y_min:g} to {y_max:g}"
    if not all(math.isfinite(value) for value in box):
        return f"{shown} is not finite", None
    if x_max < x_min or y_max < y_min:
        return f"{shown} is inside out", None
    if x_max == x_min or y_max == y_min:
        return f"{shown} is empty", None

    height, width = info.height, info.width
    stored_sideways = (
        info.orientation in SIDEWAYS
        and height != width
        and stated_size is not None
        and tuple(stated_size) == (width, height)
    )
    if stored_sideways:
        x_min, y_min, x_max, y_max = _turn(box, width, height, info.orientation)
    excess = max(-x_min, -y_min, x_max - width, y_max - height)
    x_min, x_max = (min(max(x, 0), width) for x in (x_min, x_max))
    y_min, y_max = (min(max(y, 0), height) for y in (y_min, y_max))
    if excess > ROUNDING_PX or x_min >= x_max or y_min >= y_max:
        size = f"{width} x {height} pixels (width x height)"
        if stated_size is not None and tuple(stated_size) != (height, width):
            size += f"; the labels say {stated_size[1]} x {stated_size[0]}"
        return f"{shown} is outside the picture of {size}", None
    return None, (x_min / width, y_min / height, x_max / width, y_max / height)


def _turn(box, width, height, orientation):
    """A box on the stored pixels of a sideways picture -> on the upright one.

    `width` and `height` are those of the upright picture.
    """
    x_min, y_min, x_max, y_max = box
    if orientation in (6, 7):  # the stored bottom is on the left when upright
        y_min, y_max = width - y_max, width - y_min
    if orientation in (7, 8):  # the stored right is at the top
        x_min, x_max = height - x_max, height - x_min
    return y_min, x_min, y_max, x_max
