"""What the layouts give, and how it becomes a `DataSet`."""

import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from kerascv_d2l.data.images import UPRIGHT, check_images, on_threads
from kerascv_d2l.data.layouts.files import ALL, TEST, TRAIN, VAL, relative
from kerascv_d2l.data.splits import DataSet, Split, first_of
from kerascv_d2l.errors import InputError

DARK = 16  # of 255, white of 12 bits in 16: where nothing is brighter, something is wrong


@dataclasses.dataclass
class LabelledObject:
    """An object as the label file has it.

    Attributes:
        kind: the class: its name or, where labels are numbers without names, its number.
        box: four floats `(x_min, y_min, x_max, y_max)`, unchecked: edges counted from 0, in
            pixels; None with a problem.
        where: str: file and line or object, for messages.
        ignore: bool: counts neither as found nor as missed (difficult, crowd).
        outline: None, or the object's mask as COCO has it: list of polygons `[x, y, x, y, …]`
            in the unit of the box, or a run-length encoding; or `(Path, number)`: a PNG whose
            pixels have this number where the object is.
        shares: bool: the box and the polygons are shares of the image, 0 to 1.
        problem: str or None: what is wrong with it already.
    """

    kind: str | int
    box: tuple | None
    where: str
    ignore: bool = False
    outline: list | dict | tuple | None = None
    shares: bool = False
    problem: str | None = None


@dataclasses.dataclass
class LabelledImage:
    """An image as a label file or a folder has it.

    Attributes:
        path: `Path` of the image.
        where: str: where the labels name it, for messages.
        objects: list of `LabelledObject`, for detection.
        stated_size: `(height, width)` according to the labels, or None.
        label: what else is known of it: its class, the `Path` of its mask.
    """

    path: Path
    where: str
    objects: list = dataclasses.field(default_factory=list)
    stated_size: tuple | None = None
    label: object = None


@dataclasses.dataclass
class Labels:
    """All that the label files of a folder say: what `read` of a layout gives.

    Attributes:
        images: dict from part to list of `LabelledImage`. Parts are `all`, of which a share is
            set apart to validate on; `train`, `val`; `test`.
        class_names: list of str in order; None (detection) for those that the objects have.
        targets: function `(LabelledImage, ImageInfo)` -> `(targets, problems)` of an image:
            its entries of `Split.targets` as a dict, or None if it is to be left out; and
            what is wrong with it, a list of str. It runs on several threads. None for
            detection, where `boxes.ObjectTargets` does it, and for unlabelled images.
        colors: as of `DataSet`.
        unnamed: bool: nothing names the classes, and `class_names` stand in for names.
        spoken_for: image files that need no labels: masks, which are labels, and images that are
            left out and counted already.
        named_in: str: where the user names the classes, for messages; None where the names
            come from the images, masks or objects.
    """

    images: dict
    class_names: list | None = None
    targets: Callable | None = None
    colors: np.ndarray | None = None
    named_in: str | None = None
    unnamed: bool = False
    spoken_for: frozenset = frozenset()


class Faults:
    """Raise what is wrong with the data or, if asked to skip it, keep a list.

    Attributes:
        skip_bad: bool.
        reasons: list of str: what is left out, and why.
        notes: list of str: what is read otherwise than it stands there.
    """

    def __init__(self, skip_bad=False):
        self.skip_bad = skip_bad
        self.reasons = []
        self.notes = []
        self._counted = {}

    def count(self, kind, example):
        """Count something that is read otherwise than it stands there, for `sum_up`."""
        self._counted.setdefault(kind, {})[example] = True  # each once

    def sum_up(self):
        """Add a note for each kind of what was counted."""
        for kind, examples in self._counted.items():
            self.notes.append(f"{len(examples)} {kind}: {first_of(examples, 3)}")
        self._counted = {}

    def add(self, message):
        """Report something bad; return only if it is to be left out."""
        if not self.skip_bad:
            stop = "" if message.endswith("?") else "."
            raise InputError(f"{message}{stop} (--skip-bad goes on without it.)")
        self.reasons.append(message)


def hull(values):
    """Give the box `(x_min, y_min, x_max, y_max)` around points `[x, y, x, y, …]`."""
    return (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))


def split_by_name(items, name_of, val_fraction, seed, where):
    """Split a list into a training and a validation part that depend on names only.

    Returns:
        `{"train": list, "val": list}`, each sorted by what the function `name_of` gives.

    Raises:
        InputError: if there are fewer than two items.
    """
    if len(items) < 2:
        raise InputError(f"{where}: {len(items)} labelled image(s); a split needs at least 2")

    num_val = min(max(1, round(len(items) * val_fraction)), len(items) - 1)
    ranked = sorted(items, key=lambda item: _rank(name_of(item), seed))
    parts = {TRAIN: ranked[num_val:], VAL: ranked[:num_val]}
    return {part: sorted(chosen, key=name_of) for part, chosen in parts.items()}


def _rank(name, seed):
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


# ---------------------------------------------------------------- from labels to a data set


def build_data_set(labels, faults, source, val_fraction=0.2, seed=0):
    """Check images and targets, and split.

    Every image is decoded once, to find damaged ones now and not in the middle of training.
    What is bad is left out before the split.

    Args:
        labels: `Labels`, with `targets`.
        faults: `Faults`, with what reading the labels found.
        source: str, for the data set and messages.
        val_fraction: float in (0, 1): share to validate on, where `labels` has no `val`.
        seed: int: which images these are. The choice goes by name.

    Returns:
        `DataSet`. What was left out before the split is counted with `train`.

    Raises:
        InputError: for the first fault, unless `faults` skips it; and always if a part has
            no image left, or parts do not fit together.
    """
    parts = _arrange(labels.images, source)
    parts = _distinct(parts, faults)
    _note_similar(labels.class_names or (), faults)
    splits, turned, brightest = {}, [], 0
    for part, images in parts.items():
        known = faults if part in (ALL, TRAIN) else Faults(faults.skip_bad)
        found = _check_part(images, labels.targets, known)
        if not found:
            first = (known.reasons or faults.reasons or [""])[0]
            why = f" left; the first fault was: {first}" if first else ""
            raise InputError(f"{source}, {part} split: no image{why}")
        _name(found)
        brightest = max(brightest, *(c.info.brightest for c in found))
        turned += [c.name for c in found if "mask" in c.targets and c.info.orientation != UPRIGHT]
        if part == ALL and labels.targets is not None:
            both = _set_apart(found, val_fraction, seed, source)
            both = _with_an_object(both, seed)
            splits |= {TRAIN: _split(both[TRAIN], known.reasons), VAL: _split(both[VAL], [])}
        else:
            splits[TRAIN if part == ALL else part] = _split(found, known.reasons)
    if brightest <= DARK:
        faults.notes.append(
            f"no pixel of any image is brighter than {brightest} of 255: all look black. Images of "
            "16 bits are read as 0 to 65535; where only 8 or 12 bits are used, scale them to the "
            "whole range"
        )
    if turned:
        faults.notes.append(
            f"{len(turned)} image(s) are stored turned (EXIF), and their masks are read as those "
            f"of the upright image: {first_of(turned, 3)}. Look whether they are"
        )
    return DataSet(
        labels.class_names or (),
        splits[TRAIN],
        splits.get(VAL),
        source,
        colors=labels.colors,
        test=splits.get(TEST),
        notes=faults.notes,
        drawn=ALL in parts and VAL in splits,
    )


def _note_similar(class_names, faults):
    groups = {}
    for name in class_names:
        groups.setdefault("".join(name.casefold().split()), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            faults.notes.append(f"classes that differ in case or blanks only: {first_of(names)}")


def _set_apart(images, val_fraction, seed, source):
    """Split by name; a share of each class, where images have one (of one image, none)."""

    def split(some):
        return split_by_name(some, lambda one: one.name, val_fraction, seed, source)

    groups = {}
    for image in images:
        groups.setdefault(image.targets.get("label"), []).append(image)
    if max(map(len, groups.values())) < 2:
        return split(images)
    parts = [
        split(g) if len(g) > 1 or None in groups else {TRAIN: g, VAL: []} for g in groups.values()
    ]
    return {part: [image for one in parts for image in one[part]] for part in (TRAIN, VAL)}


def _with_an_object(parts, seed):
    """Swap the next image that has an object into a validation part that has none.

    One with an object stays to train on. Where the part has one, or for other tasks, nothing
    changes.
    """
    shown = [one for one in parts[TRAIN] if _has_object(one)]
    if len(shown) < 2 or any(map(_has_object, parts[VAL])):
        return parts
    joins = min(shown, key=lambda one: _rank(one.name, seed))
    leaves = max(parts[VAL], key=lambda one: _rank(one.name, seed))
    train = [one for one in parts[TRAIN] if one is not joins] + [leaves]
    val = [one for one in parts[VAL] if one is not leaves] + [joins]
    return {p: sorted(some, key=lambda o: o.name) for p, some in ((TRAIN, train), (VAL, val))}


def _has_object(image):
    return not np.all(image.targets.get("ignore", True))


def _arrange(parts, source):
    """Parts that fit together: `all` or `train` and `val`; and perhaps `test`."""
    parts = dict(parts)
    if ALL in parts and TRAIN not in parts and VAL in parts:
        parts[TRAIN] = parts.pop(ALL)
    if TRAIN in parts and VAL not in parts and ALL not in parts:
        parts[ALL] = parts.pop(TRAIN)
    if set(parts) - {TEST} not in ({ALL}, {TRAIN, VAL}):
        firsts = ", ".join(
            f"{part} ({images[0].where})" for part, images in parts.items() if images
        )
        raise InputError(
            f"{source}: the parts are {firsts or 'none'}; wanted train and val (and test), or "
            "images of no part, of which a share is set apart"
        )
    if not parts.get(TEST):
        parts.pop(TEST, None)  # nothing in it is labelled
    return {part: parts[part] for part in (ALL, TRAIN, VAL, TEST) if part in parts}


def _distinct(parts, faults):
    """Parts in which every image file is there, and in none twice."""
    seen, distinct, folders = {}, {}, {}
    for part, images in parts.items():
        distinct[part] = []
        for image in images:
            folder, name = os.path.split(image.path)
            if os.path.islink(image.path):
                real = os.path.realpath(image.path)
            else:  # the folder's path is resolved once
                real = os.path.join(folders.get(folder) or os.path.realpath(folder), name)
                folders[folder] = os.path.dirname(real)
            if not os.path.isfile(image.path):
                faults.add(f"{image.where}: the image {image.path} does not exist")
            elif real in seen:
                first, other = seen[real]
                both = f" ({other} and {part})" if other != part else ""
                faults.add(f"{image.where}: {image.path} is the same image as in {first}{both}")
            else:
                seen[real] = (image.where, part)
                distinct[part].append(image)
    return distinct


@dataclasses.dataclass
class _Checked:
    path: Path
    info: tuple
    targets: dict
    name: str = ""


def _check_part(images, targets_of, faults):
    try:
        infos, reasons = check_images([image.path for image in images], faults.skip_bad)
    except InputError as error:
        faults.add(str(error))  # with the way out
    faults.reasons += reasons
    good = [(image, info) for image, info in zip(images, infos, strict=True) if info is not None]
    targets_of = targets_of or (lambda image, info: ({}, []))
    found = list(on_threads(lambda pair: targets_of(*pair), good))
    checked = []
    for (image, info), (targets, problems) in zip(good, found, strict=True):
        for problem in problems:
            faults.add(problem)
        if targets is not None:
            checked.append(_Checked(image.path, info, targets))
    return checked


def _name(images):
    """Call images by their paths from the innermost folder that all are in."""
    common = os.path.commonpath({os.path.dirname(image.path) or "." for image in images})
    for image in images:
        image.name = relative(image.path, common)


def _split(images, skipped):
    targets = {key: [image.targets[key] for image in images] for key in images[0].targets}
    return Split(
        [str(image.path) for image in images],
        targets,
        [image.name for image in images],
        np.array([(image.info.height, image.info.width) for image in images]),
        np.array([image.info.plain for image in images]),
        list(skipped),
    )
