"""Detection data sets in a user's own folder."""

import time

from kerascv_d2l.data.detection import DetectionData
from kerascv_d2l.data.layouts import banana, coco, voc
from kerascv_d2l.data.layouts.records import Faults, build_split, unwrapped
from kerascv_d2l.errors import InputError

LAYOUTS = (banana, voc, coco)


def read_detection_folder(
    path, val_fraction=0.2, seed=0, skip_bad=False, classes=None, difficult=False
):
    """Read a detection data set, in whichever known layout the folder has.

    Known are the banana data set's layout, Pascal VOC XML and COCO JSON; see
    the modules of this package for what each may look like. Every picture is
    decoded once, to find damaged ones now and not in the middle of training.

    Boxes may exceed their picture by a rounding pixel and are clipped then. A
    picture with an EXIF rotation is taken upright; its boxes are turned with it
    where the size in the labels shows that they were drawn on the stored pixels.

    Args:
        path: the folder, or a folder with nothing in it but that folder.
        val_fraction: float in (0, 1): share of the pictures to validate on,
            where the data set itself has no split.
        seed: int: which pictures these are. The choice goes by file name, and
            does not depend on the order in which the system lists them.
        skip_bad: bool: go on without a bad picture or object; the splits'
            `skipped` say which were left out and why. A picture all of whose
            objects are bad is left out as well.
        classes: names of the classes in their order; by default those that the
            labels name: sorted by name (VOC), by category id (COCO), by number
            (banana).
        difficult: bool: keep objects that VOC marks as difficult.

    Returns:
        `DetectionData`.

    Raises:
        InputError: for a folder without a known layout, a file that is missing
            or damaged, a label that names no picture, a box that is not finite,
            empty, inside out or outside its picture, or an unknown class; names
            the file and the line or object.
    """
    start = time.perf_counter()
    if not 0 < val_fraction < 1:
        raise InputError(f"val_fraction is {val_fraction}; wanted a share between 0 and 1")
    if classes is not None:
        classes = tuple(classes)
        if not classes or len(set(classes)) != len(classes):
            raise InputError(f"classes are {classes}; wanted one or more different names")
    root, layout = _recognise(path)
    faults = {"train": Faults(skip_bad), "val": Faults(skip_bad)}
    options = {"val_fraction": val_fraction, "seed": seed, "classes": classes}
    if layout is voc:
        options["difficult"] = difficult
    class_names, class_of, pictures = layout.read(root, faults, **options)
    splits = {
        name: build_split(pictures[name], class_of, faults[name], f"{root}, {name} split")
        for name in ("train", "val")
    }
    if splits["train"].num_objects == 0:
        raise InputError(f"{root}: no object is labelled on any picture of the train split")
    return DetectionData(
        class_names=class_names,
        source=f"{root}, {layout.TITLE}",
        seconds=time.perf_counter() - start,
        **splits,
    )


def _recognise(path):
    """The folder that has a known layout, and the module that reads it."""
    for folder in unwrapped(path):
        for layout in LAYOUTS:
            if layout.recognises(folder):
                return folder, layout
    found = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    if not found:
        raise InputError(f"{folder}: empty folder")
    shown = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if len(found) > 10 else "")
    known = "".join(f"\n  {layout.TITLE}: {layout.LOOKS}" for layout in LAYOUTS)
    raise InputError(f"{folder}: no known layout. It holds {shown}. Known layouts:{known}")
