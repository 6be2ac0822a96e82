"""Data sets in a user's own folder, in whichever layout they have.

A layout is a module of this package with

- `TITLE`: str, what to call it;
- `LOOKS`: str, what a folder of it looks like, for messages;
- `TASKS`: tuple of `TASKS` of `splits`, what its labels are for;
- `recognises(root)`: whether a folder (`Path`) has it;
- `read(root, faults, **options)`: gives `records.Labels` of a `root` that it recognises. What is
  bad is told to `faults` (`records.Faults`), so it raises `InputError` unless that is to be left
  out. Options are keyword arguments with defaults. Layouts for detection need none: `classes`,
  `boxes_on` and `masks` are those of `boxes.ObjectTargets`.

To add one, write the module and add it to `LAYOUTS`.
"""

import inspect
import os
import time

import numpy as np

from kerascv_d2l.data.layouts import (
    class_folders,
    coco,
    cvat,
    instances,
    label_studio,
    labelme,
    masks,
    photographs,
    tables,
    voc,
    yolo,
)
from kerascv_d2l.data.layouts.boxes import ObjectTargets
from kerascv_d2l.data.layouts.files import (
    ALL,
    LIST_FOLDERS,
    is_inside,
    listed_once,
    listing,
    note_other_lists,
    outputs_passed_over,
    read_lists,
    relative,
    unwrapped,
    walk,
)
from kerascv_d2l.data.layouts.records import Faults, build_data_set
from kerascv_d2l.data.splits import (
    CLASSIFICATION,
    DETECTION,
    IGNORE_LABEL,
    SEGMENTATION,
    UNLABELLED,
    first_of,
)
from kerascv_d2l.errors import InputError

LAYOUTS = (
    class_folders,
    masks,
    photographs,
    voc,
    coco,
    yolo,
    labelme,
    label_studio,
    cvat,
    tables,
    instances,
)


def read_folder(path, task, *, val_fraction=0.2, seed=0, skip_bad=False, **options):
    """Read a data set from a folder, in whichever known layout it has.

    Every image is decoded once, to find damaged ones now and not in the middle of training.

    Args:
        path: the folder, or a folder with nothing in it but that folder.
        task: one of `splits.TASKS`.
        val_fraction: float in (0, 1): share of the images to validate on, where the data set
            itself has no validation part.
        seed: int: which images these are. The choice goes by name.
        skip_bad: bool: go on without a bad image or object; the splits' `skipped` say which
            were left out and why. An image all of whose objects are bad is left out as well.
        options: for detection `classes`, `boxes_on` and `masks` (`boxes.ObjectTargets`); else
            those of the layout's `read`. None is the same as not given.

    Returns:
        `DataSet`.

    Raises:
        InputError: for a folder without a known layout, an unknown option, a file that is
            missing or damaged, a label that names no image, an image that is labelled twice or
            is in two parts, and bad labels; names the file and the line or object.
    """
    start = time.perf_counter()
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}; wanted a share between 0 and 1")
    with listed_once():
        data = _read_folder(path, task, val_fraction, seed, Faults(skip_bad), options)
    data.seconds = time.perf_counter() - start
    return data


def _read_folder(path, task, val_fraction, seed, faults, options):
    root, layout, others = recognise(path, task)
    if others:
        faults.notes.append(f"read as {layout.TITLE}; it also looks like {first_of(others)}")
    given = {name: value for name, value in options.items() if value is not None}
    if task == DETECTION:
        labels = layout.read(root, faults)
        labels.targets = ObjectTargets(labels, **_checked(given, ObjectTargets, layout))
        labels.class_names = labels.targets.class_names
        _note_unlabelled(root, labels, faults)
    else:
        labels = layout.read(root, faults, **_checked(given, layout.read, layout))
    if task in (DETECTION, CLASSIFICATION) and set(labels.images) == {ALL}:
        labels.images = _listed(labels.images[ALL], root, faults)
    faults.sum_up()
    if outputs := outputs_passed_over():
        faults.notes.append(_not_read(outputs))
    data = build_data_set(labels, faults, f"{root}, {layout.TITLE}", val_fraction, seed)
    if task == DETECTION:
        data.notes += labels.targets.notes()
        if data.val is not None and not data.val.counts(len(data.class_names)).any():
            data.notes.append(
                "no image of val has an object that counts, so the mean average precision cannot "
                "be measured: label some of val, or move images with objects there"
            )
    _check_learnable(data, labels.named_in)
    return data


def recognise(path, task):
    """Find the folder that has a known layout for a task.

    Args:
        path: as for `read_folder`.
        task: str.

    Returns:
        `(root, layout, others)`: the `Path`, the module that reads it, and the titles of
        other layouts for the task that the folder has too.

    Raises:
        InputError: if it has none; lists what it holds and what is known.
    """
    for folder in reversed(folders := list(unwrapped(path))):  # what wraps it is no part of it
        faults = []
        found = [one for one in LAYOUTS if task in one.TASKS and _recognises(one, folder, faults)]
        if found:
            return folder, found[0], [other.TITLE for other in found[1:]]
        if faults:
            raise faults[0]
    folder = next((one for one in folders if ", " in listing(one)), folders[-1])
    inside = listing(folder)
    outputs = outputs_passed_over()
    if not inside:
        raise InputError(f"{folder}: empty folder" + (f"; {_not_read(outputs)}" if outputs else ""))
    known = "".join(f"\n  {one.TITLE}: {one.LOOKS}" for one in LAYOUTS if task in one.TASKS)
    labelled = [
        one for one in LAYOUTS if UNLABELLED not in one.TASKS and _recognises(one, folder, [])
    ]
    others = [f"{one.TITLE} ({', '.join(one.TASKS)})" for one in labelled]
    raise InputError(
        f"{folder}: no known layout for {task}. It holds {inside}"
        + (f", which looks like {first_of(others)}" if others else "")
        + (f"; {_not_read(outputs)}" if outputs else "")
        + f". Known layouts:{known}"
    )


def _not_read(outputs):
    return (
        f"{first_of(outputs, 3)} (outputs of this package) are not read; what is data there "
        "belongs into another folder"
    )


def _recognises(layout, folder, faults):
    try:
        return layout.recognises(folder)
    except InputError as error:  # another layout may know better
        faults.append(error)
        return False


def _checked(options, function, layout):
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.default is not p.empty]
    if unknown := set(options) - set(known):
        raise InputError(
            f"unknown option {first_of(sorted(unknown))} for {layout.TITLE}; "
            f"known: {first_of(known) or 'none'}"
        )
    return options


def _note_unlabelled(root, labels, faults):
    labelled = {str(image.path) for part in labels.images.values() for image in part}
    labelled |= {str(file) for file in labels.spoken_for}
    if others := [file for file in walk(root) if str(file) not in labelled]:
        labelled = set(map(os.path.realpath, labelled))  # of a link under both names
        others = [relative(f, root) for f in others if os.path.realpath(f) not in labelled]
    if others:
        faults.notes.append(
            f"{len(others)} image(s) have no labels, and are not read: {first_of(others, 3)}"
        )


def _listed(images, root, faults):
    """Parts by `train.txt` and so on, where the labels tell none."""
    known = {
        relative(i.path, root) if is_inside(i.path, root) else i.path.as_posix(): i for i in images
    }
    parts = read_lists(root, LIST_FOLDERS, known, faults, "labels")
    if parts is None or len(known) < len(images):  # of one image given twice more is said later
        if parts is None:
            note_other_lists(root, LIST_FOLDERS, known, faults)
        return {ALL: images}
    return {part: [known[name] for name in names] for part, names in parts.items()}


def _check_learnable(data, named_in):
    """Raise `InputError` for a data set from which nothing can be learned."""
    counts = data.train.counts(len(data.class_names))
    if data.task == DETECTION and counts.sum() == 0:
        raise InputError(f"{data.source}: no object is labelled on any image of the train split")
    if data.task not in (CLASSIFICATION, SEGMENTATION):
        return
    if len(data.class_names) < 2 or np.count_nonzero(counts) < 2:
        names = [name for name, n in zip(data.class_names, counts, strict=True) if n]
        rest = f"; {data.train.num_ignored} pixels are ignored" if data.train.num_ignored else ""
        raise InputError(
            f"{data.source}: there is but one class ({first_of(names)}) to train on, and nothing "
            f"to tell apart{rest}{_first_fault(data)}"
        )
    if data.task == CLASSIFICATION and (counts == 0).any():
        if data.drawn and (data.val.counts(len(counts))[counts == 0] > 0).all():
            raise InputError(
                f"{data.source}: no class has more than one image, so that those set apart to "
                "validate on are missing to train on. Add images, or name those to validate on: "
                "folders train/ and val/"
            )
        name = data.class_names[np.flatnonzero(counts == 0)[0]]
        raise InputError(
            f"{data.source}: no image of {name} to train on{_first_fault(data)}; add some, or "
            "remove its folder"
        )
    if data.task == SEGMENTATION:
        _check_masks(data, named_in)


def _check_masks(data, named_in):
    masks = [bytes(mask) for part in data.splits.values() for mask in part.targets["mask"]]
    if len(masks) > 1 and len(set(masks)) == 1:
        raise InputError(f"{data.source}: all {len(masks)} masks are equal")
    names = [
        part.names[k]
        for part in data.splits.values()
        for k, counts in enumerate(part.counts_by_image(len(data.class_names)))
        if not counts[1:].any() and part.mask(k).max() == IGNORE_LABEL
    ]
    if names:
        data.notes.append(
            f"{len(names)} mask(s) have but {data.class_names[0]} and what is ignored (255): "
            f"{first_of(names, 3)}. If 255 is an object there, give it the number of its class"
        )
    counts = sum(part.counts(len(data.class_names)) for part in data.splits.values())
    unused = [name for name, n in zip(data.class_names, counts, strict=True) if n == 0]
    if named_in and unused:
        raise InputError(
            f"{named_in}: no mask has a pixel of {first_of(unused)}. Are the masks those of these "
            f"classes? Ignore what none has (--ignore {unused[0]}). (Where the lines of a list are "
            "numbers, a name that is left out moves all names below it to other numbers.)"
        )


def _first_fault(data):
    return f" (left out because of: {data.skipped[0]})" if data.skipped else ""
